"""Child processes that never outlive their parent, whatever way it dies, nor the work that a thread has for them."""

import contextlib
import ctypes
import os
import signal
import subprocess
import threading
import time
from collections.abc import Iterator
from weakref import WeakSet

PR_SET_PDEATHSIG = 1
"""prctl option: a signal for this process when its parent dies (linux/prctl.h)."""


def die_with(parent: int) -> None:
    """Called in a child: have the kernel kill it when the process `parent` dies, even if that just happened."""
    with contextlib.suppress(OSError, AttributeError):  # no prctl outside Linux
        ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGKILL)
    if os.getppid() != parent:
        os.kill(os.getpid(), signal.SIGKILL)


_registered: "WeakSet[subprocess.Popen[bytes]]" = WeakSet()
_dismissed: "WeakSet[subprocess.Popen[bytes]]" = WeakSet()
_dismissing = False


def register(process: "subprocess.Popen[bytes]") -> None:
    """Note a child for whose answers a thread waits."""
    _registered.add(process)
    if _dismissing:
        _dismiss(process)


@contextlib.contextmanager
def all_dismissed() -> Iterator[None]:
    """Kill all children that threads wait for, and those that they start meanwhile: nobody wants their work now."""
    global _dismissing
    _dismissing = True
    for process in list(_registered):
        _dismiss(process)
    try:
        yield
    finally:
        _dismissing = False


def _dismiss(process: "subprocess.Popen[bytes]") -> None:
    _dismissed.add(process)
    process.kill()


def is_dismissed(process: "subprocess.Popen[bytes]") -> bool:
    """Whether that child was killed because nobody wants its work any more."""
    return process in _dismissed


_thread = threading.local()


def cpu_seconds() -> float:
    """Processor time of this thread, and of its children as far as they told of it.

    On the main thread it is that of the whole process, the threads of libraries included.
    """
    told: float = getattr(_thread, "told", 0.0)
    alone = threading.current_thread() is threading.main_thread()
    return (time.process_time() if alone else time.thread_time()) + told


def add_cpu_seconds(seconds: float) -> None:
    """Note what a child has told this thread: the kernel counts it only once the child is gone."""
    _thread.told = getattr(_thread, "told", 0.0) + seconds
