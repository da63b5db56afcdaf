"""The lexicon of special words and units as a hash table, and how kernels ask it."""

from typing import Any

import numpy as np

from pipeline.kernels import Codes, Hashes, kernel
from pipeline.words import special as special_words
from pipeline.words import tables
from pipeline.words.special import MAX_SPECIAL
from pipeline.words.tables import ZERO, hash_codes

LEXICON_SOURCES = (__file__, str(special_words.__file__), str(tables.__file__))
"""The files that these kernels are made of."""

compiled = kernel(*LEXICON_SOURCES)

PIECES, TORN, UNIT = 0xFFFF, 16, 1 << 32
"""What a value of the lexicon says of its key, as bits: where its words begin, the same 16 bits further for what the
marks alone would make of it (0 where that is one word), and whether it comes off behind a digit."""


@compiled
def find(table: Hashes, key: np.uint64) -> int:
    """The place of `key` in the lexicon: where it stands, or else where it belongs."""
    mask = len(table) - 1
    place: Any = np.int64(key << np.uint64(1) & np.uint64(mask))
    while table[place] != 0 and table[place] != key:
        place = (place + 2) & mask
    return place


@compiled
def special(codes: Codes, a: int, b: int, known: Hashes) -> int:
    """Where the words of the special word `codes[a:b]` begin, as bits; 0 where it is none."""
    if b - a > MAX_SPECIAL or a >= b:
        return ZERO
    key = hash_codes(codes, a, b)
    place = find(known, key)
    pieces: Any = np.int64(known[place + 1] & np.uint64(PIECES))
    return pieces if known[place] == key else ZERO


@compiled
def emit_pieces(pieces: int, a: int, b: int, starts: Codes, ends: Codes, n: int) -> int:
    """Append the words of the special word from `a` to `b`; returns the number of words."""
    starts[n] = a
    for i in range(a + 1, b):
        if pieces >> (i - a) & 1:
            ends[n] = i
            n += 1
            starts[n] = i
    ends[n] = b
    return n + 1
