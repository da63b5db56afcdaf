"""Given files as a source: WARC and WET (Common Crawl's included), plain text, JSONL and Parquet.

Pages keep their URL, date and HTTP headers; texts become `conversion` records. A damaged record is a row that says so,
and the good ones after it are read; a file that is damaged as a whole, or rows that cannot be understood, are BadInput.
"""

import gzip
import io
import json
import mmap
import re
from collections.abc import Callable, Iterable, Iterator
from datetime import datetime
from pathlib import Path
from typing import Any, Protocol
from urllib.parse import quote

from pipeline.config import BadInput
from pipeline.crawl.spool import Row, Spool, new_row
from pipeline.crawl.urls import canonical_url
from pipeline.crawl.warc import UNKNOWN_DATE, conversion_record, payload_digest, response_record

MAX_BODY_BYTES = 64 * 1024 * 1024
"""Of one given record or text, decoded; a larger one is a row without a record."""

PAGE_TYPES = frozenset({"text/html", "application/xhtml+xml", "text/plain"})

FORMATS = {
    ".wet": "wet",
    ".warc": "warc",
    ".jsonl": "jsonl",
    ".ndjson": "jsonl",
    ".parquet": "parquet",
    ".txt": "text",
    ".text": "text",
    ".md": "text",
}

_PARQUET_BATCH = 1024
_RECORD_START = re.compile(rb"\x1f\x8b\x08[\x00-\x1f]|WARC/1\.")

Found = tuple[Row, bytes | None]


class Settings(Protocol):
    """What of a FileSource is needed here."""

    @property
    def format(self) -> str:
        """One of the formats, or auto."""

    @property
    def text_field(self) -> str:
        """Field that holds the text."""

    @property
    def url_field(self) -> str:
        """Field that holds the URL."""


def read_files(
    spool: Spool, name: str, files: list[Path], settings: Settings, progress: Callable[[int, int, str], None]
) -> int:
    """Read all `files` into `spool`; of a URL's captures the latest stays. Returns how many older ones there were."""
    superseded = 0
    named = labels(files)
    formats = {file: settings.format if settings.format != "auto" else format_of(file) for file in files}
    for done, file in enumerate(files):
        progress(done, len(files), "files")
        prefix = f"file://{name}/{quote(named[file])}"
        for row, record in _found(file, formats[file], prefix, settings):
            superseded += row["url"] in spool
            spool.add(row, record)
    progress(len(files), len(files), "files")
    return superseded


def labels(files: Iterable[Path]) -> dict[Path, str]:
    """A name for each file: its own, with as many folders before it as tell all files from each other."""
    files = list(files)
    for depth in range(1, max((len(file.parts) for file in files), default=0) + 1):
        named = {file: "/".join(file.parts[-depth:]).lstrip("/") for file in files}
        if len(set(named.values())) == len(files):
            return named
    return {file: str(file) for file in files}


def format_of(file: Path) -> str:
    """The format that a file's name promises; BadInput where it promises none."""
    suffixes = [suffix.lower() for suffix in file.suffixes if suffix.lower() != ".gz"]
    if not suffixes or suffixes[-1] not in FORMATS:
        raise BadInput(
            f"{file}: its name does not tell its format; set format, or rename it to one of {', '.join(FORMATS)}."
        )
    return FORMATS[suffixes[-1]]


def _found(file: Path, kind: str, prefix: str, settings: Settings) -> Iterator[Found]:
    if kind in ("warc", "wet"):
        return _warc(file, prefix)
    if kind == "text":
        return _text(file, prefix)
    rows = _jsonl_rows(file) if kind == "jsonl" else _parquet_rows(file, settings)
    return _table(file, rows, prefix, settings)


