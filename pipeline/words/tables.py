"""Characters and lines as the quality rules see them: what each character is, as bits, and where lines end.

What counts as a letter, a mark or a symbol when words are split follows spaCy's English tokenizer, whose words
datatrove's filters count and the published cut-offs assume; `pipeline.words.kernels` does the splitting.
"""

import re
import unicodedata
from collections.abc import Iterator
from functools import cache
from typing import cast

import numpy as np
from numpy.typing import NDArray

from pipeline.kernels import Codes, Kinds, kernel

QUOTES = frozenset("'\"”“`‘´’‚,„»«「」『』（）〔〕【】《》〈〉\u2329\u232a⟦⟧")
CLOSING_MARKS = frozenset("…,:;!?¿؟¡()[]{}<>_#*&。？！，、；：～·।،۔؛٪") | QUOTES
"""Marks that are words of their own at either end of a chunk, and behind which a full stop is one too."""
MARKS = CLOSING_MARKS | frozenset("—–")
"""Marks that are words of their own at either end of a chunk; so is every `ICON`."""
CURRENCY = frozenset("$£€¥฿﷼") | frozenset(map(chr, range(0x20A0, 0x20C0)))
FIRST_MARKS = frozenset("§%=") | CURRENCY
"""Marks that are words of their own only before other characters."""

CASED_LETTERS = (
    "41-5A 61-7A C0-D6 D8-F6 F8-1BF 1C4-2AF 386 388-38A 38C 38E-38F 391-3A9 3AC-3AF 3B1-3C9 3CC-3CE 400-401 "
    "403-40A 40C-40D 410-451 453-45A 45C-45D 490-491 496-497 4A2-4A3 4AE-4AF 4BA-4BB 4D8-4D9 4E8-4E9 1D00-1D25 "
    "1D6B-1D77 1D79-1D9A 1E00-1EFF 2C60-2C7B 2C7E-2C7F A722-A76F A771-A787 A78B-A78E A790-A7B9 A7FA AB30-AB5A "
    "AB60-AB64 FF21-FF3A FF41-FF5A"
)
"""Latin, Greek and Cyrillic letters between which marks split a word."""
CASELESS_LETTERS = (
    "591-5F4 620-64A 66E-6D5 6E5-6FF 750-77F 8A0-8BD 900-9FF B80-CFF D80-DFF 1100-137F 2E80-2FDF 2FF0-30FF 31C0-31EF "
    "3200-4DBF 4E00-9FFF AC00-D7AF F900-FAFF FB1D-FBB1 FBD3-FD3D FD50-FDC7 FDF0-FDFB FE30-FE4F FE70-FEFC 1EE00-1EEBB "
    "1F200-1F2FF 20000-2A6DF 2A700-2EBEF 2F800-2FA1F"
)
"""Whole blocks of Hebrew, Arabic, Indic, Ethiopic, Hangul, kana and Han, which count as either case."""
ODD_LOWER, ODD_UPPER = "\u0294", "\u03a2"
"""A lower-case letter there that Unicode calls caseless, and a gap in it among the Greek capitals."""

YOUNG_SYMBOLS = (
    "166D 1734-173F 2427-243F 2B74-2B75 2B96-2B97 2BC9 2BFF 2E50-2E51 2FFC-2FFF 31E4-31EF 321F 32FF FD40-FD4F FDCF "
    "FDFE-FDFF 1019C 11FD5-11FFF 1CC00-1CFFF 1D1E9-1D1FF 1E14F 1ED2E 1F10D-1F10F 1F16C-1F16F 1F1AD-1F1E5 1F6D5-1F6DF "
    "1F6FA-1F6FF 1F774-1F77F 1F7D9-1F7FF 1F8AE-1F8FF 1F90C-1F90F 1F93F 1F971-1F972 1F977-1F979 1F97B 1F9A3-1F9AF "
    "1F9BA-1F9BF 1F9C3-1F9CF 1FA00-1FA5F 1FA6E-1FBFF"
)
"""Symbols that Unicode has had since version 12 only, and room for more: the tokenizer's list is older."""

