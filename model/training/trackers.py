"""Where metrics can go besides their file: TensorBoard, Weights & Biases, Trackio; each imported only when asked for.

None of them matters to a training: what counts is in `metrics.jsonl`, and a line sent twice after a resume is theirs
to sort out by its step.
"""

import importlib
from collections.abc import Iterator, Sequence
from pathlib import Path
from types import ModuleType
from typing import Any, Protocol

from model.config import TrainingError

PROJECT = "gptmill"
"""The project that runs of Weights & Biases and of Trackio belong to."""

TRACKER_FOLDERS = ("tensorboard", "wandb")
"""Folders that trackers write where they are told to."""


class Tracker(Protocol):
    """Something that hears of every line of the metrics."""

    def log(self, line: dict[str, Any]) -> None:
        """Take the numbers of a line."""

    def close(self) -> None:
        """Bring all to where it belongs."""


class TensorBoard:
    """Event files in a folder; those of steps that a resume takes again are marked as void."""

    def __init__(self, folder: Path, resumed_at: int) -> None:
        _package("tensorboard")
        writer = importlib.import_module("torch.utils.tensorboard").SummaryWriter
        self._writer = writer(str(folder), purge_step=resumed_at + 1 if resumed_at else None)

    def log(self, line: dict[str, Any]) -> None:
        """Each number is a curve of its own."""
        for name, value in _numbers(line):
            self._writer.add_scalar(name, value, line["step"])

    def close(self) -> None:
        """Write what is left."""
        self._writer.close()


class Service:
    """Weights & Biases or Trackio, whose interfaces are alike; where they send to is set in their own ways."""

    def __init__(self, package: str, run: str, settings: dict[str, Any], **options: Any) -> None:
        self._run = _package(package).init(project=PROJECT, name=run, config=settings, resume="allow", **options)

    def log(self, line: dict[str, Any]) -> None:
        """All numbers of a line at once, at its step."""
        self._run.log(dict(_numbers(line)), step=line["step"])

    def close(self) -> None:
        """Wait until all is sent."""
        self._run.finish()


def check_packages(names: Sequence[str]) -> None:
    """Raise `TrainingError` where the package of one of these trackers is missing."""
    for name in names:
        _package(name)


def open_trackers(
    names: Sequence[str], folder: Path, run: str, settings: dict[str, Any], resumed_at: int
) -> list[Tracker]:
    """The trackers of those names for one run; raises `TrainingError` where a package is missing.

    `run` names the training and stays the same over resumes; files that a tracker writes go into `folder`.
    """
    opened: list[Tracker] = []
    for name in names:
        match name:
            case "tensorboard":
                opened.append(TensorBoard(folder / "tensorboard", resumed_at))
            case "wandb":
                opened.append(Service("wandb", run, settings, id=run, dir=str(folder)))
            case "trackio":
                opened.append(Service("trackio", run, settings))
    return opened


def _package(name: str) -> ModuleType:
    try:
        return importlib.import_module(name)
    except ImportError as error:
        raise TrainingError(
            f'pretrain.trackers asks for "{name}", which is not installed: pip install "gptmill[{name}]",'
            " or take it out."
        ) from error


def _numbers(line: dict[str, Any]) -> Iterator[tuple[str, float]]:
    for name, value in line.items():
        if name not in {"step", "final"} and isinstance(value, (bool, int, float)):
            yield name, float(value)
