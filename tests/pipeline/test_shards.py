"""Token shards: many files read as one stream, every token traced to its document, broken files refused."""

from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipeline.config import BadInput
from pipeline.documents import write_table
from pipeline.shards import (
    INDEX,
    ShardError,
    TokenShards,
    dtype_for,
    end_of_text,
    index_path,
    load_encoding,
    token_bytes,
    write_ranks,
)

BYTES = {bytes([byte]): byte for byte in range(256)}
VOCAB_SIZE = 300


def write_shard(folder: Path, documents: list[list[int]], vocab_size: int = VOCAB_SIZE) -> Path:
    folder.mkdir(parents=True)
    lengths = np.array([len(ids) for ids in documents], np.int64)
    flat = [token for ids in documents for token in ids]
    np.array(flat, dtype_for(vocab_size)).tofile(folder / "train.bin")
    names = [f"{folder.name}/{row}" for row in range(len(documents))]
    ids = [name.encode().ljust(16)[-16:] for name in names]
    write_table(pa.table([ids, names, np.cumsum(lengths) - lengths, lengths], INDEX), folder / "train.arrow")
    return folder


def write_tokenizer(folder: Path, ranks: dict[bytes, int], facts: str | None = None) -> Path:
    write_ranks(ranks, folder / "ranks.tiktoken")
    size = len(ranks)
    text = f'{{"name": "t", "pattern": ".", "special_tokens": {{"<|endoftext|>": {size}}}, "vocab_size": {size + 1}}}'
    (folder / "tokenizer.json").write_text(facts or text)
    return folder


parts_of_documents = st.lists(st.lists(st.lists(st.integers(0, VOCAB_SIZE - 1), min_size=1, max_size=6), max_size=5))


@given(parts=parts_of_documents, data=st.data())
def test_any_window_is_that_slice_of_the_parts_laid_end_to_end(
    parts: list[list[list[int]]], data: st.DataObject, tmp_path_factory: pytest.TempPathFactory
) -> None:
    root = tmp_path_factory.mktemp("shards")
    folders = [write_shard(root / f"part-{i}", documents) for i, documents in enumerate(parts)]
    stream = [token for documents in parts for ids in documents for token in ids]

    shards = TokenShards.open(folders, "train", VOCAB_SIZE)
    start = data.draw(st.integers(0, len(stream)))
    length = data.draw(st.integers(0, len(stream) - start))
    window = shards.window(start, length)

    assert len(shards) == len(stream)
    assert window.dtype == np.int64
    assert window.tolist() == stream[start : start + length]


@given(parts=parts_of_documents)
def test_the_index_says_whose_every_token_is(
    parts: list[list[list[int]]], tmp_path_factory: pytest.TempPathFactory
) -> None:
    root = tmp_path_factory.mktemp("shards")
    folders = [write_shard(root / f"part-{i}", documents) for i, documents in enumerate(parts)]
    owners = [f"part-{i}/{row}" for i, part in enumerate(parts) for row, ids in enumerate(part) for _ in ids]

    shards = TokenShards.open(folders, "train", VOCAB_SIZE)
    index = shards.index()

    assert index.schema.equals(INDEX)
    lengths = index["length"].to_numpy()
    assert (index["start"].to_numpy() == np.cumsum(lengths) - lengths).all()
    assert np.repeat(index["url"].to_numpy(), lengths).tolist() == owners


def test_a_window_outside_the_stream_is_refused(tmp_path: Path) -> None:
    shards = TokenShards.open([write_shard(tmp_path / "part", [[1, 2, 3]])], "train", VOCAB_SIZE)
    for start, length in [(-1, 1), (0, 4), (4, 0), (1, -1)]:
        with pytest.raises(IndexError):
            shards.window(start, length)


