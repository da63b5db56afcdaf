"""Special words that the marks tore apart, put together again."""

import numpy as np

from pipeline.kernels import Codes, Hashes, Kinds, kernel
from pipeline.words.lexicon import LEXICON_SOURCES, PIECES, TORN, emit_pieces, find, special
from pipeline.words.special import MAX_SPECIAL
from pipeline.words.tables import FNV_START, LETTER, ZERO, hash_end, hash_on

BLANK = ord(" ")
MENDING_SOURCES = (__file__, *LEXICON_SOURCES)
"""The files that these kernels are made of."""

compiled = kernel(*MENDING_SOURCES)


@compiled
def _torn(codes: Codes, i: int, n: int, known: Hashes, starts: Codes, ends: Codes) -> int:
    """Bit k is set where the k words from `i` on look like a torn special word, a single blank between them or none."""
    found = ZERO
    size = 0
    begins = 0
    value = FNV_START
    for j in range(i, n):
        gap = starts[j] - ends[j - 1] if j > i else 0
        if size + ends[j] - starts[j] > MAX_SPECIAL or gap > 1 or (gap == 1 and codes[ends[j - 1]] != BLANK):
            break
        begins |= 1 << size
        size += ends[j] - starts[j]
        value = hash_on(value, codes, int(starts[j]), int(ends[j]))
        if j > i:
            key = hash_end(value)
            place = find(known, key)
            if known[place] == key and np.int64(known[place + 1] >> np.uint64(TORN)) & PIECES == begins:
                found |= 1 << (j - i + 1)
    return found


@compiled
def mend(codes: Codes, kinds: Kinds, n: int, known: Hashes, starts: Codes, ends: Codes) -> int:
    """Put special words together again that the marks tore apart; returns the number of words.

    The longest come first, then the first. As in the tokenizer, two of them that overlap spoil the later one, even
    where the earlier is no special word after all, because a blank stands in it.
    """
    first = 0
    while first < n - 1:
        # None is torn between two letters: nearly all pairs of words are out at once.
        if not kinds[starts[first]] & kinds[starts[first + 1]] & LETTER and _torn(codes, first, n, known, starts, ends):
            break
        first += 1
    if first >= n - 1:
        return n
    found = np.zeros(n, np.int32)
    longest = 0
    for i in range(first, n - 1):
        if not kinds[starts[i]] & kinds[starts[i + 1]] & LETTER:
            found[i] = _torn(codes, i, n, known, starts, ends)
            while found[i] >> (longest + 1):
                longest += 1
    chosen = np.zeros(n, np.int32)
    seen = np.zeros(n, np.bool_)
    for count in range(longest, 1, -1):
        for i in range(first, n - count + 1):
            if found[i] >> count & 1:
                if not seen[i] and not seen[i + count - 1]:
                    chosen[i] = count
                seen[i : i + count] = True
    old_starts, old_ends = starts[:n].copy(), ends[:n].copy()
    i = mended = first
    while i < n:
        count = max(chosen[i], 1)
        a, b = int(old_starts[i]), int(old_ends[i + count - 1])
        pieces = special(codes, a, b, known) if chosen[i] else ZERO
        if pieces:
            mended = emit_pieces(pieces, a, b, starts, ends, mended)
        else:
            for j in range(i, i + count):
                starts[mended] = old_starts[j]
                ends[mended] = old_ends[j]
                mended += 1
        i += count
    return mended
