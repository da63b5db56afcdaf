"""Sealing: from a spool to a snapshot that is never rewritten.

Rows are sorted by canonical URL; records are copied in that order, member by member, into parts of about
`segment_bytes` of payload, smaller ones where all are few, so that all cores have work: of what a refresh finds, say.
The url index says where each record went. Records of pages that an earlier snapshot holds
(`revisit`) go into a file of their own beside the parts, so that an unchanged page costs nothing downstream. The same
spool always gives the same bytes, however it was filled.
"""

from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import pyarrow as pa
import pyarrow.ipc as ipc

from pipeline.crawl.spool import GAVE_UP, REVISIT, STORED, Row, Spool, Spools, payload_bytes
from pipeline.crawl.warc import UNKNOWN_DATE, warcinfo_record
from pipeline.documents import write_table

URL_INDEX = pa.schema(
    [
        ("url", pa.string()),
        ("requested_url", pa.string()),
        ("status", pa.int32()),
        ("outcome", pa.string()),
        ("etag", pa.string()),
        ("last_modified", pa.string()),
        ("payload_digest", pa.string()),
        ("content_type", pa.string()),
        ("links", pa.list_(pa.string())),
        ("robots", pa.string()),
        ("tdm_reserved", pa.bool_()),
        ("tdm_page", pa.bool_()),
        ("license", pa.string()),
        ("fetched_at", pa.timestamp("ms", tz="UTC")),
        ("stored_at", pa.timestamp("ms", tz="UTC")),
        ("depth", pa.int32()),
        ("part", pa.int32()),
        ("offset", pa.int64()),
        ("length", pa.int64()),
        ("detail", pa.string()),
    ]
)
"""One row a URL met, sorted. `requested_url`: what redirected here. `status`: HTTP status, 0 where nothing answered.
`outcome`: `stored`, `revisit`, or why not; docs/store.md lists them. `payload_digest`: sha256 in hex. `robots`: what
X-Robots-Tag and the meta element say. `tdm_reserved`: whether text and data mining is reserved, null where nothing is
said; `tdm_page`: what the page itself says of that. `stored_at`: when the payload that stands was fetched. `part`,
`offset`, `length`: place of the record's gzip member; without a part it lies in `revisits.warc.gz`. `detail`: what went
wrong, in words."""

HOSTS = pa.schema(
    [
        ("host", pa.string()),
        ("urls", pa.int64()),
        ("pages", pa.int64()),
        ("bytes", pa.int64()),
        ("outcomes", pa.map_(pa.string(), pa.int64())),
        ("statuses", pa.map_(pa.int32(), pa.int64())),
        ("robots_txt", pa.string()),
    ]
)
"""One row a host (with its port), sorted: its URLs, those of them that are pages (stored or unchanged), bytes of stored
payload, URLs by outcome and by HTTP status, and its robots.txt as it was obeyed."""

PAGES = "pages.warc.gz"
INDEX = "urls.arrow"
HOST_COUNTS = "hosts.arrow"
REVISITS = "revisits.warc.gz"

LARGEST_HOSTS = 50
"""Hosts that the returned counts tell of; `hosts.arrow` has all."""

MAX_WARNINGS = 20

SHARES = 8
SHARE_BYTES = 8 * 1024 * 1024
"""A part ends once it has an eighth of the payload, or one of fewer shares where eighths were smaller than this."""

_BATCH_ROWS = 50_000
_BATCH_LINK_BYTES = 32 * 1024 * 1024
"""Rows, and bytes of their links, held in memory at a time while the index is written."""


def seal(spool: Spool | Spools, out: Path, name: str, segment_bytes: int) -> dict[str, Any]:
    """Write the snapshot of `spool` into the empty folder `out`; returns its counts."""
    hosts: dict[str, _Host] = {}
    parts = _Parts(out, name, segment_bytes, spool.payload_bytes)
    with ipc.new_file(out / INDEX, URL_INDEX) as writer:
        for batch in _batches(_placed(spool, parts)):
            for row in batch:
                hosts.setdefault(_host_of(row["url"]), _Host()).count(row)
            columns = {field.name: [row[field.name] for row in batch] for field in URL_INDEX}
            writer.write_batch(pa.RecordBatch.from_pydict(columns, schema=URL_INDEX))
    named = sorted(hosts.items())
    write_table(pa.Table.from_pylist([host.row(name) for name, host in named], HOSTS), out / HOST_COUNTS)
    outcomes = sum((host.outcomes for host in hosts.values()), Counter[str]())
    statuses = sum((host.statuses for host in hosts.values()), Counter[int]())
    largest = sorted(named, key=lambda item: (-item[1].urls, item[0]))[:LARGEST_HOSTS]
    return {
        "rows": outcomes[STORED],
        "pages": outcomes[STORED] + outcomes[REVISIT],
        "bytes": sum(host.bytes for host in hosts.values()),
        "urls": len(spool),
        "host_count": len(hosts),
        "parts": parts.close(),
        "outcomes": dict(sorted(outcomes.items())),
        "statuses": {str(status): count for status, count in sorted(statuses.items())},
        "hosts": {name: host.counts() for name, host in largest},
        "warnings": _warnings(hosts),
    }


