"""Blocks and boxes of a page's markup, compiled: `cut` gives what `block_reference` says."""

from typing import NamedTuple

import numpy as np

from pipeline.extraction.blocks import (
    BLOCK_TAGS,
    BOX_TAGS,
    CELL,
    LINE,
    MAX_INDENT,
    PARAGRAPH,
    PARAGRAPH_TAGS,
    Blocks,
    Boxes,
    plain_markup,
)
from pipeline.extraction.markup_kernels import (
    CLOSES,
    KIND,
    LINE_BREAK,
    LINK,
    MARKUP_SOURCES,
    NAMES,
    NAMES_END,
    TEXT,
    TEXT_END,
    Tokens,
    attributes_end,
    tokens_of,
    without_furniture,
)
from pipeline.extraction.text_kernels import (
    BLANK,
    GREATER,
    LESS,
    LINE_FEED,
    MARKER_BYTES,
    NO_BREAK_BYTES,
    Bytes,
    characters_in,
    find,
    is_blank,
    letters_in,
    write_marker,
    write_preformatted,
    write_text,
)
from pipeline.kernels import kernel

LIST_ITEM, BULLETS, NUMBERS, CELL_TAG, HEAD_CELL, TABLE_ROW, PREFORMATTED, RULE = map(
    BLOCK_TAGS.index, ("li", "ul", "ol", "td", "th", "tr", "pre", "hr")
)
IS_BOX = np.array([tag in BOX_TAGS for tag in BLOCK_TAGS])
IS_PARAGRAPH = np.array([tag in PARAGRAPH_TAGS for tag in BLOCK_TAGS])
HREF = np.frombuffer(b" href=", np.uint8)

GAP, LETTERS, PROSE, TEXT_ENDS = range(4)
"""Columns of blocks; the last is where its text ends, in characters of all texts laid end to end."""
TAG, PARENT, START, END, BOX_LETTERS, BOX_PROSE, ATTRIBUTES, ATTRIBUTES_END = range(8)
"""Columns of boxes."""
TAG_NAMES = np.array(BLOCK_TAGS, object)

compiled = kernel(__file__, *MARKUP_SOURCES)


class Cut(NamedTuple):
    """What the kernel finds: all texts end to end as UTF-8, a row a block, a row a box."""

    texts: Bytes
    blocks: Tokens
    boxes: Tokens


def cut(markup: str, *, furniture: bool, comments: bool) -> Blocks:
    """The blocks and boxes of serialized markup, without furniture unless it is to stay."""
    data = plain_markup(markup).encode("utf-8", "surrogatepass")
    texts, blocks, boxes = _cut(np.frombuffer(data, np.uint8), furniture, comments)
    whole = texts.tobytes().decode("utf-8", "surrogatepass")
    gaps, letters, prose, ends = blocks.T.tolist()
    _, parents, first, end, box_letters, box_prose, names, names_end = boxes.T.tolist()
    return Blocks(
        [whole[start:stop] for start, stop in zip([0, *ends], ends, strict=False)],
        gaps,
        letters,
        prose,
        Boxes(
            TAG_NAMES[boxes[:, TAG]].tolist(),
            parents,
            first,
            end,
            box_letters,
            box_prose,
            lambda box: data[names[box] : names_end[box]].decode("utf-8", "surrogatepass"),
        ),
    )


@compiled
def _copy_without_tags(data: Bytes, i: int, end: int, block: Bytes, size: int) -> int:
    """Lay text behind what `block` holds, less the tags in it; the new size."""
    name_end = i
    while i < end:
        if data[i] == LESS:
            if name_end <= i:
                name_end = i + 1
                while name_end < end and data[name_end] != BLANK and data[name_end] != GREATER:
                    name_end += 1
            after = attributes_end(data, name_end, end)
            if after < end and data[after] == GREATER:
                i = after + 1
                continue
        block[size] = data[i]
        size += 1
        i += 1
    return size


@compiled
def _add_up(blocks: Tokens, boxes: Tokens) -> None:
    """Set the letters and the prose of each box to those of the blocks in it."""
    sums = np.zeros((len(blocks) + 1, 2), np.int32)
    for b in range(len(blocks)):
        sums[b + 1, 0] = sums[b, 0] + blocks[b, LETTERS]
        sums[b + 1, 1] = sums[b, 1] + blocks[b, PROSE]
    for b in range(len(boxes)):
        start, end = boxes[b, START], boxes[b, END]
        boxes[b, BOX_LETTERS] = sums[end, 0] - sums[start, 0]
        boxes[b, BOX_PROSE] = sums[end, 1] - sums[start, 1]


