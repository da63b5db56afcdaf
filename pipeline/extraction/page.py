"""From one page to its text, and what it says of itself: title, licence and language.

A page's row depends on the page and the configuration and nothing else: no state is kept between pages, no clock is
read. What would take a library too long is refused beforehand, by what is in the page.
"""

import re
import unicodedata
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import groupby
from typing import Any, Literal
from urllib.parse import urljoin

from pydantic import Field

from pipeline.config import Config
from pipeline.extraction.license import license_link

HTML_TYPES = frozenset({"text/html", "application/xhtml+xml", "application/xml", "text/xml"})
TEXT_TYPES = frozenset({"text/plain", "text/markdown", "text/x-rst"})
UNSAID_TYPES = frozenset({"", "application/octet-stream", "application/http", "unknown/unknown"})
"""Content types that say nothing: the first bytes are looked at instead."""

MAX_TAGS = 300_000
"""In trafilatura, the slower one, each takes up to 25 microseconds and 2 KB: 8 s and 0.7 GB."""

MAX_DEPTH = 2_000
"""Open elements around one place; resiliparse takes the square of it, 1 s for 10,000. Browsers nest 512 at most."""

MAX_ATTRIBUTES = 2_000
"""Different ones of one element; parsers compare each with all others, 14 s for 100,000 of them."""

MAX_MARKS = 1_000
"""Combining characters in a row; sorting them for NFC takes the square. Text in use has some 30 at most (UAX 15)."""

FEW_TAGS = 10_000
"""A page with fewer cannot be nested so deep that it matters."""

LANGUAGE = re.compile(r"[a-z]{2,3}(?![a-z])")
"""The primary subtag of a language tag (BCP 47), lower-cased before matching."""

MAX_TITLE_CHARACTERS = 500

_LICENSE_LINKS = "[rel~=license i][href], a[href*='creativecommons.org/' i]"
_TAG = re.compile(r"<(/?)([a-zA-Z][a-zA-Z0-9]*)")
_QUOTED = re.compile(r"\"[^\"]*\"|'[^']*'")
_OFTEN_UNCLOSED = frozenset(
    [
        *("area", "base", "br", "col", "embed", "hr", "img", "input", "link", "meta", "param", "source", "track"),
        *("p", "li", "dt", "dd", "tr", "td", "th", "thead", "tbody", "tfoot", "option", "optgroup", "rp", "rt"),
        *("a", "wbr", "colgroup", "caption", "html", "head", "body"),
    ]
)
"""Elements without content, and those whose end tag may be left out (HTML 13.1.2.4): they do not nest by themselves."""

_CONTROL = re.compile("[\x00-\x08\x0b-\x1f\x7f-\x9f\ufeff\ud800-\udfff]")
_NOT_PLAIN = re.compile(rf"{_CONTROL.pattern}|[\u2028\u2029]")
_LINE_END = re.compile(r"\r\n?|[\v\f\x85\u2028\u2029]")
_EMPTY_CELLS = re.compile(r"^(?= *\u00a0)[\u00a0 ]*+\t[\u00a0\t ]*", re.MULTILINE)
_SIGNS = re.compile(rf"(?<![^\w\s\x00-\x7f])[^\w\s\x00-\x7f]{{{MAX_MARKS},}}+")
_BLANK_LINES = re.compile(r"\n{3,}")


class ExtractConfig(Config):
    """How pages become text."""

    extractor: Literal["fast", "accurate"] = "fast"
    """Who finds the main content: our own filter of resiliparse's tree, or trafilatura, at a tenth of the pace."""
    main_content: bool = True
    """Leave out navigation, headers, footers and the like; off, all visible text is kept (fast only)."""
    comments: bool = False
    """Keep readers' comments under an article."""
    min_characters: int = Field(1, ge=1)
    """Characters of text under which a page counts as empty."""
    max_body_bytes: int = Field(10_000_000, ge=1_000)
    """Bytes of decoded page body above which a page is not read."""


@dataclass(frozen=True)
class Page:
    """One page: its bytes, and what was said about them on the way."""

    url: str
    body: bytes
    content_type: str
    charset: str | None
    content_language: str | None


@dataclass(frozen=True)
class PageText:
    """What a page gives; a field is None where the page does not say."""

    language: str | None
    license: str | None
    title: str | None
    text: str


class Rejected(Exception):
    """A page that gives no text; `args` are the reason, one of `extract.REASONS`, and a detail."""


def page_text(page: Page, config: ExtractConfig) -> PageText:
    """Text of `page` and what it says of itself; raises `Rejected` where it gives none."""
    from pipeline.extraction.charset import decode

    kind = _kind(page)
    markup = decode(page.body, page.charset, markup=kind == "html")
    if markup is None:
        raise Rejected("undecodable", f"not text in {page.charset or 'any charset that it suggests'}")
    language = page.content_language
    title = license_url = None
    if kind == "html":
        from resiliparse.parse.html import HTMLTree

        _require_few_tags(markup)
        require_flat(markup)
        tree = HTMLTree.parse(markup)
        title, license_url, declared = _facts(tree, page.url)
        language = declared or language
        raw = _accurate(markup, config) if config.extractor == "accurate" else _fast(tree, config)
    else:
        raw = markup
    _require_few_marks(raw)
    text = clean(raw)
    if len(text) < config.min_characters:
        raise Rejected("empty", f"{len(text)} characters of text")
    return PageText(_primary_subtag(language), license_url, title, text)


