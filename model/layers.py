"""The parts of a block: norms, rotary positions, causal attention with an optional key-value cache, and MLPs.

Shapes in comments: B sequences, T tokens of input, S tokens of input and cache, H heads, D numbers per head,
C = H x D the width.
"""

from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional

from model.config import Architecture

NORM_EPS = 1e-5
"""Added to the variance; the value of GPT-2 and of Llama 2."""

ROTARY_BASE = 10_000.0
"""Longest wavelength of rotary positions over 2 pi (Su et al. 2021, https://arxiv.org/abs/2104.09864)."""

SWIGLU_MULTIPLE = 64
"""The hidden size of SwiGLU, 8/3 x width (Shazeer 2020), is rounded up to a multiple of this for speed."""


@dataclass
class LayerCache:
    """Keys and values of the tokens that one layer has seen: two tensors (B, H, context, D), filled up to `length`."""

    keys: Tensor
    values: Tensor
    length: int = 0

    def extend(self, keys: Tensor, values: Tensor) -> tuple[Tensor, Tensor]:
        """Append (B, H, T, D) and return everything so far, (B, H, S, D)."""
        end = self.length + keys.shape[2]
        self.keys[:, :, self.length : end] = keys
        self.values[:, :, self.length : end] = values
        self.length = end
        return self.keys[:, :, :end], self.values[:, :, :end]


def norm(config: Architecture) -> nn.Module:
    """The norm that `config` names, over the width."""
    if config.norm == "rmsnorm":
        return nn.RMSNorm(config.width, eps=NORM_EPS)
    return nn.LayerNorm(config.width, eps=NORM_EPS, bias=config.bias)


def rotary_table(config: Architecture) -> tuple[Tensor, Tensor]:
    """Cosines and sines of every position's angles: two float32 tensors (context, D/2)."""
    half = config.width // config.heads // 2
    frequencies = ROTARY_BASE ** -(torch.arange(half, dtype=torch.float32) / half)
    angles = torch.outer(torch.arange(config.context, dtype=torch.float32), frequencies)
    return angles.cos(), angles.sin()


def rotate(x: Tensor, rotary: tuple[Tensor, Tensor]) -> Tensor:
    """Turn each pair (i, i + D/2) of `x` (B, H, T, D) by its position's angle, from tables (T, D/2)."""
    cosine, sine = (table.to(x.dtype) for table in rotary)
    first, second = x.chunk(2, dim=-1)
    return torch.cat((first * cosine - second * sine, second * cosine + first * sine), dim=-1)


class Attention(nn.Module):
    """Causal self-attention: a token sees itself and what came before it."""

    def __init__(self, config: Architecture) -> None:
        super().__init__()
        self.heads = config.heads
        self.qkv = nn.Linear(config.width, 3 * config.width, bias=config.bias)
        self.out = nn.Linear(config.width, config.width, bias=config.bias)

    def forward(self, x: Tensor, rotary: tuple[Tensor, Tensor] | None, cache: LayerCache | None) -> Tensor:
        """(B, T, C) to (B, T, C); `rotary` holds the tables of the T positions at hand."""
        batch, length, width = x.shape
        query, key, value = (
            part.view(batch, length, self.heads, -1).transpose(1, 2) for part in self.qkv(x).split(width, dim=-1)
        )  # each (B, H, T, D)
        if rotary is not None:
            query, key = rotate(query, rotary), rotate(key, rotary)
        mask = None
        if cache is not None:
            before = cache.length
            key, value = cache.extend(key, value)
            # SDPA's own causal mask counts from the first key, so it is right only for an empty cache.
            mask = torch.ones(length, key.shape[2], dtype=torch.bool, device=x.device).tril(before)
        mixed = functional.scaled_dot_product_attention(query, key, value, attn_mask=mask, is_causal=mask is None)
        projected: Tensor = self.out(mixed.transpose(1, 2).reshape(batch, length, width))
        return projected


class GELU(nn.Module):
    """Two linear layers with GELU in its tanh form between them, 4 x width wide (GPT-2)."""

    def __init__(self, config: Architecture) -> None:
        super().__init__()
        self.up = nn.Linear(config.width, 4 * config.width, bias=config.bias)
        self.out = nn.Linear(4 * config.width, config.width, bias=config.bias)

    def forward(self, x: Tensor) -> Tensor:
        """(B, T, C) to (B, T, C)."""
        projected: Tensor = self.out(functional.gelu(self.up(x), approximate="tanh"))
        return projected


class SwiGLU(nn.Module):
    """A linear layer gated by the SiLU of another (Shazeer 2020, https://arxiv.org/abs/2002.05202)."""

    def __init__(self, config: Architecture) -> None:
        super().__init__()
        hidden = -(-8 * config.width // (3 * SWIGLU_MULTIPLE)) * SWIGLU_MULTIPLE
        self.gate = nn.Linear(config.width, hidden, bias=config.bias)
        self.up = nn.Linear(config.width, hidden, bias=config.bias)
        self.out = nn.Linear(hidden, config.width, bias=config.bias)

    def forward(self, x: Tensor) -> Tensor:
        """(B, T, C) to (B, T, C)."""
        projected: Tensor = self.out(functional.silu(self.gate(x)) * self.up(x))
        return projected


class Block(nn.Module):
    """Attention, then the MLP, each on a normed copy of the residual stream and added back to it (pre-LN)."""

    def __init__(self, config: Architecture) -> None:
        super().__init__()
        self.attention_norm = norm(config)
        self.attention = Attention(config)
        self.mlp_norm = norm(config)
        self.mlp = SwiGLU(config) if config.mlp == "swiglu" else GELU(config)

    def forward(self, x: Tensor, rotary: tuple[Tensor, Tensor] | None, cache: LayerCache | None) -> Tensor:
        """(B, T, C) to (B, T, C)."""
        x = x + self.attention(self.attention_norm(x), rotary, cache)
        residual: Tensor = x + self.mlp(self.mlp_norm(x))
        return residual
