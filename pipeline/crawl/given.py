"""Given files as a source: WARC and WET (Common Crawl's included), plain text, JSONL and Parquet.

Pages keep their URL, date and HTTP headers; texts become `conversion` records. A damaged record or line is a row that
says so, and the good ones after it are read; a file of which nothing can be understood is BadInput.
"""

from collections.abc import Callable, Iterable, Iterator
from datetime import datetime
from itertools import starmap
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol
from urllib.parse import quote

from pipeline.config import BadInput
from pipeline.crawl.given_rows import DAMAGED_GZIP, TableRow, jsonl_rows, opened, parquet_rows
from pipeline.crawl.spool import Places, Row, Spool, Spools, new_row
from pipeline.crawl.urls import canonical_url
from pipeline.crawl.warc import UNKNOWN_DATE, conversion_record, payload_digest, response_record

if TYPE_CHECKING:
    from pipeline.extraction.archive import Record

MAX_BODY_BYTES = 64 * 1024 * 1024
"""Of one given record or text, as stored and decoded; a larger one is a row without a record."""

MAX_GROUPS = 16
"""Groups of given files that are read at a time at most; each has files that are open."""

GROUP_BYTES = 4 * 1024 * 1024
"""Files smaller than this in all are read before another process has started."""

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

Found = tuple[Row, bytes | None]
Each = Callable[[Callable[..., Any], list[tuple[Any, ...]]], Iterable[Any]]
"""Calls a function with each of these arguments, wherever, and gives what it returns in their order."""


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
    work: Path,
    name: str,
    files: list[Path],
    settings: Settings,
    progress: Callable[[int, int, str], None],
    each: Each = starmap,
) -> Spools:
    """Read all `files` into spools below `work`, some of them at a time; of a URL's captures the latest stays."""
    named = labels(files)
    groups = [
        [(file, _kind(file, settings), f"file://{name}/{quote(named[file])}") for file in group]
        for group in in_groups(files)
    ]
    folders = [work / f"files-{number:02d}" for number in range(len(groups))]
    read, done = [], 0
    tasks = [(folder, group, settings) for folder, group in zip(folders, groups, strict=True)]
    for folder, group, (places, rows) in zip(folders, groups, each(read_group, tasks), strict=True):
        read.append((folder, places, rows))
        done += len(group)
        progress(done, len(files), "files")
    return Spools(read)


