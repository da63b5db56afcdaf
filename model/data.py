"""Windows of tokens in a shuffled order that is a function of one integer.

Epoch e visits window `permute(k, count, key(seed, e))` as its k-th: every window once, none twice. Nothing is
shuffled in memory and nothing but the number of windows seen needs to be remembered to go on.
"""

import hashlib
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt

from model.config import TrainingError
from model.gpt import IGNORED
from pipeline.shards import TokenShards

Ints = npt.NDArray[np.int64]

FEISTEL_ROUNDS = 6
"""Rounds of the permutation: 4 make it pseudo-random (Luby and Rackoff 1988); 2 more as the round function is weak."""

MIX = np.uint64(0x9E3779B97F4A7C15)
"""2^64 over the golden ratio: the odd constant of Fibonacci hashing and of SplitMix64 (Steele et al. 2014)."""


def permute(places: Ints, count: int, key: int) -> Ints:
    """Where a pseudo-random bijection of 0 .. count - 1, chosen by `key`, sends each of `places`.

    A balanced Feistel network permutes the smallest power of 4 that holds `count`; a result beyond `count` is
    sent through again until it falls inside (cycle walking, Black and Rogaway 2002), under 4 times on average.
    """
    half_bits = np.uint64(max(1, ((count - 1).bit_length() + 1) // 2))
    mask = (np.uint64(1) << half_bits) - np.uint64(1)
    result = places.astype(np.uint64)
    outside = np.arange(len(result))
    while len(outside):
        left, right = result[outside] >> half_bits, result[outside] & mask
        for turn in range(FEISTEL_ROUNDS):
            mixed = (right + np.uint64((key + turn * int(MIX)) % 2**64)) * MIX
            mixed ^= mixed >> np.uint64(29)
            left, right = right, left ^ ((mixed * MIX) >> np.uint64(32) & mask)
        result[outside] = (left << half_bits) | right
        outside = outside[result[outside] >= np.uint64(count)]
    return result.astype(np.int64)


def epoch_key(seed: int, epoch: int) -> int:
    """64 bits that choose the order of one epoch."""
    return int.from_bytes(hashlib.blake2b(f"{seed}/{epoch}".encode(), digest_size=8).digest(), "little")


@dataclass(frozen=True)
class Windows:
    """The training split cut into side-by-side windows of `context` inputs, each with the token after it.

    A last stretch shorter than a window is never seen. An epoch is one visit to every window.
    """

    shards: TokenShards
    context: int
    seed: int

    def __post_init__(self) -> None:
        if self.count < 1:
            raise TrainingError(
                f"the training split has {len(self.shards):,} tokens, fewer than the {self.context + 1:,} of one"
                " window: add documents or lower pretrain.context"
            )

    @property
    def count(self) -> int:
        """Windows in an epoch."""
        return max(0, len(self.shards) - 1) // self.context

    def batch(self, position: int, size: int) -> tuple[Ints, Ints]:
        """Inputs and targets (size, context) of the `size` windows after the first `position` ones."""
        places = np.arange(position, position + size)
        epochs = places // self.count
        for epoch in np.unique(epochs):
            now = epochs == epoch
            places[now] = permute(places[now] % self.count, self.count, epoch_key(self.seed, int(epoch)))
        rows = np.stack([self.shards.window(int(place) * self.context, self.context + 1) for place in places])
        return rows[:, :-1], rows[:, 1:]


def scoring_windows(
    read: Callable[[int, int], Ints],
    length: int,
    end_of_text: int,
    *,
    context: int,
    stride: int,
    batch_size: int,
    most: int = 0,
) -> Iterator[tuple[Ints, Ints]]:
    """Batches of inputs and targets (n, context) that score each of `length` tokens exactly once, in order.

    `read(start, count)` gives tokens; the first is read as if after an end-of-text. A window scores `stride` tokens
    (the first window: all of its own), those before them being context; the other targets and padding are `IGNORED`.
    With `most` > 0 only so many windows are given, spread evenly.
    """
    starts = window_starts(length, context, stride)
    if 0 < most < len(starts):
        starts = [starts[index * len(starts) // most] for index in range(most)]
    for first in range(0, len(starts), batch_size):
        chosen = starts[first : first + batch_size]
        inputs = np.full((len(chosen), context), end_of_text, dtype=np.int64)
        targets = np.full((len(chosen), context), IGNORED, dtype=np.int64)
        for row, start in enumerate(chosen):
            tokens = read(start, min(context, length - start))
            size = len(tokens)
            inputs[row, 1:size] = tokens[:-1]
            if start:
                inputs[row, 0] = read(start - 1, 1)[0]
            seen = context - stride if start else 0
            targets[row, seen:size] = tokens[seen:]
        yield inputs, targets


def told(
    batches: Iterator[tuple[Ints, Ints]], length: int, tell: Callable[[int, int], None]
) -> Iterator[tuple[Ints, Ints]]:
    """The batches as they are; `tell(scored, length)` hears before each how many of the tokens are scored."""
    scored = 0
    for ids, targets in batches:
        tell(scored, length)
        yield ids, targets
        scored += int((targets != IGNORED).sum())


def window_starts(length: int, context: int, stride: int) -> list[int]:
    """Where the windows start that score `length` tokens once each, `stride` at a time."""
    return [0, *range(stride, length - (context - stride), stride)] if length else []


def data_digest(parts: Sequence[Path], tokenizer: Path) -> str:
    """What names the data of a training: sha256 of the indexes, the sizes of the shards, and the tokenizer.

    The index holds every document's id, which is a hash of its text; the shards' own bytes are the store's concern.
    """
    digest = hashlib.sha256()
    for name in ("ranks.tiktoken", "tokenizer.json"):
        digest.update(hashlib.sha256((tokenizer / name).read_bytes()).digest())
    for part in parts:
        for split in ("train", "val"):
            digest.update(hashlib.sha256((part / f"{split}.arrow").read_bytes()).digest())
            digest.update((part / f"{split}.bin").stat().st_size.to_bytes(8, "little"))
    return digest.hexdigest()
