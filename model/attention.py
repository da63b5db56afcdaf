"""Causal self-attention with grouped queries, and three backends that agree.

Shapes in comments: B sequences, T tokens of input, S tokens of input and cache, H heads of queries, K heads of keys
and values, D numbers per head, C = H x D the width.
"""

from collections.abc import Callable
from functools import cache, partial
from importlib.util import find_spec
from typing import Any, Literal

import torch
from torch import Tensor, nn
from torch.nn import functional
from torch.nn.attention.flex_attention import BlockMask, flex_attention

from model.config import Architecture, AttentionPattern
from model.patterns import Places, block_mask, dense_mask, predicate

Backend = Literal["auto", "math", "sdpa", "flex"]
"""`math` is the textbook; `sdpa` is PyTorch's fused attention; `flex` skips what a mask hides, on CUDA. `auto` takes
`sdpa`, but where it can `flex` on CUDA for a layer that needs a mask, and `math` on a CPU in bfloat16 for a short
context."""

SHORT_CONTEXT = 256
"""Tokens up to which, on a CPU in bfloat16, going back through the textbook is faster than through the fused kernel
(12 windows of 64: 1 ms in place of 6, 4 of 256: 4 in place of 9, 4 of 512: equal) and its products are few."""

FLEX_HEAD_WIDTH = 16
"""Numbers per head below which FlexAttention cannot be compiled for CUDA (torch 2.13, `_inductor/kernel/flex`)."""

HAS_TRITON = find_spec("triton") is not None
"""Whether there is what FlexAttention is compiled with on CUDA; found once, as torch.compile cannot look."""

Attend = Callable[[Tensor, Tensor, Tensor, float, float], Tensor]
"""Queries (B, H, T, D), keys and values (B, K, S, D), scale of their products, and dropout; gives (B, H, T, D)."""

Remember = Callable[[Tensor, Tensor], tuple[Tensor, Tensor]]
"""Puts new keys and values (B, K, T, D) into a cache and gives those to attend to, (B, K, S, D)."""


@cache
def compiled_flex() -> Callable[..., Any]:
    """FlexAttention compiled by itself, without which it is no faster than the textbook."""
    return torch.compile(flex_attention)


def textbook(query: Tensor, key: Tensor, value: Tensor, scale: float, dropout: float, *, mask: Tensor) -> Tensor:
    """Products at minus infinity where the mask is False, softmax, and the mean of values that it weighs."""
    shared = query.shape[1] // key.shape[1]
    key, value = key.repeat_interleave(shared, dim=1), value.repeat_interleave(shared, dim=1)
    products = (query @ key.transpose(-2, -1) * scale).masked_fill(~mask, -torch.inf)  # (B, H, T, S)
    return functional.dropout(products.softmax(dim=-1), dropout) @ value


def sdpa(query: Tensor, key: Tensor, value: Tensor, scale: float, dropout: float, *, mask: Tensor | None) -> Tensor:
    """PyTorch's fused kernels; without a mask T and S are equal, and a token sees all before it."""
    grouped = query.shape[1] != key.shape[1]
    return functional.scaled_dot_product_attention(
        query, key, value, attn_mask=mask, dropout_p=dropout, is_causal=mask is None, scale=scale, enable_gqa=grouped
    )


def flex(query: Tensor, key: Tensor, value: Tensor, scale: float, dropout: float, *, mask: BlockMask) -> Tensor:
    """FlexAttention; it knows no dropout, and on a CPU no backward pass."""
    assert dropout == 0, "FlexAttention has no dropout"
    # Within a model that is compiled it is a part of that.
    alone = query.is_cuda and not torch.compiler.is_compiling()
    attend: Any = compiled_flex() if alone else flex_attention
    mixed = attend(query, key, value, block_mask=mask, scale=scale, enable_gqa=query.shape[1] != key.shape[1])
    assert isinstance(mixed, Tensor)
    return mixed


