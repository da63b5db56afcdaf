"""A web page's markup as a flat list of blocks of text, and the boxes that these stand in.

Reads serialized markup, which a parser wrote: every element that can be closed is closed, in order. So one pass over
its bytes does for a tree, without asking the tree's nodes one by one, and nothing recurses: time and memory grow with
the length of the markup, however deep it is. `block_kernels` is that pass compiled, `block_reference` says plainly what
it must find.
"""

from collections.abc import Callable
from dataclasses import dataclass

LINE, PARAGRAPH, CELL = 1, 2, 3
"""What parts a block from the one before: a line end, an empty line, or a tab in the same table row."""

BREAK = "br"
"""The tag that ends a block and does nothing else."""

BLOCK_TAGS = tuple(
    (  # noqa: SIM905 - a word list is read as words
        "br a div p li ul ol td tr h1 h2 h3 h4 h5 h6 section article main header footer nav aside dialog table th tbody"
        " thead tfoot caption hr pre blockquote dl dt dd figure figcaption form fieldset address center details summary"
    ).split()
)
"""Tags that end a block, and links, which do not. All others are dropped and the text around them is joined."""

BOX_TAGS = frozenset(
    (  # noqa: SIM905 - a word list is read as words
        "address article aside center dialog div dl fieldset figcaption footer form header main nav ol section table td"
        " ul"
    ).split()
)
"""Elements that are boxes. Others are if they have attributes: a name may say what they are."""

PARAGRAPH_TAGS = frozenset({"p", "h1", "h2", "h3", "h4", "h5", "h6", "pre", "blockquote", "table", "hr"})
"""Tags that part paragraphs, where they begin and where they end."""

NO_BREAK = "\u00a0"
"""The blank that does not break: pages indent lines of program code with it, and fill empty ones."""

MAX_INDENT = 8
"""Levels of nested lists that are shown: what is deeper is there to make lines long."""


@dataclass(slots=True)
class Boxes:
    """Boxes column by column, in the order in which they begin."""

    tags: list[str]
    parents: list[int]
    """The box around it; -1 where there is none."""
    starts: list[int]
    ends: list[int]
    """It holds the blocks from `starts` to before `ends`."""
    letters: list[int]
    """Characters in it that are no blanks."""
    prose: list[int]
    """Those of them that are in no link."""
    attributes: Callable[[int], str]
    """The attributes of a box, as the markup has them."""


@dataclass(slots=True)
class Blocks:
    """Blocks column by column, in document order, and the boxes around them."""

    texts: list[str]
    """A block as text: a list item with its marker, blanks that break collapsed outside `pre`."""
    gaps: list[int]
    """What parts it from the block before."""
    letters: list[int]
    """Characters of it that are no blanks."""
    prose: list[int]
    """Those of them that are in no link."""
    boxes: Boxes


def plain_markup(markup: str) -> str:
    """Markup without comments, and with characters for the one reference to a blank that a serializer writes."""
    first, *rest = markup.replace("&nbsp;", NO_BREAK).split("<!--")
    return first + "".join([part.partition("-->")[2] for part in rest])
