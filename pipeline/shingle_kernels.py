"""Compiled n-gram hashing over Arrow string buffers: what `pipeline/shingles.py` defines, without Python per character.

Numba keeps compiled code by the state of this one file, so nothing compiled here may read a value from another:
tables come in as arguments, and the hash constants are written out again (the tests hold them to the definition).
"""

from collections.abc import Iterator
from typing import NamedTuple

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from pipeline.kernels import njit
from pipeline.shingles import CLASSES, LOWER

_BREAK, _WORD = 0, 1
_FNV_BASIS, _FNV_PRIME = np.uint64(0xCBF29CE484222325), np.uint64(0x100000001B3)
_ONE = np.uint64(1)
_NGRAM_BASE = np.uint64(0x9E3779B97F4A7C15)
_MIX64_A, _MIX64_B, _SHIFT = np.uint64(0xFF51AFD7ED558CCD), np.uint64(0xC4CEB9FE1A85EC53), np.uint64(33)
_MIX32_A, _MIX32_B = np.uint32(0x85EBCA6B), np.uint32(0xC2B2AE35)
_BLOCK = 4096  # hashes permuted at a time: 16 KiB, half of a core's first-level cache
_LANES = 64  # blocks are filled up to a multiple of this, so that the vectorised loop has no remainder

PLAIN = np.where(CLASSES[:0x80] == _WORD, LOWER[:0x80], 0x20).astype(np.uint8)
"""uint8[0x80]: what each ASCII character becomes in normalised text: itself in lower case, or a space."""

BATCH_BYTES = 1 << 20
"""Texts are taken in runs of about this many bytes: buffers stay in the second-level cache."""


class Texts(NamedTuple):
    """Consecutive strings of an Arrow array: string i is `data[offsets[i]:offsets[i + 1]]`, UTF-8."""

    data: NDArray[np.uint8]
    offsets: NDArray[np.int64]


def texts_of(column: pa.ChunkedArray) -> Texts:
    """The strings of `column`, uncopied where it has one chunk; null is empty."""
    chunks = [chunk for chunk in column.chunks if len(chunk)]
    if len(chunks) == 1:
        return _texts(chunks[0])
    return _texts(pa.chunked_array(chunks, column.type).cast(pa.large_string()).combine_chunks())


def text_batches(column: pa.ChunkedArray, batch_bytes: int = BATCH_BYTES) -> Iterator[Texts]:
    """The strings of `column` in order, uncopied, in batches of about `batch_bytes`; null is empty."""
    for chunk in column.chunks:
        data, offsets = _texts(chunk)
        first = 0
        while first < len(chunk):
            last = int(np.searchsorted(offsets, offsets[first] + batch_bytes, side="right")) - 1
            last = min(max(last, first + 1), len(chunk))
            yield Texts(data, offsets[first : last + 1])
            first = last


def _texts(chunk: pa.Array) -> Texts:
    filled = chunk.fill_null("") if chunk.null_count else chunk
    _, ends, content = filled.buffers()
    width = np.int64 if pa.types.is_large_string(filled.type) else np.int32
    if ends is None or not len(filled):
        return Texts(np.zeros(0, np.uint8), np.zeros(1, np.int64))
    offsets = np.frombuffer(ends, width)[filled.offset : filled.offset + len(filled) + 1].astype(np.int64)
    return Texts(np.frombuffer(content, np.uint8) if content is not None else np.zeros(0, np.uint8), offsets)


@njit(cache=True, inline="always")
def _mix64(value):  # type: ignore[no-untyped-def]
    value = (value ^ (value >> _SHIFT)) * _MIX64_A
    value = (value ^ (value >> _SHIFT)) * _MIX64_B
    return value ^ (value >> _SHIFT)


@njit(cache=True, inline="always")
def text_room(size):  # type: ignore[no-untyped-def]
    """Bytes that the normalised text of `size` bytes fits into, and one: letters amid lone characters gain most."""
    return size + size // 2 + 2


@njit(cache=True, inline="always")
def word_room(size):  # type: ignore[no-untyped-def]
    """The most words in `size` bytes, and one."""
    return size // 2 + 2


@njit(cache=True)
def scan(data, start, stop, classes, lower, plain, normalised, at, hashes):  # type: ignore[no-untyped-def]
    """Write the normalised text to `normalised[at:]` and its words' hashes; return where it ends and how many.

    Where words end in ordinary text cannot be guessed, so ASCII goes without a branch: a hash and a byte are written
    whether they count or not. Both arrays have room for one more.
    """
    count = np.int64(0)
    inside = np.uint64(0)
    value = _FNV_BASIS
    i = start
    while i < stop:
        lead = data[i]
        if lead < 0x80:
            # Unsigned, for a negative index would count from the end, and be asked for at every byte.
            here, here_at, here_count = np.uint64(i), np.uint64(at), np.uint64(count)
            until = np.uint64(stop)
            while lead < 0x80:
                byte = plain[lead]
                parts = np.uint64(byte == 0x20)
                hashes[here_count] = value
                here_count += inside & parts
                normalised[here_at] = byte
                here_at += inside | (_ONE ^ parts)
                value = _FNV_BASIS if parts else (value ^ np.uint64(byte)) * _FNV_PRIME
                inside = _ONE ^ parts
                here += _ONE
                if here >= until:
                    break
                lead = data[here]
            i, at, count = np.int64(here), np.int64(here_at), np.int64(here_count)
            continue
        if lead < 0xE0:
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
            hashes[count], normalised[at] = value, 0x20
            count, at, value, inside = count + 1, at + 1, _FNV_BASIS, _ONE ^ _ONE
        if kind != _BREAK:
            if size == 2:
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
            inside = _ONE
            if kind != _WORD:
                hashes[count], normalised[at] = value, 0x20
                count, at, value, inside = count + 1, at + 1, _FNV_BASIS, _ONE ^ _ONE
        i += size
    if inside:
        hashes[count] = value
        count, at = count + 1, at + 1
    for word in range(count):
        hashes[word] = _mix64(hashes[word])
    return at - (count > 0), count  # less the space after the last word


