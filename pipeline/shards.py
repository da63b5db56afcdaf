"""Token shards: the one format that passes from the data engine to the model.

A shard is a flat file of little-endian ids, `train.bin` or `val.bin`, every document followed by `<|endoftext|>`,
beside an Arrow index with one row a document. The index covers the file exactly: row i begins where row i - 1 ends,
the first at 0, the last ending at the file's end. So every token belongs to one document, and can be traced to it.
Many shards read in order are one stream; no reader needs to know where one file ends and the next begins.
"""

import base64
import binascii
import json
from bisect import bisect_right
from collections.abc import Collection, Sequence
from pathlib import Path
from typing import Any, Literal, Protocol

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from pipeline.config import BadInput
from pipeline.documents import DOC_ID, read_table
from pipeline.kept import kept
from pipeline.vocabulary import END_OF_TEXT as END_OF_TEXT  # part of this format too

Split = Literal["train", "val"]
SPLITS: tuple[Split, ...] = ("train", "val")

RANKS_FILE = "ranks.tiktoken"
TOKENIZER_FILE = "tokenizer.json"
SENTENCEPIECE = "sentencepiece"
SENTENCEPIECE_FILE = "sentencepiece.model"

INDEX = pa.schema([("doc_id", DOC_ID), ("url", pa.string()), ("start", pa.int64()), ("length", pa.int64())])
"""One row a document: where its ids begin in the file, and how many there are with the end-of-text after them."""

UINT16_IDS = 65_536
"""Vocabularies up to this size have ids that fit 16 bits."""


class ShardError(BadInput, ValueError):
    """A shard or tokenizer file is not what the format says; the message is one sentence."""


def dtype_for(vocab_size: int) -> np.dtype[Any]:
    """The item type of a file of ids below `vocab_size`: two bytes while they suffice, four above."""
    return np.dtype("<u2" if vocab_size <= UINT16_IDS else "<u4")


def ids_path(folder: Path, split: Split) -> Path:
    """Where the ids of a split stand in the folder of a shard."""
    return folder / f"{split}.bin"


def index_path(folder: Path, split: Split) -> Path:
    """Where the index of a split stands in the folder of a shard."""
    return folder / f"{split}.arrow"


def read_ids(path: Path, dtype: np.dtype[Any]) -> npt.NDArray[Any]:
    """The ids in a file, memory-mapped and read-only; raises `ShardError` where the file is no whole number of ids."""
    if not path.is_file():
        raise ShardError(f"{path} is missing: pack the corpus again.")
    size = path.stat().st_size
    if size % dtype.itemsize:
        raise ShardError(f"{path} has {size:,} bytes, no multiple of {dtype.itemsize} (an id): it was cut off.")
    # An empty file cannot be mapped.
    return np.memmap(path, dtype=dtype, mode="r") if size else np.empty(0, dtype)


class TokenShards:
    """One split of a packed corpus, read as a single stream of ids however many files it lies in."""

    def __init__(self, arrays: list[npt.NDArray[Any]], tables: list[pa.Table]) -> None:
        self._arrays = arrays
        self._borders = [0]
        for array in arrays:
            self._borders.append(self._borders[-1] + len(array))
        self._index = _joined(tables, self._borders)

    @classmethod
    def open(cls, parts: list[Path], split: Split, vocab_size: int) -> "TokenShards":
        """Map one split of the shards in these folders, in this order.

        Raises `ShardError` where a file is missing or cut off, or where an index does not cover its file exactly.
        """
        dtype = dtype_for(vocab_size)
        arrays, tables = [], []
        for part in parts:
            array = read_ids(ids_path(part, split), dtype)
            table = _read_index(index_path(part, split))
            _check_cover(table, len(array), index_path(part, split))
            arrays.append(array)
            tables.append(table)
        return cls(arrays, tables)

    def __len__(self) -> int:
        """How many ids the split holds."""
        return self._borders[-1]

    def window(self, start: int, length: int) -> npt.NDArray[np.int64]:
        """Ids `start` to `start + length` of the stream, a fresh int64 array of that length.

        Raises `IndexError` where the window does not lie within the stream.
        """
        end = start + length
        if start < 0 or length < 0 or end > len(self):
            raise IndexError(f"ids {start:,} to {end:,} were asked of a stream of {len(self):,}")
        ids = np.empty(length, np.int64)
        part = bisect_right(self._borders, start) - 1
        filled = 0
        while filled < length:
            offset = start + filled - self._borders[part]
            piece = self._arrays[part][offset : offset + length - filled]
            ids[filled : filled + len(piece)] = piece
            filled += len(piece)
            part += 1
        return ids

    def index(self) -> pa.Table:
        """One row a document, in the order of the stream, as `INDEX`; `start` counts from the stream's beginning."""
        return self._index


def _read_index(path: Path) -> pa.Table:
    if not path.is_file():
        raise ShardError(f"{path} is missing: pack the corpus again.")
    try:
        table = read_table(path)
    except pa.ArrowInvalid as error:
        raise ShardError(f"{path} is no Arrow file: {error}.") from error
    if not table.schema.equals(INDEX):
        raise ShardError(f"{path} has the columns {table.schema.names}, an index of tokens has {INDEX.names}.")
    return table


def _check_cover(table: pa.Table, n_ids: int, path: Path) -> None:
    starts, lengths = table["start"].to_numpy(), table["length"].to_numpy()
    ends = np.cumsum(lengths)
    covered = int(ends[-1]) if len(ends) else 0
    contiguous = np.array_equal(starts, ends - lengths) and bool((lengths > 0).all())
    if covered != n_ids or not contiguous:
        raise ShardError(f"{path} does not cover its file: {covered:,} ids indexed, {n_ids:,} there.")


