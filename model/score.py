"""What a model says of given tokens: mean loss while training, and the loss of every single token for evaluation."""

from collections.abc import Callable, Iterable
from contextlib import AbstractContextManager, nullcontext
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch.nn import functional

from model.data import Ints
from model.gpt import GPT, IGNORED

Floats = npt.NDArray[np.float64]
Scored = Iterable[tuple[Ints, Ints]]
"""Batches of inputs and targets (n, context), as `scoring_windows` gives them."""


@torch.no_grad()
def mean_loss(
    model: GPT, windows: Scored, autocast: Callable[[], AbstractContextManager[Any]] = nullcontext
) -> float | None:
    """Mean nats a scored token, or None where there is none."""
    device = model.embedding.weight.device
    total, count = 0.0, 0
    for ids, targets in windows:
        with autocast():
            total += float(model.loss(torch.from_numpy(ids).to(device), torch.from_numpy(targets).to(device)))
        count += int((targets != IGNORED).sum())
    return total / count if count else None


@torch.no_grad()
def token_losses(model: GPT, windows: Scored) -> Floats:
    """Nats of every scored token, in order, computed in float32."""
    device = model.embedding.weight.device
    losses = [np.empty(0)]
    for ids, targets in windows:
        logits = model(torch.from_numpy(ids).to(device)).float()
        labels = torch.from_numpy(targets).to(device)
        nats = functional.cross_entropy(logits.flatten(0, 1), labels.flatten(), ignore_index=IGNORED, reduction="none")
        losses.append(nats.cpu().double().numpy()[targets.ravel() != IGNORED])
    return np.concatenate(losses)
