"""Locks that the kernel releases when their holder dies, whatever way it dies.

One lock a key lets the first of two racing runs work while the other waits. One lock for the store is held
shared by every run and exclusively by what deletes.
"""

import errno
import fcntl
import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from pipeline.config import BadInput


@contextmanager
def held(path: Path, *, on_wait: Callable[[], None] | None = None) -> Iterator[None]:
    """Hold the lock file exclusively; `on_wait` is called once if somebody else has it."""
    handle = _open(path)
    try:
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            if on_wait:
                on_wait()
            fcntl.flock(handle, fcntl.LOCK_EX)
        yield
    finally:
        os.close(handle)


@contextmanager
def using_store(root: Path) -> Iterator[None]:
    """Tell that a run uses the store: nothing is deleted meanwhile."""
    handle = _open(root / "locks" / "store.lock")
    try:
        fcntl.flock(handle, fcntl.LOCK_SH)
        yield
    finally:
        os.close(handle)


@contextmanager
def owning_store(root: Path) -> Iterator[None]:
    """Be alone in the store, or refuse with BadInput while a run uses it."""
    problem = f"A run is using the store {root}: wait for its end and try again."
    with held_or_refused(root / "locks" / "store.lock", problem):
        yield


@contextmanager
def held_or_refused(path: Path, problem: str) -> Iterator[None]:
    """Hold the lock file exclusively, or refuse with BadInput where somebody else has it."""
    handle = _open(path)
    try:
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            raise BadInput(problem) from error
        yield
    finally:
        os.close(handle)


def _open(path: Path) -> int:
    path.parent.mkdir(parents=True, exist_ok=True)
    try:
        return os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o644)
    except OSError as error:
        if error.errno not in (errno.EACCES, errno.EROFS) or not path.is_file():
            raise
        return os.open(path, os.O_RDONLY | os.O_CLOEXEC)  # enough to look: what would write fails at that
