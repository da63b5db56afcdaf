"""Words as the published cut-offs count them: the tokens of spaCy's English tokenizer, from code points, as kernels.

White space separates chunks. From each chunk come off, from both ends at once, the marks before it and behind it; what
is left splits at marks that stand between letters or digits: `well-known` is three words, `3.14` is one. Addresses
stay whole, special words come in pieces of their own, and so do special words that the marks tore apart.
`pipeline.words.reference` says the same with regular expressions.
"""

from functools import cache

import numpy as np

from pipeline.kernels import Codes, Hashes, Kinds, kernel
from pipeline.words import addresses
from pipeline.words import special as special_words
from pipeline.words.addresses import is_address
from pipeline.words.lexicon import TORN, UNIT, emit_pieces, find, special
from pipeline.words.mending import MENDING_SOURCES, mend
from pipeline.words.special import CURRENCIES, MAX_UNIT, UNITS
from pipeline.words.tables import (
    ALPHA,
    ASCII_DIGIT,
    CLOSING,
    FIRST,
    ICON,
    LETTER,
    LOWER,
    MARK,
    QUOTE,
    SPACE,
    UPPER,
    ZERO,
    classify,
    hash_codes,
    hash_string,
    kinds_table,
)

DOT, PLUS, MINUS, STAR, CARET, COMMA, PERCENT, COLON, SLASH, LESS, MORE, EQUALS, TILDE = map(ord, ".+-*^,%:/<>=~")
EN_DASH, EM_DASH, ELLIPSIS, SQUARED, APOSTROPHE, CURLY, DEGREE, DOLLAR = map(ord, "–—…²'’°$")
LETTER_C, LETTER_F, LETTER_K, LETTER_S = map(ord, "cfks")
CAPITAL_A, CAPITAL_C, CAPITAL_S, CAPITAL_U = map(ord, "ACSU")
CASE = 32
"""The bit that sets a capital ASCII letter in lower case."""

WORD_SOURCES = (__file__, str(addresses.__file__), *MENDING_SOURCES)
"""The files that `find_words` is made of."""

compiled = kernel(*WORD_SOURCES)


@cache
def lexicon() -> Hashes:
    """The special words and the units: an open-addressing table with hashes at even places, their values behind."""
    special, units = special_words.special_words(), [*UNITS.split(), *CURRENCIES.split()]
    slots = 1 << (4 * (len(special) + len(units))).bit_length()
    table, marks_alone = np.zeros(2 * slots, np.uint64), np.zeros(2 * slots, np.uint64)
    for unit in units:
        for known in (table, marks_alone):
            _value(known, unit)[:] |= np.uint64(UNIT)
    for word, parts in special.items():
        codes = np.array([*map(ord, word)], np.int32)
        kinds = np.zeros(len(codes), np.uint32)
        classify(codes, len(codes), kinds_table(), kinds)
        starts, ends = np.zeros(len(codes), np.int32), np.zeros(len(codes), np.int32)
        count = _split_chunk(codes, kinds, 0, len(codes), marks_alone, starts, ends, 0)
        pieces = sum(1 << len("".join(parts[:number])) for number in range(len(parts)))
        torn = sum(1 << int(start) for start in starts[:count])
        # One that mends to what it was matters only where it keeps a shorter one from mending.
        matters = count > 2 or (count > 1 and torn != pieces)
        _value(table, word)[:] |= np.uint64(pieces | matters * torn << TORN)
    return table


def _value(table: Hashes, member: str) -> Hashes:
    """The place of a value in `table`, its key having been set."""
    value = np.uint64(hash_string(member))
    slot = int(find(table, value))
    table[slot] = value
    return table[slot + 1 : slot + 2]


@compiled
def _run(codes: Codes, start: int, end: int) -> int:
    """How many times in a row the character at `start` stands there."""
    i = start
    while i < end and codes[i] == codes[start]:
        i += 1
    return i - start


