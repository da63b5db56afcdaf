"""Pack: the chosen spans copied into token shards, one for training and one for validation.

A document is packed where `select` kept it, `deduplicate` kept it, and it has ids. On which side it falls depends on
its canonical URL alone, so a page stays on its side through every refresh and policy. Only kept documents are packed,
and of documents that were found to be duplicates one alone is kept: so no detected duplicate crosses the split.
"""

import hashlib
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc
from pydantic import Field

from pipeline.config import Config
from pipeline.documents import read_ledger, read_table, write_table
from pipeline.shards import INDEX, SPLITS, Split, dtype_for, end_of_text, ids_path, index_path, kept_encoding, read_ids

HASH_BYTES = 8


class PackConfig(Config):
    """How the corpus is split."""

    val_fraction: float = Field(0.01, gt=0, lt=1)
    """Share of documents, by hash of their URL, held out for validation."""


def pack(
    *, out: Path, config: PackConfig, documents: Path, tokens: Path, select: Path, deduplicate: Path, tokenizer: Path
) -> dict[str, int | dict[str, int]]:
    """Copy the chosen documents of one part into `train.bin` and `val.bin`, each beside its index.

    Stats count documents, tokens (end-of-text included) and bytes of text on either side.
    """
    encoding = kept_encoding(tokenizer)
    dtype = dtype_for(encoding.n_vocab)
    ids = np.asarray(read_ids(tokens / "tokens.bin", dtype))  # slices of a plain array are made faster
    table = read_table(documents / "documents.arrow", ["doc_id", "url"])
    spans = read_ledger(tokens / "spans.arrow", table["doc_id"], ["start", "length", "n_bytes"])
    selected = read_ledger(select / "select.arrow", table["doc_id"], ["keep"])["keep"]
    unique = read_ledger(deduplicate / "deduplicate.arrow", table["doc_id"], ["keep"])["keep"]
    chosen = pc.and_(pc.and_(selected, unique), pc.greater(spans["length"], 0))
    rows = table.append_column("place", spans["start"]).append_column("n_ids", spans["length"])
    rows = rows.append_column("n_bytes", spans["n_bytes"]).filter(chosen)
    sides = np.array([split_of(url, config.val_fraction) for url in rows["url"].to_pylist()], dtype=object)
    n_documents: dict[str, int] = {}
    n_tokens: dict[str, int] = {}
    n_bytes: dict[str, int] = {}
    for split in SPLITS:
        side = rows.filter(pa.array(sides == split, pa.bool_()))
        lengths = side["n_ids"].to_numpy().astype(np.int64) + 1
        copied = _copied(ids, side["place"].to_numpy(), lengths, end_of_text(encoding))
        ids_path(out, split).write_bytes(copied.data)
        starts = np.cumsum(lengths) - lengths
        index = pa.table([side["doc_id"], side["url"], starts, lengths], INDEX)
        write_table(index, index_path(out, split))
        n_documents[split], n_tokens[split] = len(side), len(copied)
        n_bytes[split] = int(side["n_bytes"].to_numpy().sum())
    return {"rows": len(rows), "documents": n_documents, "tokens": n_tokens, "bytes": n_bytes}


def split_of(url: str, val_fraction: float) -> Split:
    """The side of the split on which a canonical URL falls; a larger fraction only moves URLs from train to val."""
    digest = hashlib.blake2b(url.encode("utf-8", "surrogatepass"), digest_size=HASH_BYTES).digest()
    return "val" if int.from_bytes(digest, "big") < val_fraction * 2 ** (8 * HASH_BYTES) else "train"


def _copied(ids: npt.NDArray, places: npt.NDArray, lengths: npt.NDArray, ending: int) -> npt.NDArray:
    """The spans that begin at these places, one after another; each length includes the end-of-text put after it."""
    copied = np.empty(int(lengths.sum()), ids.dtype)
    end = 0
    for place, length in zip(places.tolist(), lengths.tolist(), strict=True):
        copied[end : end + length - 1] = ids[place : place + length - 1]
        end += length
        copied[end - 1] = ending
    return copied
