"""Texts to compare models on: a sample of a packed corpus' validation split, kept as text.

As texts they outlive the shards and the vocabulary that they came from. What must not be in a corpus any longer must
not be here either: `without` leaves it out of a comparison, `forget` takes it off the disk.
"""

import hashlib
from pathlib import Path

import pyarrow as pa
import pyarrow.compute as pc

from pipeline.documents import DOC_ID, read_table, write_table
from pipeline.engine.store import flush, replacing
from pipeline.pack import split_of
from pipeline.shards import TokenShards, load_encoding
from pipeline.tombstones import NONE, Tombstones, read_tombstones, taken_down

HELD_OUT = pa.schema([("doc_id", DOC_ID), ("url", pa.string()), ("text", pa.string())])

MOST_BYTES = 4 << 20
"""Text in a sample at most: about a million tokens, scored in seconds on a GPU and in a minute or two on two cores."""

WITHDRAWN = ("gone", "taken_down", "copy_of_takedown")
"""The reasons of `select` for which a page leaves a sample too; a page that has only changed stays."""


def sample(shards: list[Path], tokenizer: Path, most_bytes: int = MOST_BYTES) -> pa.Table:
    """Documents of the validation split as `HELD_OUT`, up to `most_bytes` of text but one at least.

    Which ones hangs on a hash of their URLs alone, so that a page is drawn whatever else is there.
    """
    encoding = load_encoding(tokenizer)
    split = TokenShards.open(shards, "val", encoding.n_vocab)
    index = split.index()
    hashes = [hashlib.sha256(url.encode()).digest() for url in index["url"].to_pylist()]
    texts: dict[int, str] = {}
    size = 0
    for row in sorted(range(len(hashes)), key=hashes.__getitem__):
        start, length = index["start"][row].as_py(), index["length"][row].as_py()
        text = encoding.decode(split.window(start, length - 1).tolist())
        size += len(text.encode())
        if texts and size > most_bytes:
            break
        texts[row] = text
    rows = sorted(texts)  # as they stand in the split, so that a whole one scores as in its evaluation
    chosen = index.take(pa.array(rows, pa.int64()))
    return pa.table([chosen["doc_id"], chosen["url"], pa.array([texts[row] for row in rows], pa.string())], HELD_OUT)


def without(table: pa.Table, tombstones: Path, documents: list[Path], select: list[Path]) -> pa.Table:
    """A sample less what a tombstone names, and the pages that were withdrawn as the `select` ledgers of these say."""
    stones = read_tombstones(tombstones) if tombstones.is_file() else NONE
    doomed = taken_down(table["url"], stones)
    for part, selected in zip(documents, select, strict=True):
        reasons = read_table(selected / "select.arrow", ["reason"])["reason"]
        urls = read_table(part / "documents.arrow", ["url"])["url"]
        withdrawn = urls.filter(pc.is_in(reasons, pa.array(WITHDRAWN))).combine_chunks()
        doomed = doomed | pc.is_in(table["url"], withdrawn).to_numpy()
    return table.filter(pa.array(~doomed))


def unseen(table: pa.Table, val_fraction: float) -> pa.Table:
    """The part of a sample that is held out of a corpus with this share for validation, too."""
    sides = [split_of(url, val_fraction) for url in table["url"].to_pylist()]
    return table.filter(pa.array([side == "val" for side in sides], pa.bool_()))


def write(table: pa.Table, path: Path) -> None:
    """Write a sample, at once or not at all."""
    with replacing(path) as aside:
        write_table(table, aside)
    flush(path.parent)


def forget(path: Path, tombstones: Tombstones, urls: set[str]) -> bool:
    """Take what these tombstones name, and the pages at these URLs, out of a sample on disk; whether any was there."""
    table = read_table(path)
    doomed = (
        taken_down(table["url"], tombstones) | pc.is_in(table["url"], pa.array(sorted(urls), pa.string())).to_numpy()
    )
    if doomed.any():
        write(table.filter(pa.array(~doomed)), path)
    return bool(doomed.any())
