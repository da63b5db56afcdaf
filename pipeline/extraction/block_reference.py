"""What the kernels must find in markup, in plain Python: one regular expression, and its tokens read in order.

The tests compare the kernels with it. It also reads the first pages of a process: a few hundred need no kernels.
"""

import re

from pipeline.extraction.blocks import (
    BLOCK_TAGS,
    BOX_TAGS,
    BREAK,
    CELL,
    LINE,
    MAX_INDENT,
    NO_BREAK,
    PARAGRAPH,
    PARAGRAPH_TAGS,
    Blocks,
    Boxes,
    plain_markup,
)
from pipeline.extraction.furniture import (
    COMMENT_WORDS,
    CONTENT_FURNITURE_SHARE,
    CONTENT_WORDS,
    FURNITURE_SHARE,
    FURNITURE_TAGS,
    FURNITURE_WORDS,
    MAX_SPARED,
    NEVER_FURNITURE,
    TEASER,
    words_of,
)

_ATTRIBUTES = r'(?: =?[^ =]*+="[^"]*+")*+'
_TAG = re.compile(rf"<(/?(?:{'|'.join(BLOCK_TAGS)})(?=[ >]))({_ATTRIBUTES})>")
_INLINE_TAG = re.compile(rf"<[^ >]*+{_ATTRIBUTES}>")
_PARAGRAPH_ENDS = PARAGRAPH_TAGS | {f"/{tag}" for tag in PARAGRAPH_TAGS}
_BLANKS = re.compile(r"[ \t\n\r\f]+")
_HIDDEN = re.compile(r'hidden="(?:true|hidden)?"|display:\s*none')


def reference_blocks(markup: str, *, furniture: bool, comments: bool) -> Blocks:
    """The blocks and boxes of serialized markup, without furniture unless it is to stay."""
    tokens = _TAG.split(plain_markup(markup))
    return _cut(tokens if furniture else _without_furniture(tokens, comments))


def _without_furniture(tokens: list[str], comments: bool) -> list[str]:
    """The tokens less those of elements whose tag or name says that they are not content."""
    tags, attributes, texts = tokens[1::3], tokens[2::3], tokens[3::3]
    words = FURNITURE_WORDS if comments else FURNITURE_WORDS | COMMENT_WORDS
    whole = sum(map(len, texts))
    shares: dict[str, float] = {}
    kept: list[str] = []
    position = done = spared = 0
    for index, (tag, names) in enumerate(zip(tags, attributes, strict=True)):
        if index < done or not (names or tag in FURNITURE_TAGS) or tag in NEVER_FURNITURE or spared > MAX_SPARED:
            continue
        share = FURNITURE_SHARE if tag in FURNITURE_TAGS else shares.get(names)
        if share is None:
            share = shares[names] = _furniture_share(names, words)
        if not share:
            continue
        end = _end(tags, index)
        # A teaser without a link leads nowhere else: it is the article's own first paragraph.
        if sum(map(len, texts[index:end])) > share * whole or (TEASER in names and "a" not in tags[index:end]):
            spared += 1
        else:
            kept += (*tokens[position : 3 * index + 1], BREAK, "")
            position, done = 3 * end + 3, end + 1
    return kept + tokens[position:]


def _end(tags: list[str], start: int) -> int:
    """Where the element ends that starts there; at its start where nothing ends it, as happens in raw text only."""
    tag, depth, position = tags[start], 1, start + 1
    while depth:
        try:
            end = tags.index("/" + tag, position)
        except ValueError:
            return start
        depth += tags[position:end].count(tag) - 1
        position = end + 1
    return end


def _furniture_share(attributes: str, words: frozenset[str]) -> float:
    """The share of a page's text that a box of these attributes may have and still be furniture."""
    names = words_of(attributes)
    if not words.isdisjoint(names):
        return FURNITURE_SHARE if CONTENT_WORDS.isdisjoint(names) else CONTENT_FURNITURE_SHARE
    return FURNITURE_SHARE if _HIDDEN.search(attributes) else 0.0


def _cut(tokens: list[str]) -> Blocks:
    """The blocks and boxes of tokens: text, tag, attributes, text, tag, …; an end tag has its slash."""
    attributes_of: list[str] = []
    boxes = Boxes([], [], [], [], [], [], attributes_of.__getitem__)
    blocks = Blocks([], [], [], [], boxes)
    open_boxes = [-1]
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
            block = "".join(pieces) if pieces else ""
            letters = len(block) - block.count(" ") - block.count("\n") - block.count("\t") - block.count(NO_BREAK)
            if letters:
                blocks.texts.append(_text_of(block, None if preformatted else marker))
                blocks.gaps.append(gap)
                blocks.letters.append(letters)
                blocks.prose.append(max(0, letters - linked))
                gap, marker = LINE, ""
            pieces, linked = [], 0
            if tag in _PARAGRAPH_ENDS:
                gap = PARAGRAPH
            if tag[0] == "/":
                box = open_boxes.pop() if len(open_boxes) > 1 else -1
                if box >= 0:
                    boxes.ends[box] = len(blocks.texts)
                if tag == "/li":
                    marker = ""
                elif tag in ("/ul", "/ol"):
                    del lists[-1:]
                elif tag == "/pre":
                    preformatted -= 1
            elif tag not in (BREAK, "hr"):
                if attributes or tag in BOX_TAGS:
                    boxes.tags.append(tag)
                    boxes.parents.append(open_boxes[-1])
                    boxes.starts.append(len(blocks.texts))
                    boxes.ends.append(0)
                    attributes_of.append(attributes)
                    open_boxes.append(len(boxes.tags) - 1)
                else:
                    open_boxes.append(open_boxes[-1])
                if tag == "li":
                    marker = _marker(lists)
                elif tag in ("ul", "ol"):
                    lists.append(0 if tag == "ol" else -1)
                elif tag in ("td", "th"):
                    if gap == LINE and len(blocks.texts) > row:
                        gap = CELL
                elif tag == "tr":
                    row = len(blocks.texts)
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
        if box >= 0:
            boxes.ends[box] = len(blocks.texts)
    boxes.letters = [sum(blocks.letters[start:end]) for start, end in zip(boxes.starts, boxes.ends, strict=True)]
    boxes.prose = [sum(blocks.prose[start:end]) for start, end in zip(boxes.starts, boxes.ends, strict=True)]
    return blocks


def _text_of(block: str, marker: str | None) -> str:
    """A block as text: blanks that break collapsed, outside `pre`, whose marker is None; references resolved."""
    if marker is None:
        text = block.rstrip().strip("\n").replace(NO_BREAK, " ")
    elif NO_BREAK in block:
        text = marker + _BLANKS.sub(" ", block).strip(" ").replace(NO_BREAK, " ").rstrip()
    else:
        text = marker + " ".join(block.split())
    return text.replace("&lt;", "<").replace("&gt;", ">").replace("&amp;", "&")


def _marker(lists: list[int]) -> str:
    """What stands before an item of the innermost list, and counts it."""
    indent = "  " * min(max(len(lists), 1), MAX_INDENT)
    if not lists or lists[-1] < 0:
        return f"{indent}• "
    lists[-1] += 1
    return f"{indent}{lists[-1]}. "