def _warc(file: Path, prefix: str) -> Iterator[Found]:
    """Records of a WARC file; after a damaged one, reading goes on where the next one seems to start."""
    from fastwarc.warc import ArchiveIterator

    if file.stat().st_size == 0:
        raise BadInput(f"{file} is empty.")
    with file.open("rb") as handle, mmap.mmap(handle.fileno(), 0, access=mmap.ACCESS_READ) as data:
        start, good, damage = 0, 0, 0
        in_damage = False
        while True:
            handle.seek(start)
            position = start
            try:
                for record in ArchiveIterator(handle, parse_http=False):
                    position = max(position, start + record.stream_pos)
                    found = _warc_record(record)
                    _require_end(data, position, record.headers)
                    good += 1
                    in_damage = False
                    if found is not None:
                        yield found
            except (OSError, ValueError) as problem:
                if not in_damage:
                    damage += 1
                    yield new_row(f"{prefix}/damage-{damage}", "broken", detail=f"{file}: {problem}"), None
                in_damage = True
            else:
                break
            following = _RECORD_START.search(data, position + 1)
            if following is None:
                break
            start = following.start()
    if good == 0:
        raise BadInput(f"{file} is not a WARC file: no record could be read from it.")


def _require_end(data: mmap.mmap, position: int, headers: Any) -> None:
    """OSError where an uncompressed record was cut short and what it holds is partly the next one."""
    if data[position : position + 5] != b"WARC/":
        return
    blank = re.compile(rb"\r?\n\r?\n").search(data, position)
    if blank is not None:
        end = blank.end() + int(headers.get("Content-Length") or 0)
        following = data[end : end + 16].lstrip(b"\r\n")
        if following and not following.startswith(b"WARC/") and data.find(b"WARC/1.", blank.end(), end) >= 0:
            raise OSError("a record is cut short and runs into the next")


def _warc_record(record: Any) -> Found | None:
    """What a record gives: nothing where it holds no page. OSError where it is cut short."""
    kind = (record.headers.get("WARC-Type") or "").lower()
    url = record.headers.get("WARC-Target-URI")
    announced = int(record.headers.get("Content-Length") or 0)
    if kind not in ("response", "conversion", "resource") or url is None:
        if record.reader.consume() != announced:
            raise OSError("the last record is cut short")
        return None
    canonical = canonical_url(url.strip("<>"))
    if canonical is None:
        return None
    date = _milliseconds(record.headers.get("WARC-Date"))
    if announced > MAX_BODY_BYTES:
        return new_row(canonical, "too_large", fetched_at=date), None
    record.freeze()
    if record.content_length != announced:
        raise OSError(f"the record of {canonical} is cut short")
    if kind == "response":
        return _response(record, canonical, date)
    body = record.reader.read()
    media_type = (record.headers.get("Content-Type") or "").split(";")[0].strip().lower()
    if kind == "conversion" or media_type == "text/plain":
        return _text_row(canonical, body, date)
    if media_type not in PAGE_TYPES:
        return new_row(canonical, "not_html", content_type=media_type, fetched_at=date), None
    return _page(canonical, date, 200, [("Content-Type", record.headers.get("Content-Type"))], body, None)


def _response(record: Any, url: str, date: int) -> Found:
    record.parse_http(auto_decode="all")
    http = record.http_headers
    status = http.status_code if http is not None and http.status_code is not None else 0
    if not 100 <= status <= 999:
        return new_row(url, "broken", fetched_at=date, detail="no HTTP status line"), None
    facts = {
        "status": status,
        "etag": http.get("ETag"),
        "last_modified": http.get("Last-Modified"),
        "content_type": http.get("Content-Type"),
        "robots": http.get("X-Robots-Tag"),
        "fetched_at": date,
    }
    if 300 <= status < 400:
        target = canonical_url(http.get("Location") or "", url)
        return new_row(url, "redirect", links=[target] if target else [], **facts), None
    if status != 200:
        return new_row(url, f"http_{status}", **facts), None
    media_type = (http.get("Content-Type") or "text/html").split(";")[0].strip().lower()
    if media_type not in PAGE_TYPES:
        return new_row(url, "not_html", **facts), None
    body = record.reader.read(MAX_BODY_BYTES + 1)
    if len(body) > MAX_BODY_BYTES:
        return new_row(url, "too_large", **facts), None
    row, stored = _page(url, date, status, list(http.items()), body, http.reason_phrase)
    return row | facts, stored


def _page(url: str, date: int, status: int, headers: list[tuple[str, str]], body: bytes, reason: str | None) -> Found:
    if not body.strip():
        return new_row(url, "empty", status=status, fetched_at=date), None
    row = new_row(
        url, "stored", status=status, fetched_at=date, payload_digest=payload_digest(body), payload_length=len(body)
    )
    row["content_type"] = next((value for name, value in headers if name.lower() == "content-type"), None)
    return row, response_record(url, date, status, headers, body, reason)


