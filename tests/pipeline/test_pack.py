"""Pack: exactly the chosen documents, each followed by the end-of-text, on the side that its URL says."""

from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipeline.documents import DOCUMENTS, doc_id, write_table
from pipeline.pack import PackConfig, pack, split_of
from pipeline.shards import SPLITS, TokenShards, write_ranks
from pipeline.tokenize import SPANS

BYTES = {bytes([byte]): byte for byte in range(256)}
ENDING = 256
VOCAB_SIZE = 257


@pytest.fixture(scope="module")
def vocabulary(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("vocabulary")
    write_ranks(BYTES, folder / "ranks.tiktoken")
    facts = '{"name": "t", "pattern": ".", "special_tokens": {"<|endoftext|>": 256}, "vocab_size": 257}'
    (folder / "tokenizer.json").write_text(facts)
    return folder


rows_of_a_part = st.lists(st.tuples(st.lists(st.integers(0, 255), max_size=5), st.booleans(), st.booleans()))
"""Ids, selected, kept by deduplication."""


def write_part(folder: Path, rows: list[tuple[list[int], bool, bool]], first: int = 0) -> Path:
    folder.mkdir(parents=True)
    urls = [f"https://mill.example/{first + row}" for row in range(len(rows))]
    names = [doc_id(url, "") for url in urls]
    none = [None] * len(rows)
    write_table(pa.table([names, urls, urls, none, none, none, urls], DOCUMENTS), folder / "documents.arrow")
    lengths = np.array([len(ids) for ids, _, _ in rows], np.int64)
    np.array([token for ids, _, _ in rows for token in ids], "<u2").tofile(folder / "tokens.bin")
    spans = pa.table([names, np.cumsum(lengths) - lengths, lengths, lengths * 2], SPANS)
    write_table(spans, folder / "spans.arrow")
    doc_ids = pa.array(names, pa.binary(16))
    for stage, place in (("select", 1), ("deduplicate", 2)):
        keep = pa.array([row[place] for row in rows], pa.bool_())
        write_table(pa.table({"doc_id": doc_ids, "keep": keep}), folder / f"{stage}.arrow")
    return folder


def run(part: Path, vocabulary: Path, val_fraction: float) -> tuple[Path, dict[str, object]]:
    (out := part / "out").mkdir()
    config = PackConfig(val_fraction=val_fraction)
    stats = pack(
        out=out, config=config, documents=part, tokens=part, select=part, deduplicate=part, tokenizer=vocabulary
    )
    return out, stats


@given(rows=rows_of_a_part)
def test_exactly_the_chosen_documents_are_packed_once_each_in_order(
    rows: list[tuple[list[int], bool, bool]], vocabulary: Path, tmp_path_factory: pytest.TempPathFactory
) -> None:
    part = write_part(tmp_path_factory.mktemp("part") / "in", rows)
    out, stats = run(part, vocabulary, 0.5)
    packed: dict[str, list[int]] = {}
    for split in SPLITS:
        shards = TokenShards.open([out], split, VOCAB_SIZE)
        for row in shards.index().to_pylist():
            assert split_of(row["url"], 0.5) == split
            packed[row["url"]] = shards.window(row["start"], row["length"]).tolist()
    chosen = {
        f"https://mill.example/{row}": [*ids, ENDING]
        for row, (ids, selected, unique) in enumerate(rows)
        if selected and unique and ids
    }
    assert packed == chosen
    assert stats["rows"] == sum(stats["documents"].values()) == len(chosen)
    assert sum(stats["tokens"].values()) == sum(map(len, chosen.values()))
    assert sum(stats["bytes"].values()) == sum(2 * (len(ids) - 1) for ids in chosen.values())


def test_a_url_keeps_its_side_whatever_part_it_comes_in(vocabulary: Path, tmp_path: Path) -> None:
    sides = []
    for first in (0, 20):
        out, _ = run(write_part(tmp_path / f"from-{first}", [([1], True, True)] * 40, first), vocabulary, 0.3)
        parts = {split: TokenShards.open([out], split, VOCAB_SIZE).index()["url"].to_pylist() for split in SPLITS}
        sides.append({url: split for split, urls in parts.items() for url in urls})
    both = sides[0].keys() & sides[1].keys()
    assert len(both) == 20
    assert all(sides[0][url] == sides[1][url] for url in both)


def test_the_fraction_is_met_and_a_larger_one_only_adds_to_validation() -> None:
    urls = [f"https://mill.example/{number}" for number in range(20_000)]
    held_out = {fraction: {url for url in urls if split_of(url, fraction) == "val"} for fraction in (0, 0.01, 0.05)}
    assert held_out[0] == set()
    assert held_out[0.01] < held_out[0.05]
    assert len(held_out[0.01]) == pytest.approx(200, rel=0.25)
    assert len(held_out[0.05]) == pytest.approx(1_000, rel=0.15)


def test_the_side_of_a_url_is_the_same_on_every_machine() -> None:
    held_out = [number for number in range(40) if split_of(f"https://mill.example/{number}", 0.1) == "val"]
    assert held_out == [7, 25, 35]


def test_a_ledger_of_another_part_is_refused(vocabulary: Path, tmp_path: Path) -> None:
    part = write_part(tmp_path / "a", [([1], True, True)])
    other = write_part(tmp_path / "b", [([1], True, True)], first=1)
    (part / "select.arrow").write_bytes((other / "select.arrow").read_bytes())
    with pytest.raises(ValueError, match=r"select\.arrow does not have the rows of its documents"):
        run(part, vocabulary, 0.1)
