"""The key-value cache: what generation keeps of the tokens before, so that each is computed once.

Each row of a batch holds a text of its own length, and the token at place p lies in slot p mod capacity. So a cache of
`window` slots is a ring that holds just what local attention sees, and one of `context` slots holds everything.

Shapes in comments: B rows, T tokens of input, S slots in use, K heads of keys and values, D numbers per head.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from model.config import Architecture, AttentionPattern
from model.patterns import Places


@dataclass
class LayerCache:
    """Keys and values of one layer: two tensors (B, K, capacity, D)."""

    keys: Tensor
    values: Tensor

    def take(self, keys: Tensor, values: Tensor, lengths: Tensor, longest: int) -> tuple[Tensor, Tensor]:
        """Remember what is new, and return the keys and values to attend to.

        Texts then have `lengths` (B,) tokens, `longest` at most. New are either whole prompts (B, K, T, D), padded at
        the end, which attend to themselves, or one token a row (B, K, 1, D), which attends to what the slots hold,
        (B, K, S, D).
        """
        capacity, newest = self.keys.shape[2], lengths - 1
        if keys.shape[2] > 1:
            kept = held(newest, capacity).clamp(min=0)[:, None, :, None].expand_as(self.keys)
            self.keys, self.values = keys.gather(2, kept), values.gather(2, kept)
            return keys, values
        rows = torch.arange(len(newest), device=newest.device)
        self.keys[rows, :, newest % capacity] = keys[:, :, 0]
        self.values[rows, :, newest % capacity] = values[:, :, 0]
        used = min(capacity, longest)
        return self.keys[:, :, :used], self.values[:, :, :used]


@dataclass
class Cache:
    """The caches of all layers, and how long each row's text is once the next input has been read."""

    layers: list[LayerCache]
    lengths: Tensor
    """(B,), int64: the prompts' lengths first, one more before each further token."""
    longest: int
    """The largest of `lengths`, counted here as well: a GPU would have to be waited for to tell it."""

    @classmethod
    def empty(cls, shape: Architecture, lengths: Sequence[int], like: Tensor) -> "Cache":
        """Room for prompts of so many tokens and what follows them, of the type and on the device of `like`."""
        sizes = [
            (len(lengths), shape.kv_heads or shape.heads, capacity(pattern, shape), shape.head_width)
            for pattern in shape.pattern_of_layer
        ]
        layers = [LayerCache(like.new_zeros(size), like.new_zeros(size)) for size in sizes]
        return cls(layers, torch.tensor(lengths, device=like.device), max(lengths))

    def grow(self) -> None:
        """Count one more token in each row, the one to be read next."""
        self.lengths = self.lengths + 1
        self.longest += 1

    def places(self, pattern: AttentionPattern, shape: Architecture) -> Places:
        """Where the newest token of each row stands (B, 1), and what the slots of a layer hold (B, S)."""
        slots = capacity(pattern, shape)
        used = min(slots, self.longest)
        return Places((self.lengths - 1)[:, None], held(self.lengths - 1, slots)[:, :used])


def capacity(pattern: AttentionPattern, shape: Architecture) -> int:
    """Slots that a layer needs: what local attention sees, or the whole context."""
    return min(shape.window, shape.context) if pattern in ("local", "banded") else shape.context


def held(newest: Tensor, slots: int) -> Tensor:
    """Places (B, slots) of the tokens in a ring of `slots` whose newest are at `newest` (B,); negative where empty."""
    return newest[:, None] - (newest[:, None] - torch.arange(slots, device=newest.device)) % slots
