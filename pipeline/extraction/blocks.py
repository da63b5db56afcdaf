"""A web page's markup as a flat list of blocks of text, and the boxes that these stand in.

Reads serialized markup, which a parser wrote: every element that can be closed is closed, in order. So one pass with
one regular expression does for a tree, several times as fast as asking a tree's nodes one by one, and nothing recurses:
time and memory grow with the length of the markup, however deep it is.
"""

import re
from dataclasses import dataclass, field

LINE, PARAGRAPH, CELL = 1, 2, 3
"""What parts a block from the one before: a line end, an empty line, or a tab in the same table row."""

BOX_TAGS = frozenset(
    (  # noqa: SIM905 - a word list is read as words
        "address article aside center dialog div dl fieldset figcaption footer form header main nav ol section table td"
        " ul"
    ).split()
)
"""Elements that are boxes. Others are if they have attributes: a name may say what they are."""

BREAK = "br"
"""The tag that ends a block and does nothing else."""

NO_BREAK = "\u00a0"
"""The blank that does not break: pages indent lines of program code with it, and fill empty ones."""

MAX_INDENT = 8
"""Levels of nested lists that are shown: what is deeper is there to make lines long."""

_ATTRIBUTES = r'(?: =?[^ =]*+="[^"]*+")*+'
_TAG = re.compile(
    r"<(/?(?:div|p|a|li|br|ul|ol|td|tr|h[1-6]|section|article|main|header|footer|nav|aside|dialog|table|th|tbody|thead|tfoot"
    r"|caption|hr|pre|blockquote|d[ltd]|figure|figcaption|form|fieldset|address|center|details|summary)(?=[ >]))"
    rf"({_ATTRIBUTES})>"
)
_BLANKS = re.compile(r"[ \t\n\r\f]+")
_INLINE_TAG = re.compile(rf"<[^ >]*+{_ATTRIBUTES}>")
_PARAGRAPH_ENDS = frozenset(
    slash + tag
    for tag in ("p", "h1", "h2", "h3", "h4", "h5", "h6", "pre", "blockquote", "table", "hr")
    for slash in ("", "/")
)


@dataclass(slots=True)
class Box:
    """An element that may be judged: blocks `start` to `end` of the page."""

    tag: str
    attributes: str
    parent: "Box | None"
    start: int
    end: int = 0


@dataclass(slots=True)
class Blocks:
    """Blocks in document order, column by column, and the boxes around them in the order in which they begin.

    `markers` holds what stands before a list item, and None for `pre`; `letters` counts a block's characters that are
    no blanks, `links` those of them that are in links.
    """

    texts: list[str] = field(default_factory=list)
    markers: list[str | None] = field(default_factory=list)
    gaps: list[int] = field(default_factory=list)
    letters: list[int] = field(default_factory=list)
    links: list[int] = field(default_factory=list)
    boxes: list[Box] = field(default_factory=list)


def tokens_of(markup: str) -> list[str]:
    """Serialized markup, in which elements that hold raw text are no more, as text, tag, attributes, text, tag, ….

    Tags are those that end a block, or links; an end tag has its slash. Other tags are left in the text.
    """
    return _TAG.split(_without_comments(markup.replace("&nbsp;", NO_BREAK)))


def cut(tokens: list[str]) -> Blocks:
    """The blocks and boxes of markup's tokens."""
    blocks = Blocks()
    texts, markers, gaps, letters, links = blocks.texts, blocks.markers, blocks.gaps, blocks.letters, blocks.links
    boxes = blocks.boxes
    open_boxes: list[Box | None] = [None]
    lists: list[int] = []
    pieces: list[str] = []
    linked = preformatted = row = 0
    gap, marker = LINE, ""
    in_link = False
    triples = iter([BREAK, "", *tokens, BREAK, "", ""])
    for tag, attributes, text in zip(triples, triples, triples, strict=True):
        if tag == "a":
            in_link = " href=" in attributes
        elif tag == "/a":
            in_link = False
        elif tag == BREAK and preformatted:
            pieces.append("\n")
        else:
            if pieces:
                block = "".join(pieces)
                count = len(block) - block.count(" ") - block.count("\n") - block.count("\t") - block.count(NO_BREAK)
                if count:
                    texts.append(block)
                    markers.append(None if preformatted else marker)
                    gaps.append(gap)
                    letters.append(count)
                    links.append(linked if linked < count else count)
                    gap, marker = LINE, ""
                pieces.clear()
                linked = 0
            if tag in _PARAGRAPH_ENDS:
                gap = PARAGRAPH
            if tag[0] == "/":
                box = open_boxes.pop() if len(open_boxes) > 1 else None
                if box is not None:
                    box.end = len(texts)
                if tag == "/li":
                    marker = ""
                elif tag == "/ul" or tag == "/ol":
                    del lists[-1:]
                elif tag == "/pre":
                    preformatted -= 1
            elif tag != BREAK and tag != "hr":
                box = open_boxes[-1]
                if attributes or tag in BOX_TAGS:
                    box = Box(tag, attributes, box, len(texts))
                    boxes.append(box)
                open_boxes.append(box)
                if tag == "li":
                    marker = _marker(lists)
                elif tag == "ul" or tag == "ol":
                    lists.append(0 if tag == "ol" else -1)
                elif tag == "td" or tag == "th":
                    if gap == LINE and len(texts) > row:
                        gap = CELL
                elif tag == "tr":
                    row = len(texts)
                elif tag == "pre":
                    preformatted += 1
        if pieces or preformatted or (text and not text.isspace()):
            if "<" in text:
                text = _INLINE_TAG.sub("", text)
            pieces.append(text)
            if in_link:
                linked += len(text) - text.count(" ")
        elif tag == BREAK and NO_BREAK in text:
            gap = PARAGRAPH  # a line of nothing else is how such pages part paragraphs
    for box in open_boxes:
        if box is not None:
            box.end = len(texts)
    return blocks


def text_of(blocks: Blocks, index: int) -> str:
    """A block as text: blanks that break collapsed, outside `pre`; character references resolved."""
    text, marker = blocks.texts[index], blocks.markers[index]
    if marker is None:
        text = text.rstrip().strip("\n").replace(NO_BREAK, " ")
    elif NO_BREAK in text:
        text = marker + _BLANKS.sub(" ", text).strip(" ").replace(NO_BREAK, " ").rstrip()
    else:
        text = marker + " ".join(text.split())
    return text.replace("&lt;", "<").replace("&gt;", ">").replace("&amp;", "&") if "&" in text else text


def _without_comments(markup: str) -> str:
    first, *rest = markup.split("<!--")
    return first + "".join([part.partition("-->")[2] for part in rest])


def _marker(lists: list[int]) -> str:
    """What stands before an item of the innermost list, and counts it."""
    indent = "  " * min(max(len(lists), 1), MAX_INDENT)
    if not lists or lists[-1] < 0:
        return f"{indent}• "
    lists[-1] += 1
    return f"{indent}{lists[-1]}. "