@njit(cache=True)
def hash_ngrams(hashes, count, n, grams):  # type: ignore[no-untyped-def]
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


@njit(cache=True, nogil=True)
def _scan_batch(data, offsets, classes, lower, plain, normalised, ends):  # type: ignore[no-untyped-def]
    hashes = np.empty(word_room(_longest(offsets)), np.uint64)
    at = 0
    for row in range(len(offsets) - 1):
        at, _ = scan(data, offsets[row], offsets[row + 1], classes, lower, plain, normalised, at, hashes)
        ends[row + 1] = at


@njit(cache=True, nogil=True)
def _longest(offsets):  # type: ignore[no-untyped-def]
    longest = 0
    for row in range(len(offsets) - 1):
        longest = max(longest, offsets[row + 1] - offsets[row])
    return longest


@njit(cache=True, nogil=True)
def _sign_batch(data, offsets, classes, lower, plain, n, a, b, normalised, ends, counts, signatures):  # type: ignore[no-untyped-def]
    longest = _longest(offsets)
    hashes = np.empty(word_room(longest), np.uint64)
    grams = np.empty(word_room(longest), np.uint64)
    mixed = np.empty(_BLOCK, np.uint32)
    at = 0
    for row in range(len(offsets) - 1):
        at, count = scan(data, offsets[row], offsets[row + 1], classes, lower, plain, normalised, at, hashes)
        ends[row + 1] = at
        counts[row] = hash_ngrams(hashes, count, n, grams)
        _minimise(grams, counts[row], a, b, mixed, signatures[row])


@njit(cache=True, nogil=True)
def _hash_words_batch(data, offsets, classes, lower, plain, hashes, ends):  # type: ignore[no-untyped-def]
    normalised = np.empty(text_room(_longest(offsets)), np.uint8)
    for row in range(len(offsets) - 1):
        at = ends[row]
        _, count = scan(data, offsets[row], offsets[row + 1], classes, lower, plain, normalised, 0, hashes[at:])
        ends[row + 1] = at + count


@njit(cache=True, nogil=True)
def _ngrams_batch(hashes, word_ends, n, grams, ends):  # type: ignore[no-untyped-def]
    for row in range(len(word_ends) - 1):
        words = hashes[word_ends[row] : word_ends[row + 1]]
        ends[row + 1] = ends[row] + hash_ngrams(words, len(words), n, grams[ends[row] :])


def _buffer(texts: Texts) -> NDArray[np.uint8]:
    size = int(texts.offsets[-1] - texts.offsets[0])
    return np.empty(size + size // 2 + 2 * len(texts.offsets), np.uint8)


def normalised_texts(texts: Texts) -> Texts:
    """The normalised text of each string."""
    normalised, ends = _buffer(texts), np.zeros(len(texts.offsets), np.int64)
    _scan_batch(texts.data, texts.offsets, CLASSES, LOWER, PLAIN, normalised, ends)
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
    _sign_batch(texts.data, texts.offsets, CLASSES, LOWER, PLAIN, n, a, b, normalised, ends, counts, signatures)
    return Texts(normalised, ends), counts, signatures


class Hashes(NamedTuple):
    """64-bit hashes of the words or n-grams of consecutive texts: text i has `values[ends[i]:ends[i + 1]]`."""

    values: NDArray[np.uint64]
    ends: NDArray[np.int64]


def word_hashes(texts: Texts) -> Hashes:
    """The hashes of the words of each string in order."""
    rows = len(texts.offsets) - 1
    values = np.empty(int(texts.offsets[-1] - texts.offsets[0]) // 2 + rows + 1, np.uint64)
    ends = np.zeros(rows + 1, np.int64)
    _hash_words_batch(texts.data, texts.offsets, CLASSES, LOWER, PLAIN, values, ends)
    return Hashes(values[: ends[-1]], ends)


def ngrams(words: Hashes, n: int) -> Hashes:
    """The hashes of the runs of `n` words of each text; one of all words where there are fewer, none without words."""
    values, ends = np.empty_like(words.values), np.zeros_like(words.ends)
    _ngrams_batch(words.values, words.ends, n, values, ends)
    return Hashes(values[: ends[-1]], ends)
