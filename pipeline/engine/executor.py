"""Map a stage over parts: each part is one task, done by whoever is free, published as soon as it is done.

A task is idempotent: its result has a name computed beforehand and appears whole by a rename, so a task may be
repeated, lost with its worker, or done twice at once without harm. The bytes do not depend on who did it or when.
"""

import contextlib
import multiprocessing
import secrets
import shutil
import signal
import time
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import FIRST_COMPLETED, Executor, Future, ProcessPoolExecutor, ThreadPoolExecutor, wait
from concurrent.futures.process import BrokenProcessPool
from dataclasses import dataclass
from itertools import starmap
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from pipeline.config import BadInput, StageFailed
from pipeline.engine import children, engines
from pipeline.engine.children import cpu_seconds
from pipeline.engine.engines import WorkersConfig
from pipeline.engine.stage import load_function
from pipeline.engine.store import FORMAT, Store, describe_files, digest_of

PATIENCE_SECONDS = 1.0
"""How long an interrupted run waits for its threads, one of which may be compiling kernels."""

LITTLE_BYTES = 16 * 1024 * 1024
"""So much input is done with before worker processes have started."""


@dataclass(frozen=True)
class ShardTask:
    """One part of one map stage: what to call, with what, where to work, and under which key the result lies.

    `input_bytes` are those of the files that the part is made from, as they are stored.
    """

    stage: str
    key: str
    part: int
    function: str
    arguments: dict[str, Any]
    store: Path
    work: Path
    replace: bool = False
    input_bytes: int = 0


def run_shard(task: ShardTask) -> dict[str, Any]:
    """Do one task in this process and publish its result. Returns the shard's manifest."""
    store = Store(task.store)
    function = load_function(task.function)
    # A name of its own: another run, or another machine's worker, may be at the same part.
    aside = task.work / f"{task.key}-{secrets.token_hex(4)}"
    aside.mkdir(parents=True)
    start, cpu_start = time.perf_counter(), cpu_seconds()
    try:
        stats = function(out=aside, **task.arguments)
        run = {"seconds": time.perf_counter() - start, "cpu_seconds": cpu_seconds() - cpu_start}
        files = describe_files(aside)
        manifest = {
            "format": FORMAT,
            "stage": task.stage,
            "key": task.key,
            "digest": digest_of(files),
            "files": files,
            "rows": stats["rows"],
            "stats": stats,
            "run": run,
        }
        return store.publish(aside, store.shard_folder(task.stage, task.key), manifest, replace=task.replace)
    except OSError:
        # Another run that made the same part may have tidied up after itself and us.
        made = None if task.replace else store.sound_shard(task.stage, task.key)
        if made is None:
            raise
        return made
    except (BadInput, StageFailed):
        raise
    except Exception as error:
        problem = f"{task.stage} failed on part-{task.part:05d}: {type(error).__name__}: {error}"
        raise StageFailed(problem) from error
    finally:
        shutil.rmtree(aside, ignore_errors=True)


