"""Compiled n-gram hashing over Arrow string buffers: what `pipeline/shingles.py` defines, without Python per character.

Numba keeps compiled code by the state of this one file, so nothing compiled here may read a value from another:
tables come in as arguments, and the hash constants are written out again (the tests hold them to the definition).
"""

from collections.abc import Iterator
from typing import NamedTuple

import numpy as np
import pyarrow as pa
from numba import njit
from numpy.typing import NDArray

from pipeline.shingles import CLASSES, LOWER

_BREAK, _WORD = 0, 1
_FNV_BASIS, _FNV_PRIME = np.uint64(0xCBF29CE484222325), np.uint64(0x100000001B3)
_NGRAM_BASE = np.uint64(0x9E3779B97F4A7C15)
_MIX64_A, _MIX64_B, _SHIFT = np.uint64(0xFF51AFD7ED558CCD), np.uint64(0xC4CEB9FE1A85EC53), np.uint64(33)
_MIX32_A, _MIX32_B = np.uint32(0x85EBCA6B), np.uint32(0xC2B2AE35)
_BLOCK = 4096  # hashes permuted at a time: 16 KiB, half of a core's first-level cache
_LANES = 64  # blocks are filled up to a multiple of this, so that the vectorised loop has no remainder

BATCH_BYTES = 1 << 20
"""Texts are taken in runs of about this many bytes: buffers stay in the second-level cache."""


class Texts(NamedTuple):
    """Consecutive strings of an Arrow array: string i is `data[offsets[i]:offsets[i + 1]]`, UTF-8."""

    data: NDArray[np.uint8]
    offsets: NDArray[np.int64]


def text_batches(column: pa.ChunkedArray, batch_bytes: int = BATCH_BYTES) -> Iterator[Texts]:
    """The strings of `column` in order, uncopied, in batches of about `batch_bytes`; null is empty."""
    for chunk in column.chunks:
        if not len(chunk):
            continue
        filled = chunk.fill_null("") if chunk.null_count else chunk
        _, ends, content = filled.buffers()
        width = np.int64 if pa.types.is_large_string(filled.type) else np.int32
        offsets = np.frombuffer(ends, width)[filled.offset : filled.offset + len(filled) + 1].astype(np.int64)
        data = np.frombuffer(content, np.uint8) if content is not None else np.zeros(0, np.uint8)
        first = 0
        while first < len(filled):
            last = int(np.searchsorted(offsets, offsets[first] + batch_bytes, side="right")) - 1
            last = min(max(last, first + 1), len(filled))
            yield Texts(data, offsets[first : last + 1])
            first = last


@njit(cache=True, inline="always")
def _mix64(value):  # type: ignore[no-untyped-def]
    value = (value ^ (value >> _SHIFT)) * _MIX64_A
    value = (value ^ (value >> _SHIFT)) * _MIX64_B
    return value ^ (value >> _SHIFT)


@njit(cache=True)
def _scan(data, start, stop, classes, lower, normalised, at, hashes):  # type: ignore[no-untyped-def]
    """Write the normalised text to `normalised[at:]` and its words' hashes; return where it ends and how many."""
    first = at
    count = 0
    inside = False
    value = _FNV_BASIS
    i = start
    while i < stop:
        lead = data[i]
        if lead < 0x80:
            size = 1
            code = np.int64(lead)
        elif lead < 0xE0:
            size = 2
            code = (np.int64(lead) & 0x1F) << 6 | (np.int64(data[i + 1]) & 0x3F)
        elif lead < 0xF0:
            size = 3
            code = (np.int64(lead) & 0x0F) << 12 | (np.int64(data[i + 1]) & 0x3F) << 6 | (np.int64(data[i + 2]) & 0x3F)
        else:
            size = 4
            code = (np.int64(lead) & 0x07) << 18 | (np.int64(data[i + 1]) & 0x3F) << 12
            code |= (np.int64(data[i + 2]) & 0x3F) << 6 | (np.int64(data[i + 3]) & 0x3F)
        kind = classes[code]
        if kind != _WORD and inside:
            hashes[count] = _mix64(value)
            count += 1
            inside = False
        if kind != _BREAK:
            if not inside:
                value = _FNV_BASIS
                if at > first:
                    normalised[at] = 0x20
                    at += 1
                inside = True
            if size == 1:
                byte = np.uint8(lower[code])
                normalised[at] = byte
                value = (value ^ np.uint64(byte)) * _FNV_PRIME
            elif size == 2:
                code = np.int64(lower[code])
                byte = np.uint8(0xC0 | code >> 6)
                normalised[at] = byte
                value = (value ^ np.uint64(byte)) * _FNV_PRIME
                byte = np.uint8(0x80 | code & 0x3F)
                normalised[at + 1] = byte
                value = (value ^ np.uint64(byte)) * _FNV_PRIME
            else:
                for j in range(size):
                    byte = data[i + j]
                    normalised[at + j] = byte
                    value = (value ^ np.uint64(byte)) * _FNV_PRIME
            at += size
            if kind != _WORD:
                hashes[count] = _mix64(value)
                count += 1
                inside = False
        i += size
    if inside:
        hashes[count] = _mix64(value)
        count += 1
    return at, count


