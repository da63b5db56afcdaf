"""Characters, lines and words as the quality rules see them: the kernels that everything else is counted with.

White space separates chunks. From each chunk come off, one mark at a time, the punctuation before it and behind it; an
ellipsis is one word, and so is an English contraction's ending (`n't`, `'s`). What is left splits inside at marks that
stand between letters or digits: `well-known` is three words, `3.14` is one. Abbreviations and addresses stay whole.
These are the habits of spaCy's English tokenizer, whose counts the published cut-offs of datatrove's filters assume.
`pipeline.quality_reference` says the same in plain Python.
"""

import unicodedata
from functools import cache
from typing import cast

import numpy as np
from numpy.typing import NDArray

from pipeline.kernels import Codes, Hashes, Kinds, kernel

QUOTES = frozenset("'\"”“`‘´’‚,„»«「」『』（）〔〕【】《》〈〉〈〉⟦⟧")
MARKS = frozenset("…,:;!?¿؟¡()[]{}<>_#*&。？！，、；：～·।،۔؛٪—–") | QUOTES
"""Marks that are words of their own at either end of a chunk; so is every symbol of Unicode category So."""
CURRENCY = frozenset("$£€¥฿₽﷼₴₹₩₪₫") | frozenset(map(chr, range(0x20A0, 0x20C0)))
FIRST_MARKS = frozenset("§%=") | CURRENCY
"""Marks that are words of their own only before other characters."""
APOSTROPHES = frozenset("'’")
ABBREVIATIONS = frozenset(
    (  # noqa: SIM905 - a word list is read as words
        "a.m. p.m. e.g. i.e. v.s. vs. co. E.g. E.G. I.e. I.E. Adm. Bros. Co. Corp. D.C. Dr. Gen. Gov. Id. Inc. "
        "Jr. Ltd. Messrs. Mr. Mrs. Ms. Mt. Ph.D. Prof. Rep. Rev. Sen. St. Jan. Feb. Mar. Apr. Jun. Jul. Aug. Sep. "
        "Sept. Oct. Nov. Dec. Ala. Ariz. Ark. Calif. Colo. Conn. Del. Fla. Ga. Ia. Ill. Ind. Kan. Kans. Ky. La. "
        "Mass. Md. Mich. Minn. Miss. Mo. Mont. N.C. N.D. N.H. N.J. N.M. N.Y. Neb. Nebr. Nev. Okla. Ore. Pa. S.C. "
        "Tenn. Va. Wash. Wis."
    ).split()
)
"""Words that keep their full stop, beside every single lower-case letter."""
MAX_ABBREVIATION = 7

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

SPACE, BREAK, LETTER, LOWER, UPPER, DIGIT, ASCII_DIGIT = 1, 2, 4, 8, 16, 32, 64
MARK, FIRST, MONEY, QUOTE, ICON, PUNCTUATION, TERMINAL = 128, 256, 512, 1024, 2048, 4096, 8192
APOSTROPHE, SYMBOL = 16384, 32768
"""What a character is, as bits. LOWER and UPPER both hold for letters without case; SYMBOL is the set below."""

ZERO, ONE, TWO = (cast(int, np.int64(number)) for number in range(3))
"""For kernels to start from: a kernel compiles once more for each integer literal that it is called with."""

DOT, PLUS, MINUS, STAR, CARET, COMMA, PERCENT, AT, COLON, SLASH, LESS, MORE, EQUALS, TILDE = map(ord, ".+-*^,%@:/<>=~")
NEWLINE, RETURN = map(ord, "\n\r")
EN_DASH, EM_DASH, ELLIPSIS, SQUARED = map(ord, "–—…²")
LETTER_D, LETTER_E, LETTER_L, LETTER_M, LETTER_N, LETTER_R, LETTER_S, LETTER_T, LETTER_V, LETTER_W = map(
    ord, "delmnrstvw"
)
CASE = 32
"""The bit that sets a capital ASCII letter in lower case."""

LINE_BREAKS = frozenset("\n\r\v\f\x1c\x1d\x1e\x85\u2028\u2029")
"""Where `str.splitlines` splits."""


@cache
def terminals() -> frozenset[str]:
    """The characters of `SENTENCE_TERMINALS`."""
    found: set[str] = set()
    for field in SENTENCE_TERMINALS.split():
        first, _, last = field.partition("-")
        found.update(map(chr, range(int(first, 16), int(last or first, 16) + 1)))
    return frozenset(found)


@cache
def symbols() -> frozenset[str]:
    """Characters that alone make no word: the list of cc_net, which datatrove uses, control characters, terminals."""
    listed = "!/—”:％１〈&(、━\\【#%「」，】；+^]~“《„';’{|∶´[=-`*．（–？！：$～«〉,><》)?）。…@_.\"}►»"
    controls = (chr(code) for code in (*range(9), 11, 12, *range(13, 32), *range(127, 160)))
    return frozenset(listed) | frozenset(controls) | terminals()