@compiled
def _prefix(codes: Codes, kinds: Kinds, a: int, b: int) -> int:
    """Characters of the word that comes off the front of `codes[a:b]`, 0 where none does."""
    if kinds[a] & FIRST:
        return 1
    if codes[a] == PLUS:
        return 0 if a + 1 < b and kinds[a + 1] & ASCII_DIGIT else 1
    if codes[a] == DOT:
        run = _run(codes, a, b)
        return run if run >= 2 else 0
    if codes[a] in (CAPITAL_A, CAPITAL_C) and a + 1 < b and codes[a + 1] == DOLLAR:
        return 2
    if codes[a] == CAPITAL_U and a + 2 < b and codes[a + 1] == CAPITAL_S and codes[a + 2] == DOLLAR:
        return 3
    return 0


@compiled
def _unit(codes: Codes, kinds: Kinds, a: int, b: int, known: Hashes) -> int:
    """Characters behind the last digit of `codes[a:b]` where they are a unit or a currency, else 0."""
    i = b
    while i > a and b - i <= MAX_UNIT and not kinds[i - 1] & ASCII_DIGIT:
        i -= 1
    if i in (a, b) or b - i > MAX_UNIT:
        return 0
    return b - i if known[find(known, hash_codes(codes, i, b)) + 1] & np.uint64(UNIT) else 0


@compiled
def _suffix(codes: Codes, kinds: Kinds, a: int, b: int, known: Hashes) -> int:
    """Characters of the longest word that comes off the back of `codes[a:b]`, 0 where none does."""
    if a >= b:
        return 0
    last = b - 1
    unit = _unit(codes, kinds, a, b, known)
    if unit > 1:
        return unit
    c = codes[last]
    before = kinds[last - 1] if last > a else 0
    if c | CASE == LETTER_S and last > a and codes[last - 1] in (APOSTROPHE, CURLY):
        return 2
    if c == ELLIPSIS and last > a and codes[last - 1] == ELLIPSIS:
        return 2
    if unit or kinds[last] & MARK:
        return 1
    if c == DOT and last > a:
        run = 1
        while last - run >= a and codes[last - run] == DOT:
            run += 1
        if run >= 2:
            return run
        c = codes[last - 1]
        if before & (ASCII_DIGIT | LOWER | CLOSING) or c in (PERCENT, SQUARED, MINUS, PLUS):
            return 1
        if last - 2 >= a:
            if before & UPPER and kinds[last - 2] & UPPER:
                return 1
            if codes[last - 2] == DEGREE and (c | CASE in (LETTER_F, LETTER_C, LETTER_K)):
                return 1
    return 0


@compiled
def _infix(codes: Codes, kinds: Kinds, a: int, b: int, i: int) -> int:
    """Characters of the mark at `i` that splits `codes[a:b]`, 0 where none does."""
    c = codes[i]
    before = kinds[i - 1] if i > a else 0
    after = kinds[i + 1] if i + 1 < b else 0
    if c == DOT:
        run = _run(codes, i, b)
        if run >= 2:
            return run
        return 1 if before & (LOWER | QUOTE) and after & (UPPER | QUOTE) else 0
    if c == ELLIPSIS or kinds[i] & ICON:
        return 1
    operator = c in (PLUS, MINUS, STAR, CARET)
    if operator and before & ASCII_DIGIT and (after & ASCII_DIGIT or (i + 1 < b and codes[i + 1] == MINUS)):
        return 1
    if c == COMMA:
        return 1 if before & ALPHA and after & ALPHA else 0
    if before & (ALPHA | ASCII_DIGIT):
        if c in (MINUS, EN_DASH, EM_DASH, TILDE):
            if after & ALPHA:
                return 1
            run = 1
            while run < 4 and i + run < b and codes[i + run] == c:
                run += 1
            longest = 3 if c == MINUS else 2 if c == EM_DASH else 1
            return run if run <= longest and i + run < b and kinds[i + run] & ALPHA else 0
        if after & ALPHA and (c in (COLON, LESS, MORE, EQUALS, SLASH)):
            return 1
    return 0