@njit(cache=True)
def _ngrams(hashes, count, n, grams):  # type: ignore[no-untyped-def]
    """Hash each run of `n` of the first `count` words into `grams` by a rolling polynomial; return how many."""
    if count == 0:
        return 0
    if count < n:
        n = count
    value = np.uint64(0)
    power = np.uint64(1)
    for i in range(n):
        value = value * _NGRAM_BASE + hashes[i]
        power = power * _NGRAM_BASE
    grams[0] = _mix64(value)
    for i in range(n, count):
        value = value * _NGRAM_BASE + hashes[i] - hashes[i - n] * power
        grams[i - n + 1] = _mix64(value)
    return count - n + 1


@njit(cache=True)
def _minimise(grams, count, a, b, mixed, signature):  # type: ignore[no-untyped-def]
    """Lower each value of `signature` to the least of a·h + b mod 2^32 over the pre-mixed low halves h of `grams`."""
    for first in range(0, count, _BLOCK):
        filled = min(_BLOCK, count - first)
        for i in range(filled):
            h = np.uint32(grams[first + i])
            h = np.uint32((h ^ (h >> np.uint32(16))) * _MIX32_A)
            h = np.uint32((h ^ (h >> np.uint32(13))) * _MIX32_B)
            mixed[i] = h ^ (h >> np.uint32(16))
        padded = (filled + _LANES - 1) // _LANES * _LANES
        for i in range(filled, padded):
            mixed[i] = mixed[0]  # a repeat changes no minimum
        for k in range(len(a)):
            factor, shift, least = a[k], b[k], signature[k]
            for i in range(padded):
                least = min(least, np.uint32(factor * mixed[i] + shift))
            signature[k] = least