class Workers:
    """Whoever does the tasks, started when first needed: processes, or threads of this one where there is little to do.

    Threads do as well as processes where little Python runs, and are there at once.
    """

    def __init__(self, jobs: int, config: WorkersConfig | None = None) -> None:
        self.jobs = max(1, jobs)
        self._config = config or WorkersConfig()
        self._executor: Executor | None = None
        self._threads: ThreadPoolExecutor | None = None
        self._in_threads: list[Future[dict[str, Any]]] = []
        self._ahead = Counter[str]()  # bytes of input that threads were given ahead of their turn, by stage
        self._begun: dict[tuple[str, str], Future[dict[str, Any]]] = {}

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        executor, self._executor = self._executor, None
        if isinstance(executor, ProcessPoolExecutor):
            executor.shutdown(wait=False, cancel_futures=True)
            # All is done, or nothing half-written is lost by it: what a task made appears by a rename or not at all.
            # Left to themselves, workers take half a second to end.
            for child in multiprocessing.active_children():
                child.terminate()
        elif executor is not None:
            executor.shutdown(wait=kind is None)
        if self._threads is not None:
            self._threads.shutdown(wait=False, cancel_futures=True)
            with children.all_dismissed():
                running = [future for future in self._in_threads if not future.done()]
                wait(running, PATIENCE_SECONDS if kind is KeyboardInterrupt else None)

    def start(self) -> None:
        """Have workers besides this process, unless it is the only one."""
        if self._executor is None and not (self._config.engine == "processes" and self.jobs == 1):
            self._executor = engines.start(self._config, self.jobs)

    @property
    def started(self) -> bool:
        """Whether anybody is there by now who could do a task meanwhile."""
        return self._executor is not None or self._threads is not None

    def begin(self, task: ShardTask) -> None:
        """Begin a task ahead of its turn, behind all that was begun before, unless nobody is there to do it.

        Threads are given little ahead: more is for processes, when the stage's turn comes.
        """
        if self._executor is not None:
            with contextlib.suppress(BrokenProcessPool):  # told by the stage whose turn it is
                self._submit(task)
        elif self._threads is not None and not self.has_begun(task.stage, task.key):
            total = self._ahead[task.stage] + task.input_bytes
            if total <= LITTLE_BYTES:
                self._ahead[task.stage] = total
                self._do_in_thread(task)

    def has_begun(self, stage: str, key: str) -> bool:
        """Whether that task was begun ahead of its turn, which has not come yet."""
        return (stage, key) in self._begun

    def map(self, tasks: Sequence[ShardTask], *, brief: bool = False) -> Iterator[tuple[ShardTask, dict[str, Any]]]:
        """Do all tasks of a stage, in any order, and yield each with its manifest as it ends.

        On this machine, little work starts no processes, nor do any number of `brief` tasks. One part alone is made on
        the main thread: it may be large, and nothing can interrupt another thread.
        """
        left = [task for task in tasks if not self.has_begun(task.stage, task.key)]
        little = self._executor is None and sum(task.input_bytes for task in left) <= LITTLE_BYTES
        here = self._config.engine == "processes" and (self.jobs == 1 or len(left) <= 1 or little or brief)
        if here and self.jobs > 1 and self._threads is None:
            self._threads = ThreadPoolExecutor(self.jobs)
        try:
            if here and (self._threads is None or len(left) == 1):
                for task in left:
                    yield task, run_shard(task)
            elif here:
                for task in left:
                    self._do_in_thread(task)
            else:
                self.start()
                for task in left:
                    self._submit(task)
            begun = ((self._begun.pop((task.stage, task.key), None), task) for task in tasks)
            waiting = {future: task for future, task in begun if future is not None}
            while waiting:
                for future in wait(waiting, return_when=FIRST_COMPLETED).done:
                    yield waiting.pop(future), future.result()
        except BrokenProcessPool as error:
            raise StageFailed(
                f"A worker was killed at {tasks[0].stage} or what follows it, perhaps for want of memory: "
                "run again with fewer --jobs."
            ) from error

    def each(self, function: Callable[..., Any], arguments: Sequence[tuple[Any, ...]]) -> Iterator[Any]:
        """What a function gives for each of these arguments, in order; several processes of this machine share them."""
        if self.jobs == 1 or len(arguments) <= 1 or self._config.engine != "processes":
            yield from starmap(function, arguments)
            return
        self.start()
        futures = [self._future(function, *each) for each in arguments]
        try:
            yield from (future.result() for future in futures)
        except (BadInput, OSError):
            for future in futures:
                future.cancel()
            wait(futures)  # whoever begins again finds nobody at it
            raise
        except BrokenProcessPool as error:
            raise StageFailed(
                "A worker was killed, perhaps for want of memory: run again with fewer --jobs."
            ) from error

    def _do_in_thread(self, task: ShardTask) -> None:
        assert self._threads is not None
        future = self._begun[task.stage, task.key] = self._threads.submit(run_shard, task)
        self._in_threads.append(future)

    def _submit(self, task: ShardTask) -> Future[dict[str, Any]]:
        """The future of a task, which is begun unless it was before."""
        if not self.has_begun(task.stage, task.key):
            self._begun[task.stage, task.key] = self._future(run_shard, task)
        return self._begun[task.stage, task.key]

    def _future(self, function: Callable[..., Any], *arguments: Any) -> Future[Any]:
        assert self._executor is not None
        # Workers start with the first tasks. Ctrl-C is for their parent alone, from their first moment.
        signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
        try:
            return self._executor.submit(function, *arguments)
        finally:
            signal.pthread_sigmask(signal.SIG_UNBLOCK, {signal.SIGINT})
