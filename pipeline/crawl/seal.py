"""Sealing: from a spool to a snapshot that is never rewritten.

Rows are sorted by canonical URL; records are copied in that order, member by member, into parts of about
`segment_bytes` of payload; the url index says where each one went. The same spool always gives the same bytes, however
it was filled.
"""

from collections.abc import Iterator
from itertools import islice
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.ipc as ipc

from pipeline.crawl.spool import Row, Spool
from pipeline.crawl.warc import UNKNOWN_DATE, warcinfo_record

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
        ("license", pa.string()),
        ("fetched_at", pa.timestamp("ms", tz="UTC")),
        ("depth", pa.int32()),
        ("part", pa.int32()),
        ("offset", pa.int64()),
        ("length", pa.int64()),
    ]
)
"""One row a URL met, sorted. `requested_url`: what redirected here. `status`: HTTP status, 0 where nothing answered.
`outcome`: `stored`, or why not: `robots`, `error`, `redirect`, `not_html`, `too_large`, `empty`, `broken`,
`http_<status>`. `payload_digest`: sha256 in hex. `robots`: what X-Robots-Tag and the meta element say.
`part`, `offset`, `length`: place of the record's gzip member."""

PAGES = "pages.warc.gz"
INDEX = "urls.arrow"

_INDEX_BATCH = 50_000
"""Rows held in memory at a time while the index is written."""


def seal(spool: Spool, out: Path, name: str, segment_bytes: int) -> dict[str, Any]:
    """Write the snapshot of `spool` into the empty folder `out`; returns its counts."""
    outcomes: dict[str, int] = {}
    statuses: dict[str, int] = {}
    stored = payload_bytes = 0
    parts = _Parts(out, name, segment_bytes)
    rows = _placed(spool, parts)
    with ipc.new_file(out / INDEX, URL_INDEX) as writer:
        while batch := list(islice(rows, _INDEX_BATCH)):
            for row in batch:
                outcomes[row["outcome"]] = outcomes.get(row["outcome"], 0) + 1
                statuses[str(row["status"])] = statuses.get(str(row["status"]), 0) + 1
                stored += row["offset"] is not None
                payload_bytes += row["payload_length"]
            columns = {field.name: [row[field.name] for row in batch] for field in URL_INDEX}
            writer.write_batch(pa.RecordBatch.from_pydict(columns, schema=URL_INDEX))
    return {
        "rows": stored,
        "pages": stored,
        "bytes": payload_bytes,
        "urls": len(spool),
        "parts": parts.close(),
        "outcomes": dict(sorted(outcomes.items())),
        "statuses": dict(sorted(statuses.items())),
    }


def _placed(spool: Spool, parts: "_Parts") -> Iterator[Row]:
    for row in spool.rows():
        if row["offset"] is None:
            yield {**row, "part": None}
        else:
            yield {**row, **parts.add(spool.record(row), row)}


class _Parts:
    """The part files, one open at a time."""

    def __init__(self, out: Path, name: str, segment_bytes: int) -> None:
        self._out = out
        self._name = name
        self._segment_bytes = segment_bytes
        self._parts = 0
        self._payload_bytes = 0
        self._file: Any = None

    def add(self, record: bytes, row: Row) -> dict[str, int]:
        if self._file is None or self._payload_bytes + row["payload_length"] > self._segment_bytes:
            self._next(row["fetched_at"] or UNKNOWN_DATE)
        offset = self._file.tell()
        self._file.write(record)
        self._payload_bytes += row["payload_length"]
        return {"part": self._parts - 1, "offset": offset, "length": len(record)}

    def close(self) -> int:
        """Close the last part; returns how many there are."""
        if self._file is not None:
            self._file.close()
            self._file = None
        return self._parts

    def _next(self, fetched_at: int) -> None:
        self.close()
        folder = self._out / f"part-{self._parts:05d}"
        folder.mkdir()
        self._file = (folder / PAGES).open("wb")
        self._file.write(warcinfo_record(self._name, self._parts, fetched_at))
        self._parts += 1
        self._payload_bytes = 0
