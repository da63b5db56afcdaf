"""Map a stage over parts: each part is one task, done by whoever is free, published as soon as it is done.

A task is idempotent: its result has a name computed beforehand and appears whole by a rename, so a task may be
repeated, lost with its worker, or done twice at once without harm. The bytes do not depend on who did it or when.
"""

import ctypes
import multiprocessing
import os
import shutil
import signal
import time
from collections.abc import Iterator, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ProcessPoolExecutor, wait
from concurrent.futures.process import BrokenProcessPool
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from pipeline.config import BadInput, StageFailed
from pipeline.engine.stage import load_function
from pipeline.engine.store import FORMAT, Store, describe_files, digest_of

PR_SET_PDEATHSIG = 1
"""prctl option: a signal for this process when its parent dies (linux/prctl.h)."""


@dataclass(frozen=True)
class ShardTask:
    """One part of one map stage: what to call, with what, and under which key the result lies."""

    stage: str
    key: str
    part: int
    function: str
    arguments: dict[str, Any]
    store: Path


def run_shard(task: ShardTask) -> dict[str, Any]:
    """Do one task in this process and publish its result. Returns the shard's manifest."""
    store = Store(task.store)
    function = load_function(task.function)
    aside = store.root / "work" / f"{task.stage}-{task.key}-{os.getpid()}"
    shutil.rmtree(aside, ignore_errors=True)
    aside.mkdir(parents=True)
    start, cpu_start = time.perf_counter(), time.process_time()
    try:
        stats = function(out=aside, **task.arguments)
        seconds, cpu_seconds = time.perf_counter() - start, time.process_time() - cpu_start
        files = describe_files(aside)
        manifest = {
            "format": FORMAT,
            "stage": task.stage,
            "key": task.key,
            "digest": digest_of(files),
            "files": files,
            "rows": stats["rows"],
            "stats": stats,
            "run": {"seconds": seconds, "cpu_seconds": cpu_seconds},
        }
        store.publish(aside, store.shard_folder(task.stage, task.key), manifest)
    except (BadInput, StageFailed, OSError):
        raise
    except Exception as error:
        problem = f"{task.stage} failed on part-{task.part:05d}: {type(error).__name__}: {error}"
        raise StageFailed(problem) from error
    finally:
        shutil.rmtree(aside, ignore_errors=True)
    return manifest


class Workers:
    """Spawned worker processes, started when first needed, gone at the latest when their parent is."""

    def __init__(self, jobs: int) -> None:
        self.jobs = max(1, jobs)
        self._pool: ProcessPoolExecutor | None = None

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._pool is not None:
            self._pool.shutdown(wait=kind is None, cancel_futures=True)
            self._pool = None

    def map(self, tasks: Sequence[ShardTask]) -> Iterator[tuple[ShardTask, dict[str, Any]]]:
        """Do all tasks, in any order, and yield each with its manifest as it ends; one task or one job stays here."""
        if self.jobs == 1 or len(tasks) <= 1:
            for task in tasks:
                yield task, run_shard(task)
            return
        if self._pool is None:
            context = multiprocessing.get_context("spawn")
            self._pool = ProcessPoolExecutor(
                self.jobs, mp_context=context, initializer=_die_with, initargs=(os.getpid(),)
            )
        waiting: dict[Future[dict[str, Any]], ShardTask] = {self._pool.submit(run_shard, task): task for task in tasks}
        try:
            while waiting:
                for future in wait(waiting, return_when=FIRST_COMPLETED).done:
                    yield waiting.pop(future), future.result()
        except BrokenProcessPool as error:
            self._pool = None
            stage = tasks[0].stage
            raise StageFailed(
                f"A worker of {stage} was killed, perhaps for want of memory: run again with fewer --jobs."
            ) from error
        finally:
            for future in waiting:
                future.cancel()


def _die_with(parent: int) -> None:
    """Make the kernel kill this worker when its parent dies, and leave Ctrl-C to the parent."""
    ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGKILL)
    if os.getppid() != parent:
        os.kill(os.getpid(), signal.SIGKILL)
    signal.signal(signal.SIGINT, signal.SIG_IGN)
