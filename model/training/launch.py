"""Starting several processes for one call of a function, by torchrun's launcher, and hearing from them.

    launch()  the process that wants the result
      agent   torchrun's elastic agent, in a process group of its own: starts the workers, and ends all when one dies
        workers  one a rank; each calls the function

Workers speak to `launch` in JSON lines over one pipe: rank 0 tells its process id, progress, log records and result,
and any of them the error that it dies of. They find each other by a file and talk over the loopback interface. All
hold the other end of a pipe that `launch` never writes to: when it closes, because `launch` is gone however that
happened, they end at once.
"""

import importlib
import json
import logging
import os
import signal
import socket
import subprocess
import sys
import tempfile
import threading
import traceback
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from types import FrameType
from typing import Any

from model.config import TrainingError, TrainingStopped
from pipeline.shards import ShardError

log = logging.getLogger(__name__)

Tell = Callable[..., None]
"""Hears what the function in rank 0 tells: values of JSON."""

MEETING = "GPTMILL_MEETING"
"""Environment variable: the file by which workers find each other, in place of a port that anyone could reach."""

MONITOR_SECONDS = 0.1
"""How often the agent looks whether its workers live."""

LONGEST_ERROR = 2000
"""Characters of an error: a line shorter than 4,096 bytes is written to a pipe in one piece (POSIX, PIPE_BUF)."""


def launch(count: int, target: str, arguments: dict[str, Any], tell: Tell) -> Any:
    """What `module:function(**arguments, tell=tell)` returns in rank 0 of `count` processes that all call it.

    Arguments, what is told and the result are values of JSON. SIGTERM and SIGINT are passed on to rank 0. Raises
    `TrainingError` with the sentence of the process that failed first.
    """
    with tempfile.TemporaryDirectory(prefix="gptmill-") as folder:
        Path(folder, "arguments").write_text(json.dumps(arguments), "utf-8")
        output = Path(folder, "output")
        command = [sys.executable, "-m", "model.training.launch", "agent", str(count), target, folder]
        with output.open("wb") as errors:
            agent = subprocess.Popen(
                command,
                env={**os.environ, **_environment(folder)},
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=errors,
                start_new_session=True,
            )
        heard = _Heard(agent, tell)
        try:
            with heard.forwarded_signals():
                heard.listen()
        finally:
            _end(agent)
        if agent.returncode or "result" not in heard.last:
            sentence, crashed = heard.sentence(count)
            if crashed:
                log.error("%s", output.read_text("utf-8", "replace"))
            raise (TrainingStopped if heard.signal else TrainingError)(sentence)
        return heard.last["result"]


def _environment(folder: str) -> dict[str, str]:
    root = str(Path(__file__).parents[2])
    loopback = next((name for _, name in socket.if_nameindex() if name.startswith("lo")), "lo")
    return {
        "PYTHONPATH": os.pathsep.join(filter(None, [root, os.environ.get("PYTHONPATH")])),
        "GLOO_SOCKET_IFNAME": loopback,
        "NCCL_SOCKET_IFNAME": loopback,
        MEETING: str(Path(folder, "workers")),
        # Otherwise the agent listens on a port of its own, open to the network.
        "TORCH_DISABLE_SHARE_RDZV_TCP_STORE": "1",
    }


def _end(agent: "subprocess.Popen[bytes]") -> None:
    """Leave no process behind: without its standard input every worker ends, and without workers the agent."""
    assert agent.stdin
    assert agent.stdout
    agent.stdin.close()
    agent.stdout.close()
    agent.wait()


