"""From crawled pages to documents: one row for every page, in `documents.arrow` or, with a reason, in `rejects.arrow`.

A page is a `response`, `resource` or `conversion` record of the part's WARC file; other records only accompany pages.
A row depends on its own record and the configuration and nothing else: no state is kept between pages, no clock is
read, so the same record gives the same bytes wherever and whenever it is read.
"""

import re
import unicodedata
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import pyarrow as pa
from pydantic import Field

from pipeline.config import Config
from pipeline.documents import DOCUMENTS, REJECTS, doc_id, write_table

if TYPE_CHECKING:
    from fastwarc.warc import WarcRecord

REASONS = ("http_status", "not_text", "too_large", "undecodable", "broken_record", "empty", "error")
"""Why a page gives no document: these and no others."""

HTML_TYPES = frozenset({"text/html", "application/xhtml+xml", "application/xml", "text/xml"})
TEXT_TYPES = frozenset({"text/plain", "text/markdown", "text/x-rst"})
UNSAID_TYPES = frozenset({"", "application/octet-stream", "application/http", "unknown/unknown"})
"""Content types that say nothing: the first bytes are looked at instead."""

GZIP_MEMBER = b"\x1f\x8b\x08"
"""How a gzip member begins (RFC 1952): where reading can start again after a broken record."""

LANGUAGE = re.compile(r"[a-z]{2,3}(?![a-z])")
"""The primary subtag of a language tag (BCP 47), lower-cased before matching."""

MAX_TITLE_CHARACTERS = 500
MAX_LICENSE_CHARACTERS = 2000
MAX_DETAIL_CHARACTERS = 500

_CONTROLS = {
    code: None for code in (*range(32), *range(127, 160), 0xFEFF, *range(0xD800, 0xE000)) if code not in (9, 10)
}
_LINE_ENDS = re.compile(r"\r\n?|[\v\f\x85\u2028\u2029]")
_EMPTY_CELLS = re.compile(r"^[\u00a0 ]*\u00a0[\u00a0 ]*\t[\u00a0\t ]*", re.MULTILINE)
_TRAILING = re.compile(r"[ \t]+$", re.MULTILINE)
_BLANK_LINES = re.compile(r"\n{3,}")


class ExtractConfig(Config):
    """How pages become text."""

    extractor: Literal["resiliparse", "trafilatura"] = "resiliparse"
    """Which library finds the main content: resiliparse is about ten times as fast, trafilatura more precise."""
    main_content: bool = True
    """Leave out navigation, headers, footers and the like; off, all visible text is kept (resiliparse only)."""
    comments: bool = False
    """Keep readers' comments under an article."""
    min_characters: int = Field(1, ge=1)
    """Characters of text under which a page counts as empty."""
    max_body_bytes: int = Field(10_000_000, ge=1_000)
    """Bytes of decoded page body above which a page is not read."""


@dataclass(frozen=True)
class Page:
    """One record: its bytes, and what was said about them on the way."""

    url: str
    body: bytes
    content_type: str
    charset: str | None
    content_language: str | None


class Rejected(Exception):
    """A page that gives no document; `args` are the reason, one of `REASONS`, and a detail."""


def extract(*, out: Path, config: ExtractConfig, pages: Path, source: str) -> dict[str, Any]:
    """Write `documents.arrow` and `rejects.arrow` for the part folder `pages`, whose records came from `source`.

    Rows stand in the order of the records. Stats: rows, records (= rows + rejected), rejected by reason,
    bytes_in (page bodies, content encoding undone) and bytes_out (UTF-8 text).
    """
    documents: list[tuple[Any, ...]] = []
    rejects: list[tuple[str | None, str, str]] = []
    bytes_in = bytes_out = 0
    for url, item in _pages(pages / "pages.warc.gz", config.max_body_bytes):
        if isinstance(item, Page):
            bytes_in += len(item.body)
            try:
                row = document(item, config, source)
            except Rejected as rejection:
                item = rejection
            except Exception as problem:
                item = Rejected("error", f"{type(problem).__name__}: {problem}")
            else:
                documents.append(row)
                bytes_out += len(row[-1].encode())
                continue
        reason, detail = item.args
        rejects.append((url, reason, detail.encode(errors="replace").decode()[:MAX_DETAIL_CHARACTERS]))
    write_table(_table(documents, DOCUMENTS), out / "documents.arrow", compression="zstd")
    write_table(_table(rejects, REJECTS), out / "rejects.arrow", compression="zstd")
    return {
        "rows": len(documents),
        "records": len(documents) + len(rejects),
        "rejected": dict(sorted(Counter(reason for _, reason, _ in rejects).items())),
        "bytes_in": bytes_in,
        "bytes_out": bytes_out,
    }


def document(page: Page, config: ExtractConfig, source: str) -> tuple[Any, ...]:
    """The row of `DOCUMENTS` that `page` gives; raises `Rejected` where it gives none."""
    from pipeline.charset import decode

    kind = _kind(page)
    markup = decode(page.body, page.charset, markup=kind == "html")
    if markup is None:
        raise Rejected("undecodable", f"not text in {page.charset or 'any charset that it suggests'}")
    language = page.content_language
    title = license_url = None
    if kind == "html":
        from resiliparse.parse.html import HTMLTree

        tree = HTMLTree.parse(markup)
        title, license_url, declared = _facts(tree)
        language = declared or language
        raw = _trafilatura(markup, config) if config.extractor == "trafilatura" else _resiliparse(tree, config)
    else:
        raw = markup
    text = clean(raw)
    if len(text) < config.min_characters:
        raise Rejected("empty", f"{len(text)} characters of text")
    return doc_id(page.url, text), page.url, source, _primary_subtag(language), license_url, title, text


