"""Where shard tasks run: this machine's processes, a Dask cluster or a Ray cluster, behind one small interface.

An engine is a `concurrent.futures.Executor`. Tasks are idempotent, so an engine may repeat one whose worker was lost.
Workers of a cluster need gptmill installed and the store at the same path.
"""

import multiprocessing
import os
import signal
from collections.abc import Callable
from concurrent.futures import Executor, Future, ProcessPoolExecutor
from typing import Any, Literal

from pipeline.config import BadInput, Config, execution
from pipeline.engine.children import die_with


class WorkersConfig(Config):
    """Who does the shards."""

    engine: Literal["processes", "dask", "ray"] = execution("processes")
    """Processes of this machine, as many as --jobs says, or the workers of a cluster."""
    address: str = execution("")
    """Where the cluster is: a Dask scheduler such as "tcp://head:8786", or a Ray address such as "ray://head:10001"."""


def start(config: WorkersConfig, jobs: int) -> Executor:
    """An executor of that engine. BadInput where its library is not installed or its cluster not to be reached."""
    if config.engine == "processes":
        context = multiprocessing.get_context("spawn")
        return ProcessPoolExecutor(jobs, mp_context=context, initializer=_begin, initargs=(os.getpid(),))
    if not config.address:
        raise BadInput(f'workers.engine = "{config.engine}" needs workers.address: say where the cluster is.')
    try:
        return _dask(config.address) if config.engine == "dask" else _Ray(config.address)
    except ImportError as error:
        extra = f"pip install 'gptmill[{config.engine}]'"
        raise BadInput(f"The engine {config.engine} is not installed: {extra}.") from error
    except (OSError, TimeoutError, ValueError) as error:
        raise BadInput(f"The {config.engine} cluster at {config.address} cannot be reached: {error}.") from error


def _begin(parent: int) -> None:
    """A worker dies with its parent, and leaves Ctrl-C to it."""
    die_with(parent)
    signal.signal(signal.SIGINT, signal.SIG_IGN)


def _dask(address: str) -> Executor:
    from distributed import Client

    executor: Executor = Client(address, set_as_default=False).get_executor(pure=False)
    return executor


class _Ray(Executor):
    """A Ray cluster's tasks as futures."""

    def __init__(self, address: str) -> None:
        import ray

        self._ray = ray
        ray.init(address=address, ignore_reinit_error=True, log_to_driver=False)

    def submit(self, function: Callable[..., Any], /, *arguments: Any, **named: Any) -> Future[Any]:
        future: Future[Any] = self._ray.remote(function).remote(*arguments, **named).future()
        return future

    def shutdown(self, wait: bool = True, *, cancel_futures: bool = False) -> None:  # noqa: ARG002  (as the interface)
        self._ray.shutdown()
