"""What a training says and hears on the way: its metrics file, and the signals that ask it to stop."""

import json
import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from types import FrameType
from typing import IO, Any, Self


@dataclass
class Metrics:
    """`metrics.jsonl`: one JSON line a step and one a validation, in the order of steps.

    A step: `step` (from 1), `loss` (nats a token), `lr`, `grad_norm` (before clipping), `skipped`, `tokens` (seen so
    far), `seconds`, `tokens_per_s`; loss and norm are null where not finite. A validation: `step`, `val_loss`.
    Opened at step n, the file forgets what a killed run wrote after it.
    """

    path: Path
    resumed_at: int
    validations: dict[int, float | None] = field(default_factory=dict)
    """Loss by step."""
    seconds: float = 0.0
    """Training time of all steps, those before a resume included."""

    def __enter__(self) -> Self:
        kept = [line for line in _whole_lines(self.path) if line["step"] <= self.resumed_at]
        aside = self.path.with_suffix(".aside")
        self._file: IO[str] = aside.open("w")
        for line in kept:
            self.write(line)
        aside.replace(self.path)
        return self

    def __exit__(self, *_: object) -> None:
        self._file.close()

    def write(self, line: dict[str, Any]) -> None:
        """Add a line; it is in the file when this returns."""
        if "val_loss" in line:
            self.validations[line["step"]] = line["val_loss"]
        self.seconds += line.get("seconds", 0.0)
        self._file.write(json.dumps(line) + "\n")
        self._file.flush()


def _whole_lines(path: Path) -> Iterator[dict[str, Any]]:
    """The lines of a metrics file up to the first that a kill cut off."""
    if not path.exists():
        return
    for line in path.read_text().splitlines():
        try:
            yield json.loads(line)
        except ValueError:
            return


@dataclass
class Stop:
    """Whether a signal has asked to stop, and which."""

    name: str = ""


@contextmanager
def stop_signals() -> Iterator[Stop]:
    """Note SIGTERM and SIGINT instead of dying of them; a second one has its usual effect.

    Python delivers signals to the main thread only, so in another thread nothing is noted.
    """
    stop = Stop()
    if threading.current_thread() is not threading.main_thread():
        yield stop
        return
    before = {number: signal.getsignal(number) for number in (signal.SIGTERM, signal.SIGINT)}

    def note(number: int, _frame: FrameType | None) -> None:
        stop.name = signal.Signals(number).name
        restore()

    def restore() -> None:
        for number, handler in before.items():
            signal.signal(number, handler)

    for number in before:
        signal.signal(number, note)
    try:
        yield stop
    finally:
        restore()
