"""The selected documents and their total order, from which the dedup rule follows.

Order: the age of a document's URL in its source (the first snapshot with a document there), then the URL, then the
source's place in the corpus. It depends neither on how documents are cut into parts nor on who made which part when.
URLs are held once, in one buffer, and only while they are sorted.
"""

from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pyarrow as pa
import pyarrow.ipc as ipc
from numpy.typing import NDArray

from pipeline.dedup.urls import copy_strings, first_seen, sort_urls
from pipeline.shingle_kernels import texts_of
from pipeline.versions import Place, part_places

Rows = NDArray[np.int64]


def mapped(path: Path, columns: list[str]) -> pa.Table:
    """Columns of an Arrow file that is mapped into memory: no other is read, and none copied unless it is packed.

    `read_table` takes memory for all of the file, and reads ahead all of the columns.
    """
    with pa.memory_map(str(path)) as source:
        names = ipc.open_file(source).schema.names
        wanted = ipc.IpcReadOptions(included_fields=[names.index(column) for column in columns])
        reader = ipc.open_file(source, options=wanted)
        batches = [reader.get_batch(number) for number in range(reader.num_record_batches)]
        return pa.Table.from_batches(batches, batches[0].schema if batches else ipc.open_file(source).schema)


def whole(column: pa.ChunkedArray) -> pa.Array:
    """A column as one array: where it is one chunk, as our files are, without a copy."""
    return column.chunk(0) if column.num_chunks == 1 else column.combine_chunks()


class Selected(NamedTuple):
    """The selected documents: `rows[starts[p]:starts[p + 1]]` are their rows in part p, ascending.

    `order[i]` is the place in `rows` of the document that comes i-th in the rule's order: its *rank* is i.
    """

    rows: NDArray[np.int32]
    starts: Rows
    order: NDArray[np.int32]

    def __len__(self) -> int:
        """How many documents are selected."""
        return len(self.order)

    def ranks(self) -> NDArray[np.int32]:
        """The rank of each place in `rows`."""
        ranks = np.empty(len(self.order), np.int32)
        ranks[self.order] = np.arange(len(self.order), dtype=np.int32)
        return ranks

    def by_part(self, ranks: Rows) -> list[tuple[int, Rows, Rows]]:
        """The documents of these ranks by part: (part, where in `ranks` they stand, their rows in the part)."""
        places = self.order[ranks]
        parts = np.searchsorted(self.starts, places, side="right") - 1
        together = np.argsort(parts, kind="stable")
        borders = np.flatnonzero(np.diff(parts[together], prepend=-1))
        return [
            (int(parts[which[0]]), which, self.rows[places[which]].astype(np.int64))
            for which in np.split(together, borders[1:])
            if len(which)
        ]

    def take(self, folders: list[Path], file: str, column: str, ranks: Rows) -> list[Any]:
        """The values of a column of the documents of these ranks: for a few, which are read one by one."""
        found: list[Any] = [None] * len(ranks)
        for part, which, rows in self.by_part(ranks):
            values = mapped(folders[part] / file, [column])[column]
            for place, row in zip(which.tolist(), rows.tolist(), strict=True):
                found[place] = values[row].as_py()
        return found


def rule_order(documents: list[Path], select: list[Path], snapshots: list[Path]) -> Selected:
    """The selected documents in the rule's order; raises `BadInput` where the parts are not those of the snapshots."""
    places = part_places(snapshots, len(documents))
    aged = _aged(places)
    chosen, selected = [], []
    for part, place in zip(select, places, strict=True):
        keep = mapped(part / "select.arrow", ["keep"])["keep"].to_numpy()
        # Where a source has several snapshots, what was not selected dates its URL too.
        chosen.append(np.arange(len(keep)) if place.source in aged else np.flatnonzero(keep))
        selected.append(keep[chosen[-1]])
    sizes = [len(rows) for rows in chosen]
    data, ends = _urls(documents, chosen)
    sources = np.repeat(np.array([place.source for place in places], np.int32), sizes)
    order = sort_urls(data, ends, sources)
    kept = np.concatenate([np.zeros(0, np.bool_), *selected])
    if aged:
        ages = np.repeat(np.array([place.ordinal for place in places], np.int16), sizes)
        first_seen(data, ends, sources, order, ages)
        order = order[kept[order]]
        order = order[np.argsort(ages[order], kind="stable")]
        order = (np.cumsum(kept) - 1).astype(np.int32)[order]
    starts = np.cumsum([0, *(int(mask.sum()) for mask in selected)])
    rows = [rows[mask].astype(np.int32) for rows, mask in zip(chosen, selected, strict=True)]
    return Selected(np.concatenate([np.zeros(0, np.int32), *rows]), starts, order)


def _aged(places: list[Place]) -> set[int]:
    """The sources with documents of more than one snapshot."""
    ordinals: dict[int, set[int]] = {}
    for place in places:
        ordinals.setdefault(place.source, set()).add(place.ordinal)
    return {source for source, found in ordinals.items() if len(found) > 1}


def _urls(documents: list[Path], chosen: list[Rows]) -> tuple[NDArray[np.uint8], Rows]:
    """The URLs of the chosen rows of all parts, one after the other: their bytes, and where each begins and ends."""
    urls = [texts_of(mapped(part / "documents.arrow", ["url"])["url"]) for part in documents]
    size = sum(int(np.diff(part.offsets)[rows].sum()) for part, rows in zip(urls, chosen, strict=True))
    data, ends = np.empty(size, np.uint8), np.zeros(sum(map(len, chosen)) + 1, np.int64)
    done = 0
    for rows in chosen:
        part = urls.pop(0)  # let go of once copied, with the file that is mapped for it
        copy_strings(part.data, part.offsets, rows, data, ends, done)
        done += len(rows)
    return data, ends
