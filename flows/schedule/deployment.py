"""A schedule as Prefect's server keeps it: a deployment with a form, the flow runs that fall due, and their states.

Imported once the server's address is in the environment, because it imports Prefect.
"""

from datetime import datetime
from typing import Any
from uuid import UUID

from prefect.client.orchestration import SyncPrefectClient
from prefect.client.schemas.actions import DeploymentScheduleCreate
from prefect.client.schemas.filters import (
    DeploymentFilter,
    DeploymentFilterId,
    FlowRunFilter,
    FlowRunFilterId,
    FlowRunFilterState,
    FlowRunFilterStateType,
)
from prefect.client.schemas.objects import FlowRun, State, StateType
from prefect.client.schemas.schedules import CronSchedule
from prefect.exceptions import ObjectNotFound

from flows.schedule.run import Parameters
from pipeline.config import BadInput

FLOW = "gptmill"
AT_WORK = [StateType.PENDING, StateType.RUNNING, StateType.CANCELLING]
SHOWN_RUNS = 200
"""Scheduled runs that are read at a time; Prefect plans no more than 100 ahead."""


def refuse_taken_name(client: SyncPrefectClient, name: str, place: str) -> None:
    """BadInput where the server has a deployment of this name of another `place`, which is a host and a store."""
    try:
        there = client.read_deployment_by_name(f"{FLOW}/{name}")
    except ObjectNotFound:
        return
    if there.path != place:
        raise BadInput(
            f"The server has a schedule {FLOW}/{name} already, of {there.path or 'somebody else'}: "
            "delete that deployment in its UI, or give this config another name."
        )


def deploy(client: SyncPrefectClient, name: str, schedule: CronSchedule, parameters: Parameters, place: str) -> UUID:
    """Put the deployment on the server, or bring it up to date."""
    return client.create_deployment(
        flow_id=client.create_flow_from_name(FLOW),
        name=name,
        path=place,
        description="Crawls anew and mills what is new. Runs where `gptmill schedule` does, while it does.",
        schedules=[DeploymentScheduleCreate(schedule=schedule)],
        parameters=parameters.model_dump(),
        parameter_openapi_schema=Parameters.model_json_schema(),
        enforce_parameter_schema=True,
    )


def scheduled(client: SyncPrefectClient, deployment: UUID) -> list[tuple[datetime, FlowRun]]:
    """When which runs are due, soonest first, those that are late too."""
    runs: list[Any] = client.get_scheduled_flow_runs_for_deployments([deployment], limit=SHOWN_RUNS)
    return [(run.next_scheduled_start_time or run.expected_start_time, run) for run in runs]


def at_work(client: SyncPrefectClient, deployment: UUID) -> list[FlowRun]:
    """The runs that the server believes to be at work."""
    return client.read_flow_runs(
        deployment_filter=DeploymentFilter(id=DeploymentFilterId(any_=[deployment])),
        flow_run_filter=FlowRunFilter(state=FlowRunFilterState(type=FlowRunFilterStateType(any_=AT_WORK))),
    )


def state_of(client: SyncPrefectClient, run: UUID) -> State | None:
    """The present state of a run; None where somebody deleted it."""
    try:
        return client.read_flow_run(run).state
    except ObjectNotFound:
        return None


def end(client: SyncPrefectClient, run: UUID, state: State) -> None:
    """Give a run its last state, and the same to those of its tasks that have none."""
    tasks = client.read_task_runs(flow_run_filter=FlowRunFilter(id=FlowRunFilterId(any_=[run])))
    for task in tasks:
        if task.state is None or not task.state.is_final():
            client.set_task_run_state(task.id, state, force=True)
    client.set_flow_run_state(run, state, force=True)
