"""Which documents share a band with which: one bucket for each value of each band that more than one document has.

Bands are hashed for as many at a time as fit the memory: each further pass reads the signatures again, and no answer
depends on how many passes there were.
"""

from pathlib import Path
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from pipeline.config import BadInput
from pipeline.dedup.kernels import first_equal, hash_bands, number_buckets, scatter
from pipeline.dedup.order import Rows, Selected, mapped, whole
from pipeline.signatures import SIGNATURES_FILE


class Buckets(NamedTuple):
    """Buckets of two documents and more. Those that are in any are numbered by rank: document i has rank `ranks[i]`.

    It is in the buckets `own[ends[i]:ends[i + 1]]`; `sizes[b]` documents are in bucket b.
    """

    ranks: Rows
    own: NDArray[np.int32]
    ends: Rows
    sizes: Rows


def first_of_each(keys: NDArray[np.uint64]) -> NDArray[np.int32]:
    """The first row with the same key as each row: keys[words, rows], of which the first word is a hash."""
    rows = keys.shape[1]
    bits = max(rows - 1, 1).bit_length()
    tags = keys[0] >> np.uint64(bits) << np.uint64(bits) | np.arange(rows, dtype=np.uint64)
    tags.sort()  # several times as fast as sorting rows by their keys
    first = np.arange(rows, dtype=np.int32)
    first_equal(tags, bits, keys, first)
    return first


def shared_buckets(
    signatures: list[Path],
    selected: Selected,
    eligible: NDArray[np.bool_],
    bands: int,
    per_band: int,
    memory_bytes: int,
) -> Buckets:
    """The buckets of the eligible documents (bool by rank); hashes of bands take about `memory_bytes` at most.

    Raises `BadInput` where the signatures are too short for the bands.
    """
    places = np.cumsum(eligible, dtype=np.int32) - 1
    rows = int(eligible.sum())
    at_once = min(max(memory_bytes // (8 * max(rows, 1)), 1), bands)
    hashes = np.empty((at_once, rows), np.uint64)
    inside, numbers = np.empty(rows, np.int32), np.empty(rows, np.int32)
    members = []
    counts = np.zeros(rows + 1, np.int64)
    buckets = 0
    for first in range(0, bands, at_once):
        group = hashes[: min(at_once, bands - first)]
        _hash(signatures, selected, eligible, places, bands, first, per_band, group)
        for band in range(len(group)):
            found, buckets = number_buckets(first_of_each(group[band : band + 1]), buckets, inside, numbers)
            members.append((inside[:found].copy(), numbers[:found].copy()))
            counts[members[-1][0]] += 1
    del hashes, inside, numbers
    sharing = np.flatnonzero(counts)
    filled = np.cumsum(counts) - counts
    ends = filled[np.append(sharing, rows)]
    own = np.empty(int(ends[-1]), np.int32)
    for band in range(bands):
        scatter(*members[band], filled, own)
        members[band] = (np.zeros(0, np.int32), np.zeros(0, np.int32))
    return Buckets(np.flatnonzero(eligible)[sharing], own, ends, np.bincount(own, minlength=buckets))


def _hash(
    signatures: list[Path],
    selected: Selected,
    eligible: NDArray[np.bool_],
    places: NDArray[np.int32],
    bands: int,
    first: int,
    per_band: int,
    hashes: NDArray[np.uint64],
) -> None:
    """Fill `hashes` with bands `first` and following of all eligible documents."""
    ranks = selected.ranks()
    for part, folder in enumerate(signatures):
        here = slice(selected.starts[part], selected.starts[part + 1])
        wanted = eligible[ranks[here]]
        values = signature_rows(folder, bands, per_band)
        hash_bands(values, selected.rows[here][wanted], places[ranks[here][wanted]], first, per_band, hashes)


def signature_rows(folder: Path, bands: int = 0, per_band: int = 0) -> NDArray[np.uint32]:
    """The signatures of a part as uint32[rows, num_perm], uncopied; raises `BadInput` if too short for the bands."""
    column = whole(mapped(folder / SIGNATURES_FILE, ["signature"])["signature"])
    num_perm = column.type.list_size
    if bands * per_band > num_perm:
        raise BadInput(
            f"deduplicate.bands x deduplicate.rows is {bands} x {per_band} = {bands * per_band}, "
            f"but signatures have {num_perm} values: lower one of the two, or raise signatures.num_perm."
        )
    return column.flatten().to_numpy().reshape(-1, num_perm)
