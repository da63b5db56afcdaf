"""What the earlier snapshots of a source know: which pages still stand, and what to ask for conditionally.

The url indexes are sorted by URL, so one of them is searched where it lies, memory-mapped.
"""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pyarrow as pa

from pipeline.crawl.spool import REVISIT, STORED, Row
from pipeline.crawl.warc import UNKNOWN_DATE
from pipeline.documents import read_table
from pipeline.versions import (
    FRESH_OUTCOMES,
    LOOP,
    MISSES_TO_WITHDRAW,
    WITHDRAWING_OUTCOMES,
    WITHDRAWING_STATUS,
)

INDEX = "urls.arrow"

_HELD = (STORED, REVISIT)


class Earlier:
    """The url indexes of sealed snapshots, given oldest first."""

    def __init__(self, folders: list[Path]) -> None:
        self._indexes = [read_table(folder / INDEX) for folder in folders]

    def page(self, url: str) -> Row | None:
        """The latest row of the page at `url` whose payload is the last one that a snapshot had; None where none was.

        `stored_at` is when that payload was fetched, in milliseconds since the epoch.
        """
        for index in reversed(self._indexes):
            row = _row(index, url)
            if row is None or row["outcome"] not in (REVISIT, *FRESH_OUTCOMES):
                continue
            if row["outcome"] not in _HELD:
                return None  # since then it was another, which is not kept
            at = row["stored_at"] or row["fetched_at"]
            return {**row, "stored_at": int(at.timestamp() * 1000) if at else UNKNOWN_DATE}
        return None

    def live(self) -> Iterator[tuple[str, int]]:
        """URL and depth of each page that the corpus may still hold (see `pipeline.versions`), sorted by URL."""
        standing: dict[str, tuple[int, int, int]] = {}  # url → depth, misses in a row, snapshot of the last one
        for snapshot, index in enumerate(self._indexes):
            columns = (index[name].to_pylist() for name in ("url", "depth", "status", "outcome"))
            for url, depth, status, outcome in zip(*columns, strict=True):
                if outcome in _HELD:
                    standing[url] = (depth, 0, snapshot)
                elif url in standing:
                    old_depth, misses, last = standing[url]
                    moved = status in WITHDRAWING_STATUS and outcome != LOOP
                    if status == 404:
                        misses = misses + 1 if last == snapshot - 1 else 1
                        standing[url] = (old_depth, misses, snapshot)
                    if outcome in WITHDRAWING_OUTCOMES or moved or misses >= MISSES_TO_WITHDRAW:
                        del standing[url]
        for url in sorted(standing):
            yield url, standing[url][0]


def _row(index: pa.Table, url: str) -> dict[str, Any] | None:
    urls = index["url"]
    low, high = 0, len(urls)
    while low < high:
        middle = (low + high) // 2
        if urls[middle].as_py() < url:
            low = middle + 1
        else:
            high = middle
    if low == len(urls) or urls[low].as_py() != url:
        return None
    return index.slice(low, 1).to_pylist()[0]