def clean(text: str) -> str:
    """`text` as documents hold it: NFC, lines that end in a newline, no other control
    characters but tab, no stray blanks.

    Non-breaking spaces become spaces: on the web they indent and pad, and a model should meet one kind of space.
    A line's indentation is kept, except the empty table cells that the extractor puts before it.
    """
    if _NOT_PLAIN.search(text):
        text = _CONTROL.sub("", _LINE_END.sub("\n", text))
    if "\u00a0" in text:
        text = _EMPTY_CELLS.sub("", text).replace("\u00a0", " ")
    text = unicodedata.normalize("NFC", text)
    if " \n" in text or "\t\n" in text:
        text = "\n".join([line.rstrip(" \t") for line in text.split("\n")])
    if "\n\n\n" in text:
        text = _BLANK_LINES.sub("\n\n", text)
    return text.strip("\n").rstrip()


def _require_few_tags(markup: str) -> None:
    if (tags := markup.count("<")) > MAX_TAGS:
        raise Rejected("too_complex", f"{tags} tags")


def require_flat(markup: str) -> None:
    """`Rejected` where a parser would take the square of it. An estimate: what deceives it meets other limits."""
    for tag in _long_tags(markup):
        attributes = {each.partition("=")[0] for each in _QUOTED.sub("", tag).split()}
        if len(attributes) > MAX_ATTRIBUTES:
            raise Rejected("too_complex", f"{len(attributes)} attributes of one element")
    if markup.count("<") > FEW_TAGS and (depth := _depth(markup)) > MAX_DEPTH:
        raise Rejected("too_complex", f"{depth} elements deep")


def _long_tags(markup: str) -> Iterator[str]:
    """The start tags in which so many attributes have room; looks only for the last `<` in so many characters."""
    least, start = 2 * MAX_ATTRIBUTES, markup.find("<") + 1
    while 0 < start < len(markup) - least:
        last = markup.rfind("<", start, start + least)
        if last < 0:
            last = markup.find("<", start + least)
            if markup[start].isalpha():
                yield markup[start : last if last >= 0 else None].partition(">")[0]
        start = last + 1


def _require_few_marks(text: str) -> None:
    """`Rejected` where normalising `text` would take too long."""
    if not any(map(unicodedata.combining, text[::MAX_MARKS])):
        return  # so long a run would hold one of these
    for match in _SIGNS.finditer(text):
        for is_mark, marks in groupby(match.group(), lambda character: unicodedata.combining(character) > 0):
            if is_mark and (count := sum(1 for _ in marks)) > MAX_MARKS:
                raise Rejected("too_complex", f"{count} combining characters in a row")


def _depth(markup: str) -> int:
    """Elements open at once at most, of those that must be closed."""
    unclosed: Counter[str] = Counter()
    depth = deepest = 0
    for end, name in _TAG.findall(markup):
        name = name.lower()
        if name in _OFTEN_UNCLOSED:
            continue
        if not end:
            unclosed[name] += 1
            depth += 1
            deepest = max(deepest, depth)
        elif unclosed[name]:
            unclosed[name] -= 1
            depth -= 1
    return deepest


def _fast(tree: Any, config: ExtractConfig) -> str:
    """Main content by our own reading of the tree, which it takes apart; all visible text without `main_content`."""
    if config.main_content:
        from pipeline.extraction.main_content import main_content

        return main_content(tree, comments=config.comments)
    from resiliparse.extract.html2text import extract_plain_text

    return extract_plain_text(tree, preserve_formatting=True, alt_texts=False, comments=config.comments)


def _accurate(markup: str, config: ExtractConfig) -> str:
    """Main content by trafilatura. Its caches only save time; the one that does more, deduplication, stays off."""
    import trafilatura

    return trafilatura.extract(markup, include_comments=config.comments, deduplicate=False) or ""


def _facts(tree: Any, url: str) -> tuple[str | None, str | None, str | None]:
    """Title, licence link and declared language of a page; each None where the page does not say."""
    document = tree.document
    title = " ".join(_CONTROL.sub("", tree.title or "").split())[:MAX_TITLE_CHARACTERS]
    base = document.query_selector("base[href]")
    try:
        base_url = urljoin(url, base.getattr("href")) if base is not None else url
    except ValueError:
        base_url = url
    root = document.query_selector("html")
    language = (root.getattr("lang") or root.getattr("xml:lang")) if root is not None else None
    return unicodedata.normalize("NFC", title) or None, license_link(_license_links(document), base_url), language


def _license_links(document: Any) -> Iterator[tuple[str, str]]:
    for node in document.query_selector_all(_LICENSE_LINKS):
        yield node.getattr("rel") or "", node.getattr("href") or ""


def _primary_subtag(tag: str | None) -> str | None:
    match = LANGUAGE.match((tag or "").strip().lower())
    return match.group() if match else None


def _kind(page: Page) -> Literal["html", "text"]:
    content_type = page.content_type
    if content_type in UNSAID_TYPES:
        from resiliparse.parse.encoding import detect_mime

        content_type = detect_mime(page.body)
    if content_type in HTML_TYPES:
        return "html"
    if content_type in TEXT_TYPES:
        return "text"
    raise Rejected("not_text", content_type)
