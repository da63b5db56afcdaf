"""What a training says and hears on the way: its metrics file, and the signals that ask it to stop."""

import json
import signal
import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from types import FrameType
from typing import IO, Any, Self

from model.training.trackers import Tracker


@dataclass
class Metrics:
    """`metrics.jsonl`: one JSON line a step and one a validation, in the order of steps.

    A step: `step` (from 1), `loss` (nats a token), `lr` (of AdamW), `grad_norm` (before clipping), `skipped`, `spike`,
    `tokens` (seen so far), `seconds`, `tokens_per_s`, `mfu` (a share; null where the device's peak is unknown),
    `memory_mib` (the most so far); losses and norm are null where not finite. A validation: `step`, `val_loss`, and
    `final` for that of the result. Opened at step n, the file forgets what a killed run did after the checkpoint of
    step n, which is written before that step's validation. Without a path nothing is written, as in all processes but
    the first.
    """

    path: Path | None
    resumed_at: int
    trackers: Sequence[Tracker] = ()
    """Who else hears of each line."""
    seconds: float = 0.0
    """Training time of all steps, those before a resume included."""

    def __enter__(self) -> Self:
        self._file: IO[str] | None = None
        if self.path is not None:
            kept = [line for line in _whole_lines(self.path) if _is_before(line, self.resumed_at)]
            aside = self.path.with_suffix(".aside")
            self._file = aside.open("w")
            for line in kept:
                self._add(line)
            aside.replace(self.path)
        return self

    def __exit__(self, *_: object) -> None:
        if self._file is not None:
            self._file.close()
        for tracker in self.trackers:
            tracker.close()

    def write(self, line: dict[str, Any]) -> None:
        """Add a line; it is in the file when this returns."""
        self._add(line)
        for tracker in self.trackers:
            tracker.log(line)

    def _add(self, line: dict[str, Any]) -> None:
        self.seconds += line.get("seconds", 0.0)
        if self._file is not None:
            self._file.write(json.dumps(line) + "\n")
            self._file.flush()


def _is_before(line: dict[str, Any], resumed_at: int) -> bool:
    """Whether the checkpoint of that step already knew of the line."""
    if "val_loss" in line:
        return not line.get("final") and bool(line["step"] < resumed_at)
    return bool(line["step"] <= resumed_at)


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
