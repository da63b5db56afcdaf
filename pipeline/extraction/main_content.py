"""The main content of a web page, found in one pass over the page's markup.

Furniture goes by its name (`furniture`). What is left is cut into blocks of text, which stand in boxes (`blocks`), and
the box that holds most of the prose is looked for, the container: what is in it stays, with the lead before it and the
parts beside it, but without lists of links. A page in which no box stands out stays whole.

Prose is text outside links, counted in letters, which are characters but blanks: nothing here depends on a language or
on spaces between words. Time and memory grow with the page's length, however deep or broken it is.
"""

import re
from collections.abc import Callable, Iterable, Iterator
from itertools import count
from operator import mul
from typing import TYPE_CHECKING

from pipeline.extraction.block_reference import reference_blocks
from pipeline.extraction.blocks import CELL, PARAGRAPH, Blocks, Boxes
from pipeline.extraction.furniture import COMMENT_WORDS, remove_unread, words_of

if TYPE_CHECKING:
    from resiliparse.parse.html import HTMLTree

PLAIN_PAGES = 700
"""So many pages a process reads without kernels: to load these takes as long as they save on so many."""

BODY_NAME = re.compile(
    r"(?:article|entry|post|story|blog|news|page|main)[-_]*(?:body|content|text|inner)|bodytext", re.IGNORECASE
)
BODY_SHARE, PLAIN_SHARE = 0.5, 0.7
"""How much of the prose a box must hold to be the container: less where its tag or name says that it is an article."""

LEAD_LETTERS = 60
LEAD_LEVELS = 3
LEAD_PROSE_SHARE = 0.75
"""A block of at least so many letters, mostly prose, that stands before the container within so many levels is its
lead: themes put headline and first paragraph in a header of their own."""

PART_SHARE = 0.2
PART_LETTERS = 100
"""Prose that makes a box beside the container another part of it: as a share of the container's, or where both have one
class, in letters."""

LINK_SHARE = 0.6
LINK_LIST_SHARE = 0.3
"""A box of which so much is links is a list of links, unless it makes up more than the second share of the text."""

FEW_LETTERS = 25
"""A result below this is doubted: fewer rules are applied, in the end none."""

NOTICE_CHARACTERS = 90
"""Longer lines are sentences, not notices."""

NOTICE = re.compile(
    r"""[•\s]*(?:
    copyright\ (?:©|\(c\)|\d)|©|\(c\)\ \d|(?:all\ rights\ reserved|alle\ rechte\ vorbehalten|tous\ droits\ réservés)
    |(?:photo|image|picture|foto|bild)(?:\ credits?|s?\ by|s?:)
    |(?:tags?|categor(?:y|ies)):|tagged\ (?:with|as)|filed\ under|posted\ (?:in|by|on)\b|last\ (?:modified|updated)
    |share\ (?:this|on|via)\b|(?:print|drucken|imprimer|imprimir)$|back\ to\ (?:top|overview|the\ )|zurück\ zu
    |(?:advertisement|anzeige|werbung|publicité|publicidad|реклама|広告|广告):?$
    |comments\ are\ closed|leave\ a\ (?:comment|reply)|(?:previous|next)\ (?:post|article)
    |you\ (?:might|may)\ also|related\ (?:articles?|posts?|stories|news|links|topics|content)$
    |read\ (?:also|more|next)\b|weiter(?:e|führende)\ (?:artikel|infos?|informationen|links):?$
    |das\ .{0,12}könnte\ .{2,5}\ auch|mehr\ zum\ thema|zum\ weiterlesen
    |(?:à\ )?lire\ aussi|lea\ también|leggi\ anche|leia\ também|lees\ ook|czytaj\ (?:też|także|więcej)
    |читайте\ также|相关(?:阅读|文章|新闻)|関連記事|관련기사
    )""",
    re.IGNORECASE | re.VERBOSE,
)
"""How short lines begin that speak about the page. No rule needs them; they trim what is left."""

_NAMES = re.compile(r' (?:class|id|role|itemprop)="([^"]*)"')
_CLASS = re.compile(r' class="([^"]*)"')
_CONTAINERS = frozenset({"div", "section", "article", "main", "td", "center", "form"})
_LINK_LISTS = frozenset({"div", "section", "article", "ul", "ol", "dl", "table", "header", "fieldset", "center"})
_PRINCIPAL = frozenset({"article", "main"})
_pages = count()


Cut = Callable[..., Blocks]
"""Called as `cut(markup, furniture=…, comments=…)`."""


def main_content(tree: "HTMLTree", *, comments: bool = False, cut: Cut | None = None) -> str:
    """The main content of a parsed page as plain text; empty only where the page has none but notices.

    Paragraphs are parted by an empty line, list items begin with a bullet or their number, table cells are parted by a
    tab, `pre` keeps its lines and blanks. With `comments`, readers' comments stay. Takes elements that
    are no content out of `tree`; depends on nothing but the tree: whatever cuts the markup, kernels or their reference,
    finds the same blocks.
    """
    cut = cut or _cut_at_hand()
    body = tree.body
    if body is None:
        return ""
    remove_unread(body)
    markup = body.inner_html
    page = cut(markup, furniture=False, comments=comments)
    kept = _within_container(page, comments)
    if sum(map(mul, page.letters, kept)) < FEW_LETTERS:
        if sum(page.letters) < FEW_LETTERS:
            page = cut(markup, furniture=True, comments=comments)
        kept = _all(page)
    return _text(page, kept)


