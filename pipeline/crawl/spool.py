"""What a source gave so far, safe against being killed at any moment.

A spool is two files that only grow: `spool.warc.gz` with one gzip member a stored record, and `spool.jsonl` with one
line (a *row*) an answered URL, written after its record. So every whole line speaks of a whole record; when a spool is
opened again, a torn last line and what a record file holds beyond the last line are cut off. One URL has one row: the
latest. A line without a URL settles the rows before it: whoever goes on does not ask for them again.
"""

import contextlib
import json
import os
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any, BinaryIO

from pipeline.crawl.warc import read_member

Row = dict[str, Any]
Places = dict[str, tuple[int, int, int]]
"""By URL, when it was fetched, the offset of its line, and the bytes of payload that are stored of it."""

STORED = "stored"
"""The outcome of a page whose payload stands in the snapshot."""

REVISIT = "revisit"
"""The outcome of a page that is as an earlier snapshot has it: a 304, or the same payload again."""

GAVE_UP = "gave_up"
"""The outcome of a URL whose host was left alone."""

CLOCK = "elapsed"
"""The file beside the spool that says how many seconds its crawl has taken."""

ABOUT_SITE = ("robots_txt", "tdmrep", "sitemap")
"""Outcomes of files that are about the site and no pages."""

RECORDS, ROWS = "spool.warc.gz", "spool.jsonl"
_SETTLED = {"settled": True}

_SYNC_SECONDS = 2.0
"""A killed process loses nothing; a power cut loses at most what came in this time."""


class Spool:
    """Rows and records of one source under `folder`, in the order in which they came."""

    def __init__(self, folder: Path) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        self.places: Places = {}
        self._settled = 0  # bytes of lines that are settled
        self._records = _open(folder / RECORDS)
        self._rows = _open(folder / ROWS)
        self._recover()
        self._synced = time.monotonic()

    @staticmethod
    def remove(folder: Path) -> None:
        """Forget what is spooled in `folder`."""
        for name in (ROWS, RECORDS, CLOCK):
            (folder / name).unlink(missing_ok=True)

    def __enter__(self) -> "Spool":
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def __len__(self) -> int:
        return len(self.places)

    @property
    def payload_bytes(self) -> int:
        """Bytes of all stored payloads."""
        return sum(length for _, _, length in self.places.values())

    def __contains__(self, url: str) -> bool:
        return url in self.places

    def add(self, row: Row, record: bytes | None = None) -> bool:
        """Append a row and its record; False where the URL has a row already and the older one stays."""
        known = self.places.get(row["url"])
        fetched_at = row.get("fetched_at") or 0
        if known is not None and known[0] > fetched_at:
            return False
        if record is not None:
            row = {**row, "offset": self._records.seek(0, os.SEEK_END), "length": len(record)}
            self._records.write(record)
            self._records.flush()
        place = self._rows.seek(0, os.SEEK_END)
        self._rows.write(json.dumps(row, ensure_ascii=False).encode("utf-8", "surrogatepass") + b"\n")
        self._rows.flush()
        self.places[row["url"]] = (fetched_at, place, payload_bytes(row))
        if time.monotonic() - self._synced > _SYNC_SECONDS:
            self.sync()
        return True

    def settle(self) -> None:
        """Have what is there so far taken for settled."""
        self._rows.seek(0, os.SEEK_END)
        self._rows.write(json.dumps(_SETTLED).encode() + b"\n")
        self._rows.flush()
        self._settled = self._rows.tell()

    def is_settled(self, url: str) -> bool:
        """Whether the row of `url` is there and settled."""
        return url in self.places and self.places[url][1] < self._settled

    def row(self, url: str) -> Row:
        """The row of `url`; KeyError where it has none."""
        self._rows.seek(self.places[url][1])
        return json.loads(self._rows.readline())

    def rows(self) -> Iterator[Row]:
        """All rows, sorted by URL."""
        for url in sorted(self.places):
            yield self.row(url)

    def record(self, row: Row) -> bytes:
        """The gzip member that `row` speaks of."""
        self._records.seek(row["offset"])
        return self._records.read(row["length"])

    def sync(self) -> None:
        """Have everything so far on the disk, records before the rows that name them."""
        for file in (self._records, self._rows):
            file.flush()
            os.fsync(file.fileno())
        self._synced = time.monotonic()

    def close(self) -> None:
        """Sync and close; a second call does nothing."""
        if not self._rows.closed:
            self.sync()
            self._records.close()
            self._rows.close()

    def _recover(self) -> None:
        """Take what is whole, drop the rest."""
        end_of_rows = end_of_records = 0
        self._rows.seek(0)
        for line in self._rows:
            row = None
            if line.endswith(b"\n"):
                with contextlib.suppress(ValueError):
                    row = json.loads(line)
            if row is None:
                break
            if row == _SETTLED:
                end_of_rows += len(line)
                self._settled = end_of_rows
                continue
            if row["offset"] is not None:
                if read_member(self.record(row)) is None:
                    break
                end_of_records = row["offset"] + row["length"]
            self.places[row["url"]] = (row.get("fetched_at") or 0, end_of_rows, payload_bytes(row))
            end_of_rows += len(line)
        self._rows.truncate(end_of_rows)
        self._records.truncate(end_of_records)


