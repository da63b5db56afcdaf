"""Two texts side by side: which pieces of each the other does not have."""

import re
from difflib import SequenceMatcher

_TOKEN = re.compile(r"\w+|\s+|[^\w\s]")

Pieces = list[tuple[str, bool]]
"""A text in pieces, each with whether it differs; together they are the text."""


def marked(left: str, right: str) -> tuple[Pieces, Pieces]:
    """Both texts in pieces, cut at words. Takes time that grows as the square of their lengths: for excerpts."""
    one, other = _TOKEN.findall(left), _TOKEN.findall(right)
    pieces: tuple[Pieces, Pieces] = ([], [])
    for kind, i, until_i, j, until_j in SequenceMatcher(None, one, other, autojunk=False).get_opcodes():
        for side, tokens in zip(pieces, (one[i:until_i], other[j:until_j]), strict=True):
            if tokens:
                side.append(("".join(tokens), kind != "equal"))
    return pieces
