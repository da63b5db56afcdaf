"""Markup's tags, and which elements are furniture, compiled: what `block_reference` finds with regular expressions.

Works on UTF-8 bytes. A word or a tag is told by the FNV-1a hash of its letters: one in 2^64 is taken for another.
"""

from typing import Any

import numpy as np
from numpy.typing import NDArray

from pipeline.extraction import furniture
from pipeline.extraction.blocks import BLOCK_TAGS
from pipeline.extraction.furniture import (
    COMMENT_WORDS,
    CONTENT_FURNITURE_SHARE,
    CONTENT_WORDS,
    FURNITURE_SHARE,
    FURNITURE_TAGS,
    FURNITURE_WORDS,
    MAX_SPARED,
    NEVER_FURNITURE,
)
from pipeline.extraction.text_kernels import (
    BLANK,
    EQUALS,
    GREATER,
    LESS,
    QUOTE,
    SLASH,
    TEXT_SOURCES,
    Bytes,
    holds,
    space_at,
)
from pipeline.kernels import kernel

Tokens = NDArray[np.int32]
"""A row a token: a tag and the text behind it; see the columns below. The first stands for the start of the page."""

KIND, CLOSES, NAMES, NAMES_END, TEXT, TEXT_END = range(6)
"""A token's columns: its tag by place in BLOCK_TAGS, whether it is an end tag, the bytes of its attributes, and of the
text up to the next token."""
COLUMNS = 6

LINE_BREAK, LINK = 0, 1
"""Places of `br` and `a` in BLOCK_TAGS."""

CAPITAL_A, CAPITAL_Z, LETTER_A, LETTER_Z = map(ord, "AZaz")
CASE = 32

FURNITURE_WORD, COMMENT_WORD, CONTENT_WORD = 1, 2, 4
NAMES_READ = (b' class="', b' id="', b' role="', b' itemprop="')

SEED, PRIME, MASK = 0xCBF29CE484222325, 0x100000001B3, 0xFFFFFFFFFFFFFFFF
"""Of FNV-1a (Fowler, Noll, Vo) in 64 bits."""

MARKUP_SOURCES = (__file__, *TEXT_SOURCES, furniture.__file__)
compiled = kernel(*MARKUP_SOURCES)


def _table(meanings: dict[str, int]) -> tuple[NDArray[np.uint64], NDArray[np.int32]]:
    """Hashes and meanings of words in an open-addressing table with room to spare."""
    slots = 4 << len(meanings).bit_length()
    keys, values = np.zeros(slots, np.uint64), np.full(slots, -1, np.int32)
    for word, meaning in meanings.items():
        key = SEED
        for byte in word.encode():
            key = (key ^ byte) * PRIME & MASK
        slot = key % slots
        while values[slot] >= 0:
            slot = (slot + 1) % slots
        keys[slot], values[slot] = key, meaning
    return keys, values


TAG_KEYS, TAG_VALUES = _table({tag: place for place, tag in enumerate(BLOCK_TAGS)})
WORD_KEYS, WORD_VALUES = _table(
    {
        word: FURNITURE_WORD * (word in FURNITURE_WORDS)
        | COMMENT_WORD * (word in COMMENT_WORDS)
        | CONTENT_WORD * (word in CONTENT_WORDS)
        for word in FURNITURE_WORDS | COMMENT_WORDS | CONTENT_WORDS
    }
)
IS_FURNITURE = np.array([tag in FURNITURE_TAGS for tag in BLOCK_TAGS])
IS_NEVER_FURNITURE = np.array([tag in NEVER_FURNITURE for tag in BLOCK_TAGS])
NAMES_BYTES = np.frombuffer(b"".join(NAMES_READ), np.uint8)
NAMES_BOUNDS = np.cumsum([0, *map(len, NAMES_READ)])
HIDDEN, TRUE_END, HIDDEN_END, DISPLAY, NONE, TEASER = (
    np.frombuffer(text, np.uint8)
    for text in (b'hidden="', b'true"', b'hidden"', b"display:", b"none", furniture.TEASER.encode())
)