class Spools:
    """Closed spools as one: of a URL's rows the latest stays, and of two as late that of the later spool."""

    def __init__(self, read: list[tuple[Path, Places, int]]) -> None:
        """From each one's folder, the places of its rows, and how many rows were added to it."""
        self._files = [((folder / RECORDS).open("rb"), (folder / ROWS).open("rb")) for folder, _, _ in read]
        self._places: dict[str, tuple[int, int, int, int]] = {}  # url → fetched_at, number of the spool, offset, length
        for number, (_, places, _) in enumerate(read):
            for url, (fetched_at, offset, length) in places.items():
                if url not in self._places or self._places[url][0] <= fetched_at:
                    self._places[url] = (fetched_at, number, offset, length)
        self.superseded = sum(rows for _, _, rows in read) - len(self._places)
        """How many rows had a later one."""

    def __enter__(self) -> "Spools":
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def __len__(self) -> int:
        return len(self._places)

    @property
    def payload_bytes(self) -> int:
        """Bytes of all stored payloads."""
        return sum(length for _, _, _, length in self._places.values())

    def rows(self) -> Iterator[Row]:
        """All rows, sorted by URL; `spool` says of each in which spool it is."""
        for url in sorted(self._places):
            _, number, offset, _ = self._places[url]
            rows = self._files[number][1]
            rows.seek(offset)
            yield {**json.loads(rows.readline()), "spool": number}

    def record(self, row: Row) -> bytes:
        """The gzip member that `row` speaks of."""
        records = self._files[row["spool"]][0]
        records.seek(row["offset"])
        return records.read(row["length"])

    def close(self) -> None:
        """Close the files; a second call does nothing."""
        for files in self._files:
            for file in files:
                file.close()


def _open(path: Path) -> BinaryIO:
    path.touch()
    return path.open("r+b")


def payload_bytes(row: Row) -> int:
    """Bytes of payload that are stored with a row."""
    length: int = row["payload_length"] if row["outcome"] == STORED else 0
    return length


def new_row(url: str, outcome: str, **facts: Any) -> Row:
    """A row of the url index with every column; those not given are null, `status` and `depth` 0, `links` empty."""
    row: Row = {
        "url": url,
        "requested_url": None,
        "status": 0,
        "outcome": outcome,
        "etag": None,
        "last_modified": None,
        "payload_digest": None,
        "content_type": None,
        "links": [],
        "robots": None,
        "tdm_reserved": None,
        "tdm_page": None,
        "license": None,
        "fetched_at": None,
        "stored_at": None,
        "depth": 0,
        "offset": None,
        "length": None,
        "detail": None,
        # Not columns of the index:
        "payload_length": 0,  # bytes of the stored payload
        "sitemaps": [],  # that robots.txt or a sitemap names
        "kept": None,  # the text of a file about the site, for a crawl that is taken up again
    }
    unknown = facts.keys() - row.keys()
    if unknown:
        raise TypeError(f"no such column: {', '.join(sorted(unknown))}")
    return row | facts