def _cut_at_hand() -> Cut:
    if next(_pages) < PLAIN_PAGES:
        return reference_blocks
    from pipeline.extraction.block_kernels import cut

    return cut


def _within_container(page: Blocks, comments: bool) -> bytearray:
    """Marks what lies in the box that holds the prose, with its lead, without lists of links."""
    boxes = page.boxes
    container, is_body = _container(boxes, sum(page.prose))
    if container is None:
        return _all(page)
    kept = bytearray(len(page.texts))
    start, end = _with_parts(page, container, is_body)
    kept[start:end] = b"\1" * (end - start)
    for block in _lead(page, container, start):
        kept[block] = 1
    if comments:
        readers = [
            box for box in range(len(boxes.tags)) if not COMMENT_WORDS.isdisjoint(words_of(boxes.attributes(box)))
        ]
        for start, end in _outermost(boxes, readers):
            kept[start:end] = b"\1" * (end - start)
    most = LINK_LIST_SHARE * sum(map(mul, page.letters, kept))
    link_lists = [
        box
        for box, (tag, letters, prose) in enumerate(zip(boxes.tags, boxes.letters, boxes.prose, strict=True))
        if letters <= most and letters - prose >= LINK_SHARE * letters and tag in _LINK_LISTS
    ]
    for start, end in _outermost(boxes, link_lists):
        kept[start:end] = bytes(end - start)
    return kept


def _container(boxes: Boxes, prose: int) -> tuple[int | None, bool]:
    """The innermost box that holds enough of the prose, and whether its name says that it is an article's body."""
    chosen, chosen_is_body = None, False
    for box in [box for box, held in enumerate(boxes.prose) if held and held >= BODY_SHARE * prose]:
        tag = boxes.tags[box]
        if tag not in _CONTAINERS:
            continue
        attributes = boxes.attributes(box)
        is_body = BODY_NAME.search(" ".join(_NAMES.findall(attributes))) is not None
        named = is_body or tag in _PRINCIPAL or 'role="main"' in attributes
        if named or (tag == "div" and boxes.prose[box] >= PLAIN_SHARE * prose):
            chosen, chosen_is_body = box, is_body
    return chosen, chosen_is_body


def _with_parts(page: Blocks, container: int, is_body: bool) -> tuple[int, int]:
    """The blocks of the container and of the boxes that go on with what it began."""
    boxes = page.boxes
    outer, tag = boxes.parents[container], boxes.tags[container]
    beside = {box for box, parent in enumerate(boxes.parents) if parent == outer}
    # Themes put everything into boxes: prose that stands beside the container in none is written by hand.
    bare = (boxes.prose[outer] if outer >= 0 else sum(page.prose)) - sum(boxes.prose[box] for box in beside)
    if bare >= PART_LETTERS and not is_body:
        return (boxes.starts[outer], boxes.ends[outer]) if outer >= 0 else (0, len(page.texts))
    name, enough = _class(boxes, container), PART_SHARE * boxes.prose[container]
    parts = [container]
    for box in [box for box, held in enumerate(boxes.prose) if held >= PART_LETTERS]:
        if boxes.tags[box] != tag:
            continue
        alike = (box in beside and tag == "article") or ((box in beside or is_body) and _class(boxes, box) == name)
        if alike or (box in beside and boxes.prose[box] >= max(enough, LINK_SHARE * boxes.letters[box])):
            parts.append(box)
    return min(boxes.starts[box] for box in parts), max(boxes.ends[box] for box in parts)


def _lead(page: Blocks, container: int, start: int) -> list[int]:
    """Blocks of prose beside the container, or beside a box around it, that come before block `start`."""
    boxes, inner = page.boxes, container
    for _ in range(LEAD_LEVELS):
        outer = boxes.parents[inner]
        if boxes.tags[inner] in _PRINCIPAL or outer < 0:
            break
        found = [
            block
            for block in range(boxes.starts[outer], start)
            if page.letters[block] >= LEAD_LETTERS and page.prose[block] >= LEAD_PROSE_SHARE * page.letters[block]
        ]
        if found:
            return found
        inner = outer
    return []


def _outermost(boxes: Boxes, chosen: Iterable[int]) -> Iterator[tuple[int, int]]:
    """The blocks of those boxes that hold some and are in none of the others: no block is looked at twice."""
    done = 0
    for box in chosen:
        if done <= boxes.starts[box] < boxes.ends[box]:
            done = boxes.ends[box]
            yield boxes.starts[box], done


def _class(boxes: Boxes, box: int) -> list[str]:
    found = _CLASS.search(boxes.attributes(box))
    return found[1].split() if found else []


def _all(page: Blocks) -> bytearray:
    return bytearray(b"\1") * len(page.texts)


def _text(page: Blocks, kept: bytearray) -> str:
    """The kept blocks, parted as their markup asks, without notices."""
    pieces: list[str] = []
    for index, (text, gap) in enumerate(zip(page.texts, page.gaps, strict=True)):
        if not kept[index] or (len(text) < NOTICE_CHARACTERS and NOTICE.match(text)):
            continue
        same_row = gap == CELL and index and kept[index - 1]
        pieces += ("\t" if same_row else "\n\n" if gap == PARAGRAPH else "\n", text)
    return "".join(pieces[1:])