@compiled
def looked_up(key: Any, keys: NDArray[np.uint64], values: NDArray[np.int32]) -> int:
    """What the table says of a hash, -1 where it has none such."""
    mask = np.uint64(len(keys) - 1)
    slot = key & mask
    while values[slot] >= 0:
        if keys[slot] == key:
            return values[slot]
        slot = (slot + np.uint64(1)) & mask
    return -1


@compiled
def attributes_end(data: Bytes, i: int, end: int) -> int:
    """Where the attributes end that begin at `i`, each ` name="value"`; a name may begin with an equals sign."""
    while i < end and data[i] == BLANK:
        name = i + 1
        equals = name
        if equals < end and data[equals] == EQUALS:
            equals += 1
        while equals < end and data[equals] != BLANK and data[equals] != EQUALS:
            equals += 1
        if equals + 1 >= end or data[equals] != EQUALS or data[equals + 1] != QUOTE:
            equals = name  # no name at all
            if equals + 1 >= end or data[equals] != EQUALS or data[equals + 1] != QUOTE:
                return i
        closing = equals + 2
        while closing < end and data[closing] != QUOTE:
            closing += 1
        if closing >= end:
            return i
        i = closing + 1
    return i


@compiled
def tokens_of(data: Bytes) -> Tokens:
    """Markup as tokens; tags that are no BLOCK_TAGS are left in the text."""
    most = 2
    for byte in data:
        most += byte == LESS
    tokens = np.zeros((most, COLUMNS), np.int32)
    count, i, end = 1, 0, len(data)
    while i < end:
        if data[i] != LESS:
            i += 1
            continue
        name = i + 1
        closes = name < end and data[name] == SLASH
        name += closes
        key = np.uint64(SEED)
        place = name
        while place < end and (LETTER_A <= data[place] <= LETTER_Z or 49 <= data[place] <= 54):  # 1 to 6, of headings
            key = (key ^ np.uint64(data[place])) * np.uint64(PRIME)
            place += 1
        kind = -1
        if place < end and (data[place] == BLANK or data[place] == GREATER):
            kind = looked_up(key, TAG_KEYS, TAG_VALUES)
        if kind < 0:
            i = name
            continue
        after = attributes_end(data, place, end)
        if after >= end or data[after] != GREATER:
            i = name
            continue
        tokens[count - 1, TEXT_END] = i
        tokens[count, KIND], tokens[count, CLOSES] = kind, closes
        tokens[count, NAMES], tokens[count, NAMES_END] = place, after
        i = after + 1
        tokens[count, TEXT] = i
        count += 1
    tokens[count - 1, TEXT_END] = end
    tokens[count] = end
    tokens[count, KIND] = LINE_BREAK
    tokens[count, CLOSES] = 0
    return tokens[: count + 1]


@compiled
def _words(data: Bytes, i: int, end: int) -> int:
    """What the words of a name say together, `camelCase` taken apart."""
    found = 0
    while i < end:
        start = i
        while i < end and CAPITAL_A <= data[i] <= CAPITAL_Z:
            i += 1
        if i < end and LETTER_A <= data[i] <= LETTER_Z:
            if i - start > 1:
                i -= 1  # the last capital begins the next word
            else:
                while i < end and LETTER_A <= data[i] <= LETTER_Z:
                    i += 1
        if i == start:
            i += 1
            continue
        key = np.uint64(SEED)
        for k in range(start, i):
            key = (key ^ np.uint64(data[k] | CASE)) * np.uint64(PRIME)
        found |= max(0, looked_up(key, WORD_KEYS, WORD_VALUES))
    return found