SENTENCE_TERMINALS = (
    "21 2E 3F 589 61D-61F 6D4 700-702 7F9 837 839 83D-83E 964-965 104A-104B 1362 1367-1368 166E 1735-1736 17D4-17D6 "
    "17D9-17DA 1803 1809 1944-1945 1AA8-1AAB 1B5A-1B5B 1B5E-1B5F 1B7D-1B7E 1C3B-1C3C 1C7E-1C7F 203C-203D 2047-2049 "
    "2E2E 2E3C 2E53-2E54 3002 A4FF A60E-A60F A6F3 A6F7 A876-A877 A8CE-A8CF A92F A9C8-A9C9 AA5D-AA5F AAF0-AAF1 ABEB "
    "FE52 FE56-FE57 FF01 FF0E FF1F FF61 10A56-10A57 10F55-10F59 10F86-10F89 11047-11048 110BE-110C1 11141-11143 "
    "111C5-111C6 111CD 111DE-111DF 11238-11239 1123B-1123C 112A9 1144B-1144C 115C2-115C3 115C9-115D7 11641-11642 "
    "1173C-1173E 11944 11946 11A42-11A43 11A9B-11A9C 11C41-11C42 11EF7-11EF8 11F43-11F44 16A6E-16A6F 16AF5 "
    "16B37-16B38 16B44 16E98 1BC9F 1DA88"
)
"""Unicode's property Sentence_Terminal (PropList.txt) with the Khmer signs that end a sentence."""

TABLE_SIZE = 0x32400
"""Code points above this are no letters, spaces or marks in any Unicode version so far."""

SPACE, BREAK, LETTER, ALPHA, LOWER, UPPER, DIGIT, ASCII_DIGIT = (1 << bit for bit in range(8))
MARK, FIRST, CLOSING, QUOTE, ICON, PUNCTUATION, TERMINAL, SYMBOL = (1 << bit for bit in range(8, 16))
WORD, HOST = 1 << 16, 1 << 17
"""What a character is, as bits. LETTER is Unicode's, ALPHA, LOWER and UPPER are the splitter's (both cases hold for
caseless letters), SYMBOL is the set below, WORD is `\\w` of regular expressions, HOST stands in host names."""

OF_CATEGORY = {
    "Nd": DIGIT,
    **dict.fromkeys(("Lu", "Ll", "Lt", "Lm", "Lo"), LETTER),
    **dict.fromkeys(("Pc", "Pd", "Ps", "Pe", "Pi", "Pf", "Po"), PUNCTUATION),
}
"""The bit that a general category of Unicode stands for."""

ZERO, ONE, TWO = (cast(int, np.int64(number)) for number in range(3))
"""For kernels to start from: a kernel compiles once more for each integer literal that it is called with."""

NEWLINE, RETURN = map(ord, "\n\r")
FNV_START = np.uint64(0xCBF29CE484222325)

LINE_BREAKS = frozenset("\n\r\v\f\x1c\x1d\x1e\x85\u2028\u2029")
"""Where `str.splitlines` splits."""


def code_points(ranges: str) -> Iterator[int]:
    """The code points that `ranges` names in hexadecimal: single ones and first-last, between blanks."""
    for field in ranges.split():
        first, _, last = field.partition("-")
        yield from range(int(first, 16), int(last or first, 16) + 1)


@cache
def terminals() -> frozenset[str]:
    """The characters of `SENTENCE_TERMINALS`."""
    return frozenset(map(chr, code_points(SENTENCE_TERMINALS)))


@cache
def categories() -> list[str]:
    """The general category of each code point below `TABLE_SIZE`."""
    return [*map(unicodedata.category, map(chr, range(TABLE_SIZE)))]


@cache
def icons() -> frozenset[str]:
    """Characters of Unicode category So, without the young ones."""
    every = {code for code, category in enumerate(categories()) if category == "So"}
    return frozenset(map(chr, every.difference(code_points(YOUNG_SYMBOLS))))


@cache
def letters() -> tuple[frozenset[str], frozenset[str], frozenset[str]]:
    """The splitter's letters: all, lower case, upper case. Caseless ones are in each."""
    caseless = frozenset(map(chr, code_points(CASELESS_LETTERS)))
    cased = frozenset(map(chr, code_points(CASED_LETTERS)))
    lower = frozenset(filter(str.islower, cased)) | {ODD_LOWER}
    return caseless | cased, caseless | lower, caseless | frozenset(filter(str.isupper, cased)) | {ODD_UPPER}


