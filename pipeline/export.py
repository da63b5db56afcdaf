"""A packed corpus in the files that others train on: all shards one after another, and a table of the documents.

    nanoGPT   train.bin and val.bin, nothing but ids (its data/openwebtext/prepare.py)
    llm.c     train_000000.bin, ... and val_000000.bin, ..., a header of 256 int32 before the ids of each:
              20240520, version 1, number of ids, zeros (its dev/data/data_common.py)

nanoGPT reads how many ids there are from a pickle beside the files (meta.pkl), and takes 50,304 where there is none.
Pickles can run any code, so none is written here.
"""

from collections.abc import Mapping
from itertools import groupby
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from pipeline.config import BadInput
from pipeline.corpus import FATES, Corpus
from pipeline.crawl.seal import INDEX
from pipeline.documents import read_table
from pipeline.shards import SPLITS, Split, dtype_for, ids_path, index_path, read_ids
from pipeline.tombstones import hosts

DOCUMENTS_EXPORTED = pa.schema(
    [
        ("split", pa.string()),
        ("start", pa.int64()),
        ("length", pa.int64()),
        *(FATES.field(name) for name in ("doc_id", "url")),
        ("host", pa.string()),
        *(FATES.field(name) for name in ("source", "snapshot", "language", "license")),
        ("fetched_at", pa.timestamp("ms", tz="UTC")),
    ]
)
"""`start` counts ids from the beginning of the split's stream; `length` includes the end-of-text after the document."""

IDS = np.dtype("<u2")
"""The one item type that both read."""

NANOGPT_VOCABULARY = 50_304
"""Ids of the model that nanoGPT's train.py builds where no meta.pkl stands beside the data."""

LLMC_VOCABULARY = 50_257
"""Ids of the models that llm.c's train_gpt2 builds from a descriptor such as d12."""

LLMC_MAGIC, LLMC_VERSION, LLMC_HEADER = 20_240_520, 1, 256

LLMC_FILE_IDS = 10**8
"""Most ids in a file, as many as llm.c's own corpora have (dev/data/fineweb.py). It needs a batch from each file, so
files are of equal size rather than full but for the last."""

COPIED_AT_ONCE = 2**24
"""Ids in memory while copying."""


def nanogpt(parts: list[Path], vocab_size: int, out: Path) -> dict[Split, int]:
    """Write the shards in these folders as `train.bin` and `val.bin`; tells the number of ids of each.

    Raises `BadInput` where ids have four bytes, or where a split is empty.
    """
    _splits(parts, vocab_size, "nanoGPT")
    return streams(parts, vocab_size, out)


def streams(parts: list[Path], vocab_size: int, out: Path) -> dict[Split, int]:
    """Write the shards in these folders as `train.bin` and `val.bin`, of the item type that they have; ids of each."""
    written: dict[Split, int] = {}
    for split in SPLITS:
        arrays = [read_ids(ids_path(part, split), dtype_for(vocab_size)) for part in parts]
        with (out / f"{split}.bin").open("wb") as file:
            for array in arrays:
                _copy(array, file)
        written[split] = sum(map(len, arrays))
    return written


def documents(corpus: Corpus, path: Path) -> int:
    """Write a row for each packed document as Parquet, `DOCUMENTS_EXPORTED`, in the order of the streams; how many.

    Texts and titles are left out: personal data is replaced in the ids, not in them.
    """
    from pyarrow import parquet  # most commands need none of it

    rows, held_out = 0, []
    borders = {split: corpus.borders(split) for split in SPLITS}
    with parquet.ParquetWriter(path, DOCUMENTS_EXPORTED) as writer:
        # Parts of one snapshot are neighbours, and its index is long: it is read once for all of them.
        for _, parts in groupby(range(len(corpus)), corpus.snapshot_of):
            table = _packed_documents(corpus, list(parts), borders)
            writer.write_table(table.filter(pc.equal(table["split"], "train")))
            held_out.append(table.filter(pc.equal(table["split"], "val")))
            rows += len(table)
        for table in held_out:
            writer.write_table(table)
    return rows