@compiled
def _cut(data: Bytes, furniture: bool, comments: bool) -> Cut:
    tokens = tokens_of(data)
    if not furniture:
        tokens = without_furniture(data, tokens, comments)
    blocks, boxes = np.empty((len(tokens), 4), np.int32), np.empty((len(tokens), 8), np.int32)
    open_boxes, lists = np.empty(len(tokens) + 1, np.int32), np.empty(len(tokens), np.int32)
    open_boxes[0] = -1
    block = np.empty(len(data) + len(tokens), np.uint8)
    out = np.empty(len(data) + MARKER_BYTES * len(tokens), np.uint8)
    n_blocks = n_boxes = n_lists = size = at = characters = 0
    depth = 1
    letters = linked = preformatted = row = 0
    gap, indent, number = LINE, 0, 0  # of the marker: no indent, no marker; number 0, a bullet
    begun = in_link = False
    for t in range(len(tokens)):
        kind, closes, names, names_end = tokens[t, KIND], tokens[t, CLOSES], tokens[t, NAMES], tokens[t, NAMES_END]
        text, text_end = tokens[t, TEXT], tokens[t, TEXT_END]
        breaks = kind == LINE_BREAK and not closes
        if kind == LINK:
            in_link = not closes and find(data, names, names_end, HREF)
        elif breaks and preformatted != 0:
            block[size] = LINE_FEED
            size += 1
            begun = True
        else:
            if letters > 0:
                start = at
                if preformatted != 0:
                    at = write_preformatted(block[:size], out, at)
                else:
                    at = write_text(block[:size], out, write_marker(out, at, indent, number))
                characters += characters_in(out, start, at)
                blocks[n_blocks, GAP], blocks[n_blocks, TEXT_ENDS] = gap, characters
                blocks[n_blocks, LETTERS], blocks[n_blocks, PROSE] = letters, max(0, letters - linked)
                n_blocks += 1
                gap, indent = LINE, 0
            size = letters = linked = 0
            begun = False
            if IS_PARAGRAPH[kind]:
                gap = PARAGRAPH
            if closes:
                if depth > 1:
                    depth -= 1
                    if open_boxes[depth] >= 0:
                        boxes[open_boxes[depth], END] = n_blocks
                if kind == LIST_ITEM:
                    indent = 0
                elif kind in (BULLETS, NUMBERS):
                    n_lists = max(0, n_lists - 1)
                elif kind == PREFORMATTED:
                    preformatted -= 1
            elif kind != LINE_BREAK and kind != RULE:
                box = open_boxes[depth - 1]
                if names < names_end or IS_BOX[kind]:
                    boxes[n_boxes, TAG], boxes[n_boxes, PARENT], boxes[n_boxes, START] = kind, box, n_blocks
                    boxes[n_boxes, ATTRIBUTES], boxes[n_boxes, ATTRIBUTES_END] = names, names_end
                    box = n_boxes
                    n_boxes += 1
                open_boxes[depth] = box
                depth += 1
                if kind == LIST_ITEM:
                    indent, number = min(max(n_lists, 1), MAX_INDENT), 0
                    if n_lists > 0 and lists[n_lists - 1] >= 0:
                        lists[n_lists - 1] += 1
                        number = lists[n_lists - 1]
                elif kind in (BULLETS, NUMBERS):
                    lists[n_lists] = 0 if kind == NUMBERS else -1
                    n_lists += 1
                elif kind in (CELL_TAG, HEAD_CELL):
                    if gap == LINE and n_blocks > row:
                        gap = CELL
                elif kind == TABLE_ROW:
                    row = n_blocks
                elif kind == PREFORMATTED:
                    preformatted += 1
        if begun or preformatted != 0 or not is_blank(data, text, text_end):
            begun = True
            piece = size
            size = _copy_without_tags(data, text, text_end, block, size)
            visible, others = letters_in(block, piece, size)
            letters += visible
            if in_link:
                linked += visible + others
        elif breaks and find(data, text, text_end, NO_BREAK_BYTES):
            gap = PARAGRAPH  # a line of nothing else is how such pages part paragraphs
    for place in range(depth):
        if open_boxes[place] >= 0:
            boxes[open_boxes[place], END] = n_blocks
    _add_up(blocks[:n_blocks], boxes[:n_boxes])
    return Cut(out[:at], blocks[:n_blocks], boxes[:n_boxes])
