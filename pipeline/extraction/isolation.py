"""Work on items in a child process, so that an item that kills it is lost alone.

C libraries that read what strangers wrote can crash, take all memory or never end. A function is therefore run in a
child, which says where it is before it begins an item; when it dies, the item is lost and a new child goes on behind
it. A child is kept for its thread's next call, for a start costs as much as many items. So that nothing which earlier
items left behind decides, an item is lost only where it kills a child that began none before it.

What kills depends on the item and the limits, never on a clock on the wall. The child is started anew, not forked,
which works below a pool's worker, a Dask or a Ray worker alike; it dies with the thread that started it.
"""

import contextlib
import json
import os
import resource
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass
from importlib import import_module
from pathlib import Path
from typing import Any, BinaryIO

from pipeline.config import StageFailed
from pipeline.engine.children import add_cpu_seconds, die_with, is_dismissed, register

Place = Any
"""Where an item is: JSON that tells the function where to go on, and us what was lost."""

Function = Callable[..., Iterator[tuple[Place, Callable[[], Any]]]]
"""Called as `function(start=place, **arguments)` with JSON values, at module level: yields the place of each item with
what works on it, from the item at `start` on (from the first one where it is None). Results are JSON."""

MEMORY_EXIT = 77
"""Exit code of a child whose item met a MemoryError."""

STACK_BYTES = 8 * 1024 * 1024
"""Deep recursion ends at the same depth wherever it runs; this is the usual limit."""

MAX_KILLS = 2
"""So often is an item begun again whose child was killed from outside: for want of memory on this machine, say."""

_CRASHES = frozenset(
    {signal.SIGSEGV, signal.SIGBUS, signal.SIGABRT, signal.SIGFPE, signal.SIGILL, signal.SIGSYS, signal.SIGTRAP}
)
_PROJECT = Path(__file__).resolve().parents[2]


@dataclass(frozen=True)
class Limits:
    """What one item may use."""

    memory_bytes: int
    """Address space of the child, the interpreter and its libraries included."""
    cpu_seconds: int
    """Processor time of an item, to the second."""


@dataclass(frozen=True)
class Lost:
    """An item that killed its child: `reason` is crashed, memory_limit or cpu_limit."""

    place: Place
    reason: str
    detail: str


def isolated(function: Function, arguments: dict[str, Any], limits: Limits) -> Iterator[Any]:
    """Results of all items in order, `Lost` for those that killed their child; see `Function` for what is called.

    Raises StageFailed where no child can be started, the function itself raises, a child dies between items, or all
    were dismissed.
    """
    job = {"function": [function.__module__, function.__qualname__], "arguments": arguments, "limits": asdict(limits)}
    start: Place = None
    answered = False  # the item at `start` has its result
    kills = 0
    while True:
        child = _child_of_this_thread()
        begun, ended = 0, False
        try:
            for kind, value in child.messages({**job, "start": start, "skip": answered}):
                if kind == "begin":
                    start, answered, begun = value, False, begun + 1
                    child.begun += 1
                elif kind == "result":
                    answered, kills = True, 0
                    yield value
                elif kind == "failed":
                    raise StageFailed(value)
                else:
                    ended = True
                    add_cpu_seconds(value)
                    return
        finally:
            if not ended:
                child.end()
        if is_dismissed(child.process):
            raise StageFailed("The process that works on items apart was ended, since the run is.")
        code = child.process.returncode
        inside = begun > 0 and not answered
        cause = _cause(code, limits) if inside else None
        if cause is None:
            kills += 1
            if kills > MAX_KILLS:
                raise StageFailed(
                    f"The process that runs {function.__module__} ended again and again through no fault of an item "
                    f"({_said(code)}): if memory is short, run again with fewer --jobs."
                )
        elif child.begun == 1:
            answered, kills = True, 0
            yield Lost(start, *cause)