def _packed_documents(corpus: Corpus, parts: list[int], borders: Mapping[Split, list[int]]) -> pa.Table:
    """The documents of a snapshot's parts in both splits; `borders` has where each part's ids begin in a stream."""
    tables = []
    for part in parts:
        facts = corpus.fates(part, texts=False)
        for split in SPLITS:
            index = read_table(index_path(corpus.folder("pack", part), split))
            found = facts.take(pc.index_in(index["doc_id"], facts["doc_id"].combine_chunks()))
            found = found.append_column("split", pa.array([split] * len(index), pa.string()))
            found = found.append_column("start", pc.add(index["start"], borders[split][part]))
            tables.append(found.append_column("length", index["length"]))
    table = pa.concat_tables(tables)
    columns = {name: table[name] for name in table.column_names} | {"host": hosts(table["url"])}
    snapshot = corpus.snapshot_folder(parts[0])
    if snapshot is not None:
        seen = read_table(snapshot / INDEX, ["url", "stored_at", "fetched_at", "license"])
        seen = seen.take(pc.index_in(table["url"], seen["url"].combine_chunks()))
        columns["fetched_at"] = pc.coalesce(seen["stored_at"], seen["fetched_at"])
        columns["license"] = pc.coalesce(table["license"], seen["license"])
    told = [columns.get(field.name, pa.nulls(len(table), field.type)) for field in DOCUMENTS_EXPORTED]
    return pa.table(told, schema=DOCUMENTS_EXPORTED)


def llmc(parts: list[Path], vocab_size: int, out: Path, file_ids: int = LLMC_FILE_IDS) -> dict[Split, int]:
    """Write the shards in these folders as llm.c's files of at most `file_ids` ids; tells the ids of each split.

    Raises `BadInput` where ids have four bytes, or where a split is empty.
    """
    written: dict[Split, int] = {}
    for split, arrays in _splits(parts, vocab_size, "llm.c").items():
        total = sum(map(len, arrays))
        n_files = -(-total // file_ids)
        borders = [total * number // n_files for number in range(n_files + 1)]
        for number in range(n_files):
            start, end = borders[number], borders[number + 1]
            header = np.zeros(LLMC_HEADER, "<i4")
            header[:3] = LLMC_MAGIC, LLMC_VERSION, end - start
            with (out / f"{split}_{number:06d}.bin").open("wb") as file:
                file.write(header.tobytes())
                for array in _between(arrays, start, end):
                    _copy(array, file)
        written[split] = total
    return written


def _splits(parts: list[Path], vocab_size: int, reader: str) -> dict[Split, list[npt.NDArray[Any]]]:
    """The ids of each split, a mapped array a shard."""
    dtype = dtype_for(vocab_size)
    if dtype != IDS:
        raise BadInput(
            f"{reader} reads ids of two bytes, and a vocabulary of {vocab_size:,} needs four: "
            "choose tokenizer.vocab_size up to 65,536."
        )
    splits = {split: [read_ids(ids_path(part, split), dtype) for part in parts] for split in SPLITS}
    for split, arrays in splits.items():
        if not sum(map(len, arrays)):
            raise BadInput(f"The {split} split is empty, and {reader} needs both: change pack.val_fraction.")
    return splits


def _between(arrays: list[npt.NDArray[Any]], start: int, end: int) -> list[npt.NDArray[Any]]:
    """Ids `start` to `end` of the arrays laid end to end, without a copy."""
    pieces, place = [], 0
    for array in arrays:
        pieces.append(array[max(0, start - place) : max(0, end - place)])
        place += len(array)
    return pieces


def _copy(array: npt.NDArray[Any], file: Any) -> None:
    for start in range(0, len(array), COPIED_AT_ONCE):
        file.write(array[start : start + COPIED_AT_ONCE].tobytes())
