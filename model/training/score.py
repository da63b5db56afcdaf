"""What a model says of given tokens: mean loss while training, and the loss of every single token for evaluation."""

from collections.abc import Callable, Iterable, Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor
from torch.nn import functional

from model.cross_entropy import IGNORED
from model.gpt import GPT
from model.training.data import Batch, Ints
from model.training.distributed import Processes

Floats = npt.NDArray[np.float64]

LOGITS_AT_ONCE = 2**24
"""Logits of single tokens that exist at the same time: 64 MiB of float32."""


@torch.no_grad()
def mean_loss(
    model: GPT,
    batches: Iterable[Batch],
    autocast: Callable[[], AbstractContextManager[Any]] = nullcontext,
    processes: Processes | None = None,
) -> float | None:
    """Mean nats a scored token, without dropout, each process doing its share; None where there is no such token."""
    device = model.embedding.weight.device
    total, count = 0.0, 0
    with _without_dropout(model):
        for batch in batches:
            mine = processes.share(batch) if processes else batch
            with autocast():
                total += float(model.loss(*tensors(mine, device)))
            count += batch.scored
    if processes:
        total = float(processes.total(torch.tensor(total, dtype=torch.float64)))
    return total / count if count else None


@torch.no_grad()
def token_losses(model: GPT, batches: Iterable[Batch]) -> Floats:
    """Nats of every scored token, in order, without dropout, computed in float32."""
    device, vocab_size = model.embedding.weight.device, model.config.vocab_size
    rows = max(1, LOGITS_AT_ONCE // vocab_size)
    losses = [np.empty(0)]
    with _without_dropout(model):
        for batch in batches:
            ids, targets, documents = tensors(batch, device)
            scored = targets != IGNORED
            hidden, labels = model.hidden(ids, documents)[scored], targets[scored]
            for some, theirs in zip(hidden.split(rows), labels.split(rows), strict=True):
                logits = functional.linear(some, model.head.weight[:vocab_size]).float()
                losses.append(functional.cross_entropy(logits, theirs, reduction="none").cpu().double().numpy())
    return np.concatenate(losses)


def tensors(batch: Batch, device: torch.device) -> tuple[Tensor, Tensor, Tensor | None]:
    """A batch as int64 tensors on a device: inputs, targets, documents."""

    def put(array: Ints) -> Tensor:
        return torch.from_numpy(array).to(device)

    return put(batch.inputs), put(batch.targets), None if batch.documents is None else put(batch.documents)


@contextmanager
def _without_dropout(model: GPT) -> Iterator[None]:
    training = model.training
    model.eval()
    try:
        yield
    finally:
        model.train(training)