@cache
def symbols() -> frozenset[str]:
    """Characters that alone make no word: the list of cc_net, which datatrove uses, control characters, terminals."""
    listed = "!/—”:％１〈&(、━\\【#%「」，】；+^]~“《„';’{|∶´[=-`*．（–？！：$～«〉,><》)?）。…@_.\"}►»"
    controls = (chr(code) for code in (*range(9), 11, 12, *range(13, 32), *range(127, 160)))
    return frozenset(listed) | frozenset(controls) | terminals()


@cache
def kinds_table() -> Kinds:
    """What each code point below `TABLE_SIZE` is, as bits."""
    table = np.array([OF_CATEGORY.get(category, 0) for category in categories()], np.uint32)
    every = "".join(map(chr, range(TABLE_SIZE)))
    for pattern, bit in ((r"\s+", SPACE), (r"\w+", WORD)):
        for match in re.finditer(pattern, every):
            table[match.start() : match.end()] |= bit
    table[0xA1:0x10000] |= HOST
    alpha, lower, upper = letters()
    for members, bit in (
        (LINE_BREAKS, BREAK), (alpha, ALPHA), (lower, LOWER), (upper, UPPER), (frozenset("0123456789"), ASCII_DIGIT),
        (MARKS | icons(), MARK), (MARKS | icons() | FIRST_MARKS, FIRST), (CLOSING_MARKS | {"|"}, CLOSING),
        (QUOTES, QUOTE), (icons(), ICON), (terminals(), TERMINAL), (symbols(), SYMBOL),
        (frozenset("0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz"), HOST),
    ):  # fmt: skip
        table[np.frombuffer("".join(members).encode("utf-32-le"), np.uint32)] |= bit
    return table


def hash_string(text: str) -> int:
    """`hash_codes` of a Python string."""
    codes = np.array([ord(character) for character in text], np.int32)
    return int(hash_codes(codes, 0, len(codes)))


compiled = kernel(__file__)


@compiled
def hash_on(value: np.uint64, codes: Codes, start: int, end: int) -> np.uint64:
    """`value` carried on over `codes[start:end]`: FNV-1a over code points."""
    for i in range(start, end):
        value = (value ^ np.uint64(codes[i])) * np.uint64(0x100000001B3)
    return value


@compiled
def hash_end(value: np.uint64) -> np.uint64:
    """The hash that `value` was carried on for: mixed, so that all bits count."""
    value = (value ^ (value >> np.uint64(32))) * np.uint64(0xD6E8FEB86659FD93)
    return value ^ (value >> np.uint64(32))


@compiled
def hash_codes(codes: Codes, start: int, end: int) -> np.uint64:
    """64 bits that stand for `codes[start:end]`."""
    return hash_end(hash_on(FNV_START, codes, start, end))


@compiled
def decode(data: NDArray[np.uint8], start: int, end: int, codes: Codes, places: Codes) -> int:
    """Write the code points of valid UTF-8 and the byte at which each begins (and where the last ends)."""
    n = 0
    i = start
    while i < end:
        places[n] = i - start
        first = np.int32(data[i])
        if first < 0x80:
            codes[n] = first
            i += 1
        elif first < 0xE0:
            codes[n] = (first & 0x1F) << 6 | np.int32(data[i + 1]) & 0x3F
            i += 2
        elif first < 0xF0:
            codes[n] = (first & 0xF) << 12 | (np.int32(data[i + 1]) & 0x3F) << 6 | np.int32(data[i + 2]) & 0x3F
            i += 3
        else:
            codes[n] = (
                (first & 7) << 18 | (np.int32(data[i + 1]) & 0x3F) << 12
                | (np.int32(data[i + 2]) & 0x3F) << 6 | np.int32(data[i + 3]) & 0x3F
            )  # fmt: skip
            i += 4
        n += 1
    places[n] = end - start
    return n


@compiled
def line_end(kinds: Kinds, start: int, length: int) -> int:
    """Where the line that starts at `start` ends: at its break or the end of the text."""
    i = start
    while i < length and not kinds[i] & BREAK:
        i += 1
    return i


@compiled
def next_line(codes: Codes, end: int, length: int) -> int:
    """Where the line after the break at `end` starts: a carriage return and a newline are one break."""
    return end + 2 if end + 1 < length and codes[end] == RETURN and codes[end + 1] == NEWLINE else end + 1


@compiled
def classify(codes: Codes, length: int, table: Kinds, kinds: Kinds) -> None:
    """Fill `kinds[:length]` with the bits of each code point."""
    for i in range(length):
        kinds[i] = table[codes[i]] if codes[i] < TABLE_SIZE else 0
