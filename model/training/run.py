"""A training on its way from its first step, or a checkpoint, to its result.

The loop saves before it validates, so that nothing a validation does can cost a step. What it decides on the way
(validate, save, stop, which checkpoint is best) follows from the state alone, never from a clock; timings go to
`report/`, never into a checkpoint. The one exception is a budget of `minutes`: it is turned into a number of steps at
the beginning, and that number is part of the state.
"""

import hashlib
import json
import logging
import math
import shutil
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NoReturn

from model.config import TrainingError, TrainingStopped
from model.training import checkpoint, guard
from model.training.data import Batch, told
from model.training.metrics import Metrics, Stop
from model.training.score import mean_loss
from model.training.step import Training, enough_memory
from model.training.trackers import TRACKER_FOLDERS, Tracker, check_packages, open_trackers

log = logging.getLogger(__name__)

METRICS = "metrics.jsonl"

RATE_MEMORY = 0.95
"""Weight of the past in the shown tokens per second."""

Progress = Callable[[int, int, str], None]

Validation = Callable[[int], tuple[Iterator[Batch], int]]
"""What is held out, in batches, or so many of its windows where the number is not 0; and how many tokens they score."""


def silent(_done: int, _total: int, _text: str) -> None:
    """Show nothing."""


def complete(
    training: Training, validation: Validation, out: Path, work: Path, stopped: Stop, tell: Progress
) -> dict[str, Any]:
    """Take a training that is at its beginning to its end, from the newest checkpoint in `work`, and write its result.

    Returns what a manifest tells of it.
    """
    config, first = training.config, training.processes.rank == 0
    if first:
        check_packages(config.trackers)  # before what takes long
    with enough_memory(config):
        compile_seconds = _begin(training, work, tell)
        state = training.state
        trackers = _trackers(training, work) if first else []
        with Metrics(work / METRICS if first else None, state.step, trackers) as metrics:
            run = Run(training, metrics, validation, work, stopped, tell)
            run.train()
            result_step, val_loss = run.finish(out)
    if first:
        _copy_report(work, out / "report")
    return {
        "rows": state.position * config.context,
        "steps": state.step,
        "result_step": result_step,
        "parameters": training.model.parameter_count(),
        "val_loss": val_loss,
        "skipped_steps": state.skipped,
        "spikes": state.spikes,
        "epochs": state.position / training.windows.count,
        "hardware": {**training.hardware.facts(training.compiled), "processes": training.processes.count},
        "seconds": {"compile": compile_seconds, "train": metrics.seconds},
    }


def _begin(training: Training, work: Path, progress: Progress) -> float:
    """Compile, then go on from the newest intact checkpoint, or settle the number of steps; seconds of compiling."""
    processes = training.processes
    folder, complaints = processes.agreed(checkpoint.newest(work) if processes.rank == 0 else None)
    for complaint in complaints:
        log.warning("%s It is put aside.", complaint)
    seconds = 0.0
    if training.hardware.compile:
        progress(0, training.state.steps, "compiling")
        seconds = training.compile()
        progress(0, training.state.steps, f"compiled in {seconds:.0f} s")
    if folder is not None:
        training.resume(folder)
        _look_at_best(training, work)
    elif training.config.minutes is not None:
        progress(0, 0, "rehearsing a few steps")
        training.settle_steps()
        training.save(work)
    return seconds


def _look_at_best(training: Training, work: Path) -> None:
    """Forget the best checkpoint if it is damaged and is to be the result: the training could never end with it."""
    state, processes = training.state, training.processes
    if training.config.result != "best" or state.best_step is None:
        return
    best = checkpoint.at_step(work, state.best_step)
    complaint = processes.agreed(checkpoint.examine(best) if processes.rank == 0 else None)
    if complaint is not None:
        log.warning("%s It was the best: the result will be the best from step %d on.", complaint, state.step)
        state.best_step = state.best_loss = None


def _trackers(training: Training, work: Path) -> list[Tracker]:
    """The trackers asked for, under a name that stays when the training is resumed and that no other training has."""
    settings = training.config.identity()
    identity = json.dumps([settings, training.state.data_digest], sort_keys=True)
    name = f"pretrain-{hashlib.sha256(identity.encode()).hexdigest()[:12]}"
    return open_trackers(training.config.trackers, work, name, settings, training.state.step)


def _copy_report(work: Path, report: Path) -> None:
    report.mkdir()
    shutil.copyfile(work / METRICS, report / METRICS)
    for name in TRACKER_FOLDERS:
        if (work / name).is_dir():
            # Links of W&B to its latest run would be copied as what they lead to.
            shutil.copytree(work / name, report / name, ignore=shutil.ignore_patterns("latest-run", "debug*.log"))


