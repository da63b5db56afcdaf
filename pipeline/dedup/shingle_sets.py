"""Sets of shingles, straight from Arrow string buffers, and the hash tables that tell what two sets have in common."""

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from pipeline import shingle_kernels
from pipeline.kernels import kernel, njit
from pipeline.shingle_kernels import PLAIN, Texts, hash_ngrams, scan, text_room, word_room
from pipeline.shingles import CLASSES, LOWER

compiled = kernel(__file__, shingle_kernels.__file__)


@compiled
def _distinct_batch(data, offsets, rows, classes, lower, plain, n, room, values, sizes):  # type: ignore[no-untyped-def]
    """Fill `values` and `sizes` and return -1, or the place in `rows` of a text with more n-grams than it has room."""
    longest = 0
    for row in rows:
        longest = max(longest, offsets[row + 1] - offsets[row])
    normalised = np.empty(text_room(longest), np.uint8)
    hashes = np.empty(word_room(longest), np.uint64)
    grams = np.empty(word_room(longest), np.uint64)
    for place in range(len(rows)):
        row, start = rows[place], room[place, 0]
        _, words = scan(data, offsets[row], offsets[row + 1], classes, lower, plain, normalised, 0, hashes)
        count = hash_ngrams(hashes, words, n, grams)
        if count > room[place, 1] - start:
            return place
        table = np.zeros(table_size(count), np.int32)
        size = 0
        for i in range(count):
            slot = find_slot(table, values, start, grams[i])
            if table[slot] == 0:
                values[start + size] = grams[i]
                size += 1
                table[slot] = size
        sizes[place] = size
    return -1


@compiled
def table_size(count):  # type: ignore[no-untyped-def]
    """Slots of a hash table for `count` values: a power of two, at least half of them empty."""
    slots = 2
    while slots < 2 * count:
        slots *= 2
    return slots


@njit(inline="always")
def find_slot(table, values, start, value):  # type: ignore[no-untyped-def]
    """The slot of `value` in `table`, of places in `values[start:]` counted from 1; an empty one where it is not."""
    mask = np.uint64(len(table) - 1)
    slot = np.int64(value & mask)
    while table[slot] != 0 and values[start + table[slot] - 1] != value:
        slot = (slot + 1) & np.int64(mask)
    return slot


class Sets(NamedTuple):
    """Sets of 64-bit values, in any order: set i is the first `sizes[i]` of `values[starts[i]:starts[i + 1]]`."""

    values: NDArray[np.uint64]
    starts: NDArray[np.int64]
    sizes: NDArray[np.int64]


def fill_ngram_sets(sets: Sets, places: NDArray[np.int64], texts: Texts, rows: NDArray[np.int64], n: int) -> None:
    """Make the sets at `places` those of the n-grams of the texts in `rows`; every place has room for all of them.

    Raises `ValueError` where a text has more n-grams than there is room.
    """
    sizes = np.zeros(len(rows), np.int64)
    room = np.stack([sets.starts[places], sets.starts[places + 1]], axis=1)
    short = _distinct_batch(texts.data, texts.offsets, rows, CLASSES, LOWER, PLAIN, n, room, sets.values, sizes)
    if short >= 0:
        raise ValueError(f"the text in row {rows[short]:,} has more {n}-grams than it is said to have")
    sets.sizes[places] = sizes