def attend_as(pattern: AttentionPattern, shape: Architecture, places: Places, backend: Backend) -> Attend:
    """Attention in which tokens at `places` see what `pattern` lets them; made once for all layers of a pattern."""
    sees = predicate(pattern, shape)
    uncached = places.queries is places.keys  # the one row of a cache's mask has no blocks to skip
    plain = pattern == "full" and places.documents is None and uncached
    if backend == "auto" and places.queries.is_cuda:
        backend = "sdpa" if plain else on_cuda(shape, HAS_TRITON)
    elif backend == "auto":
        short = uncached and places.queries.shape[-1] <= SHORT_CONTEXT
        backend = "math" if short and torch.is_autocast_enabled("cpu") else "sdpa"
    if backend == "flex" and uncached:
        return partial(flex, mask=block_mask(sees, places))
    if backend == "sdpa" and plain:
        return partial(sdpa, mask=None)
    return partial(textbook if backend == "math" else sdpa, mask=dense_mask(sees, places))


def on_cuda(shape: Architecture, has_triton: bool) -> Backend:
    """What a layer that needs a mask takes on CUDA: `flex`, where that can be compiled and there is no dropout."""
    return "flex" if has_triton and not shape.dropout and shape.head_width >= FLEX_HEAD_WIDTH else "sdpa"


def rotary_table(config: Architecture) -> tuple[Tensor, Tensor]:
    """Cosines and sines of every position's angles: two float32 tensors (context, D/2).

    Source: Su et al. 2021, https://arxiv.org/abs/2104.09864.
    """
    width = config.head_width
    # In this order of rounding, as Llama in `transformers`: another one drifts by 1e-5 in logits within 1,024 places.
    frequencies = 1.0 / config.rotary_base ** (torch.arange(0, width, 2, dtype=torch.float32) / width)
    angles = torch.outer(torch.arange(config.context, dtype=torch.float32), frequencies)
    return angles.cos(), angles.sin()


def rotate(x: Tensor, rotary: tuple[Tensor, Tensor]) -> Tensor:
    """Turn each pair (i, i + D/2) of `x` (B, H, T, D) by its position's angle, from tables that broadcast to it."""
    cosine, sine = (table.to(x.dtype) for table in rotary)
    first, second = x.chunk(2, dim=-1)
    return torch.cat((first * cosine - second * sine, second * cosine + first * sine), dim=-1)


class Attention(nn.Module):
    """Self-attention in which each head of keys and values serves H / K heads of queries (Ainslie et al. 2023)."""

    def __init__(self, config: Architecture) -> None:
        super().__init__()
        self.heads, self.kv_heads, self.head_width = config.heads, config.kv_heads or config.heads, config.head_width
        self.scale = self.head_width**-0.5 if config.scaled_attention else 1.0
        self.dropout = config.dropout
        qkv_bias = config.bias if config.qkv_bias is None else config.qkv_bias
        self.qkv = nn.Linear(config.width, (self.heads + 2 * self.kv_heads) * self.head_width, bias=qkv_bias)
        self.out = nn.Linear(config.width, config.width, bias=config.bias)

    def forward(
        self, x: Tensor, attend: Attend, rotary: tuple[Tensor, Tensor] | None, remember: Remember | None
    ) -> Tensor:
        """(B, T, C) to (B, T, C); `rotary` holds the tables of the tokens' positions."""
        heads = self.qkv(x).unflatten(-1, (-1, self.head_width)).transpose(1, 2)  # (B, H + K + K, T, D)
        query, key, value = heads.split((self.heads, self.kv_heads, self.kv_heads), dim=1)
        if rotary is not None:
            query, key = rotate(query, rotary), rotate(key, rotary)
        if remember is not None:
            key, value = remember(key, value)
        mixed = attend(query, key, value, self.scale, self.dropout if self.training else 0.0)  # (B, H, T, D)
        projected: Tensor = self.out(mixed.transpose(1, 2).flatten(2))
        return projected