def test_ids_take_two_bytes_up_to_65536_and_four_above(tmp_path: Path) -> None:
    assert dtype_for(65_536) == np.dtype("<u2")
    assert dtype_for(65_537) == np.dtype("<u4")
    folder = write_shard(tmp_path / "part", [[70_000, 1]], vocab_size=100_000)
    assert TokenShards.open([folder], "train", 100_000).window(0, 2).tolist() == [70_000, 1]


def test_a_file_cut_off_within_an_id_is_refused(tmp_path: Path) -> None:
    folder = write_shard(tmp_path / "part", [[1, 2, 3]])
    with (folder / "train.bin").open("ab") as file:
        file.write(b"\0")
    with pytest.raises(ShardError, match=r"train\.bin has 7 bytes, no multiple of 2"):
        TokenShards.open([folder], "train", VOCAB_SIZE)


@pytest.mark.parametrize(
    ("starts", "lengths"),
    [([0], [2]), ([0], [4]), ([0, 2], [2, 2]), ([1, 2], [1, 1]), ([0, 1], [2, 1]), ([0, 3], [3, 0]), ([], [])],
)
def test_an_index_that_does_not_cover_its_file_is_refused(
    starts: list[int], lengths: list[int], tmp_path: Path
) -> None:
    folder = write_shard(tmp_path / "part", [[1, 2, 3]])
    names = ["x"] * len(starts)
    write_table(pa.table([[b"0" * 16] * len(starts), names, starts, lengths], INDEX), index_path(folder, "train"))
    with pytest.raises(ShardError, match="does not cover its file"):
        TokenShards.open([folder], "train", VOCAB_SIZE)


def test_a_missing_or_broken_file_is_one_sentence_of_bad_input(tmp_path: Path) -> None:
    folder = write_shard(tmp_path / "part", [[1]])
    (folder / "train.arrow").write_bytes(b"garbage")
    with pytest.raises(BadInput, match="is no Arrow file"):
        TokenShards.open([folder], "train", VOCAB_SIZE)
    (folder / "train.arrow").unlink()
    with pytest.raises(BadInput, match=r"train\.arrow is missing"):
        TokenShards.open([folder], "train", VOCAB_SIZE)
    with pytest.raises(BadInput, match=r"val\.bin is missing"):
        TokenShards.open([folder], "val", VOCAB_SIZE)


def test_a_written_vocabulary_is_the_one_that_is_read(tmp_path: Path) -> None:
    encoding = load_encoding(write_tokenizer(tmp_path, {**BYTES, b"ab": 256, "é".encode(): 257}))
    assert encoding.n_vocab == 259
    assert end_of_text(encoding) == 258
    assert encoding.encode_ordinary("xab") == [ord("x"), ord("a"), ord("b")]
    assert encoding.encode_ordinary("é") == [257]


def test_each_id_stands_for_its_bytes_and_a_special_one_for_none(tmp_path: Path) -> None:
    lengths = token_bytes(load_encoding(write_tokenizer(tmp_path, {**BYTES, b"ab": 256, "é!".encode(): 257})))
    assert lengths.dtype == np.int64
    assert lengths.tolist() == [1] * 256 + [2, 3, 0]


@pytest.mark.parametrize(
    ("ranks", "facts", "said"),
    [
        (BYTES, "{", "cannot be read"),
        (BYTES, '{"name": "t", "pattern": ".", "special_tokens": {}}', "cannot be read"),
        (BYTES, '{"name": "t", "pattern": ".", "special_tokens": {}, "vocab_size": 300}', "does not have one token"),
        ({**BYTES, b"ab": 300}, None, "does not have one token"),
    ],
)
def test_a_broken_tokenizer_is_one_sentence_of_bad_input(
    ranks: dict[bytes, int], facts: str | None, said: str, tmp_path: Path
) -> None:
    with pytest.raises(BadInput, match=said):
        load_encoding(write_tokenizer(tmp_path, ranks, facts))


def test_a_missing_tokenizer_is_one_sentence_of_bad_input(tmp_path: Path) -> None:
    with pytest.raises(BadInput, match="No tokenizer in"):
        load_encoding(tmp_path)
