"""The dedup rule applied: documents in order, a window of them at a time, each against the kept ones before it.

What is compared (shingles of the texts, or signatures) is loaded for a window of documents and for those kept earlier
that share a bucket with the window, in blocks. A document is loaded once, and once more for each later window that has
need of it; so memory is bounded by the windows, and a crowd of near-duplicates costs one comparison each.
"""

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from pipeline.dedup.buckets import Buckets, signature_rows
from pipeline.dedup.kernels import compare, mark_candidates
from pipeline.dedup.order import Rows, Selected, mapped
from pipeline.dedup.shingle_sets import Sets, fill_ngram_sets
from pipeline.shingle_kernels import texts_of

Load = Callable[[Rows], Sets]
"""What is compared of the documents with these numbers (see `Buckets`)."""


WINDOW_ROWS, BLOCK_ROWS = 16_000, 8_000
"""Documents in one call of the kernel at most: were all in one bucket, an interrupt waits for seconds."""


class Matches(NamedTuple):
    """`original[i]` is the number of the first match of document i, -1 where it is kept, and `similarity[i]` theirs.

    `fullest` is how many documents were kept in the bucket that kept most: each is compared with all that follow.
    """

    original: NDArray[np.int32]
    similarity: NDArray[np.float32]
    comparisons: int
    fullest: int


def find_matches(
    buckets: Buckets,
    sizes: Rows,
    load: Load,
    exact: bool,
    threshold: float,
    memory_bytes: int,
    progress: Callable[[int, int], None] = lambda _done, _total: None,
) -> Matches:
    """Apply the rule to the documents in buckets, of which document i has `sizes[i]` values to compare.

    `exact` compares sets by their Jaccard similarity, else signatures by the share of equal values. What is loaded
    takes about `memory_bytes` at most, but for documents that are larger by themselves.
    """
    count = len(buckets.ranks)
    starts = np.cumsum(buckets.sizes) - buckets.sizes
    kept, counts = np.empty(len(buckets.own), np.int32), np.zeros(len(starts), np.int32)
    seen, marked = np.full(len(starts), -1, np.int32), np.zeros(count, np.bool_)
    original, similarity = np.full(count, -1, np.int32), np.zeros(count, np.float32)
    comparisons = 0
    room = memory_bytes // np.dtype(np.uint64).itemsize
    block_room = room // 4  # fewer are called for again than there are to decide on
    for number, window in enumerate(_cut(np.arange(count), sizes, room - block_room, WINDOW_ROWS)):
        progress(int(window[0]), count)
        first, last = window[0], window[-1]
        mark_candidates(
            buckets.own[buckets.ends[first] : buckets.ends[last + 1]], seen, number, starts, counts, kept, marked
        )
        candidates = np.flatnonzero(marked[:first])
        marked[candidates] = False
        loaded = load(window)
        for block in [*_cut(candidates, sizes, block_room, BLOCK_ROWS), window]:
            comparisons += compare(
                exact,
                threshold,
                window,
                loaded,
                block,
                loaded if block is window else load(block),
                buckets.own,
                buckets.ends,
                starts,
                counts,
                kept,
                original,
                similarity,
                block is window,
            )
        del loaded  # before the next is loaded
    return Matches(original, similarity, comparisons, int(counts.max(initial=0)))


def _cut(numbers: Rows, sizes: Rows, room: int, most: int) -> Iterator[Rows]:
    """Runs of at most so many `numbers` whose sizes add up to no more than `room`, or of one."""
    ends = np.cumsum(sizes[numbers])
    first = 0
    while first < len(numbers):
        before = ends[first - 1] if first else 0
        last = int(np.searchsorted(ends, before + room, side="right"))
        last = max(min(last, first + most), first + 1)
        yield numbers[first:last]
        first = last


def shingle_loader(documents: list[Path], selected: Selected, ranks: Rows, sizes: Rows, words: int) -> Load:
    """Loads sets of shingles, made from the texts; document i has `sizes[i]` shingles, repeats included."""

    def load(numbers: Rows) -> Sets:
        starts = np.concatenate([np.zeros(1, np.int64), np.cumsum(sizes[numbers])])
        sets = Sets(np.empty(int(starts[-1]), np.uint64), starts, np.zeros(len(numbers), np.int64))
        for part, which, rows in selected.by_part(ranks[numbers]):
            fill_ngram_sets(
                sets, which, texts_of(mapped(documents[part] / "documents.arrow", ["text"])["text"]), rows, words
            )
        return sets

    return load


def signature_loader(signatures: list[Path], selected: Selected, ranks: Rows, num_perm: int) -> Load:
    """Loads signatures of `num_perm` values."""

    def load(numbers: Rows) -> Sets:
        values = np.empty((len(numbers), num_perm), np.uint64)
        for part, which, rows in selected.by_part(ranks[numbers]):
            values[which] = signature_rows(signatures[part])[rows]
        return Sets(values.reshape(-1), np.arange(len(numbers) + 1) * num_perm, np.full(len(numbers), num_perm))

    return load
