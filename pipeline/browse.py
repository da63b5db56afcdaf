"""Looking through a corpus: rows that match, counted by reason, some of them shown, all of them written."""

import hashlib
import heapq
from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from pipeline.tombstones import hosts

Row = dict[str, Any]


@dataclass(frozen=True)
class Wanted:
    """What is looked for; None is anything. A `reason` is met by those that go on after it with ":"."""

    stage: str | None = None
    reason: str | None = None
    host: str | None = None
    language: str | None = None

    def rows(self, table: pa.Table) -> pa.Table:
        """The rows of a table of fates that are wanted."""
        mask: NDArray[np.bool_] = np.ones(len(table), np.bool_)
        for name in ("stage", "language"):
            if (value := getattr(self, name)) is not None:
                mask &= _true(pc.equal(table[name], value))
        if self.reason is not None:
            group = pc.starts_with(table["reason"], f"{self.reason}:")
            mask &= _true(pc.or_(pc.equal(table["reason"], self.reason), group))
        if self.host is not None:
            mask &= _true(pc.equal(hosts(table["url"]), self.host.lower()))
        return table if mask.all() else table.filter(pa.array(mask))


class Seen(NamedTuple):
    """What looking through found: rows and tokens by (stage, reason), and the rows to show."""

    rows: Counter[tuple[str | None, str | None]]
    tokens: Counter[tuple[str | None, str | None]]
    shown: list[Row]


def look(tables: Iterable[pa.Table], wanted: Wanted, limit: int, seed: int | None) -> Seen:
    """Count what is wanted, and keep `limit` rows of it: the first, or with a seed a sample.

    A sample depends on the seed and on what matches alone, not on how it is cut into tables.
    """
    seen = Seen(Counter(), Counter(), [])
    drawn: list[tuple[int, int, Row]] = []
    number = 0
    for table in (wanted.rows(table) for table in tables):
        for stage, reason, tokens in zip(*(table[n].to_pylist() for n in ("stage", "reason", "tokens")), strict=True):
            seen.rows[stage, reason] += 1
            seen.tokens[stage, reason] += tokens or 0
        if seed is None:
            seen.shown.extend(table.slice(0, limit - len(seen.shown)).to_pylist())
            continue
        for row, rank in enumerate(_ranks(table, seed)):
            number += 1
            if len(drawn) < limit:
                heapq.heappush(drawn, (-rank, number, table.slice(row, 1).to_pylist()[0]))
            elif drawn and -rank > drawn[0][0]:
                heapq.heapreplace(drawn, (-rank, number, table.slice(row, 1).to_pylist()[0]))
    seen.shown.extend(row for _, _, row in sorted(drawn, key=lambda each: -each[0]))
    return seen


def _ranks(table: pa.Table, seed: int) -> Iterator[int]:
    """A number for each row, by which a sample is drawn: those with the least are in it."""
    for names in zip(*(table[name].to_pylist() for name in ("url", "snapshot", "stage")), strict=True):
        told = "\0".join([str(seed), *(name or "" for name in names)])
        yield int.from_bytes(hashlib.blake2b(told.encode(), digest_size=8).digest(), "big")


def _true(mask: Any) -> NDArray[np.bool_]:
    return np.asarray(pc.fill_null(mask, False).to_numpy(zero_copy_only=False), np.bool_)
