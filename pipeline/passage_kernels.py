"""Looking up the n-grams of documents in those of many passages at once, compiled.

A hash table leads from each n-gram to the passages that hold it, so a document costs one look-up an n-gram however many
passages there are. Calls nothing compiled in another file: Numba keeps compiled code by the state of this one alone.
"""

import numpy as np
from numpy.typing import NDArray

from pipeline.kernels import njit
from pipeline.shingle_kernels import Hashes

_SLOTS_PER_KEY = 4  # at least; an open-addressing table so empty needs hardly more than one step


@njit(cache=True)
def _find(slots, keys, key):  # type: ignore[no-untyped-def]
    """The slot that holds the number of `key`, or the empty one (-1) where it belongs."""
    mask = np.uint64(len(slots) - 1)
    slot = key & mask
    while slots[slot] >= 0 and keys[slots[slot]] != key:
        slot = (slot + np.uint64(1)) & mask
    return slot


@njit(cache=True)
def _fill(slots, keys):  # type: ignore[no-untyped-def]
    for number in range(len(keys)):
        slots[_find(slots, keys, keys[number])] = number


@njit(cache=True, nogil=True)
def _overlaps(grams, ends, slots, keys, starts, passages, sizes, shares, worst):  # type: ignore[no-untyped-def]
    seen = np.full(len(keys), -1)  # the row in which each n-gram was met last: repeats count once
    found = np.zeros(len(sizes), np.int64)
    touched = np.empty(len(sizes), np.int64)
    for row in range(len(ends) - 1):
        hit = 0
        for i in range(ends[row], ends[row + 1]):
            number = slots[_find(slots, keys, grams[i])]
            if number < 0 or seen[number] == row:
                continue
            seen[number] = row
            for at in range(starts[number], starts[number + 1]):
                passage = passages[at]
                if found[passage] == 0:
                    touched[hit] = passage
                    hit += 1
                found[passage] += 1
        for i in range(hit):
            passage = touched[i]
            share = found[passage] / sizes[passage]
            found[passage] = 0
            if share > shares[row] or (share == shares[row] and passage < worst[row]):
                shares[row] = share
                worst[row] = passage


class PassageIndex:
    """The n-gram hashes of passages, all of one n; `grams[i]` are the distinct ones of passage i, at least one."""

    def __init__(self, grams: list[NDArray[np.uint64]]) -> None:
        self._sizes = np.array([len(found) for found in grams], np.int64)
        self._keys, inverse = np.unique(np.concatenate(grams), return_inverse=True)
        self._passages = np.repeat(np.arange(len(grams)), self._sizes)[np.argsort(inverse, kind="stable")]
        self._starts = np.concatenate([[0], np.cumsum(np.bincount(inverse))])
        self._slots = np.full(1 << (_SLOTS_PER_KEY * len(self._keys)).bit_length(), -1)
        _fill(self._slots, self._keys)

    def overlaps(self, grams: Hashes) -> tuple[NDArray[np.float64], NDArray[np.int64]]:
        """For each text the greatest share of one passage's n-grams that it holds, and the first such passage or -1."""
        rows = len(grams.ends) - 1
        shares, worst = np.zeros(rows), np.full(rows, -1)
        _overlaps(
            grams.values, grams.ends, self._slots, self._keys, self._starts, self._passages, self._sizes, shares, worst
        )
        return shares, worst