class _Heard:
    """What the workers have said so far."""

    def __init__(self, agent: "subprocess.Popen[bytes]", tell: Tell) -> None:
        self.agent, self.tell = agent, tell
        self.last: dict[str, Any] = {}
        """The first message of each kind, but for those that are passed on."""
        self.errors: dict[int, str] = {}
        """What each rank says that it foresaw and dies of."""
        self.signal = ""

    def listen(self) -> None:
        """Hear all there is, to the end of every process."""
        assert self.agent.stdout
        for line in self.agent.stdout:
            try:
                message: dict[str, Any] = json.loads(line)
            except ValueError:
                continue  # a process died while it spoke
            if "told" in message:
                self.tell(*message["told"])
            elif "log" in message:
                name, level, text = message["log"]
                logging.getLogger(name).log(level, "%s", text)
            elif "error" in message:
                rank, sentence = message["error"]
                self.errors[rank] = sentence
            else:
                for kind, value in message.items():
                    self.last.setdefault(kind, value)

    def sentence(self, count: int) -> tuple[str, bool]:
        """Why there is no result, and whether that is a defect rather than something that the code foresaw."""
        if self.errors:
            return self.errors[min(self.errors)], False
        if self.signal:
            return f"Training was stopped by {self.signal}: run again to go on from the last checkpoint.", False
        rank, exitcode = self.last.get("died", (0, 1))
        if exitcode < 0:
            cause = signal.Signals(-exitcode).name
            return f"Process {rank} of {count} was ended by {cause}, perhaps for want of memory: run again.", False
        rank, cause = self.last.get("crash", (rank, f"exit code {exitcode}"))  # the first to say so, not to be gone
        return f"Process {rank} of {count} failed ({cause}).", True

    @contextmanager
    def forwarded_signals(self) -> Iterator[None]:
        """Pass SIGTERM and SIGINT on to rank 0, from which all hear of it; only the main thread gets signals."""
        if threading.current_thread() is not threading.main_thread():
            yield
            return

        def forward(number: int, _frame: FrameType | None) -> None:
            self.signal = signal.Signals(number).name
            if "pid" in self.last:
                os.kill(self.last["pid"], number)
            else:
                self.agent.terminate()

        before = {number: signal.signal(number, forward) for number in (signal.SIGTERM, signal.SIGINT)}
        try:
            yield
        finally:
            for number, handler in before.items():
                signal.signal(number, handler)


def _agent(count: int, target: str, folder: str) -> int:
    """Run torchrun's agent; its own word on who died first goes to `launch`."""
    from torch.distributed.elastic.multiprocessing.errors import ChildFailedError
    from torch.distributed.launcher.api import LaunchConfig, elastic_launch

    config = LaunchConfig(
        min_nodes=1,
        max_nodes=1,
        nproc_per_node=count,
        run_id="gptmill",
        rdzv_backend="c10d",
        rdzv_endpoint=str(Path(folder, "agents")),
        rdzv_configs={"store_type": "file"},
        local_addr="127.0.0.1",
        max_restarts=0,
        monitor_interval=MONITOR_SECONDS,
    )
    try:
        elastic_launch(config, sys.executable)("-m", "model.training.launch", "worker", target, folder)
    except ChildFailedError as error:
        rank, failure = min(error.failures.items(), key=lambda each: (_blame(each[1].exitcode), each[1].timestamp))
        _send(1, died=[rank, failure.exitcode])
        return 1
    return 0


def _blame(exitcode: int) -> int:
    """Low for what comes first: one that was killed, then those that failed for want of it; the agent ends the rest."""
    return 2 if exitcode == -signal.SIGTERM else 1 if exitcode >= 0 else 0


def _worker(target: str, folder: str) -> int:
    """Call the function in this rank."""
    threading.Thread(target=_end_with_launcher, daemon=True).start()
    pipe, leads = os.dup(1), os.environ["RANK"] == "0"
    os.dup2(2, 1)  # what anything prints is no message
    if leads:
        _send(pipe, pid=os.getpid())
        logging.getLogger().addHandler(_ToLauncher(pipe))
    try:
        module, name = target.split(":")
        function = getattr(importlib.import_module(module), name)
        arguments = json.loads(Path(folder, "arguments").read_text("utf-8"))
        result = function(**arguments, tell=lambda *values: _send(pipe, told=values) if leads else None)
    except (TrainingError, ShardError) as error:
        _send(pipe, error=[int(os.environ["RANK"]), str(error)[:LONGEST_ERROR]])
        return 1
    except Exception as error:
        traceback.print_exc()
        reason = f"{type(error).__name__}: {error}".splitlines()[0][:LONGEST_ERROR]
        _send(pipe, crash=[int(os.environ["RANK"]), reason])
        return 1
    if leads:
        _send(pipe, result=result)
    return 0


def _end_with_launcher() -> None:
    while os.read(0, 1):
        pass
    os._exit(1)


class _ToLauncher(logging.Handler):
    """Sends log records to `launch`, where they are logged."""

    def __init__(self, pipe: int) -> None:
        super().__init__()
        self.pipe = pipe

    def emit(self, record: logging.LogRecord) -> None:
        """Send one record."""
        _send(self.pipe, log=[record.name, record.levelno, record.getMessage()[:LONGEST_ERROR]])


def _send(pipe: int, **message: Any) -> None:
    line = json.dumps(message).encode() + b"\n"
    while line:
        line = line[os.write(pipe, line) :]


if __name__ == "__main__":
    role, *rest = sys.argv[1:]
    sys.exit(_agent(int(rest[0]), rest[1], rest[2]) if role == "agent" else _worker(*rest))
