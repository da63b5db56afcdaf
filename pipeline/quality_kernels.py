"""The quality rules over an Arrow text buffer: bytes in, a matrix of scores and C4's kept spans out.

Each family of rules is one kernel that sees a document as code points with the bits of `words.tables.kinds_table`, and
fills its part of the document's row; `pipeline.quality_reference` says the same in plain Python, and the tests
hold both to equal answers. 64-bit hashes stand for lines and n-grams: at a million of them in one document, the odds
that two different ones meet are 3 in 10^8.
"""

from typing import Any, cast

import numpy as np
from numpy.typing import NDArray

from pipeline import c4_kernels, quality_rules
from pipeline.c4_kernels import c4_rules, phrase_codes
from pipeline.kernels import Codes, Hashes, Kinds, kernel
from pipeline.quality_rules import (
    BULLETS,
    C4,
    CHARACTERS_OF_SHORT_LINE,
    GOPHER_QUALITY,
    GOPHER_REPETITION,
    REPEATED_N_GRAMS,
    SCORES,
    STOP_WORDS,
    TOP_N_GRAMS,
)
from pipeline.words.kernels import WORD_SOURCES, find_words, lexicon
from pipeline.words.tables import (
    LETTER,
    ONE,
    SPACE,
    SYMBOL,
    TERMINAL,
    TWO,
    ZERO,
    classify,
    decode,
    hash_codes,
    hash_string,
    kinds_table,
    line_end,
    next_line,
)

N_SCORES = len(SCORES)
C4_START = len(GOPHER_QUALITY) + len(GOPHER_REPETITION)
FINEWEB_START = C4_START + len(C4)
FIRST_TOP, LAST_TOP = TOP_N_GRAMS[0], TOP_N_GRAMS[-1]
FIRST_REPEATED, LAST_REPEATED = REPEATED_N_GRAMS[0], REPEATED_N_GRAMS[-1]
DASH, BULLET = (ord(mark) for mark in BULLETS)
NEWLINE, HASH, DOT, ELLIPSIS = map(ord, "\n#.…")

WHITE_SPACE = cast(int, np.int64(SPACE))

compiled = kernel(__file__, c4_kernels.__file__, *WORD_SOURCES, quality_rules.__file__)


def score(data: NDArray[np.uint8], offsets: NDArray[np.int64]) -> tuple[NDArray[np.float64], Codes, Codes]:
    """Scores [documents, len(SCORES)], kept spans [spans, 2] in bytes of their text, and spans a document.

    Document i is the UTF-8 text `data[offsets[i]:offsets[i + 1]]`.
    """
    phrases, bounds = phrase_codes()
    stop = np.array([hash_string(word) for word in STOP_WORDS], np.uint64)
    return score_documents(data, offsets, kinds_table(), lexicon(), stop, phrases, bounds)


@compiled
def _lookup(table: Hashes, mask: int, value: np.uint64) -> int:
    """The slot of `value` in an open-addressing table of 64-bit hashes: where it stands, or else where it belongs."""
    slot: Any = np.int64(value & np.uint64(mask))
    while table[slot] != 0 and table[slot] != value:
        slot = (slot + 1) & mask
    return slot


@compiled
def _clear(table: Hashes, entries: int) -> int:
    """Empty a table for at most `entries` values; returns its mask (slots - 1), slots being at least twice as many."""
    size = 16
    while size < 2 * entries:
        size *= 2
    table[:size] = 0
    return size - 1