@compiled
def _share(data: Bytes, i: int, end: int, comments: bool) -> float:
    """The share of a page's text that a box of these attributes may have and still be furniture."""
    found, hidden = 0, False
    start = i
    while i < end:
        closing = -1
        if data[i] == BLANK:
            for name in range(len(NAMES_BOUNDS) - 1):
                if holds(data, i, end, NAMES_BYTES[NAMES_BOUNDS[name] : NAMES_BOUNDS[name + 1]]):
                    value = i + NAMES_BOUNDS[name + 1] - NAMES_BOUNDS[name]
                    closing = value
                    while closing < end and data[closing] != QUOTE:
                        closing += 1
                    if closing < end:
                        found |= _words(data, value, closing)
                    else:
                        closing = i
                    break
        i = max(i, closing) + 1
    if found & FURNITURE_WORD or (found & COMMENT_WORD and not comments):
        return CONTENT_FURNITURE_SHARE if found & CONTENT_WORD else FURNITURE_SHARE
    for k in range(start, end):
        if data[k] == HIDDEN[0] and holds(data, k, end, HIDDEN):
            value = k + len(HIDDEN)
            hidden |= (
                (value < end and data[value] == QUOTE)
                or holds(data, value, end, TRUE_END)
                or holds(data, value, end, HIDDEN_END)
            )
        elif data[k] == DISPLAY[0] and holds(data, k, end, DISPLAY):
            value = k + len(DISPLAY)
            while value < end and space_at(data, value, end):
                value += space_at(data, value, end)
            hidden |= holds(data, value, end, NONE)
    return FURNITURE_SHARE if hidden else 0.0


@compiled
def _ends(tokens: Tokens) -> Tokens:
    """The token that ends the element of each; itself where none does."""
    ends = np.arange(len(tokens)).astype(np.int32)
    before = np.full(len(tokens), -1, np.int32)
    last_open = np.full(len(IS_FURNITURE), -1, np.int32)
    for t in range(1, len(tokens) - 1):
        kind = tokens[t, KIND]
        if not tokens[t, CLOSES]:
            before[t] = last_open[kind]
            last_open[kind] = t
        elif last_open[kind] >= 0:
            ends[last_open[kind]] = t
            last_open[kind] = before[last_open[kind]]
    return ends


@compiled
def _leads_on(data: Bytes, tokens: Tokens, token: int, end: int) -> bool:
    """It is no teaser, or has a link."""
    for k in range(tokens[token, NAMES], tokens[token, NAMES_END]):
        if holds(data, k, tokens[token, NAMES_END], TEASER):
            for t in range(token, end):  # noqa: SIM110
                if tokens[t, KIND] == LINK and not tokens[t, CLOSES]:
                    return True
            return False
    return True


@compiled
def without_furniture(data: Bytes, tokens: Tokens, comments: bool) -> Tokens:
    """The tokens less those of elements whose tag or name says that they are not content; a line break stands there."""
    characters = np.zeros(len(tokens) + 1, np.int64)
    for t in range(len(tokens)):
        count = 0
        for i in range(tokens[t, TEXT], tokens[t, TEXT_END]):
            count += data[i] & 0xC0 != 0x80
        characters[t + 1] = characters[t] + (count if t else 0)
    ends = _ends(tokens)
    kept = np.empty_like(tokens)
    count = spared = t = 0
    while t < len(tokens):
        kept[count] = tokens[t]
        kind, closes, names, names_end = tokens[t, KIND], tokens[t, CLOSES], tokens[t, NAMES], tokens[t, NAMES_END]
        by_tag = IS_FURNITURE[kind] and not closes
        if (by_tag or names < names_end) and (closes or not IS_NEVER_FURNITURE[kind]) and spared <= MAX_SPARED:
            share = FURNITURE_SHARE if by_tag else _share(data, names, names_end, comments)
            if share > 0:
                end = ends[t]
                within = characters[end] - characters[t]
                if within > share * characters[-1] or not _leads_on(data, tokens, t, end):
                    spared += 1
                else:
                    t = end
                    kept[count] = tokens[end]
                    kept[count, KIND], kept[count, CLOSES] = LINE_BREAK, 0
                    kept[count, NAMES_END] = kept[count, NAMES]
        count += 1
        t += 1
    return kept[:count]
