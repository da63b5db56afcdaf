"""A model in training: everything that a checkpoint holds, and how to take one step.

A step is a function of the state before it: weights, optimizer moments, two integers (steps taken, windows seen) and
the losses that the guard remembers. Dropout is seeded anew for every step. So a training that is killed at any moment
and started again ends in the same bytes as one left alone, on the same hardware with the same number of threads.
"""

import hashlib
import logging
import math
import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from model.config import PretrainConfig, TrainingError
from model.gpt import GPT
from model.training import checkpoint, guard
from model.training.data import Batch, Batches
from model.training.distributed import Loss, Processes, clip_gradients, parallelise
from model.training.flops import dense_peak, mfu
from model.training.hardware import Hardware, compiler_errors
from model.training.optim import build_optimizers, optimizer_state, restore_optimizer_state, set_lr
from model.training.schedule import rate

log = logging.getLogger(__name__)

REHEARSED_STEPS = 5
"""Steps whose mean time tells how many fit into a budget of minutes."""


@dataclass
class Training:
    """Model, optimizers and state, and what a step needs beside them."""

    config: PretrainConfig
    hardware: Hardware
    processes: Processes
    windows: Batches
    model: GPT
    loss: Loss
    """The model's own, compiled or parallel where that was asked for."""
    sync: Callable[[bool], AbstractContextManager[Any]]
    """Goes around a micro-batch and hears whether it is the last, at which the gradients of all processes meet."""
    optimizers: dict[str, torch.optim.Optimizer]
    state: checkpoint.State
    compiled: bool = False
    """Whether `loss` is compiled."""
    clock: Callable[[], float] = time.perf_counter
    """Seconds, as metrics measure them."""

    @classmethod
    def start(
        cls,
        config: PretrainConfig,
        vocab_size: int,
        hardware: Hardware,
        processes: Processes,
        windows: Batches,
        digest: str,
        weights: dict[str, Tensor] | None = None,
    ) -> "Training":
        """A training at its beginning; `digest` names its data, and the weights that it begins with if any are given.

        Where none are given, they follow from `config.seed`.
        """
        torch.manual_seed(config.seed)
        model = GPT(config.gpt(vocab_size)).to(hardware.device)
        if weights is not None:
            checkpoint.load_weights(model, weights)
        parallel = parallelise(model, config.parallel, processes)
        return cls(
            config=config,
            hardware=hardware,
            processes=processes,
            windows=windows,
            model=model,
            loss=parallel.loss,
            sync=parallel.sync,
            optimizers=build_optimizers(model, config),
            state=checkpoint.State(data_digest=digest, steps=config.step_budget or 1),
        )

    def step(self) -> dict[str, Any]:
        """Take one step on the next batch, unless its loss or gradient forbids that, and return its metrics."""
        config, state, began = self.config, self.state, self.clock()
        torch.manual_seed(_seed_of_step(config.seed, state.step, self.processes.rank))
        loss, norm = self.gradients(state.position)
        finite = guard.is_finite(loss, norm)
        spike = guard.is_spike(loss, state.recent_losses, config.spike_z)
        skipped = not finite or (spike and config.on_spike == "skip")
        share = rate(config, state.step, state.steps)
        if not skipped:
            self.update(share)
        self.model.zero_grad(set_to_none=True)
        state.step += 1
        state.position += config.batch_size
        state.skipped += skipped
        state.spikes += spike
        state.not_finite_in_a_row = 0 if finite else state.not_finite_in_a_row + 1
        state.recent_losses = guard.remember(state.recent_losses, loss)
        if skipped or spike:
            found, done = "spike" if finite else "not finite", "skipped" if skipped else "taken all the same"
            log.warning("step %d, %s: loss %s, gradient norm %s; %s", state.step, found, loss, norm, done)
        seconds = self.clock() - began
        return {
            "step": state.step,
            "loss": loss if math.isfinite(loss) else None,
            "lr": share * config.lr,
            "grad_norm": norm if math.isfinite(norm) else None,
            "skipped": skipped,
            "spike": spike,
            "tokens": state.position * config.context,
            "seconds": seconds,
            "tokens_per_s": config.batch_tokens / seconds,
            "mfu": mfu(self.flops, seconds, self.peak),
            "memory_mib": self.hardware.memory_mib(),
        }

    def gradients(self, position: int) -> tuple[float, float]:
        """Gradients of the batch after `position` windows, clipped: its mean loss, and their norm before clipping.

        The loss is summed and divided by the count of the whole batch's targets, so cutting the batch into
        micro-batches changes rounding only, however unevenly targets are spread over them.
        """
        config, rows = self.config, self.processes.rows(self.config.batch_size)
        targets = max(1, self.windows.scored(position, config.batch_size))
        total = torch.zeros((), device=self.hardware.device)
        for row in range(rows.start, rows.stop, config.micro_batch_size):
            batch = self._on_device(self.checked(self.windows.batch(position + row, config.micro_batch_size)))
            with self.sync(row + config.micro_batch_size == rows.stop):
                with self.hardware.autocast():
                    loss = self.loss(*batch) / targets
                loss.backward()
            total += loss.detach()
        norm = clip_gradients(self.model.parameters(), config.clip)
        # The one moment of a step at which the processor waits for a GPU.
        loss_value, norm_value = torch.stack([self.processes.total(total), norm]).tolist()
        return loss_value, norm_value

    def update(self, share: float) -> None:
        """Let the optimizers change the weights, at `share` of their peak learning rates."""
        set_lr(self.optimizers, share)
        for optimizer in self.optimizers.values():
            optimizer.step()

    def checked(self, batch: Batch) -> Batch:
        """The batch as it is; raises `TrainingError` where the model does not know one of its ids.

        Later nothing could tell: of an id beyond its embeddings a GPU says only that some assertion failed.
        """
        largest, known = max(batch.inputs.max(), batch.targets.max()), self.model.config.vocab_size
        if largest >= known:
            raise TrainingError(
                f"The token shards hold the id {largest:,}, but the vocabulary has {known:,} ids, from 0: they are"
                " damaged or were made with another tokenizer, so pack the corpus again."
            )
        return batch

    def _on_device(self, batch: Batch) -> tuple[Tensor, Tensor, Tensor | None]:
        tensor = self.hardware.tensor
        return tensor(batch.inputs), tensor(batch.targets), None if batch.documents is None else tensor(batch.documents)

    @cached_property
    def flops(self) -> float:
        """Arithmetic of a step in each process."""
        return self.model.flops_per_token() * self.config.batch_tokens / self.processes.count

    @cached_property
    def peak(self) -> float | None:
        """FLOP/s that the device does at best; None where that is unknown."""
        return dense_peak(self.hardware.name, self.hardware.bfloat16)

    def compile(self) -> float:
        """Compile the loss; returns the seconds that took.

        A compiler that turns out not to work is an error only where compiling was asked for by name.
        """
        began, plain = self.clock(), self.loss
        self.loss, self.compiled = torch.compile(plain), True
        try:
            # Forward and backward are compiled when they first run.
            self.rehearse(1)
        except compiler_errors() as error:
            reason = str(error).strip().splitlines()[0]
            if self.config.compile == "yes":
                sentence = f'The model cannot be compiled ({reason}): set pretrain.compile to "no".'
                raise TrainingError(sentence) from error
            log.warning("training without torch.compile, which does not work here: %s", reason)
            self.loss, self.compiled = plain, False
            self.model.zero_grad(set_to_none=True)
        return self.clock() - began

    def rehearse(self, steps: int) -> float:
        """Go through `steps` real steps that leave no trace, before the first or a resume; seconds each took.

        At a learning rate of nothing they change no weight, and what they leave in the optimizers is forgotten.
        """
        began = self.clock()
        for _ in range(steps):
            if guard.is_finite(*self.gradients(0)):
                self.update(0.0)
            self.model.zero_grad(set_to_none=True)
        self.hardware.wait()
        for optimizer in self.optimizers.values():
            optimizer.state.clear()
        return (self.clock() - began) / steps

    def settle_steps(self) -> None:
        """Turn the budget of minutes into a number of steps, which is kept from then on, whatever their pace."""
        minutes, most = self.config.minutes, self.config.step_budget
        assert minutes is not None
        self.rehearse(1)  # the first step of all is slower
        fitting = self.processes.agreed(max(1, int(minutes * 60 / self.rehearse(REHEARSED_STEPS))))
        self.state.steps = fitting if most is None else min(fitting, most)

    def note_validation(self, loss: float | None) -> None:
        """Remember whether the step just saved has the lowest validation loss so far."""
        state = self.state
        if loss is None or not math.isfinite(loss) or state.not_finite_in_a_row:
            return
        if state.best_loss is None or loss < state.best_loss:
            state.best_step, state.best_loss = state.step, loss

    def content(self) -> checkpoint.Content:
        """What a checkpoint is written from; every process must ask for it at once."""
        return checkpoint.Content(
            shape=self.model.config,
            training=self.config.identity(),
            weights=checkpoint.weights_of(self.model),
            optimizer=optimizer_state(self.model, self.optimizers),
            state=self.state,
        )

    def save(self, work: Path) -> Path | None:
        """Save a checkpoint in `work`; None where the last step was not finite: those that are there shall be good."""
        if self.state.not_finite_in_a_row:
            return None
        content = self.content()
        if self.processes.rank == 0:
            checkpoint.save(work, content, keep=self.config.keep_checkpoints)
        self.processes.wait()
        return checkpoint.at_step(work, self.state.step)

    def resume(self, folder: Path) -> None:
        """Go on from a checkpoint; raises `TrainingError` if it is damaged, or of another model, data or settings."""
        state, settings = checkpoint.verify(folder), checkpoint.read_settings(folder)
        again = f"remove {folder.parent} to train from the beginning"
        if state.data_digest != self.state.data_digest:
            raise TrainingError(f"{folder} was trained on other data: {again}.")
        for what, theirs, mine in (
            ("another shape", settings["model"], self.model.config.identity()),
            ("other settings", settings["training"], self.config.identity()),
        ):
            if theirs != mine:
                raise TrainingError(f"{folder} was trained with {what} ({changes(theirs, mine)}): {again}.")
        weights, moments = checkpoint.load_tensors(folder)
        checkpoint.load_weights(self.model, weights)
        restore_optimizer_state(self.model, self.optimizers, moments)
        self.state = state.model_copy(update={"sha256": {}})


@contextmanager
def enough_memory(config: PretrainConfig) -> Iterator[None]:
    """Raise `TrainingError` in place of torch's own word that a GPU's memory is full."""
    try:
        yield
    except torch.OutOfMemoryError as error:
        rows = config.micro_batch_size
        advice = "lower pretrain.micro_batch_tokens" if rows > 1 else "lower pretrain.context, or take a smaller model"
        raise TrainingError(
            f"The GPU's memory is too small for {rows * config.context:,} tokens at once: {advice}."
        ) from error.with_traceback(None)  # whose frames hold the training


def changes(old: dict[str, Any], new: dict[str, Any]) -> str:
    """What differs, as `name old → new`."""
    names = sorted(name for name in {*old, *new} if old.get(name) != new.get(name))
    return ", ".join(f"{name} {old.get(name)} → {new.get(name)}" for name in names)


def _seed_of_step(seed: int, step: int, rank: int) -> int:
    """63 bits for the random numbers of one process in one step."""
    digest = hashlib.blake2b(f"{seed}/{step}/{rank}".encode(), digest_size=8).digest()
    return int.from_bytes(digest, "little") >> 1