def _warnings(hosts: dict[str, "_Host"]) -> list[str]:
    """One sentence for each host that was left alone, those with most pages unread first."""
    lost = sorted((-host.outcomes[GAVE_UP], name) for name, host in hosts.items() if host.outcomes[GAVE_UP])
    sentences = [f"host {name} was left alone with {-count:,} URLs unread: {hosts[name].why}" for count, name in lost]
    more = len(sentences) - MAX_WARNINGS
    return sentences if more <= 0 else [*sentences[:MAX_WARNINGS], f"{more:,} more hosts were left alone"]


class _Host:
    """The counts of one host."""

    def __init__(self) -> None:
        self.urls = self.bytes = 0
        self.outcomes: Counter[str] = Counter()
        self.statuses: Counter[int] = Counter()
        self.why: str | None = None
        self._robots_txt: str | None = None

    def count(self, row: Row) -> None:
        self.urls += 1
        self.bytes += payload_bytes(row)
        self.outcomes[row["outcome"]] += 1
        self.statuses[row["status"]] += 1
        if row["outcome"] == GAVE_UP:
            self.why = row["detail"]
        if row["outcome"] == "robots_txt" and row["kept"]:
            self._robots_txt = row["kept"].encode("latin-1").decode("utf-8", "replace")

    def counts(self) -> dict[str, Any]:
        return {
            "urls": self.urls,
            "pages": self.outcomes[STORED] + self.outcomes[REVISIT],
            "bytes": self.bytes,
            "outcomes": dict(sorted(self.outcomes.items())),
            "statuses": {str(status): count for status, count in sorted(self.statuses.items())},
        }

    def row(self, name: str) -> dict[str, Any]:
        return self.counts() | {
            "host": name,
            "outcomes": sorted(self.outcomes.items()),
            "statuses": sorted(self.statuses.items()),
            "robots_txt": self._robots_txt,
        }


def _host_of(url: str) -> str:
    """Host and port of a URL; of a given file without a URL of its own, the source that it belongs to."""
    return urlsplit(url).netloc


def _batches(rows: Iterator[Row]) -> Iterator[list[Row]]:
    batch: list[Row] = []
    links = 0
    for row in rows:
        batch.append(row)
        links += sum(map(len, row["links"]))
        if len(batch) >= _BATCH_ROWS or links >= _BATCH_LINK_BYTES:
            yield batch
            batch, links = [], 0
    if batch:
        yield batch


def _placed(spool: Spool | Spools, parts: "_Parts") -> Iterator[Row]:
    for row in spool.rows():
        if row["offset"] is None:
            yield {**row, "part": None}
        else:
            yield {**row, **parts.add(spool.record(row), row)}


class _Parts:
    """The part files, one open at a time, and the file of revisits."""

    def __init__(self, out: Path, name: str, segment_bytes: int, payload: int) -> None:
        self._out = out
        self._name = name
        self._segment_bytes = segment_bytes
        self._share_bytes = payload / max(1, min(SHARES, payload // SHARE_BYTES))
        self._parts = 0
        self._part_bytes = 0
        self._file: Any = None
        self._revisits: Any = None

    def add(self, record: bytes, row: Row) -> dict[str, int | None]:
        """Copy a record; returns its place."""
        if row["outcome"] == REVISIT:
            return {"part": None} | self._add_revisit(record, row)
        length, full = row["payload_length"], self._part_bytes >= self._share_bytes
        if self._file is None or full or self._part_bytes + length > self._segment_bytes:
            self._next(row["fetched_at"] or UNKNOWN_DATE)
        self._part_bytes += length
        return {"part": self._parts - 1} | _append(self._file, record)

    def close(self) -> int:
        """Close what is open; returns how many parts there are."""
        for file in (self._file, self._revisits):
            if file is not None:
                file.close()
        return self._parts

    def _add_revisit(self, record: bytes, row: Row) -> dict[str, int | None]:
        if self._revisits is None:
            self._revisits = (self._out / REVISITS).open("wb")
            self._revisits.write(warcinfo_record(self._name, REVISITS, row["fetched_at"] or UNKNOWN_DATE))
        return _append(self._revisits, record)

    def _next(self, fetched_at: int) -> None:
        if self._file is not None:
            self._file.close()
        part = f"part-{self._parts:05d}"
        folder = self._out / part
        folder.mkdir()
        self._file = (folder / PAGES).open("wb")
        self._file.write(warcinfo_record(self._name, f"{part}.warc.gz", fetched_at))
        self._parts += 1
        self._part_bytes = 0


def _append(file: Any, record: bytes) -> dict[str, int | None]:
    offset = file.tell()
    file.write(record)
    return {"offset": offset, "length": len(record)}
