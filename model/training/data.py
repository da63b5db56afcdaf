"""Windows of tokens in a shuffled order that is a function of one integer.

Epoch e visits window `permute(k, count, epoch_key(seed, e))` as its k-th: every window once, none twice. Nothing is
shuffled in memory and nothing but the number of windows seen needs to be remembered to go on.

Where documents begin is known from the lengths in the index, never from looking for an end-of-text among the ids.
An input belongs to the document of the token that it predicts: the end-of-text that closes one document is the first
input of the next. So no target is predicted across a border.
"""

import hashlib
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Protocol

import numpy as np
import numpy.typing as npt

from model.config import TrainingError
from model.cross_entropy import IGNORED
from pipeline.shards import TokenShards, tokenizer_files

Ints = npt.NDArray[np.int64]
Read = Callable[[int, int], Ints]
"""From a start and a count to tokens."""

FEISTEL_ROUNDS = 6
"""Rounds of the permutation: 4 make it pseudo-random (Luby and Rackoff 1988); 2 more as the round function is weak."""

FEW_WINDOWS = 8
"""Where fewer windows fit, leaving one out of an epoch would cost more than an eighth of the text."""

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
class Batch:
    """Windows as a model takes them: int64 arrays (windows, context)."""

    inputs: Ints
    """Ids that the model sees."""
    targets: Ints
    """The id after each input, or `IGNORED` where it is not scored."""
    documents: Ints | None = None
    """A number for each input, equal within a document; None where a window counts as one document."""

    def __getitem__(self, rows: slice) -> "Batch":
        """Some of the windows."""
        documents = None if self.documents is None else self.documents[rows]
        return Batch(self.inputs[rows], self.targets[rows], documents)

    @property
    def scored(self) -> int:
        """How many targets are scored."""
        return int(np.count_nonzero(self.targets != IGNORED))


class Batches(Protocol):
    """What a training reads: batches that are functions of how many windows came before."""

    @property
    def count(self) -> int:
        """Windows in an epoch."""

    def batch(self, position: int, size: int) -> Batch:
        """The `size` windows after the first `position` ones."""

    def scored(self, position: int, size: int) -> int:
        """How many targets `batch(position, size)` scores."""


@dataclass(frozen=True)
class Windows:
    """The training split cut into side-by-side windows of `context` inputs, each with the token after it.

    The files are memory-mapped, and cutting a batch out of them takes far less than a hundredth of the time to train
    on it, so nothing is read ahead.
    An epoch is one visit to every window of its own grid, which begins at a place of its own: so a token is seen after
    contexts of every length, and not always at the same place in a window. In an epoch no token is a target twice,
    and fewer than two windows' length, before and after the grid, are left out (fewer than one where fewer than
    `FEW_WINDOWS` fit); other epochs have them.
    """

    shards: TokenShards
    context: int
    seed: int
    within_documents: bool = False
    """Whether batches tell the documents of their inputs."""
    boundary_labels: bool = True
    """Whether the first token of a document is a target, predicted from the end-of-text before it."""

    def __post_init__(self) -> None:
        if self.count < 1:
            raise TrainingError(
                f"the training split has {len(self.shards):,} tokens, fewer than the {self.context + 1:,} of one"
                " window: add documents or lower pretrain.context"
            )

    @property
    def count(self) -> int:
        """Windows in an epoch: one less than would fit, so that their grid can be moved; all where few fit."""
        fitting = max(0, len(self.shards) - 1) // self.context
        return fitting if fitting < FEW_WINDOWS else fitting - 1

    @cached_property
    def _starts(self) -> Ints:
        return self.shards.index()["start"].to_numpy()

    def first_tokens(self, position: int, size: int) -> Ints:
        """Where in the split the `size` windows after the first `position` ones begin."""
        visits = np.arange(position, position + size)
        epochs, places = np.divmod(visits, self.count)
        room = len(self.shards) - 1 - self.count * self.context
        for epoch in np.unique(epochs):
            now, key = epochs == epoch, epoch_key(self.seed, int(epoch))
            places[now] = permute(places[now], self.count, key) * self.context + key % (room + 1)
        return places

    def batch(self, position: int, size: int) -> Batch:
        """The `size` windows after the first `position` ones."""
        first = self.first_tokens(position, size)
        rows = np.empty((size, self.context + 1), np.int64)
        for row, start in zip(rows, first.tolist(), strict=True):
            row[:] = self.shards.window(start, self.context + 1)
        inputs, targets = rows[:, :-1], rows[:, 1:]
        if self.boundary_labels and not self.within_documents:
            return Batch(inputs, targets)
        begins, documents = document_borders(self._starts, first + 1, self.context)
        if not self.boundary_labels:
            targets = np.where(begins, IGNORED, targets)
        return Batch(inputs, targets, documents if self.within_documents else None)

    def scored(self, position: int, size: int) -> int:
        """How many targets `batch(position, size)` scores, known without reading a token."""
        targets = size * self.context
        if self.boundary_labels:
            return targets
        first = self.first_tokens(position, size) + 1
        borders = np.searchsorted(self._starts, [first, first + self.context])
        return targets - int((borders[1] - borders[0]).sum())