@dataclass
class Run:
    """A training on its way from one step to the next, and all that hears of it."""

    training: Training
    metrics: Metrics
    validation: Validation
    work: Path
    stopped: Stop
    progress: Progress

    def train(self) -> None:
        """Take every step that is left, with checkpoints and validations between them."""
        training, config, state = self.training, self.training.config, self.training.state
        pace = 0.0
        while True:
            if self._validates():
                training.save(self.work)
                val_loss = self.validate(config.val_windows)
                self.metrics.write({"step": state.step, "val_loss": _finite(val_loss)})
                training.note_validation(val_loss)
            if state.step == state.steps:
                return
            self._leave_if_told()
            record = training.step()
            self.metrics.write(record)
            if state.not_finite_in_a_row == guard.MOST_IN_A_ROW:
                many = f"Loss or gradient was not finite at {guard.MOST_IN_A_ROW} steps in a row, up to step"
                self._give_up(f"{many} {state.step:,}", self._last_finite)
            if state.step % config.checkpoint_every == 0 or state.step == state.steps:
                training.save(self.work)
            pace = RATE_MEMORY * (pace or record["tokens_per_s"]) + (1 - RATE_MEMORY) * record["tokens_per_s"]
            self.progress(state.step, state.steps, _told(record, pace))

    def finish(self, out: Path) -> tuple[int, float | None]:
        """Write the result into `out`: its step, and its loss over every validation token (None without any).

        Raises `TrainingError` where that loss is not finite.
        """
        training, state = self.training, self.training.state
        first, step, last = training.processes.rank == 0, state.step, self._last_finite
        if training.config.result == "best" and state.best_step is not None:
            step = last = state.best_step
            best = checkpoint.at_step(self.work, step)
            if first:
                checkpoint.copy(best, out)
            checkpoint.load_weights(training.model, checkpoint.load_tensors(best)[0])
        else:
            content = training.content()
            if first:
                checkpoint.write(out, content)
        val_loss = self.validate(0)
        self.metrics.write({"step": step, "val_loss": _finite(val_loss), "final": True})
        if val_loss is not None and not math.isfinite(val_loss):
            self._give_up(f"The validation loss of the result, after step {step:,}, is not finite", last)
        return step, val_loss

    def validate(self, most: int) -> float | None:
        """Mean nats a token of what is held out, or of `most` > 0 of its windows; None where nothing is."""
        training = self.training
        batches, scored = self.validation(most)
        return mean_loss(
            training.model,
            told(map(training.checked, batches), scored, self._tell),
            training.hardware.autocast,
            training.processes,
        )

    def _tell(self, scored: int, tokens: int) -> None:
        self._leave_if_told()
        state = self.training.state
        self.progress(state.step, state.steps, f"validating, {scored:,} of {tokens:,} tokens")

    def _validates(self) -> bool:
        """Whether the weights are now compared with those of other steps; the last ones only if the best are asked for.

        Whatever the result is, `finish` scores it on the whole split.
        """
        config, state = self.training.config, self.training.state
        if state.step == state.steps:
            return config.result == "best"
        return state.step > 0 and state.step % config.val_every == 0

    @property
    def _last_finite(self) -> int:
        """The last step with a finite loss and gradient."""
        state = self.training.state
        return state.step - state.not_finite_in_a_row

    def _leave_if_told(self) -> None:
        """Save a checkpoint, if the last step was finite, and leave, if a signal has asked for it."""
        if not self.training.processes.any(bool(self.stopped.name)):
            return
        state, signal = self.training.state, self.stopped.name or "a signal"
        saved = self.training.save(self.work)
        after = (
            "a checkpoint is saved: run again to go on from there"
            if saved
            else "no checkpoint is saved, as loss or gradient was not finite: run again to go on from the one before"
        )
        raise TrainingStopped(
            f"Training was stopped by {signal} at step {state.step:,} of {state.steps:,}, and {after}."
        )

    def _give_up(self, what: str, last: int) -> NoReturn:
        """Leave for want of a finite loss after step `last`.

        Its update may be what broke the weights, so its checkpoint is put aside: a new run begins with the one before.
        """
        processes = self.training.processes
        if processes.rank == 0:
            checkpoint.put_aside(checkpoint.at_step(self.work, last))
        saved = processes.agreed(checkpoint.newest(self.work)[0] if processes.rank == 0 else None)
        good = f"the last good checkpoint is {saved}" if saved else "no checkpoint was saved before"
        raise TrainingError(f"{what}: lower pretrain.lr or pretrain.muon_lr, or raise pretrain.warmup; {good}.")


def _finite(loss: float | None) -> float | None:
    """A loss as JSON can say it."""
    return loss if loss is not None and math.isfinite(loss) else None


def _told(record: dict[str, Any], pace: float) -> str:
    """A step in a few words."""
    loss = "not finite" if record["loss"] is None else f"{record['loss']:.2f}"
    used = "" if record["mfu"] is None else f" · {record['mfu']:.0%} MFU"
    return f"loss {loss} · {pace:,.0f} tok/s{used}"