@compiled
def _word_rules(
    codes: Codes, kinds: Kinds, length: int, starts: Codes, ends: Codes, n_words: int, stop: Hashes,
    scores: NDArray[np.float64],
) -> None:  # fmt: skip
    """Gopher's quality rules (Rae et al. 2021, A1.1), into `scores` in the order of `GOPHER_QUALITY`."""
    proper = characters = alphabetic = 0
    stop_seen = 0
    for w in range(n_words):
        symbol = True
        letter = False
        for i in range(starts[w], ends[w]):
            symbol = symbol and (kinds[i] & SYMBOL) != 0
            letter = letter or (kinds[i] & LETTER) != 0
        alphabetic += letter
        if not symbol:
            proper += 1
            characters += ends[w] - starts[w]
        if ends[w] - starts[w] <= 4:
            value = hash_codes(codes, int(starts[w]), int(ends[w]))
            for k in range(len(stop)):
                if stop[k] == value:
                    stop_seen |= 1 << k
    hashes = ellipses = run = 0
    for i in range(length):
        hashes += codes[i] == HASH
        ellipses += codes[i] == ELLIPSIS
        run = run + 1 if codes[i] == DOT else 0
        if run == 3:
            ellipses += 1
            run = 0
    lines = bullets = trailing = 0
    a = ZERO
    while a < length:
        end = line_end(kinds, a, length)
        b = end
        i = a
        while i < b and kinds[i] & SPACE:
            i += 1
        while b > i and kinds[b - 1] & SPACE:
            b -= 1
        lines += 1
        if i < b:
            bullets += codes[i] == BULLET or codes[i] == DASH
            trailing += codes[b - 1] == ELLIPSIS or (
                b - i >= 3 and codes[b - 1] == DOT and codes[b - 2] == DOT and codes[b - 3] == DOT
            )
        a = next_line(codes, end, length)
    distinct = 0
    while stop_seen:
        distinct += stop_seen & 1
        stop_seen >>= 1
    scores[0] = proper
    scores[1] = characters / max(proper, 1)
    scores[2] = hashes / max(n_words, 1)
    scores[3] = ellipses / max(n_words, 1)
    scores[4] = bullets / max(lines, 1)
    scores[5] = trailing / max(lines, 1)
    scores[6] = alphabetic / max(n_words, 1)
    scores[7] = distinct


@compiled
def _repeated_pieces(
    codes: Codes, kinds: Kinds, start: int, end: int, breaks: int, ignored: int, table: Hashes
) -> tuple[int, int, int]:
    """Pieces of `codes[start:end]` between runs of at least `breaks` newlines: all, repeated, characters repeated.

    With `breaks` 0 every single newline separates. Pieces of nothing but characters of the kinds `ignored` (SPACE)
    do not count.
    """
    count = 1
    for i in range(start, end):
        count += codes[i] == NEWLINE
    mask = _clear(table, count)
    pieces = repeated = characters = 0
    a = start
    while a <= end:
        b = a
        after = end + 1
        while b < end:
            if codes[b] == NEWLINE:
                run = 1
                while breaks and b + run < end and codes[b + run] == NEWLINE:
                    run += 1
                if run >= breaks:
                    after = b + run
                    break
                b += run
            else:
                b += 1
        blank = ignored != 0
        for i in range(a, b):
            if not blank:
                break
            blank = (kinds[i] & ignored) != 0
        if not blank:
            pieces += 1
            value = max(hash_codes(codes, a, b), np.uint64(1))
            slot = _lookup(table, mask, value)
            if table[slot] == value:
                repeated += 1
                characters += b - a
            table[slot] = value
        a = after
    return pieces, repeated, characters


@compiled
def _n_gram_rules(
    codes: Codes, length: int, starts: Codes, ends: Codes, n_words: int, grams: Hashes, word_hashes: Hashes,
    table: Hashes, counts: Codes, scores: NDArray[np.float64],
) -> None:  # fmt: skip
    """Gopher's n-gram rules: characters of the most frequent 2- to 4-gram, and of repeated 5- to 10-grams."""
    total = max(length, 1)
    for w in range(n_words):
        word_hashes[w] = hash_codes(codes, int(starts[w]), int(ends[w]))
        grams[w] = word_hashes[w]
    for n in range(2, LAST_REPEATED + 1):
        n_grams = n_words - n + 1
        if n_grams <= 0:
            return
        for w in range(n_grams):
            value = grams[w] * np.uint64(0x9E3779B97F4A7C15) + word_hashes[w + n - 1]
            value *= np.uint64(0xD6E8FEB86659FD93)
            grams[w] = max(value ^ (value >> np.uint64(32)), np.uint64(1))
        mask = _clear(table, n_grams)
        if n <= LAST_TOP:
            counts[: mask + 1] = 0
            most = 0
            for w in range(n_grams):
                slot = _lookup(table, mask, grams[w])
                table[slot] = grams[w]
                counts[slot] += 1
                most = max(most, counts[slot])
            for w in range(n_grams):
                if counts[_lookup(table, mask, grams[w])] == most:
                    characters = n - 1
                    for i in range(w, w + n):
                        characters += ends[i] - starts[i]
                    scores[n - FIRST_TOP] = characters * most / total
                    break
        else:
            repeated = 0
            w = 0
            while w < n_grams:
                slot = _lookup(table, mask, grams[w])
                if table[slot] == grams[w]:
                    for i in range(w, w + n):
                        repeated += ends[i] - starts[i]
                    w += n
                else:
                    table[slot] = grams[w]
                    w += 1
            scores[LAST_TOP - FIRST_TOP + 1 + n - FIRST_REPEATED] = repeated / total


