"""Pretraining: the stage that turns token shards into a checkpoint.

A step is a function of the state before it: weights, optimizer moments, and two integers (steps taken, windows
seen). So a run that is killed at any moment and started again ends in the same bytes as one left alone, on the same
hardware with the same number of threads. Timings go to `report/`, never into the checkpoint.
"""

import json
import logging
import math
import shutil
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NoReturn

import numpy as np
import torch
from torch import Tensor

from model import checkpoint
from model.config import PretrainConfig, TrainingError
from model.data import Ints, Windows, data_digest, scoring_windows, told
from model.gpt import GPT
from model.hardware import Hardware, choose, compiled_loss, reproducible
from model.metrics import Metrics, stop_signals
from model.optim import build_optimizers, lr_at, optimizer_state, restore_optimizer_state, set_lr
from model.score import mean_loss
from pipeline.shards import TokenShards, end_of_text, load_encoding

log = logging.getLogger(__name__)

METRICS = "metrics.jsonl"

MOST_SKIPPED_IN_A_ROW = 5
"""Steps in a row without a finite loss and gradient after which training is given up."""

RATE_MEMORY = 0.95
"""Weight of the past in the shown tokens per second."""

VAL_BATCH_TOKENS = 4096
"""Tokens in each batch of a validation: enough to keep two cores busy, few enough for their logits to fit anywhere."""

Progress = Callable[[int, int, str], None]


def _silent(_done: int, _total: int, _text: str) -> None:
    """Show nothing."""


def _silent_count(_scored: int, _tokens: int) -> None:
    """Show nothing."""


def pretrain(
    *,
    out: Path,
    config: PretrainConfig,
    shards: list[Path],
    tokenizer: Path,
    work: Path,
    progress: Progress = _silent,
) -> dict[str, Any]:
    """Train a GPT on the shards' training split and write its checkpoint and `report/metrics.jsonl` into `out`.

    `work` holds checkpoints and metrics on the way; a run that finds some there goes on from the newest. Raises
    `TrainingError` where there is too little data, where the loss stays non-finite, or on SIGTERM and SIGINT, which
    save a checkpoint first.
    """
    encoding = load_encoding(tokenizer)
    train = Windows(TokenShards.open(shards, "train", encoding.n_vocab), config.context, config.seed)
    val = TokenShards.open(shards, "val", encoding.n_vocab)
    hardware = choose(config)
    training = Training.start(config, encoding.n_vocab, hardware, data_digest(shards, tokenizer))
    training.resume(work)
    work.mkdir(parents=True, exist_ok=True)
    with (
        reproducible(hardware.device),
        Metrics(work / METRICS, training.state.step) as metrics,
        stop_signals() as stopped,
    ):
        if hardware.compile:
            progress(training.state.step, config.steps, "compiling")
        loss, compile_seconds = compiled_loss(training.model, config, hardware)
        rate = 0.0
        while True:
            step = training.state.step
            last = step == config.steps
            if (last or (step and step % config.val_every == 0)) and step not in metrics.validations:
                most = 0 if last else config.val_windows

                def tell(scored: int, tokens: int) -> None:
                    if stopped.name:
                        training.stop(work, stopped.name)
                    progress(training.state.step, config.steps, f"validating, {scored:,} of {tokens:,} tokens")

                metrics.write({"step": step, "val_loss": training.validate(val, end_of_text(encoding), most, tell)})
            if last:
                break
            if stopped.name:
                training.stop(work, stopped.name)
            record = training.step(train, loss)
            metrics.write(record)
            if training.state.step % config.checkpoint_every == 0 or training.state.step == config.steps:
                training.save(work)
            rate = record["tokens_per_s"] if not rate else _mix(rate, record["tokens_per_s"])
            shown = "not finite" if record["loss"] is None else f"{record['loss']:.2f}"
            progress(training.state.step, config.steps, f"loss {shown} · {rate:,.0f} tok/s")
    checkpoint.write(out, *training.content())
    (out / "report").mkdir()
    shutil.copyfile(work / METRICS, out / "report" / METRICS)
    return {
        "rows": training.state.position * config.context,
        "steps": training.state.step,
        "parameters": training.model.parameter_count(),
        "val_loss": metrics.validations[config.steps],
        "skipped_steps": training.state.skipped,
        "epochs": training.state.position / train.count,
        "hardware": hardware.facts(compiled=loss != training.model.loss),
        "seconds": {"compile": compile_seconds, "train": metrics.seconds},
    }


def _mix(past: float, now: float) -> float:
    return RATE_MEMORY * past + (1 - RATE_MEMORY) * now