@compiled
def _split_middle(codes: Codes, kinds: Kinds, a: int, b: int, known: Hashes, starts: Codes, ends: Codes, n: int) -> int:
    """Append the words of `codes[a:b]`, from which no mark comes off any more; returns the number of words."""
    pieces = special(codes, a, b, known)
    if pieces:
        return emit_pieces(pieces, a, b, starts, ends, n)
    if not is_address(codes, kinds, a, b):
        # The mark may look back to the middle's first character, beyond the word before it.
        i = start = a
        while i < b:
            size = _infix(codes, kinds, a, b, i)
            if size and i > a:
                if i > start:
                    starts[n] = start
                    ends[n] = i
                    n += 1
                starts[n] = i
                ends[n] = i + size
                n += 1
                start = i + size
            i += max(size, 1)
        a = start
    if a < b:
        starts[n] = a
        ends[n] = b
        n += 1
    return n


@compiled
def _split_chunk(
    codes: Codes, kinds: Kinds, a: int, b: int, known: Hashes, starts: Codes, ends: Codes, n: int
) -> int:  # fmt: skip
    """Append the words of the chunk `codes[a:b]`, which holds no white space; returns the number of words."""
    # Words from the back are kept at the far end of the arrays: no more words than characters can stand before them.
    first = last = b
    while a < b and not special(codes, a, b, known):
        prefix = _prefix(codes, kinds, a, b)
        uncovered = prefix > 0 and special(codes, a + prefix, b, known) != 0
        suffix = 0 if uncovered else _suffix(codes, kinds, a + prefix, b, known)
        # A special word may begin with the very mark that would come off.
        whole = suffix > 0 and special(codes, a, b - suffix, known) != 0
        if prefix and not whole:
            starts[n] = a
            ends[n] = a + prefix
            n += 1
            a += prefix
        if suffix:
            first -= 1
            ends[first] = b
            b -= suffix
            starts[first] = b
        if uncovered or whole or not (prefix or suffix):
            break
    n = _split_middle(codes, kinds, a, b, known, starts, ends, n)
    for i in range(first, last):
        starts[n] = starts[i]
        ends[n] = ends[i]
        n += 1
    return n


@compiled
def _ends_word(codes: Codes, kinds: Kinds, last: int) -> bool:
    """Whether the mark at `last`, behind letters alone, is a word of its own: a comma, say. `_suffix` knows more."""
    return (kinds[last] & MARK) != 0 or (codes[last] == DOT and (kinds[last - 1] & LOWER) != 0)


@compiled
def find_words(codes: Codes, kinds: Kinds, length: int, known: Hashes, starts: Codes, ends: Codes) -> int:
    """Write where each word of `codes[:length]` starts and ends, in order; returns how many words there are."""
    n = 0
    position = ZERO
    while position < length:
        if kinds[position] & SPACE:
            position += 1
            continue
        a = position
        letters = before = True
        while position < length and not kinds[position] & SPACE:
            before = letters
            letters = letters and (kinds[position] & LETTER) != 0
            position += 1
        last = position - 1
        pieces = special(codes, a, position, known)
        if pieces:
            n = emit_pieces(pieces, a, position, starts, ends, n)
        elif letters or a == last:  # most chunks: nothing in them can come off or split them
            starts[n] = a
            ends[n] = position
            n += 1
        elif before and a < last and _ends_word(codes, kinds, last) and not special(codes, a, last, known):
            starts[n] = a
            ends[n] = starts[n + 1] = last
            ends[n + 1] = position
            n += 2
        else:
            n = _split_chunk(codes, kinds, a, position, known, starts, ends, n)
    return mend(codes, kinds, n, known, starts, ends)