@compiled
def _fineweb_rules(
    codes: Codes, kinds: Kinds, length: int, n_words: int, table: Hashes, scores: NDArray[np.float64]
) -> None:
    """FineWeb's own rules (Penedo et al. 2024), into `scores` in the order of `FINEWEB`."""
    lines = ended = short = newlines = 0
    a = 0
    while a <= length:
        b = a
        blank = True
        while b < length and codes[b] != NEWLINE:
            blank = blank and (kinds[b] & SPACE) != 0
            b += 1
        newlines += b < length
        if not blank:
            lines += 1
            ended += (kinds[b - 1] & TERMINAL) != 0
            short += b - a <= CHARACTERS_OF_SHORT_LINE
        a = b + 1
    characters = _repeated_pieces(codes, kinds, ZERO, length, ZERO, WHITE_SPACE, table)[2]
    scores[0] = ended / max(lines, 1)
    scores[1] = short / max(lines, 1)
    scores[2] = characters / max(length - newlines, 1)
    scores[3] = newlines / max(n_words, 1)


@compiled
def score_documents(
    data: NDArray[np.uint8], offsets: NDArray[np.int64], table: Kinds, known: Hashes, stop: Hashes, phrases: Codes,
    bounds: Codes,
) -> tuple[NDArray[np.float64], Codes, Codes]:  # fmt: skip
    """See `score`; the other arrays are the constants that it prepares."""
    n_documents = len(offsets) - 1
    longest = 1
    for d in range(n_documents):
        longest = max(longest, offsets[d + 1] - offsets[d])
    slots = 32
    while slots < 2 * (longest + 2):
        slots *= 2
    codes = np.empty(longest + 1, np.int32)
    kinds = np.empty(longest + 1, np.uint32)
    places = np.empty(longest + 2, np.int32)
    starts = np.empty(longest + 1, np.int32)
    ends = np.empty(longest + 1, np.int32)
    line = (
        np.empty(longest + 1, np.int32), np.empty(longest + 1, np.uint32), np.empty(longest + 1, np.int32),
        np.empty(longest + 1, np.int32), np.empty(longest + 1, np.int32),
    )  # fmt: skip
    grams = np.empty(longest + 1, np.uint64)
    word_hashes = np.empty(longest + 1, np.uint64)
    hashes = np.empty(slots, np.uint64)
    counts = np.empty(slots, np.int32)
    scores = np.zeros((n_documents, N_SCORES), np.float64)
    # A kept line has at least five bytes and gives at most a span for itself, one for its break and one more for each
    # citation, of two bytes or more. Pages that are never written cost no memory.
    spans = np.empty((offsets[-1] - offsets[0] + 2 * n_documents + 2, 2), np.int32)
    span_counts = np.zeros(n_documents, np.int32)
    n_spans = ZERO
    for d in range(n_documents):
        row = scores[d]
        length = decode(data, offsets[d], offsets[d + 1], codes, places)
        classify(codes, length, table, kinds)
        n_words = find_words(codes, kinds, length, known, starts, ends)
        _word_rules(codes, kinds, length, starts, ends, n_words, stop, row)
        repetition = row[len(GOPHER_QUALITY) : C4_START]
        total = max(length, 1)
        pieces, repeated, characters = _repeated_pieces(codes, kinds, ZERO, length, ONE, ZERO, hashes)
        repetition[0] = repeated / pieces
        repetition[1] = characters / total
        a, b = 0, length
        while a < b and kinds[a] & SPACE:
            a += 1
        while b > a and kinds[b - 1] & SPACE:
            b -= 1
        pieces, repeated, characters = _repeated_pieces(codes, kinds, a, b, TWO, ZERO, hashes)
        repetition[2] = repeated / pieces
        repetition[3] = characters / total
        _n_gram_rules(codes, length, starts, ends, n_words, grams, word_hashes, hashes, counts, repetition[4:])
        _fineweb_rules(codes, kinds, length, n_words, hashes, row[FINEWEB_START:])
        before = n_spans
        n_spans = c4_rules(
            codes, kinds, places, length, starts, ends, n_words, table, known, phrases, bounds, line, spans, n_spans,
            row[C4_START:FINEWEB_START],
        )  # fmt: skip
        span_counts[d] = n_spans - before
    return scores, spans[:n_spans].copy(), span_counts
