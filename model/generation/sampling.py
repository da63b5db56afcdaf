"""How the next token is chosen from logits: penalties, cut-offs, and a draw that is a row's own."""

from dataclasses import dataclass

import torch
from torch import Tensor


@dataclass(frozen=True)
class Sampling:
    """What to draw from; the defaults draw from the model's own distribution."""

    temperature: float = 1.0
    """Divides the logits; 0 takes the likeliest token."""
    top_k: int = 0
    """Likeliest tokens to draw from; 0 for all."""
    top_p: float = 1.0
    """Smallest probability mass to draw from, likeliest first (Holtzman et al. 2020); 1 for all."""
    min_p: float = 0.0
    """Least probability to draw, as a share of the likeliest token's (Nguyen et al. 2024); 0 for all."""
    repetition_penalty: float = 1.0
    """Divides the positive logits of tokens that were there before, and multiplies the negative ones (Keskar et al.
    2019); 1 leaves them alone."""


def choose(logits: Tensor, sampling: Sampling, draws: Tensor, seen: Tensor | None = None) -> Tensor:
    """One id a row (B,) from logits (B, V), decided by `draws` (B,), uniform numbers in [0, 1).

    `seen` (B, V) is True for tokens that were there before. The cut-offs apply in the order top_k, top_p, min_p, each
    to what the one before leaves; the likeliest token always stays. A row depends on nothing in other rows.
    """
    if seen is not None and sampling.repetition_penalty != 1:
        penalty = sampling.repetition_penalty
        logits = torch.where(seen, torch.where(logits > 0, logits / penalty, logits * penalty), logits)
    if sampling.temperature == 0:
        return logits.argmax(-1)
    differences = logits - logits.amax(-1, keepdim=True)  # which stay numbers at any temperature
    likeliest = torch.sort(differences / sampling.temperature, dim=-1, descending=True, stable=True)
    kept = likeliest.values[:, : sampling.top_k or None]
    chances = kept.softmax(-1)
    if sampling.top_p < 1:
        # A token stays if the mass before it has not reached top_p, so at least one does.
        chances = chances * (chances.cumsum(-1) - chances < sampling.top_p)
    if sampling.min_p > 0:
        chances = chances * (chances >= min(1.0, sampling.min_p) * chances[:, :1])
    heights = chances.cumsum(-1)
    place = torch.searchsorted(heights, draws[:, None] * heights[:, -1:], right=True)
    last = (chances > 0).sum(-1, keepdim=True) - 1  # rounding may put a draw beyond the end
    return likeliest.indices.gather(1, place.minimum(last))[:, 0]
