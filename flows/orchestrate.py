"""The mill as Prefect sees it: one flow, one task a stage, states with reasons, reports as artifacts.

Our store alone decides what is up to date. A stage's task uses no Prefect cache: it asks the store, and ends
`Cached` or `Completed`. References go in and out as JSON, never data. Tasks are called on the main thread, so
that signals and interrupts reach the work; every state is looked at.
"""

import os
import signal
import time
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from pathlib import Path
from typing import Any
from uuid import UUID

from pydantic import BaseModel

from flows import dag
from flows.plan import Pending
from flows.session import Session
from pipeline.config import BadInput
from pipeline.engine.hashes import Files
from pipeline.engine.stage import Stage
from pipeline.engine.store import Artifact
from pipeline.report import summary

DRAIN_SECONDS = 10.0
"""How long a run without a server waits at its end for its records to be written."""
RETRY_DELAY_SECONDS = 5.0


def prepare_environment(store: Path) -> bool:
    """Set up Prefect for this process before its first import; True if a server is configured, else one is embedded."""
    served = bool(os.environ.get("PREFECT_API_URL"))
    settings = {
        "PREFECT_SERVER_ANALYTICS_ENABLED": "false",
        "DO_NOT_TRACK": "1",
        "PREFECT_LOGGING_LEVEL": "CRITICAL",
        "PREFECT_LOGGING_TO_API_ENABLED": "true" if served else "false",
        "PREFECT_SERVER_EPHEMERAL_ENABLED": "true",
        "PREFECT_SERVER_EPHEMERAL_STARTUP_TIMEOUT_SECONDS": "120",
        "PREFECT_SERVER_LOGGING_LEVEL": "CRITICAL",
        "PREFECT_CLI_PROMPT": "false",
    }
    if not served:
        settings["PREFECT_HOME"] = str(store / "prefect")
        settings["PREFECT_SERVER_API_HOST"] = "127.0.0.1"
        # A profile or settings file of the user must not change what an embedded run does.
        settings["PREFECT_PROFILES_PATH"] = str(store / "prefect" / "profiles.toml")
    for name, value in settings.items():
        os.environ[name] = value if not served or name == "DO_NOT_TRACK" else os.environ.get(name, value)
    if not served:
        end_orphans(store)
    return served


def end_orphans(store: Path) -> None:
    """End embedded servers whose run was killed before it could end them itself."""
    for note in (store / "prefect").glob("server-*.pid"):
        if Path("/proc", note.stem.partition("-")[2]).exists():
            continue
        server = note.read_text().strip()
        command = Path("/proc", server, "cmdline")
        # The pid may have gone to another process since: only a Prefect server is ended.
        if command.exists() and b"prefect.server.api.server" in command.read_bytes():
            os.kill(int(server), signal.SIGTERM)
        note.unlink(missing_ok=True)


@contextmanager
def _noted_server(store: Path) -> Iterator[None]:
    """Note the pid of this run's embedded server, for `end_orphans` of a later run."""
    from prefect.server.api.server import SubprocessASGIServer

    note = store / "prefect" / f"server-{os.getpid()}.pid"
    servers = [server.server_process for server in SubprocessASGIServer._instances.values()]
    note.write_text("".join(str(process.pid) for process in servers if process is not None))
    try:
        yield
    finally:
        note.unlink(missing_ok=True)


def run_flow(session: Session, *, served: bool) -> None:
    """Walk the DAG under Prefect. Raises what a stage raised."""
    from prefect import flow, runtime
    from prefect.settings import PREFECT_FLOWS_HEARTBEAT_FREQUENCY, temporary_settings

    session.log("prefect", imported=True)
    flow_runs: list[str] = []
    name = session.mill.config.name

    @flow(name="gptmill", flow_run_name=f"{name}-{time.strftime('%Y%m%d-%H%M%S')}", persist_result=False)
    def gptmill(config: str, store: str) -> dict[str, Any]:  # noqa: ARG001  (shown as the run's parameters)
        session.log("flow", started=True)
        flow_runs.append(str(runtime.flow_run.id))
        with nullcontext() if served else _noted_server(session.mill.store.root):
            dag.mill(_Step(session), session.mill.config, session.mill)
        return {stage: artifact.reference() for stage, artifact in session.artifacts.items()}

    # Without a server nobody watches heartbeats, and joining their thread costs a second at the end of each flow.
    settings = {} if served else {PREFECT_FLOWS_HEARTBEAT_FREQUENCY: None}
    with temporary_settings(settings):
        try:
            gptmill(name, str(session.mill.store.root))
        finally:
            session.log("flow", ended=True)
            if not served:
                _drain(flow_runs)


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
        waits = {value.stage: self._states[value.stage] for value in known.values() if isinstance(value, Artifact)}
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


def _worth_a_retry(_task: Any, _run: Any, state: Any) -> bool:
    """Bad input stays bad; a crawler that broke down may find the network in a better mood."""
    try:
        state.result(raise_on_failure=True)
    except BadInput:
        return False
    except Exception:
        return True
    return False


def _drain(flow_runs: list[str]) -> None:
    """Wait until the embedded server has written what happened; it would lose the last records otherwise."""
    from prefect.client.orchestration import get_client
    from prefect.client.schemas.filters import FlowRunFilter, FlowRunFilterId
    from prefect.events.worker import EventsWorker

    EventsWorker.instance().wait_until_empty()
    end = time.monotonic() + DRAIN_SECONDS
    mine = FlowRunFilter(id=FlowRunFilterId(any_=[UUID(run) for run in flow_runs]))
    with get_client(sync_client=True) as client:
        while time.monotonic() < end:
            runs = client.read_task_runs(flow_run_filter=mine)
            if all(run.state is not None and run.state.is_final() for run in runs):
                return
            time.sleep(0.05)
