"""Text of a block, compiled: white space, characters and letters of UTF-8 bytes, and how a block is written."""

import numpy as np
from numpy.typing import NDArray

from pipeline import kernels
from pipeline.extraction import blocks
from pipeline.extraction.blocks import NO_BREAK
from pipeline.kernels import kernel

Bytes = NDArray[np.uint8]

BLANK, TAB, LINE_FEED, FORM_FEED, RETURN = map(ord, " \t\n\f\r")
QUOTE, AMPERSAND, SLASH, EQUALS, LESS, GREATER = map(ord, '"&/=<>')
STOP, ZERO = map(ord, ".0")

SPECIAL = np.array([byte <= BLANK or byte in (AMPERSAND, 0xC2, 0xE1, 0xE2, 0xE3) for byte in range(256)])
"""White space or a reference may begin with such a byte; asked first, since calls that pass arrays are slow."""

NO_BREAK_BYTES = np.frombuffer(NO_BREAK.encode(), np.uint8)
BULLET = np.frombuffer("• ".encode(), np.uint8)
REFERENCES, REFERENCES_BOUNDS = np.frombuffer(b"&lt;&gt;&amp;", np.uint8), np.array([0, 4, 8, 13])
RESOLVED = np.frombuffer(b"<>&", np.uint8)
MARKER_BYTES = 32
"""More than a marker has: its indent, a number of seven digits, a full stop and a blank."""

TEXT_SOURCES = (__file__, kernels.__file__, blocks.__file__)
compiled = kernel(*TEXT_SOURCES)


@compiled
def holds(data: Bytes, i: int, end: int, wanted: Bytes) -> bool:
    """These bytes stand at `i`."""
    if i + len(wanted) > end:
        return False
    for k in range(len(wanted)):  # noqa: SIM110 - a generator is no kernel
        if data[i + k] != wanted[k]:
            return False
    return True


@compiled
def find(data: Bytes, i: int, end: int, wanted: Bytes) -> bool:
    """These bytes stand somewhere from `i` on."""
    for k in range(i, end):  # noqa: SIM110 - a generator is no kernel
        if data[k] == wanted[0] and holds(data, k, end, wanted):
            return True
    return False


@compiled
def space_at(data: Bytes, i: int, end: int) -> int:
    """Bytes of the white-space character (as `str.isspace` has it) that starts at `i`, 0 where none does."""
    first = data[i]
    if first < 0x80:
        return 1 if first == BLANK or 9 <= first <= 13 or 28 <= first <= 31 else 0
    if first == 0xC2 and i + 1 < end:
        return 2 if data[i + 1] == 0x85 or data[i + 1] == 0xA0 else 0
    if i + 2 >= end:
        return 0
    second, third = data[i + 1], data[i + 2]
    if first == 0xE2:
        if second == 0x80:
            return 3 if third <= 0x8A or 0xA8 <= third <= 0xA9 or third == 0xAF else 0
        return 3 if second == 0x81 and third == 0x9F else 0
    if first == 0xE1:
        return 3 if second == 0x9A and third == 0x80 else 0
    return 3 if first == 0xE3 and second == 0x80 and third == 0x80 else 0


@compiled
def is_blank(data: Bytes, i: int, end: int) -> bool:
    """There is nothing but white space."""
    while i < end:
        width = space_at(data, i, end) if SPECIAL[data[i]] else 0
        if width == 0:
            return False
        i += width
    return True


@compiled
def characters_in(data: Bytes, i: int, end: int) -> int:
    """How many characters these bytes are."""
    count = 0
    for k in range(i, end):
        count += data[k] & 0xC0 != 0x80
    return count


@compiled
def letters_in(data: Bytes, i: int, end: int) -> tuple[int, int]:
    """Characters that are no blanks, and those that are blanks but no plain space."""
    characters = spaces = others = 0
    for k in range(i, end):
        byte = data[k]
        characters += byte & 0xC0 != 0x80
        spaces += byte == BLANK
        others += (byte == LINE_FEED) | (byte == TAB)
    for k in range(i, end - 1):
        others += (data[k] == 0xC2) & (data[k + 1] == 0xA0)
    return characters - spaces - others, others


@compiled
def write_marker(out: Bytes, at: int, indent: int, number: int) -> int:
    """What stands before a list item: nothing without an indent, a bullet without a number."""
    if indent == 0:
        return at
    out[at : at + 2 * indent] = BLANK
    at += 2 * indent
    if number == 0:
        out[at : at + len(BULLET)] = BULLET
        return at + len(BULLET)
    digits, rest = 0, number
    while rest > 0:
        digits += 1
        rest //= 10
    for place in range(digits):
        out[at + digits - 1 - place] = ZERO + number % 10
        number //= 10
    out[at + digits], out[at + digits + 1] = STOP, BLANK
    return at + digits + 2


@compiled
def _write_character(block: Bytes, i: int, out: Bytes, at: int) -> tuple[int, int]:
    """The byte at `i`, or the character that a reference there stands for, or a blank for one that does not break."""
    byte = block[i]
    if byte == AMPERSAND:
        for r in range(len(RESOLVED)):
            reference = REFERENCES[REFERENCES_BOUNDS[r] : REFERENCES_BOUNDS[r + 1]]
            if holds(block, i, len(block), reference):
                out[at] = RESOLVED[r]
                return i + len(reference), at + 1
    elif byte == 0xC2 and i + 1 < len(block) and block[i + 1] == 0xA0:
        out[at] = BLANK
        return i + 2, at + 1
    out[at] = byte
    return i + 1, at + 1


@compiled
def _stripped(data: Bytes, i: int, end: int) -> int:
    """Where the last character ends that is no white space."""
    last = i
    while i < end:
        width = space_at(data, i, end) if SPECIAL[data[i]] else 0
        i += max(width, 1)
        if width == 0:
            last = i
    return last


@compiled
def write_preformatted(block: Bytes, out: Bytes, at: int) -> int:
    """A block of `pre`, its lines and blanks kept."""
    i, end = 0, _stripped(block, 0, len(block))
    while i < end and block[i] == LINE_FEED:
        i += 1
    while i < end:
        if SPECIAL[block[i]]:
            i, at = _write_character(block, i, out, at)
        else:
            out[at] = block[i]
            i, at = i + 1, at + 1
    return at


@compiled
def write_text(block: Bytes, out: Bytes, at: int) -> int:
    """A block, runs of white space collapsed; beside a blank that does not break, only those of blanks that do."""
    start, i, end = at, 0, len(block)
    keeps_blanks = find(block, 0, end, NO_BREAK_BYTES)
    pending = False
    while i < end:
        byte = block[i]
        if not SPECIAL[byte]:
            if pending:
                out[at] = BLANK
                at += 1
                pending = False
            out[at] = byte
            i, at = i + 1, at + 1
            continue
        if byte == BLANK or TAB <= byte <= LINE_FEED or FORM_FEED <= byte <= RETURN:
            width = 1
        else:
            width = 0 if keeps_blanks else space_at(block, i, end)
        if width > 0:
            pending = at > start
            i += width
            continue
        if pending:
            out[at] = BLANK
            at += 1
            pending = False
        i, at = _write_character(block, i, out, at)
    return _stripped(out, start, at) if keeps_blanks else at
