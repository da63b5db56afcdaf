"""Fine-tuning: a training like any other, from the weights of a model that is there, on examples in place of windows.

All weights are trained. Each example is a document of its own, to which others in its row are invisible, so the shape
says `within_documents` from then on.
"""

import math
from functools import partial
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import Field

from model.config import Config, Count, Fraction, GPTConfig, PretrainConfig, Rate, Seed, TrainingError, execution
from model.folder import Opened
from model.pretrain import VAL_BATCH_TOKENS
from model.training.answers import Encoded, Rows, answer_bytes, digest_of
from model.training.distributed import Processes
from model.training.hardware import choose, reproducible
from model.training.metrics import stop_signals
from model.training.run import Progress, complete, silent
from model.training.score import mean_loss
from model.training.step import Training
from pipeline.shards import end_of_text, token_bytes


class FinetuneConfig(Config):
    """How to fine-tune; the defaults are for AdamW on a few thousand examples."""

    epochs: Annotated[float, Field(gt=0)] = 3.0
    """Times that each example is seen."""
    steps: Count | None = None
    """Optimizer steps to take, in place of `epochs`."""
    lr: Rate = 5e-5
    """Peak learning rate; small models bear more."""
    batch_tokens: Count = 4096
    """Tokens in each optimizer step, prompts and padding among them: as many rows of the model's context as fit, but
    one at least, and no more than an epoch has."""
    warmup: Annotated[float, Field(ge=0, lt=1)] = 0.1
    """Share of the steps over which the learning rate rises; after them it falls in a straight line to nothing."""
    weight_decay: Annotated[float, Field(ge=0, le=10)] = 0.01
    """Decoupled weight decay of matrices and embeddings."""
    held_out: Fraction = 0.05
    """Share of the examples that is never trained on, chosen by a hash of their prompts."""
    result: Literal["last", "best"] = "last"
    """Which weights are the result: the last ones, or those after the epoch with the lowest held-out loss."""
    seed: Seed = 0
    """Seed of the order of examples and of dropout."""
    dtype: Literal["auto", "float32", "bfloat16"] = "auto"
    """Precision of matrix products; auto takes bfloat16 where the processor has it."""
    micro_batch_tokens: int = execution(8192, ge=1)
    """Most tokens that go through the model at once, to fit memory; but one row at least."""
    checkpoint_every: int = execution(200, ge=1)
    """Steps between checkpoints."""
    device: Literal["auto", "cpu", "cuda"] = execution("auto")
    """Where to train; auto takes a CUDA device if there is one."""
    threads: int = execution(0, ge=0)
    """Processor threads; 0 takes every core."""

    def training(self, shape: GPTConfig, rows: int) -> PretrainConfig:
        """The training of a model of that shape on so many rows an epoch."""
        context = shape.context
        size = max(1, min(self.batch_tokens // context, rows))
        steps = self.steps or math.ceil(self.epochs * rows / size)
        return PretrainConfig(
            **{**shape.model_dump(exclude={"vocab_size"}), "within_documents": True},
            optimizer="adamw",
            lr=self.lr,
            weight_decay=self.weight_decay,
            schedule="linear",
            warmup=self.warmup,
            final_lr=1 / steps,  # nothing would come one step later, so that no step is idle
            steps=steps,
            batch_tokens=size * context,
            micro_batch_tokens=self.micro_batch_tokens,
            val_every=math.ceil(rows / size),
            val_windows=0,
            result=self.result,
            seed=self.seed,
            checkpoint_every=self.checkpoint_every,
            device=self.device,
            dtype=self.dtype,
            threads=self.threads,
        )


def finetune(
    *,
    out: Path,
    work: Path,
    config: FinetuneConfig,
    base: Opened,
    train: Encoded,
    held_out: Encoded,
    progress: Progress = silent,
) -> dict[str, Any]:
    """Train `base` on examples and write its checkpoint and `report/metrics.jsonl` into `out`, an existing folder.

    `work` holds checkpoints on the way; a run that finds some there goes on from the newest. The result has, beside
    what `pretrain` tells, the loss on the held-out answers before and after, in nats a token (`loss_before`,
    `val_loss`) and bits per byte; None where none are held out. Raises `TrainingError` as `pretrain` does.
    """
    shape, end = base.model.config, end_of_text(base.encoding)
    if not train.examples:
        raise TrainingError("There is nothing to train on: every example was held out, or too long for the model.")
    rows = Rows(train.examples, shape.context, end, config.seed)
    held = Rows(held_out.examples, shape.context, end)
    settings = config.training(shape, rows.count)
    hardware = choose(settings)
    weights = {name: weight.detach() for name, weight in base.model.named_parameters()}
    digest = digest_of(train.examples, held_out.examples)
    for weight in weights.values():
        digest.update(weight.numpy().tobytes())
    validation = partial(held.in_order, max(1, VAL_BATCH_TOKENS // shape.context))
    work.mkdir(parents=True, exist_ok=True)
    with stop_signals() as stopped, reproducible(hardware.device):
        training = Training.start(
            settings, shape.vocab_size, hardware, Processes(hardware.device), rows, digest.hexdigest(), weights
        )
        before = mean_loss(training.model, validation()[0], hardware.autocast)
        stats = complete(training, validation, out, work, stopped, progress)
    sizes = token_bytes(base.encoding)
    answer_tokens, n_bytes = validation()[1], answer_bytes(held_out.examples, sizes)
    return {
        **stats,
        "examples": len(train.examples),
        "held_out": len(held_out.examples),
        "answer_tokens": answer_tokens,
        "loss_before": before,
        "bits_per_byte_before": _bits_per_byte(before, answer_tokens, n_bytes),
        "bits_per_byte": _bits_per_byte(stats["val_loss"], answer_tokens, n_bytes),
    }


def _bits_per_byte(loss: float | None, tokens: int, n_bytes: int) -> float | None:
    return loss * tokens / math.log(2) / n_bytes if loss is not None and n_bytes else None
