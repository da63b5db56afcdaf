"""A schedule as its user sees it: what it says, and what Prefect's server shows of it."""

import json
import os
import re
import signal
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from datetime import UTC, datetime, timedelta
from pathlib import Path

from tests.e2e.conftest import MillCommand

DEADLINE = 120.0


class Schedule:
    """`gptmill schedule` in a process of its own; `url` is its server's, which it starts unless it is given one."""

    def __init__(self, mill: MillCommand, folder: Path, *arguments: str, url: str | None = None) -> None:
        self.mill = mill
        self._said = folder / f"said-{time.monotonic_ns()}"
        port = free_port()
        self.url = url or f"http://127.0.0.1:{port}/api"
        command = [sys.executable, "-m", "flows", "schedule", "-c", str(mill.config), "--store", str(mill.store)]
        environment = {**mill.environment(), **({"PREFECT_API_URL": url} if url else {})}
        with self._said.open("w") as said:
            self.process = subprocess.Popen(
                [*command, *arguments, "--port", str(port)], cwd=mill.root, env=environment, stdout=said, stderr=said
            )

    def said(self) -> str:
        return self._said.read_text()

    def hears(self, pattern: str, times: int = 1) -> re.Match[str]:
        """Wait until it has said this so many times."""
        return until(lambda: (list(re.finditer(pattern, self.said())) + [None] * times)[times - 1], self.said)

    def deployment(self) -> str:
        return self.hears(r"/deployments/deployment/(\S+)").group(1)

    def post(self, path: str, method: str = "POST", **body):
        content = {"Content-Type": "application/json"}
        request = urllib.request.Request(self.url + path, json.dumps(body).encode(), content, method=method)

        def answered():
            try:
                with urllib.request.urlopen(request, timeout=DEADLINE) as answer:
                    return [json.loads(answer.read() or b"null")]
            except urllib.error.HTTPError as error:
                if error.code != 503:  # its database is busy
                    raise
                return []

        return until(answered, self.said)[0]

    def runs(self, *kinds: str) -> list[dict]:
        """Flow runs of the deployment in states of these types, soonest due first."""
        return self.post(
            "/flow_runs/filter",
            sort="EXPECTED_START_TIME_ASC",
            deployments={"id": {"any_": [self.deployment()]}},
            flow_runs={"state": {"type": {"any_": list(kinds)}}},
        )

    def tasks(self, run: str) -> dict[str, str]:
        """The name of the state of each task of a flow run."""
        found = self.post("/task_runs/filter", flow_runs={"id": {"any_": [run]}})
        return {task["name"]: task["state"]["name"] for task in found if task["state"]}

    def ask(self, *, ago: timedelta = timedelta(0), **parameters) -> str:
        """What the UI's form does: a run with these parameters, due now or some time ago. Returns its id."""
        at = (datetime.now(UTC) - ago).isoformat()
        state = {"type": "SCHEDULED", "name": "Scheduled", "state_details": {"scheduled_time": at}}
        return self.post(f"/deployments/{self.deployment()}/create_flow_run", parameters=parameters, state=state)["id"]

    def state(self, run: str) -> tuple[str, str]:
        """The type and message of a run's state."""
        (found,) = self.post("/flow_runs/filter", flow_runs={"id": {"any_": [run]}})
        return found["state"]["type"], found["state"]["message"] or ""

    def ends(self, run: str) -> tuple[str, str]:
        """Wait for a run's last state."""
        last = ("COMPLETED", "FAILED", "CRASHED", "CANCELLED")
        return until(lambda: state if (state := self.state(run))[0] in last else None, self.said)

    def server(self) -> int:
        """The process of its own server."""
        (found,) = [pid for pid, words in processes(self.mill.store / "schedule") if "uvicorn" in words]
        return found

    def child(self) -> int:
        """The process of the run that started last."""
        return int(re.findall(r"starts, as process (\d+)", self.said())[-1])

    def stop(self, number: int = signal.SIGTERM) -> int:
        """Send it a signal, and wait until nothing of it is left. Returns its exit code."""
        self.process.send_signal(number)
        code = self.process.wait(timeout=60)
        until(lambda: not processes(self.mill.store), lambda: str(processes(self.mill.store)))
        return code


def until(found, told):
    """Wait for something that is true."""
    end = time.monotonic() + DEADLINE
    while not (value := found()):
        assert time.monotonic() < end, told()
        time.sleep(0.1)
    return value


def processes(folder: Path) -> list[tuple[int, str]]:
    """Process ids and command lines of what names this folder or works in it."""
    found = []
    for place in Path("/proc").glob("[0-9]*"):
        try:
            words = (place / "cmdline").read_bytes().decode(errors="replace").replace("\0", " ")
            if str(folder) in words or (place / "cwd").readlink().is_relative_to(folder):
                found.append((int(place.name), words))
        except OSError:  # gone, or not ours
            continue
    return [(pid, words) for pid, words in found if pid != os.getpid()]


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])