def clean(text: str) -> str:
    """`text` as documents hold it: NFC, lines that end in a newline, no other control
    characters but tab, no stray blanks.

    Non-breaking spaces become spaces: on the web they indent and pad, and a model should meet one kind of space.
    A line's indentation is kept, except the empty table cells that the extractor puts before it.
    """
    text = _EMPTY_CELLS.sub("", _LINE_ENDS.sub("\n", text))
    text = unicodedata.normalize("NFC", text.replace("\u00a0", " ").translate(_CONTROLS))
    return _BLANK_LINES.sub("\n\n", _TRAILING.sub("", text)).strip("\n").rstrip()


def _resiliparse(tree: Any, config: ExtractConfig) -> str:
    from resiliparse.extract.html2text import extract_plain_text

    return extract_plain_text(
        tree,
        preserve_formatting=True,
        main_content=config.main_content,
        alt_texts=False,
        comments=config.comments,
        post_meta=False,
    )


def _trafilatura(markup: str, config: ExtractConfig) -> str:
    import trafilatura

    return trafilatura.extract(markup, include_comments=config.comments, deduplicate=False) or ""


def _facts(tree: Any) -> tuple[str | None, str | None, str | None]:
    """Title, licence link and declared language of a page; each None where the page does not say."""
    document_node = tree.document
    title = " ".join((tree.title or "").translate(_CONTROLS).split())[:MAX_TITLE_CHARACTERS]
    link = document_node.query_selector("a[rel~=license][href], link[rel~=license][href]")
    href = " ".join(link.getattr("href").translate(_CONTROLS).split()) if link is not None else ""
    root = document_node.query_selector("html")
    language = (root.getattr("lang") or root.getattr("xml:lang")) if root is not None else None
    return unicodedata.normalize("NFC", title) or None, href[:MAX_LICENSE_CHARACTERS] or None, language


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


def _pages(path: Path, max_body_bytes: int) -> Iterator[tuple[str | None, Page | Rejected]]:
    """Every page of a WARC file with its URL; one `broken_record` for each stretch of the file that is no record."""
    from fastwarc.warc import ArchiveIterator, WarcRecordType

    wanted = WarcRecordType.response | WarcRecordType.resource | WarcRecordType.conversion
    start, size = 0, path.stat().st_size
    while start < size:
        position = start
        with path.open("rb") as stream:
            stream.seek(start)
            records = iter(ArchiveIterator(stream, record_types=wanted, auto_decode="all"))
            try:
                for record in records:
                    position = start + record.stream_pos
                    yield _page(record, max_body_bytes)
            except OSError as problem:
                yield None, Rejected("broken_record", f"after byte {position}: {problem}")
            else:
                return
        start = _next_record(path, position + 1)


def _next_record(path: Path, start: int) -> int:
    """Offset of the first gzip member at or after `start` that holds a WARC record; the file's size where none does."""
    from fastwarc.warc import ArchiveIterator

    data = path.read_bytes()
    while (start := data.find(GZIP_MEMBER, start)) >= 0:
        with path.open("rb") as stream:
            stream.seek(start)
            try:
                next(iter(ArchiveIterator(stream)))
            except (OSError, StopIteration):
                start += 1
            else:
                return start
    return len(data)


def _page(record: "WarcRecord", max_body_bytes: int) -> tuple[str, Page | Rejected]:
    url = (record.headers.get("WARC-Target-URI") or "").strip("<>")
    headers = record.http_headers if record.is_http else None
    if headers is not None and headers.status_code is not None and not 200 <= headers.status_code < 300:
        return url, Rejected("http_status", str(headers.status_code))
    try:
        body = record.reader.read(max_body_bytes + 1)
    except OSError as problem:
        return url, Rejected("broken_record", str(problem))
    if len(body) > max_body_bytes:
        return url, Rejected("too_large", f"more than {max_body_bytes} bytes")
    plain = headers is None or not (headers.get("Content-Encoding") or headers.get("Transfer-Encoding"))
    if plain and len(body) < record.content_length:
        return url, Rejected("broken_record", f"{len(body)} of {record.content_length} bytes")
    if headers is None:
        content_type = record.headers.get("Content-Type") or "text/plain"
        charset: str | None = _charset_parameter(content_type) or "utf-8"
        language = None
    else:
        content_type = record.http_content_type or ""
        charset = record.http_charset
        language = headers.get("Content-Language")
    return url, Page(url, body, content_type.partition(";")[0].strip().lower(), charset, language)


def _charset_parameter(content_type: str) -> str | None:
    match = re.search(r"charset\s*=\s*\"?([^\s;\"]+)", content_type, re.IGNORECASE)
    return match.group(1) if match else None


def _table(rows: list[Any], schema: pa.Schema) -> pa.Table:
    columns = list(zip(*rows, strict=True)) or [()] * len(schema)
    return pa.table(
        [pa.array(column, field.type) for column, field in zip(columns, schema, strict=True)], schema=schema
    )
