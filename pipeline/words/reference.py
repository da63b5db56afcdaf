"""The words that `pipeline.words.kernels` finds, in plain Python: spaCy's English tokenizer as regular expressions.

Slow and obvious on purpose; the tests compare the kernels with it, and `benchmarks/quality.py` both with spaCy.
"""

import re
from collections.abc import Iterable
from functools import cache
from typing import NamedTuple

import numpy as np

from pipeline.words.special import CURRENCIES, UNITS, special_words
from pipeline.words.tables import CLOSING_MARKS, FIRST_MARKS, MARKS, QUOTES, icons, letters

HOST_CHARACTER = r"[A-Za-z0-9\u00a1-\uffff]"
LABEL = rf"(?:{HOST_CHARACTER}(?:(?:{HOST_CHARACTER}|[_-]){{0,62}}{HOST_CHARACTER})?)"
PRIVATE = r"(?:10|127)\.|169\.254\.|192\.168\.|172\.(?:1[6-9]|2[0-9]|3[01])\."
OUTER = r"(?:[1-9][0-9]?|1[0-9][0-9]|2[0-4][0-9]|25[0-4])"
INNER = r"(?:1?[0-9]{1,2}|2[0-4][0-9]|25[0-5])"
PUBLIC_IP = rf"(?!{PRIVATE})(?!22[4-9]|2[3-9][0-9]){OUTER}(?:\.{INNER}){{2}}\.{OUTER}"


class Patterns(NamedTuple):
    """What comes off the front and the back of a chunk, what splits it inside, what stays whole."""

    prefix: re.Pattern[str]
    suffix: re.Pattern[str]
    infix: re.Pattern[str]
    address: re.Pattern[str]


@cache
def patterns() -> Patterns:
    """The regular expressions, built from the sets of `pipeline.words.tables`."""
    alpha, lower, upper = map(_one_of, letters())
    mark, icon, quote = _one_of(MARKS | icons()), _one_of(icons()), _one_of(QUOTES)
    first, closing = _one_of(MARKS | icons() | FIRST_MARKS), _one_of(CLOSING_MARKS | {"|"})
    units = "|".join(sorted(map(re.escape, (UNITS + " " + CURRENCIES).split()), key=len, reverse=True))
    prefix = rf"{first}|\+(?![0-9])|\.\.+|US\$|[CA]\$"
    suffix = (
        rf"(?<=[0-9])(?:{units})|(?<=.)['’][sS]|……|{mark}|\.\.+"
        rf"|(?<=[0-9%²+-])\.|(?<={lower})\.|(?<={closing})\.|(?<={upper}{upper})\.|(?<=°[FfCcKk])\."
    )
    infix = (
        rf"\.\.+|…|{icon}|(?<=[0-9])[+*^-](?=[0-9-])|(?:(?<={lower})|(?<={quote}))\.(?={upper}|{quote})"
        rf"|(?<={alpha}),(?={alpha})|(?:(?<={alpha})|(?<=[0-9]))(?:-|–|—|--|---|——|~|[:<>=/])(?={alpha})"
    )
    address = (
        rf"(?:[\w+.-]{{2,}}://)?(?:\S+@)?(?:{PUBLIC_IP}|(?:{LABEL}\.)+{lower}{{2,63}})(?::\d{{2,5}})?(?:[/?#]\S*)?"
    )
    return Patterns(re.compile(prefix), re.compile(rf"(?:{suffix})\Z"), re.compile(infix), re.compile(address))


def reference_words(text: str) -> list[str]:
    """The words of `text`."""
    words: list[str] = []
    glued: list[bool] = []
    """Whether a word may belong to the one before it: no more than a blank stands between them."""
    for blanks, chunk in re.findall(r"(\s*)(\S+)", text):
        pieces = _split_chunk(chunk)
        glued += [blanks in ("", " "), *[True] * (len(pieces) - 1)]
        words += [(blanks and " ") + pieces[0], *pieces[1:]]
    return [word.strip() for word in _mend(words, glued)]


def _split_chunk(rest: str, *, special: bool = True) -> list[str]:
    known = special_words() if special else {}
    prefix, suffix, infix, address = patterns()
    before: list[str] = []
    behind: list[str] = []
    while rest and rest not in known:
        found = prefix.match(rest)
        front = found.end() if found else 0
        if front and rest[front:] in known:
            before.append(rest[:front])
            rest = rest[front:]
            break
        found = suffix.search(rest[front:])
        back = len(found.group()) if found else 0
        if back and rest[:-back] in known:
            behind.append(rest[-back:])
            rest = rest[:-back]
            break
        if not front and not back:
            break
        before += [rest[:front]] * bool(front)
        behind += [rest[len(rest) - back :]] * bool(back)
        rest = rest[front : len(rest) - back]
    if rest in known:
        before += known[rest]
    elif address.fullmatch(rest):
        before.append(rest)
    else:
        start = 0
        for found in infix.finditer(rest):
            if found.start():
                before += [rest[start : found.start()], found.group()]
                start = found.end()
        before.append(rest[start:])
    return [word for word in before + behind[::-1] if word]


@cache
def _torn_words() -> frozenset[tuple[str, ...]]:
    """What the marks alone would make of the special words, where that is more than one word."""
    apart = (tuple(_split_chunk(word, special=False)) for word in special_words())
    return frozenset(pieces for pieces in apart if len(pieces) > 1)


def _mend(words: list[str], glued: list[bool]) -> list[str]:
    """`words`, a blank before those that have one, with the torn special words among them as they should be.

    The longest come first, then the first. Two that overlap spoil the later one, even where the earlier is no special
    word after all, because a blank stands in it.
    """
    torn = _torn_words()
    bare = [word.strip() for word in words]
    spans = [
        (start, start + count)
        for count in range(max(map(len, torn)), 1, -1)
        for start in range(len(words) - count + 1)
        if tuple(bare[start : start + count]) in torn and all(glued[start + 1 : start + count])
    ]
    seen: set[int] = set()
    chosen: dict[int, int] = {}
    for start, end in spans:
        if start not in seen and end - 1 not in seen:
            chosen[start] = end
        seen.update(range(start, end))
    mended: list[str] = []
    i = 0
    while i < len(words):
        end = chosen.get(i, i + 1)
        mended += special_words().get("".join(words[i:end]).lstrip(), words[i:end]) if i in chosen else words[i:end]
        i = end
    return mended


def _one_of(characters: Iterable[str]) -> str:
    """A class of `characters`, as ranges: in a hundred thousand single ones, it would take a minute to compile."""
    codes = np.array(sorted(map(ord, characters)))
    runs = np.split(codes, np.flatnonzero(np.diff(codes) > 1) + 1)
    return "[" + "".join(f"\\U{run[0]:08x}-\\U{run[-1]:08x}" for run in runs) + "]"
