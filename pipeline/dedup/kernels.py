"""Compiled dedup: shared buckets and comparisons, which `pipeline/dedup/reference.py` says in plain Python.

Everything here works on arrays that the caller cut to fit its memory, and gives the same however they were cut.
"""

import numpy as np

from pipeline.dedup import shingle_sets
from pipeline.dedup.shingle_sets import find_slot, table_size
from pipeline.kernels import kernel

_BASE = np.uint64(0x9E3779B97F4A7C15)  # odd; 2^64 over the golden ratio
_MIX = np.uint64(0xFF51AFD7ED558CCD)  # MurmurHash3's finaliser
_SHIFT = np.uint64(32)

compiled = kernel(__file__, shingle_sets.__file__)


@compiled
def hash_bands(signatures, rows, places, first, per_band, hashes):  # type: ignore[no-untyped-def]
    """Set `hashes[band, places[i]]` to what `band_hashes` gives for band `first + band` of signature `rows[i]`."""
    for i in range(len(rows)):
        signature = signatures[rows[i]]
        for band in range(len(hashes)):
            value = np.uint64(0)
            for k in range((first + band) * per_band, (first + band + 1) * per_band):
                value = (value ^ (value >> _SHIFT)) * _BASE + np.uint64(signature[k])
            hashes[band, places[i]] = (value ^ (value >> _SHIFT)) * _MIX


@compiled
def first_equal(tags, bits, keys, first):  # type: ignore[no-untyped-def]
    """Set `first[row]`, which is the row itself, to the first row of the same key: keys[words, rows].

    `tags` are sorted and hold the upper bits of the row's first key word, and the row in the lower `bits`.
    """
    shift, mask = np.uint64(bits), (np.uint64(1) << np.uint64(bits)) - np.uint64(1)
    start = 0
    while start < len(tags):
        stop = start + 1
        while stop < len(tags) and tags[stop] >> shift == tags[start] >> shift:
            stop += 1
        # Most rows are alone with their tag: they cost no look at a key. Those with the same tag come in their order,
        # and nearly always have the same key, so that the first is found at once.
        for i in range(start + 1, stop):
            row = np.int64(tags[i] & mask)
            for j in range(start, i + 1):
                earlier = np.int64(tags[j] & mask)
                same = True
                for word in range(len(keys)):
                    same &= keys[word, earlier] == keys[word, row]
                if same:
                    break
            first[row] = earlier
        start = stop


@compiled
def number_buckets(first, count, rows, buckets):  # type: ignore[no-untyped-def]
    """Number the buckets with more than one row from `count`; write who is in which, in order of rows.

    Returns how many rows are in such a bucket, and how many buckets there are now.
    """
    numbers = np.full(len(first), -1, np.int32)
    for row in range(len(first)):
        if first[row] != row and numbers[first[row]] < 0:
            numbers[first[row]] = 0
    found = 0
    for row in range(len(first)):
        if first[row] == row:
            if numbers[row] < 0:
                continue
            numbers[row] = count
            count += 1
        rows[found], buckets[found] = row, numbers[first[row]]
        found += 1
    return found, count


@compiled
def scatter(rows, buckets, filled, out):  # type: ignore[no-untyped-def]
    """Append each bucket to its row's in `out`: row i's come up to `filled[i]`, which moves on."""
    for i in range(len(rows)):
        out[filled[rows[i]]] = buckets[i]
        filled[rows[i]] += 1


@compiled
def mark_candidates(own, seen, stamp, starts, counts, kept, marked):  # type: ignore[no-untyped-def]
    """Mark the kept rows in the buckets `own`; `seen` tells which buckets were gone through under the same stamp."""
    for bucket in own:
        if seen[bucket] != stamp:
            seen[bucket] = stamp
            for i in range(starts[bucket], starts[bucket] + counts[bucket]):
                marked[kept[i]] = True


@compiled
def _least_shared(threshold, left, right):  # type: ignore[no-untyped-def]
    """A number of common values below which sets of these sizes are surely less alike than the threshold."""
    return np.int64(threshold * (left + right) / (1 + threshold)) - 1


@compiled
def _alike(threshold, table, values, start, size, others, other, other_size):  # type: ignore[no-untyped-def]
    """Jaccard similarity of two sets where it reaches the threshold, else some lower number; `table` is the first's."""
    bound = min(size, other_size) / max(size, other_size)  # sets so unequal cannot be more alike
    if bound < threshold:
        return bound
    misses = other_size - _least_shared(threshold, size, other_size)
    both = 0
    for i in range(other, other + other_size):
        if table[find_slot(table, values, start, others[i])] != 0:
            both += 1
        else:
            misses -= 1
            if misses < 0:
                return 0.0
    return both / (size + other_size - both)


@compiled
def _equal_share(values, start, size, others, other):  # type: ignore[no-untyped-def]
    equal = 0
    for i in range(size):
        equal += values[start + i] == others[other + i]
    return equal / size


@compiled
def _place(block, row):  # type: ignore[no-untyped-def]
    """Where `row` is in `block`, rows in ascending order."""
    if block[-1] - block[0] == len(block) - 1:
        return row - block[0]
    return np.searchsorted(block, row)


@compiled
def compare(  # type: ignore[no-untyped-def]
    exact, threshold, window, sets, block, block_sets, own, own_ends, starts, counts, kept, original, similarity, keep
):
    """Compare the undecided rows of `window` with the kept rows of `block`, first match in order; count comparisons.

    `sets` and `block_sets` are (values, starts, sizes) of the rows of window and block. Row i is in the buckets
    `own[own_ends[i]:own_ends[i + 1]]`; bucket b has kept `kept[starts[b]:starts[b] + counts[b]]`, ascending. With
    `keep`, which asks for a block that is the window, a row that nothing matches is kept.
    """
    values, places, sizes = sets
    others, other_places, other_sizes = block_sets
    last = block[-1]
    comparisons = 0
    for i in range(len(window)):
        row = window[i]
        if original[row] >= 0:
            continue
        first, stop = own_ends[row], own_ends[row + 1]
        at, ends = np.empty(stop - first, np.int64), np.empty(stop - first, np.int64)
        for k in range(first, stop):
            bucket = own[k]
            ends[k - first] = starts[bucket] + counts[bucket]
            at[k - first] = starts[bucket] + np.searchsorted(kept[starts[bucket] : ends[k - first]], block[0])
        start, size = places[i], sizes[i]
        table = np.zeros(0, np.int32)
        while True:
            candidate = last + 1
            for k in range(len(at)):
                if at[k] < ends[k]:
                    candidate = min(candidate, kept[at[k]])
            if candidate > last:
                break
            for k in range(len(at)):
                at[k] += at[k] < ends[k] and kept[at[k]] == candidate
            comparisons += 1
            j = _place(block, candidate)
            if exact:
                if len(table) == 0:
                    table = np.zeros(table_size(size), np.int32)
                    for k in range(size):
                        table[find_slot(table, values, start, values[start + k])] = k + 1
                alike = _alike(threshold, table, values, start, size, others, other_places[j], other_sizes[j])
            else:
                alike = _equal_share(values, start, size, others, other_places[j])
            if alike >= threshold:
                original[row], similarity[row] = candidate, alike
                break
        if keep and original[row] < 0:
            for k in range(first, stop):
                kept[starts[own[k]] + counts[own[k]]] = row
                counts[own[k]] += 1
    return comparisons
