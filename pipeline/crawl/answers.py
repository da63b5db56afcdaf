"""What an answer says: its row in the url index, and its record where it is a page to be stored."""

import re
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

import lxml.etree
import lxml.html

from pipeline.crawl.fetch import Answer
from pipeline.crawl.permissions import Permissions, TdmRep, read_permissions
from pipeline.crawl.scope import Scope
from pipeline.crawl.site import redirect_target
from pipeline.crawl.sitemaps import read_sitemap
from pipeline.crawl.spool import REVISIT, STORED, Row, new_row
from pipeline.crawl.urls import canonical_url
from pipeline.crawl.warc import payload_digest, response_record, revisit_record
from pipeline.extraction.charset import decode
from pipeline.extraction.license import license_link
from pipeline.extraction.page import Rejected, require_flat
from pipeline.versions import LOOP

STORED_TYPES = ("text/html", "application/xhtml+xml", "text/plain")
"""Media types of pages; where a server says nothing, the first is taken for granted."""

MAX_LINKS = 10_000
"""Of one page, in the order of the page."""

MAX_LINK_BYTES = 1024 * 1024
"""Of one page's links together."""

_LINKS = frozenset({"a", "area", "frame", "iframe", "link"})
_FOLLOWED_RELATIONS = frozenset({"next", "prev", "alternate"})
_PAGE_LINK_TYPES = frozenset({"", *STORED_TYPES})
_REFRESH = re.compile(r"\s*[\d.]+\s*[;,]\s*(?:url\s*=)?\s*['\"]?(?P<url>[^'\"]+)", re.IGNORECASE)
_CHARSET = re.compile(r"charset\s*=\s*\"?([^\s;\",]+)", re.IGNORECASE)


@dataclass(frozen=True)
class Asked:
    """What is known when an answer comes: the scope, the site's own words, and the page as an earlier snapshot has it.

    `ignored` are signals that are recorded but not obeyed, of `noindex`, `noai` and `tdm`.
    """

    url: str
    now: int
    scope: Scope
    tdmrep: TdmRep
    ignored: frozenset[str] = frozenset()
    earlier: Row | None = None


def read_answer(asked: Asked, answer: Answer) -> tuple[Row, bytes | None]:
    """What an answer to a page's request says: its row, and its record where it is stored or found unchanged."""
    row = new_row(
        asked.url,
        STORED,
        status=answer.status,
        etag=answer.header("ETag"),
        last_modified=answer.header("Last-Modified"),
        content_type=answer.header("Content-Type"),
        fetched_at=asked.now,
    )
    earlier = asked.earlier
    if answer.status == 304 and earlier is not None:
        return _unchanged(asked, answer, row, earlier)
    if (target := redirect_target(answer, asked.url)) is not None:
        if target == asked.url:
            return row | {"outcome": LOOP, "detail": "leads to itself, for want of a cookie perhaps"}, None
        outside = not asked.scope.covers(target)
        detail = f"leads out of scope, to {target}" if outside else None
        return row | {"outcome": "redirect", "links": [target], "detail": detail}, None
    if answer.status != 200:
        return row | {"outcome": f"http_{answer.status}"}, None
    if answer.refused is not None:
        return row | {"outcome": answer.refused, "detail": answer.detail}, None
    if answer.media_type is None and answer.body.lstrip()[:1] != b"<":
        return row | {"outcome": "not_html", "detail": "no Content-Type"}, None
    if not answer.body.strip():
        return row | {"outcome": "empty"}, None
    try:
        page = _read_html(answer, asked.url) if answer.media_type != "text/plain" else _Page()
    except Rejected as rejection:
        return row | {"outcome": rejection.args[0], "detail": rejection.args[1]}, None
    permissions = _permissions(asked, answer, row, page.metas)
    row["license"] = page.license
    if not permissions.nofollow:
        row["links"] = [link for link in page.links if asked.scope.covers(link) and link != asked.url]
    if (forbidden := _forbidden(permissions, asked.ignored)) is not None:
        return row | {"outcome": forbidden}, None
    digest = payload_digest(answer.body)
    row |= {"payload_digest": digest, "payload_length": len(answer.body)}
    if earlier is not None and earlier["payload_digest"] == digest:
        row["stored_at"] = earlier["stored_at"]
        record = revisit_record(asked.url, asked.now, answer.status, answer.headers, digest, earlier["stored_at"])
        return row | {"outcome": REVISIT}, record
    row["stored_at"] = asked.now
    return row, response_record(asked.url, asked.now, answer.status, answer.headers, answer.body, answer.reason)


def read_sitemap_answer(url: str, now: int, scope: Scope, answer: Answer) -> Row:
    """The row of a sitemap: `links` are the pages of the scope that it names, `sitemaps` further sitemaps."""
    row = new_row(url, "sitemap", status=answer.status, fetched_at=now, content_type=answer.header("Content-Type"))
    if (target := redirect_target(answer, url)) is not None:
        return row | {"outcome": "redirect", "sitemaps": [target]}
    if answer.status != 200:
        return row | {"outcome": f"http_{answer.status}"}
    found = read_sitemap(answer.body, url)
    return row | {
        "links": [page for page in found.pages if scope.covers(page)],
        "sitemaps": found.sitemaps,
        "detail": answer.detail or (None if found.pages or found.sitemaps else "it names no page"),
    }