class _Child:
    """A process that does one job after another, and what it says."""

    def __init__(self) -> None:
        self.begun = 0
        self.parent = os.getpid()
        # Seeded, lest the order of a set in some library differ from child to child.
        environment = os.environ | {"PYTHONPATH": os.pathsep.join([str(_PROJECT), *sys.path]), "PYTHONHASHSEED": "0"}
        try:
            self.process = subprocess.Popen(
                [sys.executable, "-P", "-m", "pipeline.extraction.isolation", str(os.getpid())],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=subprocess.PIPE,
                env=environment,
                start_new_session=True,  # Ctrl-C is for our parents; we end it
            )
        except OSError as problem:
            raise StageFailed(f"No process could be started to work on items apart: {problem}.") from problem
        register(self.process)
        assert self.process.stdin is not None
        assert self.process.stdout is not None
        assert self.process.stderr is not None
        self._orders, self._answers = self.process.stdin, self.process.stdout
        with self.process.stderr as complaints:
            if not self._answers.readline():
                said = complaints.read().decode("utf-8", "replace").strip().splitlines()
                self.end()
                raise StageFailed(f"The process that works on items apart did not start: {(said or ['no word'])[-1]}.")

    def messages(self, job: dict[str, Any]) -> Iterator[tuple[str, Any]]:
        """What the child says of `job`, until it has ended it or has died."""
        try:
            self._orders.write(json.dumps(job).encode() + b"\n")
            self._orders.flush()
        except OSError:
            return
        for line in self._answers:
            if not line.endswith(b"\n"):
                return
            kind, value = json.loads(line)
            yield kind, value

    def end(self) -> None:
        """Kill it, if it lives, and wait until it is gone."""
        self.process.kill()
        self.process.wait()
        for pipe in (self._orders, self._answers):
            with contextlib.suppress(OSError):
                pipe.close()


_threads = threading.local()


def _child_of_this_thread() -> _Child:
    """The child at hand, or a new one: the kernel ties a child's life to the thread that started it."""
    child: _Child | None = getattr(_threads, "child", None)
    if child is None or child.parent != os.getpid() or child.process.poll() is not None:
        child = _threads.child = _Child()
    return child


def _cause(code: int, limits: Limits) -> tuple[str, str] | None:
    """Why a child ended within an item, as reason and detail; None where it was ended from outside."""
    if code == -signal.SIGXCPU:
        return "cpu_limit", f"more than {limits.cpu_seconds} s of processor time"
    if code == MEMORY_EXIT:
        return "memory_limit", f"more than {limits.memory_bytes} bytes of memory"
    if code >= 0 or -code in _CRASHES:
        return "crashed", _said(code)
    return None


def _said(code: int) -> str:
    return signal.Signals(-code).name if code < 0 else f"exit code {code}"


def main() -> None:
    """The child: jobs come on standard input, one a line; what happens goes to standard output, one message a line."""
    die_with(int(sys.argv[1]))
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    _limit(resource.RLIMIT_CORE, 0)
    _limit(resource.RLIMIT_STACK, STACK_BYTES)
    with os.fdopen(os.dup(0), "rb") as orders, os.fdopen(os.dup(1), "wb") as answers:
        _tell(answers, "ready")
        answers.flush()
        null = os.open(os.devnull, os.O_RDWR)
        for descriptor in (0, 1, 2):  # whatever libraries print is no message
            os.dup2(null, descriptor)
        for line in orders:
            _work(json.loads(line), answers)


def _work(job: dict[str, Any], answers: BinaryIO) -> None:
    """Do one job; a MemoryError ends this process, since nothing that is left of it can be relied upon."""
    begun = time.process_time()
    limits = Limits(**job["limits"])
    _limit(resource.RLIMIT_AS, limits.memory_bytes)
    try:
        module, name = job["function"]
        function: Function = getattr(import_module(module), name)
        items = function(start=job["start"], **job["arguments"])
        _limit_cpu(limits)
        if job["skip"]:
            next(items, None)
        for place, work in items:
            _tell(answers, "begin", place)
            answers.flush()
            _limit_cpu(limits)
            _tell(answers, "result", work())
            _limit_cpu(limits)
    except MemoryError:
        os._exit(MEMORY_EXIT)
    except Exception as problem:
        _tell(answers, "failed", f"{job['function'][0]} failed: {type(problem).__name__}: {problem}")
    else:
        _tell(answers, "end", time.process_time() - begun)
    answers.flush()


def _tell(answers: BinaryIO, kind: str, value: Any = None) -> None:
    """Put a message into the buffer; an answer goes out with the next item's begin, or at the end of the job."""
    answers.write(json.dumps([kind, value]).encode() + b"\n")


def _limit_cpu(limits: Limits) -> None:
    """From now on, so much processor time is left."""
    _limit(resource.RLIMIT_CPU, int(time.process_time()) + 1 + limits.cpu_seconds)


def _limit(which: int, soft: int) -> None:
    """Lower a soft limit as far as this system has it; a harder one that stands is kept."""
    _, hard = resource.getrlimit(which)
    with contextlib.suppress(OSError, ValueError):
        resource.setrlimit(which, (soft if hard == resource.RLIM_INFINITY else min(soft, hard), hard))


if __name__ == "__main__":
    main()
