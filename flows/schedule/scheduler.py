"""The process that schedules: starts what falls due on the server, one run at a time, and says what it does.

Prefect's own runner starts every run that an outage made late, keeps a killed run's place taken for five minutes, and
leaves its tasks running for ever; so this loop looks at the server itself. A run is a process of its own.
"""

import contextlib
import time
from datetime import UTC, datetime
from pathlib import Path
from typing import Any
from uuid import UUID

import httpx
from prefect.client.orchestration import SyncPrefectClient
from prefect.client.schemas.objects import FlowRun, State, StateType
from prefect.client.schemas.responses import SetStateStatus
from prefect.exceptions import ObjectNotFound
from prefect.states import Cancelled, Completed, Crashed, Failed, Pending
from pydantic import ValidationError

from flows import interrupt, notify
from flows.config import MillConfig, load_config
from flows.display import Display
from flows.schedule import deployment as on_server
from flows.schedule.child import Child
from flows.schedule.run import Parameters
from flows.schedule.server import ConfiguredServer, OwnServer
from pipeline.config import BadInput, StageFailed

POLL_SECONDS = 5.0
"""How long a run that is asked for in the UI waits at most."""
GRACE_SECONDS = 60.0
"""A run is missed if it is later than this; cron's own grain."""
PLAN_SECONDS = 150.0
"""A server plans the runs of a new schedule within seconds, and looks at all of them each minute."""
RECORDED_SECONDS = 1.0
"""By then the server has written down what a task had begun to do when it was killed."""
DONE = (StateType.COMPLETED, StateType.FAILED)


