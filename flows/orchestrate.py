"""The mill as Prefect sees it: one flow, one task a stage, states with reasons, reports as artifacts.

Our store alone decides what is up to date. A stage's task uses no Prefect cache: it asks the store, and ends
`Cached` or `Completed`. References go in and out as JSON, never data. Tasks are called on the main thread, so
that signals and interrupts reach the work; every state is looked at.
"""

import os
import sys
import time
from typing import Any
from uuid import UUID

from pydantic import BaseModel

from flows import dag, promotion
from flows.plan import Pending
from flows.server import configured
from flows.session import Session
from pipeline.config import BadInput, StageFailed
from pipeline.engine.hashes import Files
from pipeline.engine.stage import Stage
from pipeline.engine.store import Artifact
from pipeline.report import summary

DRAIN_SECONDS = 10.0
"""How long a run without a server waits at its end for its records to be written."""
RETRY_DELAY_SECONDS = 5.0
FLOW_RUN = "GPTMILL_FLOW_RUN"
"""Environment variable with the id of a flow run on the configured server: the run is that one, and makes no other."""


def run_flow(session: Session, *, served: bool) -> None:
    """Walk the DAG under Prefect, whose server is at hand. Raises what a stage raised."""
    import httpx
    from prefect import flow, runtime
    from prefect.settings import PREFECT_FLOWS_HEARTBEAT_FREQUENCY, temporary_settings

    flow_runs: list[str] = []
    name = session.mill.config.name

    @flow(name="gptmill", flow_run_name=f"{name}-{time.strftime('%Y%m%d-%H%M%S')}", persist_result=False)
    def gptmill(config: str, store: str) -> dict[str, Any]:  # noqa: ARG001  (shown as the run's parameters)
        flow_runs.append(str(runtime.flow_run.id))
        session.log("flow", started=True, id=flow_runs[-1], server=configured() if served else None)
        dag.mill(_Step(session), session.mill.config, session.mill)
        if promotion.is_asked(session):
            _promotion_task(session)(return_state=True).result(raise_on_failure=True)
        else:
            promotion.conclude(session)
        return {stage: artifact.reference() for stage, artifact in session.artifacts.items()}

    # Without a server nobody watches heartbeats, and joining their thread costs a second at the end of each flow.
    settings = {} if served else {PREFECT_FLOWS_HEARTBEAT_FREQUENCY: None}
    with temporary_settings(settings):
        try:
            _as_scheduled(gptmill, {"config": name, "store": str(session.mill.store.root)})
            session.log("flow", ended=True)
        except httpx.HTTPError as error:
            problem = f"Prefect's server stopped answering ({error}). What is done is kept: run again."
            raise StageFailed(problem) from error
        finally:
            # An interrupted run is not kept waiting for its records.
            if not served and not isinstance(sys.exc_info()[1], KeyboardInterrupt):
                _drain(session, flow_runs)


def _as_scheduled(flow: Any, parameters: dict[str, str]) -> None:
    """Run the flow, as the flow run that a schedule made where there is one."""
    from prefect.client.orchestration import get_client
    from prefect.exceptions import CancelledRun, UnfinishedRun
    from prefect.flow_engine import run_flow as continue_flow

    if FLOW_RUN not in os.environ:
        flow(**parameters)
        return
    with get_client(sync_client=True) as client:
        flow_run = client.read_flow_run(UUID(os.environ[FLOW_RUN]))
    try:
        continue_flow(flow, flow_run=flow_run, parameters=parameters)
    except (CancelledRun, UnfinishedRun) as error:  # it was cancelled before it could begin
        raise KeyboardInterrupt from error