@njit(cache=True)
def _scan_batch(data, offsets, classes, lower, normalised, ends):  # type: ignore[no-untyped-def]
    hashes = np.empty(_longest(offsets) // 2 + 1, np.uint64)
    at = 0
    for row in range(len(offsets) - 1):
        at, _ = _scan(data, offsets[row], offsets[row + 1], classes, lower, normalised, at, hashes)
        ends[row + 1] = at


@njit(cache=True)
def _longest(offsets):  # type: ignore[no-untyped-def]
    longest = 0
    for row in range(len(offsets) - 1):
        longest = max(longest, offsets[row + 1] - offsets[row])
    return longest


@njit(cache=True)
def _sign_batch(data, offsets, classes, lower, n, a, b, normalised, ends, counts, signatures):  # type: ignore[no-untyped-def]
    longest = _longest(offsets)
    hashes = np.empty(longest // 2 + 1, np.uint64)
    grams = np.empty(longest // 2 + 1, np.uint64)
    mixed = np.empty(_BLOCK, np.uint32)
    at = 0
    for row in range(len(offsets) - 1):
        at, count = _scan(data, offsets[row], offsets[row + 1], classes, lower, normalised, at, hashes)
        ends[row + 1] = at
        counts[row] = _ngrams(hashes, count, n, grams)
        _minimise(grams, counts[row], a, b, mixed, signatures[row])


@njit(cache=True)
def _hash_words_batch(data, offsets, classes, lower, hashes, ends):  # type: ignore[no-untyped-def]
    normalised = np.empty(_room(_longest(offsets)), np.uint8)
    for row in range(len(offsets) - 1):
        at = ends[row]
        _, count = _scan(data, offsets[row], offsets[row + 1], classes, lower, normalised, 0, hashes[at:])
        ends[row + 1] = at + count


@njit(cache=True)
def _ngrams_batch(hashes, word_ends, n, grams, ends):  # type: ignore[no-untyped-def]
    for row in range(len(word_ends) - 1):
        words = hashes[word_ends[row] : word_ends[row + 1]]
        ends[row + 1] = ends[row] + _ngrams(words, len(words), n, grams[ends[row] :])


@njit(cache=True)
def _shared(left, right):  # type: ignore[no-untyped-def]
    i = j = both = 0
    while i < len(left) and j < len(right):
        x, y = left[i], right[j]
        both += x == y
        i += x <= y
        j += y <= x
    return both


@njit(cache=True, inline="always")
def _room(size):  # type: ignore[no-untyped-def]
    """Bytes that the normalised text of `size` bytes fits into: a lone character takes 3 bytes and gains a space."""
    return size + size // 3 + 1


def _buffer(texts: Texts) -> NDArray[np.uint8]:
    size = int(texts.offsets[-1] - texts.offsets[0])
    return np.empty(size + size // 3 + len(texts.offsets), np.uint8)


def normalised_texts(texts: Texts) -> Texts:
    """The normalised text of each string."""
    normalised, ends = _buffer(texts), np.zeros(len(texts.offsets), np.int64)
    _scan_batch(texts.data, texts.offsets, CLASSES, LOWER, normalised, ends)
    return Texts(normalised, ends)


def sign(
    texts: Texts, n: int, a: NDArray[np.uint32], b: NDArray[np.uint32]
) -> tuple[Texts, NDArray[np.int32], NDArray[np.uint32]]:
    """Normalised texts, numbers of n-grams (int32[rows]) and MinHash signatures (uint32[rows, len(a)]) of strings.

    A signature is datasketch's `affine32` of the low 32 bits of the n-gram hashes; without n-grams it is all ones.
    """
    rows = len(texts.offsets) - 1
    normalised, ends = _buffer(texts), np.zeros(rows + 1, np.int64)
    counts = np.zeros(rows, np.int32)
    signatures = np.full((rows, len(a)), np.iinfo(np.uint32).max, np.uint32)
    _sign_batch(texts.data, texts.offsets, CLASSES, LOWER, n, a, b, normalised, ends, counts, signatures)
    return Texts(normalised, ends), counts, signatures


class Hashes(NamedTuple):
    """64-bit hashes of the words or n-grams of consecutive texts: text i has `values[ends[i]:ends[i + 1]]`."""

    values: NDArray[np.uint64]
    ends: NDArray[np.int64]


def word_hashes(texts: Texts) -> Hashes:
    """The hashes of the words of each string in order."""
    rows = len(texts.offsets) - 1
    values = np.empty(int(texts.offsets[-1] - texts.offsets[0]) // 2 + rows, np.uint64)
    ends = np.zeros(rows + 1, np.int64)
    _hash_words_batch(texts.data, texts.offsets, CLASSES, LOWER, values, ends)
    return Hashes(values[: ends[-1]], ends)


def ngrams(words: Hashes, n: int) -> Hashes:
    """The hashes of the runs of `n` words of each text; one of all words where there are fewer, none without words."""
    values, ends = np.empty_like(words.values), np.zeros_like(words.ends)
    _ngrams_batch(words.values, words.ends, n, values, ends)
    return Hashes(values[: ends[-1]], ends)


def ngram_set(text: NDArray[np.uint8], n: int) -> NDArray[np.uint64]:
    """The distinct hashes of the n-grams of one UTF-8 text, sorted."""
    return np.unique(ngrams(word_hashes(Texts(text, np.array([0, len(text)]))), n).values)


def jaccard(left: NDArray[np.uint64], right: NDArray[np.uint64]) -> float:
    """Jaccard similarity of two sets given as sorted arrays without repeats; 0 where both are empty."""
    both = int(_shared(left, right))
    either = len(left) + len(right) - both
    return both / either if either else 0.0