class Scheduler:
    """Watches one deployment."""

    def __init__(
        self,
        client: SyncPrefectClient,
        server: ConfiguredServer | OwnServer,
        deployment: UUID,
        config: MillConfig,
        store: Path,
        *,
        catch_up: bool,
        display: Display,
    ) -> None:
        self._client = client
        self._server = server
        self._deployment = deployment
        self._config = config  # as it was last read
        self._store = store
        self._catch_up = catch_up
        self._display = display
        self._child: Child | None = None
        self._last_told = ""
        self._planned = time.monotonic()  # when the server was last seen to plan a run

    def watch(self) -> None:
        """Do what falls due, until the end is asked for; then leave no process behind."""
        for run in on_server.at_work(self._client, self._deployment):
            on_server.end(self._client, run.id, Crashed(message="Its process was gone. The next run goes on there."))
            self._say(f"{run.name} was left running by a process that is gone: it is marked crashed.")
        try:
            while True:
                interrupt.check()
                self._wait(self._look())
        finally:
            if self._child is not None:
                with contextlib.suppress(httpx.HTTPError):
                    self._stop(self._child, "it was stopped together with the schedule")

    def _look(self) -> datetime | None:
        """See to what happened since the last look. Returns when something is due next, if it is known."""
        if self._server.revive():
            self._say("The server had died and was started again.")
        try:
            if self._child is not None:
                self._see_to(self._child)
            scheduled = on_server.scheduled(self._client, self._deployment)
            now = datetime.now(UTC)
            self._start_due([(due, run) for due, run in scheduled if due <= now], now)
            coming = next((due for due, _ in scheduled if due > now), None)
            if self._child is None:
                self._tell_coming(coming)
        except httpx.HTTPError:
            self._say_once(f"The server at {self._server.url} does not answer as it should: asking again.")
            return None
        return coming

    def _wait(self, due: datetime | None) -> None:
        """Until something may have happened."""
        until_due = POLL_SECONDS if due is None else (due - datetime.now(UTC)).total_seconds()
        seconds = max(min(POLL_SECONDS, until_due), 0.0)
        if self._child is not None and self._child.code is None:
            self._child.wait(seconds)
        else:
            time.sleep(seconds)

    def _start_due(self, due: list[tuple[datetime, FlowRun]], now: datetime) -> None:
        """Start one of the runs that are due, or none; the others are skipped, and say why."""
        if self._child is not None and self._child.is_leaving:
            return
        missed = [run for run in due if (now - run[0]).total_seconds() > GRACE_SECONDS]
        punctual = due[len(missed) :]
        if missed:
            caught_up = self._catch_up and not punctual and self._child is None
            what = "the latest is caught up on" if caught_up else "none is caught up on"
            self._say(f"Missed since {_clock(missed[0][0])}: {_counted(len(missed))}; {what}.")
            punctual = missed[-1:] if caught_up else punctual
        for when, run in due:
            if (when, run) not in punctual:
                self._skip(run, "it was missed, and is not caught up on.")
            elif self._child is None:
                self._start(run, when)
            else:
                self._skip(run, f"the run of {_clock(self._child.due)} was still at work.")
                self._say(f"The run of {_clock(when)} is skipped: that of {_clock(self._child.due)} is still at work.")

    def _skip(self, run: FlowRun, why: str) -> None:
        # A state of another name than Prefect's own would be on none of the UI's lists.
        on_server.end(self._client, run.id, Cancelled(message=f"Skipped: {why}"))

    def _start(self, run: FlowRun, due: datetime) -> None:
        try:
            parameters = Parameters.model_validate(run.parameters)
            self._config = load_config(Path(parameters.config), parameters.settings)
        except (BadInput, ValidationError) as error:
            why = _reason(error)
            on_server.end(self._client, run.id, Failed(message=why))
            self._say(f"The run of {_clock(due)} cannot start: {why}")
            self._notify("failed", f"cannot start: {why}")
            return
        if self._client.set_flow_run_state(run.id, Pending()).status != SetStateStatus.ACCEPT:
            self._say_once(f"The run of {_clock(due)} is held back by the server.")
            return
        self._child = Child(parameters, self._store, run.id, due)
        self._say(f"The run of {_clock(due)} starts, as process {self._child.pid}.")

    def _see_to(self, child: Child) -> None:
        """Note that the run ended, or end it because somebody cancelled it."""
        state, code = on_server.state_of(self._client, child.run), child.code
        if code is None if state is None else state.type in (StateType.CANCELLING, StateType.CANCELLED):
            self._stop(child, "it was cancelled")  # or has ended by itself, on hearing of it
            return
        if code is None:
            child.is_leaving = state is not None and state.type in DONE
            return
        told, last = _end_of(child)
        if state is not None and not state.is_final():
            time.sleep(RECORDED_SECONDS)
            on_server.end(self._client, child.run, last)
        self._child = None
        self._say(f"The run of {_clock(child.due)} {told}")
        if not child.has_told:
            self._notify("crashed" if code < 0 else "failed", told, run=child.name)

    def _stop(self, child: Child, why: str) -> None:
        child.stop()
        self._child = None
        told = f"{why}; the next run goes on there."
        self._say(f"The run of {_clock(child.due)} ended: {told}")
        state = on_server.state_of(self._client, child.run)
        if state is not None and state.type not in DONE:
            on_server.end(self._client, child.run, Cancelled(message=told.capitalize()))

    def _tell_coming(self, coming: datetime | None) -> None:
        if coming is not None:
            self._planned = time.monotonic()
            self._say_once(f"The next run is due at {_clock(coming)}.")
            return
        try:
            there = self._client.read_deployment(self._deployment)
        except ObjectNotFound as error:
            raise StageFailed("The schedule was deleted on the server: nothing more would ever run.") from error
        if there.paused or not any(schedule.active for schedule in there.schedules):
            self._say_once("The schedule is paused on the server: nothing is due.")
        elif time.monotonic() - self._planned > PLAN_SECONDS:
            self._say_once("The server has planned no run: none is due within 100 days, or its log says why.")

    def _notify(self, event: str, told: str, **facts: str) -> None:
        """Send a notice of a run that cannot send it itself."""
        name = self._config.name
        notice = {"event": event, "text": f"gptmill: {name} {told}", "store": str(self._store), **facts}
        for problem in notify.tell(self._config.notify, name, **notice):
            self._say(problem)

    def _say_once(self, sentence: str) -> None:
        """Say what goes on unless it was the last thing said."""
        if sentence != self._last_told:
            self._say(sentence)

    def _say(self, sentence: str) -> None:
        self._last_told = sentence
        self._display.note(f"{_clock(datetime.now(UTC))}  {sentence}")


def _end_of(child: Child) -> tuple[str, State[Any]]:
    """How a run ended, as the rest of a sentence, and the state that it must have if it has no last one."""
    took = f"{child.seconds:,.0f} s" if child.seconds < 100 else f"{child.seconds / 60:,.0f} min"
    if child.code == 0:
        return f"ended after {took}: {child.ran} stages ran, {child.cached} cached.", Completed()
    if child.code is not None and child.code < 0:
        told = f"was killed after {took} (signal {-child.code}). The next one goes on there."
        return told, Crashed(message=f"It {told}")
    return f"failed after {took}: {child.error}", Failed(message=child.error)


def _reason(error: BadInput | ValidationError) -> str:
    """What is wrong, without the values that pydantic would quote."""
    if isinstance(error, BadInput):
        return str(error)
    first = error.errors(include_url=False)[0]
    return f"{'.'.join(map(str, first['loc']))}: {first['msg'].removeprefix('Value error, ')}"


def _clock(moment: datetime) -> str:
    """In this machine's own time."""
    return moment.astimezone().strftime("%Y-%m-%d %H:%M:%S")


def _counted(runs: int) -> str:
    return f"{runs} run{'' if runs == 1 else 's'}"