class _Step:
    """The step under Prefect: a task run for each stage, waiting for those whose artifacts it takes."""

    def __init__(self, session: Session) -> None:
        self._session = session
        self._states: dict[str, Any] = {}

    def __call__(
        self, stage: Stage, section: str, config: BaseModel, /, **inputs: Artifact | Pending | Files
    ) -> Artifact | Pending:
        """Run the stage as a task."""
        if stage.name not in self._session.selection.wanted:
            return Pending(stage.name)
        known = {name: value for name, value in inputs.items() if not isinstance(value, Pending)}
        references = {n: v.reference() if isinstance(v, Artifact) else {"digest": v.digest} for n, v in known.items()}
        made = [value.stage for value in known.values() if isinstance(value, Artifact) and value.stage in self._states]
        waits = {stage: self._states[stage] for stage in made}
        task = _stage_task(self._session, stage, section, config, known)
        state = task(stage.name, references, wait_for=list(waits.values()), return_state=True)
        self._states[stage.name] = state
        state.result(raise_on_failure=True)
        return self._session.artifacts[stage.name]


def _stage_task(session: Session, stage: Stage, section: str, config: BaseModel, inputs: dict[str, Any]) -> Any:
    from prefect import task
    from prefect.artifacts import create_markdown_artifact
    from prefect.cache_policies import NO_CACHE
    from prefect.states import Completed

    @task(
        name=stage.name,
        task_run_name=stage.name,
        cache_policy=NO_CACHE,
        persist_result=False,
        retries=stage.retries,
        retry_delay_seconds=RETRY_DELAY_SECONDS,
        retry_condition_fn=_worth_a_retry,
    )
    def run_stage(stage: str, inputs: dict[str, Any]) -> Any:  # noqa: ARG001  (references, shown with the run)
        artifact, status, reasons = session.do(stage_, section, config, inputs_)
        create_markdown_artifact(key=stage_.name, markdown=summary(artifact.manifest), description=status)
        reference = artifact.reference()
        if status == "cached":
            return Completed(name="Cached", message=f"{stage}/{artifact.key[:12]}", data=reference)
        return Completed(message=f"{'; '.join(reasons)} · {stage}/{artifact.key[:12]}", data=reference)

    stage_, inputs_ = stage, inputs
    return run_stage


def _promotion_task(session: Session) -> Any:
    """The question at the end of a refresh, as a task whose state is its answer."""
    from prefect import task
    from prefect.artifacts import create_markdown_artifact
    from prefect.cache_policies import NO_CACHE
    from prefect.states import Completed

    @task(name="promote", task_run_name="promote", cache_policy=NO_CACHE, persist_result=False)
    def promote() -> Any:
        verdict = promotion.conclude(session)
        if verdict is None:
            return Completed(message="another run has promoted this model meanwhile")
        create_markdown_artifact(key="promotion", markdown=promotion.markdown(verdict), description=verdict.reason)
        return Completed(name="Promoted" if verdict.promoted else "Refused", message=verdict.reason)

    return promote


def _worth_a_retry(_task: Any, _run: Any, state: Any) -> bool:
    """Bad input stays bad; a crawler that broke down may find the network in a better mood."""
    try:
        state.result(raise_on_failure=True)
    except BadInput:
        return False
    except Exception:
        return True
    return False


def _drain(session: Session, flow_runs: list[str]) -> None:
    """Wait until the embedded server has written what happened; it would lose the last records otherwise."""
    import httpx
    from prefect.client.orchestration import get_client
    from prefect.client.schemas.filters import FlowRunFilter, FlowRunFilterId
    from prefect.events.worker import EventsWorker

    EventsWorker.instance().wait_until_empty()
    end = time.monotonic() + DRAIN_SECONDS
    mine = FlowRunFilter(id=FlowRunFilterId(any_=[UUID(run) for run in flow_runs]))
    try:
        with get_client(sync_client=True) as client:
            while time.monotonic() < end:
                runs = client.read_task_runs(flow_run_filter=mine)
                if all(run.state is not None and run.state.is_final() for run in runs):
                    return
                time.sleep(0.05)
    except httpx.HTTPError as error:
        session.log("prefect", drained=False, error=str(error))
