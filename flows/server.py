"""Prefect's server: the one that is configured, or one of this run's own on loopback.

The embedded server is a process apart: Ctrl-C does not reach it, it is ended when the run ends, and the kernel ends it
if the run is killed. It starts while Prefect is being imported. Its database lies in the store.
"""

import os
import shutil
import socket
import subprocess
import sys
import threading
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from errno import ENOSPC
from functools import partial
from importlib import import_module
from pathlib import Path

from flows import prefect_database
from pipeline.config import BadInput, StageFailed
from pipeline.engine.children import die_with

START_SECONDS = 120.0
"""A loaded machine needs far longer than Prefect's own 20 s."""
STOP_SECONDS = 5.0
PROBE_SECONDS = 5.0
DATABASE_BYTES = 16 << 20
"""Free space that Prefect's database needs to begin with; on a full disk its server would spin without a word."""

ENVIRONMENT = {
    "DO_NOT_TRACK": "1",
    "PREFECT_SERVER_ANALYTICS_ENABLED": "false",
    "PREFECT_LOGGING_LEVEL": "CRITICAL",
    "PREFECT_LOGGING_ROOT_LEVEL": "CRITICAL",  # its workers log outside its own tree of loggers
    "PREFECT_LOGGING_INTERNAL_LEVEL": "CRITICAL",
    "PREFECT_LOGGING_TO_API_ENABLED": "false",
    "PREFECT_SERVER_LOGGING_LEVEL": "CRITICAL",
    "PREFECT_CLIENT_MAX_RETRIES": "2",
    "PREFECT_CLI_PROMPT": "false",
}
EMBEDDED = {
    "PREFECT_UI_ENABLED": "0",
    "PREFECT__SERVER_EPHEMERAL": "1",
    "PREFECT_API_BLOCKS_REGISTER_ON_START": "false",  # no run of ours has any
    "PREFECT_MEMOIZE_BLOCK_AUTO_REGISTRATION": "false",
}
"""A server that only writes down what one run does."""

SERVE = "import gc; gc.disable(); import uvicorn, prefect.server.api.server; gc.freeze(); gc.enable(); uvicorn.main()"
"""The server as a command: what it imports stays, and looking for garbage there takes a fifth of its start."""


def configured() -> str | None:
    """The address of the server that the user configured, if any."""
    return os.environ.get("PREFECT_API_URL") or None


@contextmanager
def at_hand(store: Path, meanwhile: Callable[[Callable[[], bool]], None]) -> Iterator[bool]:
    """Make a server reachable for this process; tells whether it is a configured one. BadInput if that is not there.

    `meanwhile` is called while an embedded one starts, with what tells whether it still does.
    """
    url = configured()
    if url is not None:
        refuse_unreachable(url)
        yield True
        return
    home = store / "prefect"
    settle(home)
    port = free_port()
    url = f"http://127.0.0.1:{port}/api"
    made_new = prefect_database.begin(home)
    process = start(home, port, EMBEDDED)
    os.environ["PREFECT_API_URL"] = url
    importing = threading.Thread(target=import_module, args=("prefect.main",))  # takes a second too
    importing.start()
    try:
        meanwhile(lambda: process.poll() is None and not answers(url))
        wait(process, url, home / "server.log")
        if made_new:
            prefect_database.keep(home)
        yield False
    finally:
        importing.join()  # this process could not end in the middle of it
        del os.environ["PREFECT_API_URL"]
        stop(process)


def refuse_unreachable(url: str) -> None:
    """BadInput where the configured server does not answer."""
    os.environ.setdefault("DO_NOT_TRACK", "1")
    if not answers(url):
        raise BadInput(f"PREFECT_API_URL {url} cannot be reached: start that server, or unset the variable.")


def settle(home: Path) -> None:
    """Make a folder the home of this process's Prefect."""
    home.mkdir(parents=True, exist_ok=True)
    if shutil.disk_usage(home).free < DATABASE_BYTES:
        raise OSError(ENOSPC, os.strerror(ENOSPC), str(home))
    # Settings of the user's profiles and of the current folder must not change what an embedded run does.
    settings = {**ENVIRONMENT, "PREFECT_HOME": str(home), "PREFECT_PROFILES_PATH": str(home / "profiles.toml")}
    os.environ.update(settings)


def start(home: Path, port: int, own: dict[str, str]) -> "subprocess.Popen[bytes]":
    """Start a server with settings of its own; it ends with this process."""
    # Pages of other sites, open in a browser on this machine, are not to start runs.
    origins = ",".join(f"http://{host}:{port}" for host in ("127.0.0.1", "localhost"))
    app = ["--factory", "prefect.server.api.server:create_app", "--host", "127.0.0.1", "--port", str(port)]
    with (home / "server.log").open("wb") as log:
        return subprocess.Popen(
            [sys.executable, "-c", SERVE, *app, "--log-level", "error", "--lifespan", "on"],
            cwd=home,
            env={**os.environ, "PREFECT_SERVER_API_CORS_ALLOWED_ORIGINS": origins, **own},
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=log,
            start_new_session=True,
            preexec_fn=partial(die_with, os.getpid()),
        )


def stop(process: "subprocess.Popen[bytes]") -> None:
    """End a server, at first kindly."""
    process.terminate()
    try:
        process.wait(STOP_SECONDS)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()


def wait(process: "subprocess.Popen[bytes]", url: str, log: Path) -> None:
    """Return as soon as a started server answers; StageFailed where it does not."""
    end = time.monotonic() + START_SECONDS
    while not answers(url):
        if process.poll() is not None or time.monotonic() > end:
            raise StageFailed(f"Prefect's embedded server did not start; {log} says why. What is done is kept.")
        time.sleep(0.1)


def answers(url: str) -> bool:
    """Whether a Prefect server is there."""
    try:
        with urllib.request.urlopen(f"{url}/health", timeout=PROBE_SECONDS) as answer:  # noqa: S310  (http, by us)
            return bool(answer.status == 200)
    except (OSError, ValueError, urllib.error.URLError):
        return False


def free_port() -> int:
    """A port of loopback that nobody listens on."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])
