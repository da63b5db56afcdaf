"""The dedup rule in plain Python: who shares a bucket with whom, and one pass that keeps or names an original.

Rows here are documents in the rule's total order. A row is kept unless an *earlier kept* one matches it: the same
text, or a band of the signature in common and a verified similarity at or above the threshold. A row is compared with
kept rows only, so a bucket full of near-duplicates of one another costs one comparison each, and nothing is removed
for resembling what was itself removed. `pipeline/dedup/matches.py` does the same for millions of documents in bounded
memory, with `pipeline/dedup/kernels.py`; the tests hold both to equal answers.
"""

from collections.abc import Callable
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

Similarity = Callable[[int, int], float]
"""The similarity of a row with an earlier one, exact at or above the threshold; below it any lower number will do."""

_BASE = np.uint64(0x9E3779B97F4A7C15)  # odd; 2^64 over the golden ratio
_MIX = np.uint64(0xFF51AFD7ED558CCD)  # MurmurHash3's finaliser
_SHIFT = np.uint64(32)


class Decisions(NamedTuple):
    """`original[row]` is the row's first match, -1 where it is kept; `similarity` (float32) is theirs, 0 where kept."""

    original: NDArray[np.int64]
    similarity: NDArray[np.float32]
    comparisons: int


def band_hashes(signatures: NDArray[np.uint32], bands: int, rows: int) -> NDArray[np.uint64]:
    """uint64[documents, bands]: a hash of each band, `rows` consecutive values of a signature as datasketch cuts it."""
    values = signatures[:, : bands * rows].reshape(len(signatures), bands, rows)
    hashes = np.zeros((len(signatures), bands), np.uint64)
    for row in range(rows):
        hashes = (hashes ^ (hashes >> _SHIFT)) * _BASE + values[:, :, row]
    return (hashes ^ (hashes >> _SHIFT)) * _MIX


def leaders(text_hashes: NDArray[np.uint64], empty: NDArray[np.bool_]) -> NDArray[np.int64]:
    """The first row with the same text hash (uint64[rows, 2]) as each row; an empty row leads itself alone."""
    rows = len(text_hashes)
    order = np.lexsort((np.arange(rows), text_hashes[:, 1], text_hashes[:, 0]))
    ordered = text_hashes[order]
    starts = np.ones(rows, np.bool_)
    starts[1:] = (ordered[1:] != ordered[:-1]).any(axis=1)
    found = np.empty(rows, np.int64)
    found[order] = order[np.flatnonzero(starts)[np.cumsum(starts) - 1]]
    return np.where(empty, np.arange(rows), found)


def shared_buckets(hashes: NDArray[np.uint64], eligible: NDArray[np.bool_]) -> tuple[NDArray[np.int32], int]:
    """int32[rows, bands]: the bucket of each band, -1 where no other eligible row is in it; and how many buckets."""
    rows = np.flatnonzero(eligible)
    buckets = np.full(hashes.shape, -1, np.int32)
    count = 0
    for band in range(hashes.shape[1]):
        values = hashes[rows, band]
        order = np.argsort(values, kind="stable")
        ordered = values[order]
        same = np.zeros(len(rows) + 1, np.bool_)
        same[1:-1] = ordered[1:] == ordered[:-1]
        shared = same[1:] | same[:-1]  # equal to the next or to the one before
        numbers = np.cumsum(shared & ~same[:-1])
        buckets[rows[order[shared]], band] = numbers[shared] + (count - 1)
        count += int(numbers[-1]) if len(numbers) else 0
    return buckets, count


def decide(
    leader: NDArray[np.int64],
    buckets: NDArray[np.int32],
    bucket_count: int,
    similarity: Similarity,
    threshold: float,
    progress: Callable[[int, int], None] = lambda _done, _total: None,
) -> Decisions:
    """Apply the rule. Only the first row of each text is compared: its exact copies share its matches and its fate."""
    rows = len(leader)
    original = np.full(rows, -1, np.int64)
    similarities = np.zeros(rows, np.float32)
    kept_in: list[list[int]] = [[] for _ in range(bucket_count)]
    comparisons = 0
    sharing = np.flatnonzero((buckets >= 0).any(axis=1))
    for done, row in enumerate(sharing.tolist()):
        progress(done, len(sharing))
        own = [bucket for bucket in buckets[row].tolist() if bucket >= 0]
        for candidate in sorted(set().union(*(kept_in[bucket] for bucket in own))):
            comparisons += 1
            alike = similarity(row, candidate)
            if alike >= threshold:
                original[row], similarities[row] = candidate, alike
                break
        else:
            for bucket in own:
                kept_in[bucket].append(row)
    copies = np.flatnonzero(leader != np.arange(rows))
    first = leader[copies]
    lost = original[first] >= 0
    original[copies] = np.where(lost, original[first], first)
    similarities[copies] = np.where(lost, similarities[first], np.float32(1))
    return Decisions(original, similarities, comparisons)
