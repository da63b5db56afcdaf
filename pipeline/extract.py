"""From crawled pages to documents: one row for every page, in `documents.arrow` or, with a reason, in `rejects.arrow`.

A page is a `response`, `resource` or `conversion` record of the part's WARC file; other records only accompany pages.
The same record gives the same row wherever and whenever it is read. Pages are read in a process apart: one that
crashes it, takes all its memory or never ends is a row too.
"""

import re
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

from pipeline.extraction.isolation import Limits, Lost, isolated
from pipeline.extraction.page import ExtractConfig, Page, Rejected, page_text

if TYPE_CHECKING:
    import pyarrow as pa

    from pipeline.extraction.archive import Place, Record

REASONS = (
    *("http_status", "not_text", "too_large", "too_complex", "undecodable", "broken_record", "empty"),
    *("crashed", "memory_limit", "cpu_limit", "error"),
)
"""Why a page gives no document: these and no others."""

LIMITS = Limits(memory_bytes=4 * 1024**3, cpu_seconds=60)
"""A net: what the limits of a page let through takes up to 7 s and 0.8 GB, in trafilatura."""

MAX_CODED_BYTES = 64 * 1024 * 1024
"""Bytes of a record as it is stored, above which it is not read."""

MAX_DETAIL_CHARACTERS = 500

PAGE_RECORDS = frozenset({"response", "resource", "conversion"})


def extract(*, out: Path, config: ExtractConfig, pages: Path, source: str) -> dict[str, Any]:
    """Write `documents.arrow` and `rejects.arrow` for the part folder `pages`, whose records came from `source`.

    Rows stand in the order of the records. Stats: rows, records (= rows + rejected), rejected by reason,
    bytes_in (page bodies, content encoding undone) and bytes_out (UTF-8 text). Raises StageFailed where the process
    that reads pages cannot be started, or is ended from outside again and again.
    """
    from pipeline.documents import DOCUMENTS, REJECTS, doc_id, write_table

    documents: list[tuple[Any, ...]] = []
    rejects: list[tuple[str | None, str, str]] = []
    bytes_in = bytes_out = 0
    arguments = {"path": str(pages / "pages.warc.gz"), "config": config.model_dump(mode="json")}
    for row in isolated(read_pages, arguments, LIMITS):
        if isinstance(row, Lost):
            rejects.append((row.place[-1], row.reason, row.detail))
            continue
        url, text = row["url"], row.get("text")
        bytes_in += row["bytes"]
        if text is None:
            rejects.append((url, row["reason"], row["detail"]))
            continue
        documents.append((doc_id(url, text), url, source, row["language"], row["license"], row["title"], text))
        bytes_out += len(text.encode())
    write_table(_table(documents, DOCUMENTS), out / "documents.arrow", compression="zstd")
    write_table(_table(rejects, REJECTS), out / "rejects.arrow", compression="zstd")
    return {
        "rows": len(documents),
        "records": len(documents) + len(rejects),
        "rejected": dict(sorted(Counter(reason for _, reason, _ in rejects).items())),
        "bytes_in": bytes_in,
        "bytes_out": bytes_out,
    }


def read_pages(
    path: str, config: dict[str, Any], start: list[Any] | None
) -> Iterator[tuple[list[Any], Callable[[], dict[str, Any]]]]:
    """Pages of a WARC file, as `pipeline.extraction.isolation` asks for them: where each is, and what reads it.

    A place ends in the page's URL. A stretch of the file that is no record counts as one page without a URL.
    """
    from pipeline.extraction.archive import FIRST, Damage, read_records

    settings = ExtractConfig.model_validate(config)
    first = cast("Place", tuple(start[:-1])) if start else FIRST
    for place, record in read_records(Path(path), MAX_CODED_BYTES, first):
        if isinstance(record, Damage):
            detail = f"after byte {record.after}: {record.problem}"
            yield [*place, None], lambda detail=detail: _rejection(None, 0, "broken_record", detail)  # type: ignore[misc]
        elif record.kind in PAGE_RECORDS:
            yield [*place, record.url], lambda record=record: _row(record, settings)  # type: ignore[misc]


def _row(record: "Record", config: ExtractConfig) -> dict[str, Any]:
    """What a record gives: a text and what is said of it, or a reason."""
    size = 0
    try:
        page = _page(record, config.max_body_bytes)
        size = len(page.body)
        return {"url": record.url, "bytes": size, **asdict(page_text(page, config))}
    except Rejected as rejection:
        return _rejection(record.url, size, *rejection.args)
    except MemoryError:
        raise  # it is no fact about the page until it comes in a fresh process too
    except Exception as problem:
        return _rejection(record.url, size, "error", f"{type(problem).__name__}: {problem}")


def _rejection(url: str | None, size: int, reason: str, detail: str) -> dict[str, Any]:
    printable = detail.encode(errors="replace").decode()[:MAX_DETAIL_CHARACTERS]
    return {"url": url, "bytes": size, "reason": reason, "detail": printable}


def _page(record: "Record", max_body_bytes: int) -> Page:
    """The page that a record holds, its codings undone; `Rejected` where it holds none."""
    if record.block is None:
        raise Rejected("too_large", f"{record.length} bytes")
    if record.kind == "response" and _media_type(record.content_type) in ("application/http", ""):
        page = _http_page(record.url, record.block, max_body_bytes)
    else:
        content_type = record.content_type or "text/plain"
        charset = _charset_parameter(content_type) or "utf-8"
        page = Page(record.url, record.block, _media_type(content_type), charset, None)
    if len(page.body) > max_body_bytes:
        raise Rejected("too_large", f"more than {max_body_bytes} bytes")
    return page


def _http_page(url: str, block: bytes, max_body_bytes: int) -> Page:
    """The page of an HTTP response, of a larger body one byte more than is allowed."""
    from pipeline.extraction.archive import http_response

    try:
        status, headers, response = http_response(block)
        if not 200 <= status < 300:
            raise Rejected("http_status", str(status))
        body = response.reader.read(max_body_bytes + 1)
    except OSError as problem:
        raise Rejected("broken_record", str(problem)) from None
    content_type = _media_type(response.http_content_type or "")
    return Page(url, body, content_type, response.http_charset, headers.get("Content-Language"))


def _media_type(content_type: str) -> str:
    return content_type.partition(";")[0].strip().lower()


def _charset_parameter(content_type: str) -> str | None:
    match = re.search(r"charset\s*=\s*\"?([^\s;\"]+)", content_type, re.IGNORECASE)
    return match.group(1) if match else None


def _table(rows: list[Any], schema: "pa.Schema") -> "pa.Table":
    import pyarrow as pa

    columns = list(zip(*rows, strict=True)) or [()] * len(schema)
    return pa.table(
        [pa.array(column, field.type) for column, field in zip(columns, schema, strict=True)], schema=schema
    )
