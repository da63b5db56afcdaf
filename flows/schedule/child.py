"""A scheduled run: a process of its own, so that what kills it hits only it, and its memory is given back."""

import os
import signal
import subprocess
import time
from datetime import datetime
from functools import cached_property, partial
from pathlib import Path
from typing import Any
from uuid import UUID

from flows import logs
from flows.orchestrate import FLOW_RUN
from flows.schedule.run import Parameters, command
from pipeline.engine.children import die_with

STOP_SECONDS = 20.0
"""A run that is asked to end takes this long at most."""

PATIENCE = {"PREFECT_CLIENT_MAX_RETRIES": "6"}
"""Two minutes, each wait twice as long as the one before: time enough to start a killed server again."""

Row = dict[str, Any]


class Child:
    """One run, which Prefect knows as the flow run `run`."""

    def __init__(self, parameters: Parameters, store: Path, run: UUID, due: datetime) -> None:
        self.run = run
        self.due = due
        self.is_leaving = False  # it has done its work, and the process is about to end
        self._store = store
        self._start = time.time()
        self._process = subprocess.Popen(
            command(parameters, store),
            env={**os.environ, **PATIENCE, FLOW_RUN: str(run)},
            stdin=subprocess.DEVNULL,
            start_new_session=True,
            preexec_fn=partial(die_with, os.getpid()),
        )
        self.pid = self._process.pid

    @property
    def code(self) -> int | None:
        """The exit code, negative for a signal; None while it is at work."""
        return self._process.poll()

    def wait(self, seconds: float) -> None:
        """Return when it has ended, or after that time."""
        try:
            self._process.wait(seconds)
        except subprocess.TimeoutExpired:
            return

    def stop(self) -> None:
        """End it, at first kindly, and all that it started."""
        self._process.terminate()
        self.wait(STOP_SECONDS)
        if self._process.poll() is None:
            os.killpg(self.pid, signal.SIGKILL)
            self._process.wait()

    @cached_property
    def seconds(self) -> float:
        """How long it took; asked for once it has ended."""
        return time.time() - self._start

    @cached_property
    def name(self) -> str:
        """The run's id in the store; empty if it came to nothing before it had one. Asked for once it has ended."""
        logs = (self._store / "runs").glob(f"*-{self.pid}.jsonl")
        return next((log.stem for log in logs if log.stat().st_mtime >= self._start), "")

    @cached_property
    def _rows(self) -> list[Row]:
        """The run's log; none if it came to nothing before it had one."""
        return logs.read(self._store / "runs" / f"{self.name}.jsonl")

    @property
    def has_told(self) -> bool:
        """Whether it came to an end of its own, and so sent its notices."""
        return any(row["event"] == "end" for row in self._rows)

    @property
    def ran(self) -> int:
        """Stages that did work."""
        return sum(row["event"] == "stage" and row["status"] == "run" for row in self._rows)

    @property
    def cached(self) -> int:
        """Stages that were found done."""
        return sum(row["event"] == "stage" and row["status"] == "cached" for row in self._rows)

    @property
    def error(self) -> str:
        """Why it failed, in its own words."""
        ends = [row["error"] for row in self._rows if row["event"] == "end" and row.get("error")]
        return ends[-1] if ends else f"exit code {self.code}; its output says why."
