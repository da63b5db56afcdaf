"""Prefect's server: the one that is configured, or one of this run's own on loopback.

The embedded server is a process apart: Ctrl-C does not reach it, it is ended when the run ends, and the kernel ends it
if the run is killed. It starts while Prefect is being imported. Its database lies in the store.
"""

import os
import shutil
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from errno import ENOSPC
from functools import partial
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

SERVE = "import gc; gc.set_threshold(50_000); import uvicorn; uvicorn.main()"
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
        os.environ.setdefault("DO_NOT_TRACK", "1")
        if not _answers(url):
            raise BadInput(f"PREFECT_API_URL {url} cannot be reached: start that server, or unset the variable.")
        yield True
        return
    home = store / "prefect"
    home.mkdir(parents=True, exist_ok=True)
    if shutil.disk_usage(home).free < DATABASE_BYTES:
        raise OSError(ENOSPC, os.strerror(ENOSPC), str(home))
    port = _free_port()
    url = f"http://127.0.0.1:{port}/api"
    # Settings of the user's profiles and of the current folder must not change what an embedded run does.
    settings = {**ENVIRONMENT, "PREFECT_HOME": str(home), "PREFECT_PROFILES_PATH": str(home / "profiles.toml")}
    os.environ.update(settings)
    made_new = prefect_database.begin(home)
    process = _start(home, port)
    os.environ["PREFECT_API_URL"] = url
    try:
        import prefect.main  # noqa: F401  (takes seconds too)

        meanwhile(lambda: process.poll() is None and not _answers(url))
        _wait(process, url, home / "server.log")
        if made_new:
            prefect_database.keep(home)
        yield False
    finally:
        del os.environ["PREFECT_API_URL"]
        process.terminate()
        try:
            process.wait(STOP_SECONDS)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()


def _start(home: Path, port: int) -> "subprocess.Popen[bytes]":
    app = ["--factory", "prefect.server.api.server:create_app", "--host", "127.0.0.1", "--port", str(port)]
    own = {
        "PREFECT_UI_ENABLED": "0",
        "PREFECT__SERVER_EPHEMERAL": "1",
        "PREFECT_API_BLOCKS_REGISTER_ON_START": "false",  # no run of ours has any
        "PREFECT_MEMOIZE_BLOCK_AUTO_REGISTRATION": "false",
    }
    with (home / "server.log").open("wb") as log:
        return subprocess.Popen(
            [sys.executable, "-c", SERVE, *app, "--log-level", "error", "--lifespan", "on"],
            cwd=home,
            env={**os.environ, **own},
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=log,
            start_new_session=True,
            preexec_fn=partial(die_with, os.getpid()),
        )


def _wait(process: "subprocess.Popen[bytes]", url: str, log: Path) -> None:
    end = time.monotonic() + START_SECONDS
    while not _answers(url):
        if process.poll() is not None or time.monotonic() > end:
            raise StageFailed(f"Prefect's embedded server did not start; {log} says why. What is done is kept.")
        time.sleep(0.1)


def _answers(url: str) -> bool:
    try:
        with urllib.request.urlopen(f"{url}/health", timeout=PROBE_SECONDS) as answer:  # noqa: S310  (http, by us)
            return bool(answer.status == 200)
    except (OSError, ValueError, urllib.error.URLError):
        return False


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])
