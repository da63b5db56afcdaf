"""Documents and ledgers: the Arrow files that pass between stages.

A document never changes. What a later stage finds out about it goes into a *ledger*: an Arrow file beside the
document part with the same rows in the same order, `doc_id` first. The same rows always give the same bytes.
"""

import hashlib
from collections.abc import Iterator
from pathlib import Path

import pyarrow as pa
import pyarrow.ipc as ipc

import pipeline.engine.arrow  # noqa: F401  (whatever reads or writes tables is spared pandas)

DOC_ID = pa.binary(16)

DOCUMENTS = pa.schema(
    [
        ("doc_id", DOC_ID),
        ("url", pa.string()),
        ("source", pa.string()),
        ("language_declared", pa.string()),
        ("license", pa.string()),
        ("title", pa.string()),
        ("text", pa.string()),
    ]
)
"""One row a document. `text` is valid UTF-8 in NFC; `language_declared`, `license` and `title` may be null."""

REJECTS = pa.schema([("url", pa.string()), ("reason", pa.string()), ("detail", pa.string())])
"""One row for each record that gave no document, with a reason from a small fixed set and a free detail."""


def doc_id(url: str, text: str) -> bytes:
    """16 bytes that name a document: a hash of its canonical URL and its text."""
    digest = hashlib.blake2b(digest_size=16)
    digest.update(url.encode("utf-8", "surrogatepass"))
    digest.update(b"\0")
    digest.update(text.encode())
    return digest.digest()


def write_table(table: pa.Table, path: Path, compression: str | None = None) -> None:
    """Write `table` as one Arrow IPC file holding one record batch (none where it has no rows)."""
    options = ipc.IpcWriteOptions(compression=compression)
    with ipc.new_file(path, table.schema, options=options) as writer:
        for batch in table.combine_chunks().to_batches():
            writer.write_batch(batch)


def read_table(path: Path, columns: list[str] | None = None) -> pa.Table:
    """Read an Arrow IPC file, memory-mapped: columns that are not asked for are not read."""
    with pa.memory_map(str(path)) as source:
        names = ipc.open_file(source).schema.names
        wanted = None if columns is None else [names.index(name) for name in columns]
        return ipc.open_file(source, options=ipc.IpcReadOptions(included_fields=wanted)).read_all()


def read_batches(path: Path, columns: list[str]) -> Iterator[pa.RecordBatch]:
    """Columns of an Arrow IPC file, one record batch at a time: no more than one is held in memory."""
    with pa.memory_map(str(path)) as source:
        names = ipc.open_file(source).schema.names
        reader = ipc.open_file(source, options=ipc.IpcReadOptions(included_fields=[names.index(c) for c in columns]))
        for number in range(reader.num_record_batches):
            yield reader.get_batch(number).select(columns)


def read_ledger(path: Path, doc_ids: pa.ChunkedArray, columns: list[str]) -> pa.Table:
    """Columns of a ledger, in the rows of the documents with these ids; raises `ValueError` where it has other rows."""
    table = read_table(path, ["doc_id", *columns])
    if not table["doc_id"].equals(doc_ids):
        raise ValueError(f"{path} does not have the rows of its documents: {len(table):,} against {len(doc_ids):,}.")
    return table
