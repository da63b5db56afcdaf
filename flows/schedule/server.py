"""The Prefect server that a schedule needs: the configured one, or one of its own with Prefect's UI.

Its own lives on loopback with its database in the store, is started again if it dies, and ends with the schedule.
"""

import os
import socket
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Self

from flows import prefect_database, server
from pipeline.config import BadInput
from pipeline.engine import locks

PORT = 4200
"""Where people look for Prefect's UI."""

LOGGING = {
    "PREFECT_LOGGING_LEVEL": "INFO",
    "PREFECT_LOGGING_TO_API_ENABLED": "true",
    "PREFECT_LOGGING_HANDLERS_CONSOLE_LEVEL": "CRITICAL",
}
"""A run's log page in the UI is not empty; the terminal has our own lines."""


class ConfiguredServer:
    """The server that PREFECT_API_URL names."""

    shared = True

    def __init__(self, url: str) -> None:
        self.url = url

    def revive(self) -> bool:
        """It is not ours to start."""
        return False


class OwnServer:
    """A server with its UI, for as long as the schedule runs."""

    shared = False

    def __init__(self, home: Path, port: int) -> None:
        self.url = f"http://127.0.0.1:{port}/api"
        self._home = home
        self._port = port

    def __enter__(self) -> Self:
        server.settle(self._home)
        prefect_database.begin(self._home)
        self._process = self._start()
        os.environ["PREFECT_API_URL"] = self.url
        try:
            self._wait()
        except BaseException:
            server.stop(self._process)
            raise
        return self

    def __exit__(self, *_: object) -> None:
        del os.environ["PREFECT_API_URL"]
        server.stop(self._process)

    def revive(self) -> bool:
        """Start it again if it is no longer there; tells whether that was so."""
        if self._process.poll() is None:
            return False
        self._process = self._start()
        self._wait()
        return True

    def _start(self) -> "subprocess.Popen[bytes]":
        own = {
            "PREFECT__SERVER_FINAL": "1",
            "PREFECT_SERVER_UI_ENABLED": "true",
            "PREFECT_SERVER_UI_API_URL": self.url,
            "PREFECT_SERVER_UI_SHOW_PROMOTIONAL_CONTENT": "false",
            "PREFECT_SERVER_LOGGING_LEVEL": "WARNING",
        }
        return server.start(self._home, self._port, own)

    def _wait(self) -> None:
        server.wait(self._process, self.url, self._home / "server.log")


@contextmanager
def server_of(store: Path, config: str, port: int | None) -> Iterator[ConfiguredServer | OwnServer]:
    """The server for the schedule of this config; BadInput where it is not there, or another schedule is."""
    url = server.configured()
    running = f"A schedule of {config} is running on the store {store} already: end that one first."
    with locks.held_or_refused(store / "locks" / f"schedule-{config}.lock", running):
        if url is not None:
            server.refuse_unreachable(url)
            os.environ.update(LOGGING)
            yield ConfiguredServer(url)
            return
        taken = (
            f"Another schedule is running on the store {store}: "
            "set PREFECT_API_URL to its server's address, which it told when it started."
        )
        with (
            locks.held_or_refused(store / "locks" / "schedule.lock", taken),
            OwnServer(store / "schedule", _port(port)) as own,
        ):
            os.environ.update(LOGGING)
            yield own


def _port(wanted: int | None) -> int:
    """The port that was asked for, else Prefect's own or any; BadInput where the one asked for is taken."""
    if _is_free(wanted or PORT):
        return wanted or PORT
    if wanted is not None:
        raise BadInput(f"Port {wanted} cannot be had: give another --port, or none.")
    return server.free_port()


def _is_free(port: int) -> bool:
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)  # as the server does
        try:
            probe.bind(("127.0.0.1", port))
        except (OSError, OverflowError):
            return False
    return True