def _joined(tables: list[pa.Table], borders: list[int]) -> pa.Table:
    """The indexes one after another, each `start` moved by the ids before its file."""
    place = INDEX.get_field_index("start")
    moved = [
        table.set_column(place, INDEX.field("start"), pa.array(table["start"].to_numpy() + border))
        for table, border in zip(tables, borders, strict=False)
    ]
    return pa.concat_tables(moved) if moved else INDEX.empty_table()


def write_ranks(ranks: dict[bytes, int], path: Path) -> None:
    """Write a vocabulary as tiktoken does: a line a token, base64 of its bytes, a space, its rank; by rank."""
    lines = [b"%s %d\n" % (base64.b64encode(token), rank) for token, rank in sorted(ranks.items(), key=lambda i: i[1])]
    path.write_bytes(b"".join(lines))


class Encoding(Protocol):
    """Between text and ids: `tiktoken.Encoding`, or what does the same for another kind of vocabulary.

    Whatever the kind, the ids of a text stand for exactly its bytes, and no text encodes to a special token.
    """

    name: str
    """What the vocabulary is called."""

    @property
    def n_vocab(self) -> int:
        """How many ids there are, special tokens among them."""

    @property
    def special_tokens_set(self) -> set[str]:
        """The names of the tokens that are no text."""

    def encode_ordinary(self, text: str) -> list[int]:
        """The ids of a text, every part of it taken as ordinary text."""

    def encode_to_numpy(self, text: str, *, disallowed_special: Collection[str]) -> npt.NDArray[np.uint32]:
        """The ids of a text as an array; with nothing in `disallowed_special` they are those of `encode_ordinary`."""

    def encode_single_token(self, token: str, /) -> int:
        """The id of a special token, by its name."""

    def decode_single_token_bytes(self, token: int, /) -> bytes:
        """The bytes that an id stands for; of a special token, its name."""

    def decode(self, tokens: Sequence[int]) -> str:
        """The text of ids; bytes that are no UTF-8 become U+FFFD."""


def load_encoding(folder: Path) -> Encoding:
    """The encoding that a `tokenizer` stage wrote into `folder`; nothing is fetched.

    Raises `ShardError` where a file is missing or broken, or where the files disagree.
    """
    try:
        facts = json.loads((folder / TOKENIZER_FILE).read_bytes())
        if facts.get("kind") == SENTENCEPIECE:
            return _sentencepiece(folder, facts["name"], facts["vocab_size"])
        name, pattern, vocab_size = facts["name"], facts["pattern"], facts["vocab_size"]
        special_tokens: dict[str, int] = facts["special_tokens"]
        ranks = _read_ranks(folder / RANKS_FILE)
    except OSError as error:
        raise ShardError(f"No tokenizer in {folder}: {error.strerror} ({error.filename}).") from error
    except (ValueError, KeyError, TypeError, AttributeError, binascii.Error) as error:
        raise ShardError(f"The tokenizer in {folder} cannot be read: {type(error).__name__} {error}.") from error
    if sorted([*ranks.values(), *special_tokens.values()]) != list(range(vocab_size)):
        raise ShardError(f"The tokenizer in {folder} does not have one token for each of its {vocab_size:,} ids.")
    import tiktoken

    return tiktoken.Encoding(
        name, pat_str=pattern, mergeable_ranks=ranks, special_tokens=special_tokens, explicit_n_vocab=vocab_size
    )


@kept(1)
def kept_encoding(folder: Path) -> Encoding:
    """`load_encoding` of a published tokenizer, kept for the next part: loading takes as long as a megabyte of text."""
    return load_encoding(folder)


@kept(1)
def kept_token_bytes(folder: Path) -> npt.NDArray[np.int64]:
    """`token_bytes` of a published tokenizer, kept for the next part."""
    return token_bytes(kept_encoding(folder))


def _read_ranks(path: Path) -> dict[bytes, int]:
    lines = [line.split() for line in path.read_bytes().splitlines()]
    return {base64.b64decode(token, validate=True): int(rank) for token, rank in lines}


def _sentencepiece(folder: Path, name: str, vocab_size: int) -> Encoding:
    from pipeline.vocabulary.sentencepiece import SentencePieceEncoding

    encoding = SentencePieceEncoding(name, (folder / SENTENCEPIECE_FILE).read_bytes())
    if encoding.n_vocab != vocab_size:
        raise ValueError(f"{SENTENCEPIECE_FILE} has {encoding.n_vocab:,} ids, {TOKENIZER_FILE} says {vocab_size:,}")
    return encoding


def tokenizer_files(folder: Path) -> list[Path]:
    """The files that a tokenizer consists of, in order: what names it by their content."""
    return [path for name in (RANKS_FILE, SENTENCEPIECE_FILE, TOKENIZER_FILE) if (path := folder / name).is_file()]


def end_of_text(encoding: Encoding) -> int:
    """The id that follows every document: `<|endoftext|>`, which no text ever encodes to."""
    return encoding.encode_single_token(END_OF_TEXT)


def token_bytes(encoding: Encoding) -> npt.NDArray[np.int64]:
    """How many bytes of text each id stands for, by id; 0 for special tokens, which are no text."""
    lengths = np.zeros(encoding.n_vocab, np.int64)
    special = {encoding.encode_single_token(token) for token in encoding.special_tokens_set}
    for token in range(encoding.n_vocab):
        if token not in special:
            lengths[token] = len(encoding.decode_single_token_bytes(token))
    return lengths
