"""Which tokens a token attends to: one predicate a pattern, from which every backend's mask derives.

A predicate takes the places of queries `i` and of keys `j` in their document, integer tensors that broadcast, and
says with a boolean tensor whether `i` sees `j`. Every pattern is causal, and every token sees itself.

Shapes in comments: B sequences, T tokens of input (queries), S keys, which are the same tokens or a cache's slots.
"""

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn.attention.flex_attention import BlockMask, create_block_mask

from model.config import Architecture, AttentionPattern

Predicate = Callable[[Tensor, Tensor], Tensor]


def full(i: Tensor, j: Tensor) -> Tensor:
    """Everything up to the token itself."""
    return j <= i


def local(window: int) -> Predicate:
    """The last `window` tokens, itself among them: GPT-Neo's local attention (Black et al. 2021).

    The same band, "locally banded", alternates with full attention in GPT-3 (Brown et al. 2020, section 2.1).
    """
    return lambda i, j: (j <= i) & (i - j < window)


def strided(stride: int) -> Predicate:
    """The last `stride` tokens and every `stride`-th before.

    Both factors of the Sparse Transformer's strided attention in one, merged, head (Child et al. 2019,
    https://arxiv.org/abs/1904.10509).
    """
    return lambda i, j: (j <= i) & ((i - j < stride) | ((i - j) % stride == 0))


def fixed(stride: int, summary: int) -> Predicate:
    """The token's own block of `stride`, and the last `summary` of every block before; merged like `strided`."""
    return lambda i, j: (j <= i) & ((i // stride == j // stride) | (j % stride >= stride - summary))


def predicate(pattern: AttentionPattern, shape: Architecture) -> Predicate:
    """The predicate of a layer whose attention is `pattern`."""
    match pattern:
        case "full":
            return full
        case "local" | "banded":
            return local(shape.window)
        case "strided":
            return strided(shape.stride)
        case "fixed":
            return fixed(shape.stride, shape.summary)


@dataclass(frozen=True)
class Places:
    """Where tokens stand, counted from the start of their document; int64."""

    queries: Tensor
    """(T,), or (B, T) with documents, or (B, 1) with a cache."""
    keys: Tensor
    """The same tensor, or with a cache what its slots hold, (B, S), negative where empty."""
    documents: Tensor | None = None
    """The document of each token (B, T); None where a sequence is one document."""


def consecutive(length: int, device: torch.device) -> Places:
    """The places of `length` tokens of one document."""
    every = torch.arange(length, device=device)
    return Places(every, every)


def restarting(documents: Tensor) -> Places:
    """Places that begin anew with each document; `documents` (B, T) holds runs of equal numbers."""
    every = torch.arange(documents.shape[1], device=documents.device)
    begins = documents.diff(dim=1, prepend=documents[:, :1]) != 0  # the first begins at 0 in any case
    places = every - torch.where(begins, every, 0).cummax(dim=1).values
    return Places(places, places, documents)


def dense_mask(sees: Predicate, places: Places) -> Tensor:
    """True where a query sees a key: boolean, (T, S), or (B, 1, T, S) with documents or a cache."""
    keys = places.keys[..., None, :]
    mask = sees(places.queries[..., :, None], keys)
    if places.documents is not None:
        mask = mask & (places.documents[:, :, None] == places.documents[:, None, :])
    if places.queries is not places.keys:
        mask = mask & (keys >= 0)
    return mask if mask.ndim == 2 else mask[:, None]


def block_mask(sees: Predicate, places: Places) -> BlockMask:
    """The same for FlexAttention, which skips blocks that are all False; T and S must be equal."""
    at, documents = places.queries, places.documents

    def within_sequence(b: Tensor, h: Tensor, i: Tensor, j: Tensor) -> Tensor:  # noqa: ARG001
        return sees(i, j)

    def within_document(b: Tensor, h: Tensor, i: Tensor, j: Tensor) -> Tensor:  # noqa: ARG001
        assert documents is not None
        return sees(at[b, i], at[b, j]) & (documents[b, i] == documents[b, j])

    length, device = at.shape[-1], at.device
    if documents is None:
        return create_block_mask(within_sequence, None, None, length, length, device=device)
    return create_block_mask(within_document, at.shape[0], None, length, length, device=device)
