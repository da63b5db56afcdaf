"""What an answer says: its row in the url index, and its record where it is a page to be stored."""

import re
from typing import Any

from scrapy.http import HtmlResponse, Response
from scrapy.utils.response import get_base_url

from pipeline.crawl.spool import Row, new_row
from pipeline.crawl.urls import canonical_url, netloc_of
from pipeline.crawl.warc import payload_digest, response_record

STORED_TYPES = frozenset({"text/html", "application/xhtml+xml", "text/plain"})

MAX_LINKS = 10_000
"""Of one page, in the order of the page."""

_META_ROBOTS = (
    "//meta[translate(@name,'ROBTS','robts')='robots' or translate(@name,'GPTMIL','gptmil')='gptmill']/@content"
)
_LICENSE = "//*[self::a or self::link][contains(concat(' ',normalize-space(@rel),' '),' license ')]/@href"


def read_answer(url: str, response: Response, now: int, hosts: frozenset[str]) -> tuple[Row, bytes | None]:
    """What an answer says: its row, and its record where it is a page."""
    row = new_row(
        url,
        "stored",
        status=response.status,
        etag=header(response, "ETag"),
        last_modified=header(response, "Last-Modified"),
        content_type=header(response, "Content-Type"),
        robots=header(response, "X-Robots-Tag"),
        fetched_at=now,
    )
    if (target := location(response, url)) is not None:
        return row | {"outcome": "redirect", "links": [target]}, None
    if response.status != 200:
        return row | {"outcome": f"http_{response.status}"}, None
    verdict = response.request.meta["verdict"] if response.request else {}
    content_type = media_type(response.headers)
    if (outcome := verdict.get("outcome")) is not None:
        return row | {"outcome": outcome}, None
    if content_type not in STORED_TYPES and not (content_type is None and response.body.lstrip()[:1] == b"<"):
        return row | {"outcome": "not_html"}, None
    if response.headers.get("Content-Encoding"):
        return row | {"outcome": "error", "detail": "unknown Content-Encoding"}, None
    if not response.body.strip():
        return row | {"outcome": "empty"}, None
    if content_type != "text/plain":
        _read_html(row, response, hosts)
    headers = [
        (name.decode("latin-1"), value.decode("latin-1"))
        for name, values in sorted(response.headers.items())
        for value in values
    ]
    row |= {"payload_digest": payload_digest(response.body), "payload_length": len(response.body)}
    return row, response_record(url, now, response.status, headers, response.body)


def _read_html(row: Row, response: Response, hosts: frozenset[str]) -> None:
    """Fill in links, robots and licence from the page."""
    page = HtmlResponse(response.url, headers=response.headers, body=response.body)
    base = get_base_url(page)
    said = [row["robots"], *page.xpath(_META_ROBOTS).getall()]
    row["robots"] = ", ".join(filter(None, said)) or None
    license_links = (canonical_url(link, base) for link in page.xpath(_LICENSE).getall())
    row["license"] = next(filter(None, license_links), None)
    if not re.search(r"\b(nofollow|none)\b", (row["robots"] or "").lower()):
        found = (canonical_url(link, base) for link in page.xpath("//a/@href").getall()[:MAX_LINKS])
        row["links"] = sorted({link for link in found if link and netloc_of(link) in hosts} - {row["url"]})


def header(response: Response, name: str) -> str | None:
    """All values of a header, joined; None where it is not there."""
    values = [value.decode("latin-1").strip() for value in response.headers.getlist(name)]
    return ", ".join(values) or None


def media_type(headers: Any) -> str | None:
    """The media type of Content-Type, in lower case; None where nothing is said."""
    value = (headers.get("Content-Type") or b"").decode("latin-1")
    return value.split(";")[0].strip().lower() or None


def location(response: Response, url: str) -> str | None:
    """Where a redirect leads; None where the answer is none."""
    value = response.headers.get("Location")
    if not 300 <= response.status < 400 or value is None:
        return None
    return canonical_url(value.decode("utf-8", "replace"), url)


def cause(failure: Exception) -> str:
    """Why nothing was answered, in words."""
    words = re.sub(r"(?<!^)(?=[A-Z])", " ", type(failure).__name__.removesuffix("Error")).lower()
    detail = " ".join(str(failure).split())
    return f"{words}: {detail}" if detail else words