@cache
def kinds_table() -> Kinds:
    """What each code point below `TABLE_SIZE` is, as bits."""
    table = np.zeros(TABLE_SIZE, np.uint16)
    # Surrogates are left out: they cannot stand in a document.
    characters = [*map(chr, range(0xD800)), *("\0" * 0x800), *map(chr, range(0xE000, TABLE_SIZE))]
    categories = [unicodedata.category(character) for character in characters]
    lower = np.array([character.islower() for character in characters])
    upper = np.array([character.isupper() for character in characters])
    letter = np.array([character.isalpha() for character in characters])
    table[[character.isspace() for character in characters]] |= SPACE
    table[letter] |= LETTER
    table[letter & ~upper] |= LOWER
    table[letter & ~lower] |= UPPER
    table[[category == "Nd" for category in categories]] |= DIGIT
    table[[category == "So" for category in categories]] |= ICON | MARK
    table[[category.startswith("P") for category in categories]] |= PUNCTUATION
    for members, bit in (
        (LINE_BREAKS, BREAK), (MARKS, MARK), (FIRST_MARKS, FIRST), (CURRENCY, MONEY), (QUOTES, QUOTE),
        (APOSTROPHES, APOSTROPHE), (terminals(), TERMINAL), (symbols(), SYMBOL), (frozenset("0123456789"), ASCII_DIGIT),
    ):  # fmt: skip
        table[[ord(member) for member in members]] |= bit
    return table


@cache
def abbreviation_hashes() -> Hashes:
    """Hashes of `ABBREVIATIONS`, as `find_words` wants them."""
    return np.array([hash_string(word) for word in sorted(ABBREVIATIONS)], np.uint64)


def hash_string(text: str) -> int:
    """`hash_codes` of a Python string."""
    codes = np.array([ord(character) for character in text], np.int32)
    return int(hash_codes(codes, 0, len(codes)))


compiled = kernel(__file__)


@compiled
def hash_codes(codes: Codes, start: int, end: int) -> np.uint64:
    """64 bits that stand for `codes[start:end]`: FNV-1a over code points, then mixed so that all bits count."""
    value = np.uint64(0xCBF29CE484222325)
    for i in range(start, end):
        value = (value ^ np.uint64(codes[i])) * np.uint64(0x100000001B3)
    value = (value ^ (value >> np.uint64(32))) * np.uint64(0xD6E8FEB86659FD93)
    return value ^ (value >> np.uint64(32))


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


@compiled
def _ending(codes: Codes, kinds: Kinds, a: int, b: int) -> int:
    """Characters of the contraction's ending that `codes[a:b]` ends with, 0 where there is none."""
    last = codes[b - 1] | CASE
    if b - a >= 3 and kinds[b - 2] & APOSTROPHE:
        if b - a >= 4 and last == LETTER_T and codes[b - 3] | CASE == LETTER_N and kinds[b - 4] & LETTER:
            return 3
        if kinds[b - 3] & LETTER and (last in (LETTER_S, LETTER_M, LETTER_D)):
            return 2
    if b - a >= 4 and kinds[b - 3] & APOSTROPHE and kinds[b - 4] & LETTER:
        first = codes[b - 2] | CASE
        if first == last == LETTER_L or (last == LETTER_E and (first in (LETTER_R, LETTER_V))):
            return 3
    return 0


@compiled
def _dots(codes: Codes, start: int, end: int) -> int:
    """Full stops in a row from `start` on."""
    i = start
    while i < end and codes[i] == DOT:
        i += 1
    return i - start


@compiled
def _prefix(codes: Codes, kinds: Kinds, a: int, b: int) -> int:
    """Characters of the word that comes off the front of `codes[a:b]`, 0 where none does."""
    if kinds[a] & (MARK | FIRST):
        return 1
    if codes[a] == PLUS:
        return 0 if a + 1 < b and kinds[a + 1] & ASCII_DIGIT else 1
    if codes[a] == DOT:
        run = _dots(codes, a, b)
        return run if run >= 2 else 0
    return 0


@compiled
def _suffix(codes: Codes, kinds: Kinds, a: int, b: int) -> int:
    """Characters of the word that comes off the back of `codes[a:b]`, 0 where none does."""
    ending = _ending(codes, kinds, a, b)
    if ending:
        return ending
    last = b - 1
    if kinds[last] & MARK:
        return 1
    if last == a:
        return 0
    before = kinds[last - 1]
    if codes[last] == DOT:
        run = 1
        while last - run >= a and codes[last - run] == DOT:
            run += 1
        if run >= 2:
            return run
        c = codes[last - 1]
        if before & (ASCII_DIGIT | LOWER | MARK) or c in (PERCENT, SQUARED, MINUS, PLUS):
            return 1
        return 1 if before & UPPER and last - 2 >= a and kinds[last - 2] & UPPER else 0
    if before & ASCII_DIGIT and (kinds[last] & MONEY or codes[last] == PLUS or codes[last] == PERCENT):
        return 1
    return 0


