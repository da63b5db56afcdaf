"""The main content of a web page, found in one pass over the page's markup.

Furniture goes by its name (`furniture`). What is left is cut into blocks of text, which stand in boxes (`blocks`), and
the box that holds most of the prose is looked for, the container: what is in it stays, with the lead before it and the
parts beside it, but without lists of links. A page in which no box stands out stays whole.

Prose is text outside links, counted in letters, which are characters but blanks: nothing here depends on a language or
on spaces between words. Time and memory grow with the page's length, however deep or broken it is.
"""

import re
from collections.abc import Callable, Iterable, Iterator
from itertools import accumulate
from operator import mul, sub
from typing import TYPE_CHECKING

from pipeline.extraction.blocks import CELL, PARAGRAPH, Blocks, Box, cut, text_of, tokens_of
from pipeline.extraction.furniture import COMMENT_WORDS, remove_unread, without_furniture, words_of

if TYPE_CHECKING:
    from resiliparse.parse.html import HTMLTree

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


def main_content(tree: "HTMLTree", *, comments: bool = False) -> str:
    """The main content of a parsed page as plain text; empty only where the page has none but notices.

    Paragraphs are parted by an empty line, list items begin with a bullet or their number, table cells are parted by a
    tab, `pre` keeps its lines and blanks. With `comments`, readers' comments stay. Takes elements that
    are no content out of `tree`; depends on nothing but the tree.
    """
    body = tree.body
    if body is None:
        return ""
    remove_unread(body)
    tokens = tokens_of(body.inner_html)
    page = cut(without_furniture(tokens, comments))
    kept = _within_container(page, comments)
    if sum(_only(page.letters, kept)) < FEW_LETTERS:
        if sum(page.letters) < FEW_LETTERS:
            page = cut(tokens)
        kept = _all(page)
    return _text(page, kept)


def _outermost(boxes: list[Box], wanted: Callable[[Box], bool]) -> Iterator[Box]:
    """The boxes that are wanted and hold blocks, none inside another: no block is looked at twice."""
    done = 0
    for box in boxes:
        if done <= box.start < box.end and wanted(box):
            done = box.end
            yield box


def _within_container(page: Blocks, comments: bool) -> bytearray:
    """Marks what lies in the box that holds the prose, with its lead, without lists of links."""
    letters, links = _sums(page.letters), _sums(page.links)
    prose = list(map(sub, letters, links))
    container, is_body = _container(page, prose)
    if container is None:
        return _all(page)
    kept = bytearray(len(page.texts))
    start, end = _with_parts(page, container, is_body, letters, prose)
    kept[start:end] = b"\1" * (end - start)
    for block in _lead(container, start, letters, prose):
        kept[block] = 1
    if comments:
        for box in _outermost(page.boxes, lambda box: not COMMENT_WORDS.isdisjoint(words_of(box.attributes))):
            kept[box.start : box.end] = b"\1" * (box.end - box.start)
    most = LINK_LIST_SHARE * sum(_only(page.letters, kept))

    def link_list(box: Box) -> bool:
        count = letters[box.end] - letters[box.start]
        return box.tag in _LINK_LISTS and count <= most and links[box.end] - links[box.start] >= LINK_SHARE * count

    for box in _outermost(page.boxes, link_list):
        kept[box.start : box.end] = bytes(box.end - box.start)
    return kept


def _container(page: Blocks, prose: list[int]) -> tuple[Box | None, bool]:
    """The innermost box that holds enough of the prose, and whether its name says that it is an article's body."""
    chosen, chosen_is_body = None, False
    for box in page.boxes:
        held = prose[box.end] - prose[box.start]
        if held < BODY_SHARE * prose[-1] or not held or box.tag not in _CONTAINERS:
            continue
        is_body = BODY_NAME.search(" ".join(_NAMES.findall(box.attributes))) is not None
        named = is_body or box.tag in _PRINCIPAL or 'role="main"' in box.attributes
        if named or (box.tag == "div" and held >= PLAIN_SHARE * prose[-1]):
            chosen, chosen_is_body = box, is_body
    return chosen, chosen_is_body


def _with_parts(page: Blocks, container: Box, is_body: bool, letters: list[int], prose: list[int]) -> tuple[int, int]:
    """The blocks of the container and of the boxes that go on with what it began."""

    def held(box: Box) -> int:
        return prose[box.end] - prose[box.start]

    start, end, outer = container.start, container.end, container.parent
    bare = prose[outer.end] - prose[outer.start] if outer is not None else prose[-1]
    name, enough = _class(container), PART_SHARE * held(container)
    for box in page.boxes:
        beside = box.parent is outer
        if beside:
            bare -= held(box)
        if held(box) < PART_LETTERS or box.tag != container.tag:
            continue
        alike = (beside and box.tag == "article") or ((beside or is_body) and _class(box) == name)
        if alike or (beside and held(box) >= max(enough, LINK_SHARE * (letters[box.end] - letters[box.start]))):
            start, end = min(start, box.start), max(end, box.end)
    # Themes put everything into boxes: prose that stands beside the container in none is written by hand.
    if bare >= PART_LETTERS and not is_body:
        return (outer.start, outer.end) if outer is not None else (0, len(page.texts))
    return start, end


def _lead(container: Box, start: int, letters: list[int], prose: list[int]) -> list[int]:
    """Blocks of prose beside the container, or beside a box around it, that come before block `start`."""
    inner = container
    for _ in range(LEAD_LEVELS):
        outer = inner.parent
        if inner.tag in _PRINCIPAL or outer is None:
            break
        found = []
        for block in range(outer.start, start):
            count = letters[block + 1] - letters[block]
            if count >= LEAD_LETTERS and prose[block + 1] - prose[block] >= LEAD_PROSE_SHARE * count:
                found.append(block)
        if found:
            return found
        inner = outer
    return []


def _class(box: Box) -> list[str]:
    found = _CLASS.search(box.attributes)
    return found[1].split() if found else []


def _sums(counts: Iterable[int]) -> list[int]:
    return list(accumulate(counts, initial=0))


def _all(page: Blocks) -> bytearray:
    return bytearray(b"\1") * len(page.texts)


def _only(counts: list[int], kept: bytearray) -> Iterable[int]:
    return map(mul, counts, kept)


def _text(page: Blocks, kept: bytearray) -> str:
    """The kept blocks, parted as their markup asks, without notices."""
    pieces: list[str] = []
    for index in range(len(page.texts)):
        if not kept[index]:
            continue
        text = text_of(page, index)
        if len(text) < NOTICE_CHARACTERS and NOTICE.match(text):
            continue
        gap = page.gaps[index]
        if pieces:
            same_row = gap == CELL and kept[index - 1]
            pieces.append("\t" if same_row else "\n\n" if gap == PARAGRAPH else "\n")
        pieces.append(text)
    return "".join(pieces)