@dataclass
class Training:
    """A model in training: everything that a checkpoint holds, and how to take one step."""

    config: PretrainConfig
    hardware: Hardware
    model: GPT
    optimizers: dict[str, torch.optim.Optimizer]
    state: checkpoint.State

    @classmethod
    def start(cls, config: PretrainConfig, vocab_size: int, hardware: Hardware, digest: str) -> "Training":
        """A model with fresh weights, which follow from `config.seed`."""
        torch.manual_seed(config.seed)
        model = GPT(config.gpt(vocab_size)).to(hardware.device)
        state = checkpoint.State(step=0, position=0, skipped=0, skipped_in_a_row=0, data_digest=digest, rng={})
        return cls(config, hardware, model, build_optimizers(model, config), state)

    def step(self, windows: Windows, loss: Callable[[Tensor, Tensor, int], Tensor]) -> dict[str, Any]:
        """Take one step on the next batch and return its metrics; a non-finite one leaves the weights alone.

        `loss` is the model's own, perhaps compiled. The loss is divided by the batch's count of targets, so cutting
        the batch into micro-batches changes rounding only.
        """
        config, state, began = self.config, self.state, time.perf_counter()
        inputs, targets = windows.batch(state.position, config.batch_size)
        total = torch.zeros((), device=self.hardware.device)
        pieces = [np.split(part, config.micro_batches) for part in (inputs, targets)]
        for ids, labels in zip(*pieces, strict=True):
            with self.hardware.autocast():
                part = loss(*_tensors(ids, labels, self.hardware.device), config.loss_chunk) / targets.size
            part.backward()
            total += part.detach()
        norm = torch.nn.utils.clip_grad_norm_(self.model.parameters(), config.clip)
        share = lr_at(state.step, steps=config.steps, warmup=config.warmup_steps, final=config.final_lr)
        loss_value, norm_value = float(total), float(norm)
        finite = math.isfinite(loss_value) and math.isfinite(norm_value)
        if finite:
            set_lr(self.optimizers, share)
            for optimizer in self.optimizers.values():
                optimizer.step()
        self.model.zero_grad(set_to_none=True)
        state.step += 1
        state.position += config.batch_size
        state.skipped += not finite
        state.skipped_in_a_row = 0 if finite else state.skipped_in_a_row + 1
        if not finite:
            log.warning("step %d skipped: loss %s, gradient norm %s", state.step, loss_value, norm_value)
        if state.skipped_in_a_row > MOST_SKIPPED_IN_A_ROW:
            raise TrainingError(
                f"Loss or gradient was not finite at {state.skipped_in_a_row} steps in a row, up to step"
                f" {state.step:,}: lower pretrain.lr or pretrain.muon_lr, or lengthen pretrain.warmup_steps."
            )
        seconds = time.perf_counter() - began
        return {
            "step": state.step,
            "loss": loss_value if math.isfinite(loss_value) else None,
            "lr": share * config.lr,
            "grad_norm": norm_value if math.isfinite(norm_value) else None,
            "skipped": not finite,
            "tokens": state.position * config.context,
            "seconds": seconds,
            "tokens_per_s": targets.size / seconds,
        }

    def validate(
        self, val: TokenShards, end: int, most: int, tell: Callable[[int, int], None] = _silent_count
    ) -> float | None:
        """Mean nats a token over the validation split, or over `most` > 0 of its windows; None where it is empty."""
        context = self.config.context
        batch_size = max(1, VAL_BATCH_TOKENS // context)
        windows = scoring_windows(
            val.window, len(val), end, context=context, stride=context, batch_size=batch_size, most=most
        )
        scored = min(len(val), most * context) if most else len(val)
        return mean_loss(self.model, told(windows, scored, tell), self.hardware.autocast)

    def content(self) -> tuple[GPT, dict[str, Any], dict[str, Tensor], checkpoint.State]:
        """What a checkpoint is written from."""
        self.state.rng = checkpoint.rng_state()
        return self.model, self.config.identity(), optimizer_state(self.model, self.optimizers), self.state

    def stop(self, work: Path, signal: str) -> NoReturn:
        """Save a checkpoint and leave."""
        self.save(work)
        raise TrainingError(
            f"Training was stopped by {signal} at step {self.state.step:,} of {self.config.steps:,}, and a checkpoint"
            " is saved: run again to go on from there."
        )

    def save(self, work: Path) -> None:
        """Save a checkpoint in `work`."""
        checkpoint.save(work, *self.content(), keep=self.config.keep_checkpoints)

    def resume(self, work: Path) -> None:
        """Take over the newest intact checkpoint in `work`, if any; raises `TrainingError` if it is of another run."""
        folder, complaints = checkpoint.newest(work)
        for complaint in complaints:
            log.warning("%s It is put aside.", complaint)
        if folder is None:
            return
        state = checkpoint.verify(folder)
        if state.data_digest != self.state.data_digest:
            raise TrainingError(f"{folder} was trained on other data: remove {work} to train from the beginning.")
        if checkpoint.read_training(folder) != json.loads(json.dumps(self.config.identity())):
            raise TrainingError(f"{folder} was trained with other settings: remove {work} to train from the beginning.")
        weights, moments = checkpoint.load_tensors(folder)
        checkpoint.load_weights(self.model, weights)
        restore_optimizer_state(self.model, self.optimizers, moments)
        checkpoint.restore_rng(state.rng)
        self.state = state


def _tensors(ids: Ints, labels: Ints, device: torch.device) -> tuple[Tensor, Tensor]:
    return torch.from_numpy(ids).to(device), torch.from_numpy(labels).to(device)