def conditions(earlier: Row | None) -> dict[str, str]:
    """Request headers that ask for a page only if it is no longer as `earlier` has it (RFC 9110, 13.1)."""
    if earlier is None:
        return {}
    named = {"If-None-Match": earlier["etag"], "If-Modified-Since": earlier["last_modified"]}
    return {name: value for name, value in named.items() if value}


def _unchanged(asked: Asked, answer: Answer, row: Row, earlier: Row) -> tuple[Row, bytes | None]:
    """A 304: what the page said of itself still holds, and what the header says now is added."""
    reserved = {True: "1", False: "0"}.get(earlier["tdm_page"])
    permissions = _permissions(asked, answer, row, [] if reserved is None else [("tdm-reservation", reserved)])
    for name in ("etag", "last_modified", "content_type", "robots"):
        row[name] = earlier[name] if row[name] is None else row[name]
    for name in ("payload_digest", "links", "license", "stored_at"):
        row[name] = earlier[name]
    if (forbidden := _forbidden(permissions, asked.ignored)) is not None:
        return row | {"outcome": forbidden, "payload_digest": None, "stored_at": None}, None
    record = revisit_record(
        asked.url, asked.now, answer.status, answer.headers, earlier["payload_digest"], earlier["stored_at"]
    )
    return row | {"outcome": REVISIT}, record


def _permissions(asked: Asked, answer: Answer, row: Row, metas: Iterable[tuple[str, str]]) -> Permissions:
    """What header, page and TDM file say together; noted in `row`."""
    said = read_permissions(answer.headers, metas)
    permissions = said.with_tdm_file(asked.tdmrep, asked.url)
    row |= {
        "robots": permissions.said,
        "tdm_page": said.tdm_reserved,
        "tdm_reserved": permissions.tdm_reserved,
    }
    return permissions


def _forbidden(permissions: Permissions, ignored: frozenset[str]) -> str | None:
    """The outcome of a page whose owner forbids what we do with it, or None."""
    if permissions.noai and "noai" not in ignored:
        return "no_ai"
    if permissions.tdm_reserved and "tdm" not in ignored:
        return "tdm_reserved"
    return "noindex" if permissions.noindex and "noindex" not in ignored else None


@dataclass
class _Page:
    """What of a page's markup concerns the crawl."""

    links: tuple[str, ...] = ()
    metas: tuple[tuple[str, str], ...] = ()
    license: str | None = None


def _read_html(answer: Answer, url: str) -> _Page:
    """Links, meta elements and licence of an HTML page, of one that cannot be decoded nothing.

    Raises `Rejected` where a parser would take more than its share.
    """
    charset = _CHARSET.search(answer.header("Content-Type") or "")
    text = decode(answer.body, charset[1] if charset else None)
    if text is None:
        return _Page()
    require_flat(text)
    parser = lxml.html.HTMLParser(encoding="utf-8", no_network=True, huge_tree=True)  # nesting beyond 256 elements
    try:
        root = lxml.html.document_fromstring(text.encode("utf-8", "replace"), parser=parser)
    except (lxml.etree.LxmlError, ValueError):
        return _Page()
    base = next((found for node in root.iter("base") if (found := canonical_url(node.get("href") or "", url))), url)
    links: dict[str, None] = {}
    written: set[str] = set()
    metas: list[tuple[str, str]] = []
    room = MAX_LINK_BYTES
    for node in root.iter("meta", *_LINKS):
        reference = _reference(node)
        if node.tag == "meta":
            metas.append((node.get("name") or "", node.get("content") or ""))
        if reference is None or reference in written or len(links) >= MAX_LINKS or room <= 0:
            continue
        written.add(reference)
        link = canonical_url(reference, base)
        if link is not None and link not in links:
            links[link] = None
            room -= len(link)
    return _Page(tuple(sorted(links)), tuple(metas), _license(root, base))


def _reference(node: Any) -> str | None:
    """Where a node leads to another page, as it is written; None where it does not, or must not be followed."""
    if node.tag == "meta":
        if (node.get("http-equiv") or "").strip().lower() != "refresh":
            return None
        match = _REFRESH.match(node.get("content") or "")
        return match["url"] if match else None
    relations = frozenset((node.get("rel") or "").lower().split())
    if "nofollow" in relations:
        return None
    if node.tag == "link":
        media_type = (node.get("type") or "").split(";")[0].strip().lower()
        if not relations & _FOLLOWED_RELATIONS or media_type not in _PAGE_LINK_TYPES:
            return None
    found: str | None = node.get("src" if node.tag in ("frame", "iframe") else "href")
    return found


def _license(root: Any, base: str) -> str | None:
    """The licence that a page links to, as a canonical URL."""
    links = ((node.get("rel") or "", node.get("href") or "") for node in root.iter("a", "area", "link"))
    found = license_link(links, base)
    return None if found is None else canonical_url(found)