@compiled
def _infix(codes: Codes, kinds: Kinds, a: int, b: int, i: int) -> int:
    """Characters of the mark at `i` that splits `codes[a:b]`, 0 where none does."""
    c = codes[i]
    if c == DOT:
        run = _dots(codes, i, b)
        if run >= 2:
            return run
        inside = i > a and i + 1 < b and kinds[i - 1] & (LOWER | QUOTE) and kinds[i + 1] & (UPPER | QUOTE)
        return 1 if inside else 0
    if c == ELLIPSIS or kinds[i] & ICON:
        return 1
    if i == a:
        return 0
    before = kinds[i - 1]
    after = kinds[i + 1] if i + 1 < b else 0
    operator = c in (PLUS, MINUS, STAR, CARET)
    if operator and before & ASCII_DIGIT and (after & ASCII_DIGIT or (i + 1 < b and codes[i + 1] == MINUS)):
        return 1
    if c == COMMA:
        return 1 if before & LETTER and after & LETTER else 0
    if before & (LETTER | ASCII_DIGIT):
        if c in (MINUS, EN_DASH, EM_DASH, TILDE):
            if after & LETTER:
                return 1
            run = 1
            while run < 4 and i + run < b and codes[i + run] == c:
                run += 1
            longest = 3 if c == MINUS else 2 if c == EM_DASH else 1
            return run if run <= longest and i + run < b and kinds[i + run] & LETTER else 0
        if after & LETTER and (c in (COLON, LESS, MORE, EQUALS, SLASH)):
            return 1
    return 0


@compiled
def _whole(codes: Codes, kinds: Kinds, a: int, b: int, known: Hashes) -> bool:
    """Whether `codes[a:b]` is an abbreviation, full stop included."""
    if b - a < 2 or b - a > MAX_ABBREVIATION or codes[b - 1] != DOT:
        return False
    if b - a == 2:
        return (kinds[a] & LETTER) != 0 and (kinds[a] & UPPER) == 0
    value = hash_codes(codes, a, b)
    for i in range(len(known)):  # noqa: SIM110 - a kernel knows no any()
        if known[i] == value:
            return True
    return False


@compiled
def _address(codes: Codes, a: int, b: int) -> bool:
    """Whether `codes[a:b]` is a URL or an e-mail address, as far as splitting goes."""
    if b - a > 4 and codes[a] == codes[a + 1] == codes[a + 2] == LETTER_W and codes[a + 3] == DOT:
        return True
    for i in range(a + 1, b - 1):
        if codes[i] == AT:
            return True
        if codes[i] == COLON and i + 2 < b and codes[i + 1] == codes[i + 2] == SLASH:
            return True
    return False


@compiled
def _plain(kinds: Kinds, a: int, b: int) -> bool:
    """Whether `a` to `b` are letters and ASCII digits alone."""
    for i in range(a, b):  # noqa: SIM110 - a kernel knows no all()
        if not kinds[i] & (LETTER | ASCII_DIGIT):
            return False
    return True


@compiled
def find_words(
    codes: Codes, kinds: Kinds, length: int, known: Hashes,
    starts: Codes, ends: Codes,
) -> int:  # fmt: skip
    """Write where each word of `codes[:length]` starts and ends, in order; returns how many words there are."""
    n = 0
    position = ZERO
    while position < length:
        if kinds[position] & SPACE:
            position += 1
            continue
        a = position
        plain = True
        while position < length and not kinds[position] & SPACE:
            plain = plain and (kinds[position] & (LETTER | ASCII_DIGIT)) != 0
            position += 1
        b = position
        if plain:  # most chunks: nothing in them can come off or split them
            starts[n] = a
            ends[n] = b
            n += 1
            continue
        while a < b and not _whole(codes, kinds, a, b, known):
            size = _prefix(codes, kinds, a, b)
            if size == 0:
                break
            starts[n] = a
            ends[n] = a + size
            n += 1
            a += size
        tail = b
        kept = 0
        while a < b and not _whole(codes, kinds, a, b, known):
            size = _suffix(codes, kinds, a, b)
            if size == 0:
                break
            # Kept at the far end of the arrays: no more words than characters can stand before it.
            end = b
            b -= size
            kept += 1
            starts[tail - kept] = b
            ends[tail - kept] = end
        if a < b:
            if _plain(kinds, a, b) or _whole(codes, kinds, a, b, known) or _address(codes, a, b):
                starts[n] = a
                ends[n] = b
                n += 1
            else:
                i = a
                while i < b:
                    size = 0 if kinds[i] & (LETTER | ASCII_DIGIT) else _infix(codes, kinds, a, b, i)
                    if size:
                        if i > a:
                            starts[n] = a
                            ends[n] = i
                            n += 1
                        starts[n] = i
                        ends[n] = i + size
                        n += 1
                        # The mark behind may look at this one: only the piece's start moves.
                        i += size
                        a = i
                    else:
                        i += 1
                if a < b:
                    starts[n] = a
                    ends[n] = b
                    n += 1
        for j in range(tail - kept, tail):
            starts[n] = starts[j]
            ends[n] = ends[j]
            n += 1
    return n