def document_borders(starts: Ints, first: Ints, length: int) -> tuple[npt.NDArray[np.bool_], Ints]:
    """For stretches of `length` tokens from each of `first`: which tokens begin a document, and the documents of all.

    `starts` are the places where documents begin, rising. Both results have the shape (len(first), length); documents
    are numbered as in `starts`.
    """
    low, high = np.searchsorted(starts, [first, first + length])
    counts = high - low
    stretch = np.repeat(np.arange(len(first)), counts)
    border = np.arange(len(stretch)) + np.repeat(low - (np.cumsum(counts) - counts), counts)
    begins = np.zeros((len(first), length), np.bool_)
    begins[stretch, starts[border] - first[stretch]] = True
    return begins, np.cumsum(begins, axis=1, dtype=np.int64) + (low - 1)[:, None]


def scoring_windows(
    read: Read,
    length: int,
    end_of_text: int,
    *,
    context: int,
    stride: int,
    batch_size: int,
    most: int = 0,
    starts: Ints | None = None,
) -> Iterator[Batch]:
    """Batches of windows that score each of `length` tokens exactly once, in order.

    `read(start, count)` gives tokens; the first is read as if after an end-of-text. A window scores `stride` tokens
    (the first window: all of its own), those before them being context; the other targets and padding are `IGNORED`.
    The first tokens of documents are scored too, whatever a model was trained on: every model answers for the same
    tokens. With `starts`, the places where documents begin, batches tell the documents of their inputs. With `most`
    > 0 only so many windows are given, spread evenly.
    """
    places = window_starts(length, context, stride)
    if 0 < most < len(places):
        places = [places[index * len(places) // most] for index in range(most)]
    for place in range(0, len(places), batch_size):
        first = places[place : place + batch_size]
        batch = _unfilled(len(first), context, end_of_text)
        for row, start in enumerate(first):
            _fill(batch, row, read, length, start, stride, context)
        documents = None if starts is None else document_borders(starts, np.array(first), context)[1]
        yield Batch(batch.inputs, batch.targets, documents)


def scoring_texts(
    texts: Sequence[Ints], end_of_text: int, *, context: int, stride: int, batch_size: int
) -> Iterator[Batch]:
    """Batches as those of `scoring_windows`, of one text after another, each read as if alone.

    A batch is as wide as its longest row, so texts of like length should stand side by side.
    """
    places = [(text, start) for text in texts for start in window_starts(len(text), context, stride)]
    for place in range(0, len(places), batch_size):
        some = places[place : place + batch_size]
        width = max(min(context, len(text) - start) for text, start in some)
        batch = _unfilled(len(some), width, end_of_text)
        for row, (text, start) in enumerate(some):
            _fill(batch, row, _reader(text), len(text), start, stride, context)
        yield batch


def _reader(ids: Ints) -> Read:
    return lambda start, count: ids[start : start + count]


def _unfilled(rows: int, width: int, end_of_text: int) -> Batch:
    return Batch(np.full((rows, width), end_of_text, np.int64), np.full((rows, width), IGNORED, np.int64), None)


def _fill(batch: Batch, row: int, read: Read, length: int, start: int, stride: int, context: int) -> None:
    """Put the window of `length` tokens that begins at `start` into a row."""
    size = min(context, length - start)
    before = min(start, 1)
    tokens = read(start - before, size + before)
    batch.inputs[row, 1 - before : size] = tokens[:-1]
    seen = context - stride if start else 0
    batch.targets[row, seen:size] = tokens[before + seen :]


def told(batches: Iterator[Batch], length: int, tell: Callable[[int, int], None]) -> Iterator[Batch]:
    """The batches as they are; `tell(scored, length)` hears before each how many of the tokens are scored."""
    scored = 0
    for batch in batches:
        tell(scored, length)
        yield batch
        scored += batch.scored


def window_starts(length: int, context: int, stride: int) -> list[int]:
    """Where the windows start that score `length` tokens once each, `stride` at a time."""
    return [0, *range(stride, length - (context - stride), stride)] if length else []


def data_digest(parts: Sequence[Path], tokenizer: Path) -> str:
    """What names the data of a training: sha256 of the indexes, the sizes of the shards, and the tokenizer.

    The index holds every document's id, which is a hash of its text; the shards' own bytes are the store's concern.
    """
    digest = hashlib.sha256()
    for path in tokenizer_files(tokenizer):
        digest.update(hashlib.sha256(path.read_bytes()).digest())
    for part in parts:
        for split in ("train", "val"):
            digest.update(hashlib.sha256((part / f"{split}.arrow").read_bytes()).digest())
            digest.update((part / f"{split}.bin").stat().st_size.to_bytes(8, "little"))
    return digest.hexdigest()