def _text_row(url: str, text: bytes, date: int | None) -> Found:
    """A given text: a `conversion` record, or a row that says why not."""
    if len(text) > MAX_BODY_BYTES:
        return new_row(url, "too_large", fetched_at=date), None
    if not text.strip():
        return new_row(url, "empty", fetched_at=date), None
    try:
        text.decode("utf-8")
    except UnicodeDecodeError as problem:
        return new_row(url, "broken", fetched_at=date, detail=f"not UTF-8: {problem}"), None
    row = new_row(
        url,
        "stored",
        status=200,
        fetched_at=date,
        content_type="text/plain; charset=utf-8",
        payload_digest=payload_digest(text),
        payload_length=len(text),
    )
    return row, conversion_record(url, date or UNKNOWN_DATE, text)


def _text(file: Path, prefix: str) -> Iterator[Found]:
    with _opened(file) as handle:
        try:
            text = handle.read(MAX_BODY_BYTES + 1)
        except (OSError, EOFError) as problem:
            raise BadInput(f"{file} cannot be read: {problem}.") from None
    yield _text_row(f"{prefix}/0", text.removeprefix(b"\xef\xbb\xbf"), None)


def _table(file: Path, rows: Iterator[tuple[int, dict[str, Any]]], prefix: str, settings: Settings) -> Iterator[Found]:
    """Rows of a JSONL or Parquet file; those without a URL get one from their place."""
    for number, row in rows:
        if settings.text_field not in row:
            raise BadInput(f"{file}, row {number + 1}: there is no field {settings.text_field!r}; set text_field.")
        text = row[settings.text_field]
        url = row.get(settings.url_field)
        canonical = canonical_url(url) if isinstance(url, str) and url else None
        place = canonical or f"{prefix}/{number}"
        if text is None:
            text = ""
        if not isinstance(text, str):
            raise BadInput(f"{file}, row {number + 1}: the field {settings.text_field!r} is no text; set text_field.")
        yield _text_row(place, text.encode("utf-8", "replace"), None)


def _jsonl_rows(file: Path) -> Iterator[tuple[int, dict[str, Any]]]:
    with _opened(file) as handle:
        lines = enumerate(handle)
        while True:
            try:
                number, line = next(lines)
            except StopIteration:
                return
            except (OSError, EOFError) as problem:
                raise BadInput(f"{file} cannot be read: {problem}.") from None
            if not line.strip():
                continue
            try:
                row = json.loads(line)
            except (ValueError, RecursionError) as problem:
                raise BadInput(f"{file}, line {number + 1}: not valid JSON: {problem}.") from None
            if not isinstance(row, dict):
                raise BadInput(f"{file}, line {number + 1}: not a JSON object.")
            yield number, row


def _parquet_rows(file: Path, settings: Settings) -> Iterator[tuple[int, dict[str, Any]]]:
    import pyarrow as pa
    import pyarrow.parquet as pq

    try:
        with pq.ParquetFile(file) as table:
            names = table.schema_arrow.names
            if settings.text_field not in names:
                raise BadInput(f"{file}: there is no column {settings.text_field!r}; set text_field.")
            columns = [name for name in (settings.text_field, settings.url_field) if name in names]
            number = 0
            for batch in table.iter_batches(batch_size=_PARQUET_BATCH, columns=columns):
                for row in batch.to_pylist():
                    yield number, row
                    number += 1
    except (pa.ArrowException, OSError) as problem:
        raise BadInput(f"{file} is not a readable Parquet file: {' '.join(str(problem).split())}.") from None


def _opened(file: Path) -> io.BufferedIOBase:
    return gzip.open(file, "rb") if file.suffix.lower() == ".gz" else file.open("rb")


def _milliseconds(date: str | None) -> int:
    """WARC-Date in milliseconds since the epoch; 0 where it says nothing understandable."""
    try:
        return int(datetime.fromisoformat(date or "").timestamp() * 1000)
    except ValueError:
        return UNKNOWN_DATE