def in_groups(files: list[Path]) -> list[list[Path]]:
    """The files in order, in as many groups of about the same size as are worth being read at once."""
    sizes = [file.stat().st_size for file in files]
    count = min(MAX_GROUPS, sum(sizes) // GROUP_BYTES + 1)
    groups: list[list[Path]] = [[] for _ in range(count)]
    before = 0
    for file, size in zip(files, sizes, strict=True):
        groups[min(before * count // max(sum(sizes), 1), count - 1)].append(file)  # empty ones may come last
        before += size
    return [group for group in groups if group]


def read_group(folder: Path, files: list[tuple[Path, str, str]], settings: Settings) -> tuple[Places, int]:
    """Read files, each with its format and what names its texts, into a spool that is begun anew.

    Returns where its rows are, and how many there were in all.
    """
    Spool.remove(folder)  # reading again is quicker than finding the place
    rows = 0
    with Spool(folder) as spool:
        for file, kind, prefix in files:
            for row, record in _found(file, kind, prefix, settings):
                spool.add(row, record)
                rows += 1
    return spool.places, rows


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


def _kind(file: Path, settings: Settings) -> str:
    return settings.format if settings.format != "auto" else format_of(file)


def _found(file: Path, kind: str, prefix: str, settings: Settings) -> Iterator[Found]:
    if kind in ("warc", "wet"):
        return _warc(file, prefix)
    if kind == "text":
        return _text(file, prefix)
    if kind == "jsonl":
        return _table(file, jsonl_rows(file), "line", prefix, settings)
    return _table(file, parquet_rows(file, settings.text_field, settings.url_field), "row", prefix, settings)


def _warc(file: Path, prefix: str) -> Iterator[Found]:
    """Records of a WARC file, and a row for each stretch of it that is none."""
    from pipeline.extraction.archive import Damage, read_records

    if file.stat().st_size == 0:
        raise BadInput(f"{file} is empty.")
    good = damage = 0
    for _, record in read_records(file, MAX_BODY_BYTES):
        if isinstance(record, Damage):
            damage += 1
            detail = f"after byte {record.after}: {record.problem}"
            yield new_row(f"{prefix}/damage-{damage}", "broken", detail=detail), None
            continue
        good += 1
        found = _warc_record(record)
        if found is not None:
            yield found
    if good == 0:
        raise BadInput(f"{file} is not a WARC file: no record could be read from it.")


def _warc_record(record: "Record") -> Found | None:
    """What a record gives: nothing where it holds no page."""
    if record.kind not in ("response", "conversion", "resource"):
        return None
    url = canonical_url(record.url)
    if url is None:
        return None
    date = _milliseconds(record.date)
    if record.block is None:
        return new_row(url, "too_large", fetched_at=date, detail=f"{record.length} bytes"), None
    if record.kind == "response":
        try:
            return _response(record.block, url, date)
        except OSError as problem:
            return new_row(url, "broken", fetched_at=date, detail=str(problem)), None
    media_type = record.content_type.split(";")[0].strip().lower()
    if record.kind == "conversion" or media_type == "text/plain":
        return _text_row(url, record.block, date)
    if media_type not in PAGE_TYPES:
        return new_row(url, "not_html", content_type=media_type, fetched_at=date), None
    return _page(url, date, 200, [("Content-Type", record.content_type)], record.block, None)


def _response(block: bytes, url: str, date: int) -> Found:
    """A response's page, its codings undone; OSError where it is no HTTP or they cannot be undone."""
    from pipeline.extraction.archive import http_response

    status, http, response = http_response(block)
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
    body = response.reader.read(MAX_BODY_BYTES + 1)
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
    with opened(file) as handle:
        try:
            text = handle.read(MAX_BODY_BYTES + 1)
        except DAMAGED_GZIP as problem:
            yield new_row(f"{prefix}/0", "broken", detail=str(problem)), None
            return
        except OSError as problem:
            raise BadInput(f"{file} cannot be read: {problem}.") from None
    yield _text_row(f"{prefix}/0", text.removeprefix(b"\xef\xbb\xbf"), None)


def _table(file: Path, rows: Iterator[TableRow], unit: str, prefix: str, settings: Settings) -> Iterator[Found]:
    """Rows of a JSONL or Parquet file; those without a URL get one from their place. BadInput where none has a text."""
    understood = False
    first_problem = None
    for number, row in rows:
        problem = row if isinstance(row, str) else _problem(row, settings)
        if isinstance(row, str) or problem is not None:
            detail = f"{unit} {number + 1}: {problem}"
            first_problem = first_problem or f"{file}, {detail}"
            yield new_row(f"{prefix}/{number}", "broken", detail=detail), None
            continue
        understood = True
        url = row.get(settings.url_field)
        canonical = canonical_url(url) if isinstance(url, str) and url else None
        text = row[settings.text_field] or ""
        yield _text_row(canonical or f"{prefix}/{number}", text.encode("utf-8", "replace"), None)
    if first_problem is not None and not understood:
        raise BadInput(f"{first_problem} (and no other {unit} can be read).")


def _problem(row: dict[str, Any], settings: Settings) -> str | None:
    """Why a row gives no text; a field that is null is an empty one."""
    if settings.text_field not in row:
        return f"there is no field {settings.text_field!r}; set text_field"
    if not isinstance(row[settings.text_field], str | None):
        return f"the field {settings.text_field!r} is no text; set text_field"
    return None


def _milliseconds(date: str | None) -> int:
    """WARC-Date in milliseconds since the epoch; 0 where it says nothing understandable."""
    try:
        return int(datetime.fromisoformat(date or "").timestamp() * 1000)
    except ValueError:
        return UNKNOWN_DATE
