"""Child processes that never outlive their parent, whatever way it dies."""

import contextlib
import ctypes
import os
import signal
import threading
import time

PR_SET_PDEATHSIG = 1
"""prctl option: a signal for this process when its parent dies (linux/prctl.h)."""


def die_with(parent: int) -> None:
    """Called in a child: have the kernel kill it when the process `parent` dies, even if that just happened."""
    with contextlib.suppress(OSError, AttributeError):  # no prctl outside Linux
        ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGKILL)
    if os.getppid() != parent:
        os.kill(os.getpid(), signal.SIGKILL)


_of_thread = threading.local()


def cpu_seconds() -> float:
    """Processor time of this thread, and of its children as far as they told of it."""
    told: float = getattr(_of_thread, "told", 0.0)
    return time.thread_time() + told


def add_cpu_seconds(seconds: float) -> None:
    """Note what a child has told this thread: the kernel counts it only once the child is gone."""
    _of_thread.told = getattr(_of_thread, "told", 0.0) + seconds
