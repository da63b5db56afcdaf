"""Tokenize: every wanted document's ids stand for exactly its text, whatever is in it."""

import time
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipeline.config import BadInput
from pipeline.documents import DOCUMENTS, doc_id, read_table, write_table
from pipeline.pii import PiiConfig, replace_pii
from pipeline.shards import dtype_for, end_of_text, load_encoding
from pipeline.tokenize import PII, SPANS, TokenizeConfig, encode, kept_lines, tokenize
from pipeline.tokenizer import TokenizerConfig, tokenizer

SEED = "The mill grinds what the river brings. <|endoftext|> é 知識 <|endoftext|>\n" * 3


@pytest.fixture(scope="module", params=["bpe", "sentencepiece"])
def vocabulary(tmp_path_factory: pytest.TempPathFactory, request: pytest.FixtureRequest) -> Path:
    root = tmp_path_factory.mktemp("vocabulary")
    part = write_part(root / "in", [SEED])
    (out := root / "out").mkdir()
    tokenizer(out=out, config=TokenizerConfig(kind=request.param, vocab_size=320), documents=[part], language=[part])
    return out


def write_part(
    folder: Path, texts: list[str], wanted: list[bool] | None = None, spans: list[list[tuple[int, int]]] | None = None
) -> Path:
    """A document part, its language ledger and, where given, its kept lines, in one folder."""
    folder.mkdir(parents=True)
    urls = [f"https://mill.example/{row}" for row in range(len(texts))]
    ids = [doc_id(url, text) for url, text in zip(urls, texts, strict=True)]
    none = [None] * len(texts)
    columns = [ids, urls, ["test"] * len(texts), none, none, none, texts]
    write_table(pa.table(columns, DOCUMENTS), folder / "documents.arrow")
    row_ids = pa.array(ids, pa.binary(16))
    flags = pa.array(wanted or [True] * len(texts), pa.bool_())
    write_table(pa.table({"doc_id": row_ids, "wanted": flags}), folder / "language.arrow")
    kind = pa.list_(pa.struct([("start", pa.int32()), ("end", pa.int32())]))
    kept = [[{"start": start, "end": end} for start, end in row] for row in spans or [[]] * len(texts)]
    write_table(pa.table({"doc_id": row_ids, "spans": pa.array(kept, kind)}), folder / "c4_spans.arrow")
    return folder


def run(part: Path, vocabulary: Path, **config: Any) -> tuple[list[list[int]], pa.Table, dict[str, Any]]:
    """The ids of each document, the ledger, and the stats."""
    (out := part / "out").mkdir()
    stats = tokenize(
        out=out, config=TokenizeConfig(**config), documents=part, language=part, quality=part, tokenizer=vocabulary
    )
    flat = np.fromfile(out / "tokens.bin", dtype_for(320)).tolist()
    ledger = read_table(out / "spans.arrow")
    assert len(flat) == stats["tokens"]
    places = zip(ledger["start"].to_pylist(), ledger["length"].to_pylist(), strict=True)
    return [flat[start : start + length] for start, length in places], ledger, stats


@given(texts=st.lists(st.text(), max_size=8), data=st.data())
def test_each_wanted_documents_ids_decode_to_its_text_and_the_others_have_none(
    texts: list[str], data: st.DataObject, vocabulary: Path, tmp_path_factory: pytest.TempPathFactory
) -> None:
    wanted = data.draw(st.lists(st.booleans(), min_size=len(texts), max_size=len(texts)))
    part = write_part(tmp_path_factory.mktemp("part") / "in", texts, wanted)
    rows, ledger, stats = run(part, vocabulary)
    encoding = load_encoding(vocabulary)
    shown = [replace_pii(text, PiiConfig())[0] for text in texts]
    expected = [text if want else "" for text, want in zip(shown, wanted, strict=True)]
    assert [encoding.decode(ids) for ids in rows] == expected
    assert ledger.schema.equals(SPANS)
    assert ledger["doc_id"].equals(read_table(part / "documents.arrow")["doc_id"])
    assert ledger["n_bytes"].to_pylist() == [len(text.encode()) for text in expected]
    assert stats["rows"] == len(texts)
    assert stats["documents"] == sum(1 for text in expected if text)
    assert stats["bytes"] == sum(len(text.encode()) for text in expected)


def test_a_literal_end_of_text_is_ordinary_text(vocabulary: Path) -> None:
    encoding = load_encoding(vocabulary)
    ids = encode(encoding, "a<|endoftext|>b")
    assert end_of_text(encoding) not in ids.tolist()
    assert encoding.decode(ids.tolist()) == "a<|endoftext|>b"


def test_with_c4_lines_only_the_kept_lines_are_encoded(vocabulary: Path, tmp_path: Path) -> None:
    text = "erste Zeile: é\nMenu\nthird line\n\nlast"
    starts = [text.encode().index(line) for line in (b"erste", b"third", b"last")]
    spans = [(starts[0], starts[0] + 16), (starts[1], starts[1] + 11), (starts[2], len(text.encode()))]
    part = write_part(tmp_path / "in", [text, "nothing kept"], spans=[spans, []])
    rows, ledger, _ = run(part, vocabulary, c4_lines=True)
    encoding = load_encoding(vocabulary)
    assert encoding.decode(rows[0]) == "erste Zeile: é\nthird line\nlast"
    assert ledger["length"][1].as_py() == 0
    assert ledger["n_bytes"].to_pylist() == [len(encoding.decode(rows[0]).encode()), 0]


LETTER = "Write to ada@mill.org or ring +44 20 7946 0958.\n"


def test_personal_data_is_replaced_in_what_is_encoded_and_counted_by_document(vocabulary: Path, tmp_path: Path) -> None:
    part = write_part(tmp_path / "in", [LETTER * 2, "nothing", "from 8.8.4.4"])
    before = (part / "documents.arrow").read_bytes()
    rows, ledger, stats = run(part, vocabulary)
    encoding = load_encoding(vocabulary)
    assert encoding.decode(rows[0]) == "Write to email@example.com or ring 202-555-0100.\n" * 2
    assert encoding.decode(rows[2]) == "from 192.0.2.1"
    assert ledger["n_bytes"].to_pylist() == [len(encoding.decode(ids)) for ids in rows]
    assert stats["pii"] == {"email": 2, "ipv4": 1, "ipv6": 0, "phone": 2}
    counted = read_table(part / "out" / "pii.arrow")
    assert counted.schema.equals(PII)
    assert counted["doc_id"].equals(read_table(part / "documents.arrow")["doc_id"])
    assert [counted[kind].to_pylist() for kind in ("email", "ipv4", "phone")] == [[2, 0, 0], [0, 0, 1], [2, 0, 0]]
    assert (part / "documents.arrow").read_bytes() == before


def test_personal_data_is_looked_for_in_the_kept_lines_alone(vocabulary: Path, tmp_path: Path) -> None:
    text = LETTER + "é kept: ada@mill.org"
    part = write_part(tmp_path / "in", [text], spans=[[(len(LETTER.encode()), len(text.encode()))]])
    rows, _, stats = run(part, vocabulary, c4_lines=True)
    assert load_encoding(vocabulary).decode(rows[0]) == "é kept: email@example.com"
    assert stats["pii"] == {"email": 1, "ipv4": 0, "ipv6": 0, "phone": 0}


def test_spans_are_laid_end_to_end() -> None:
    text = "one\nzwei é\n\nthree[1] four"
    all_lines = [{"start": 0, "end": 4}, {"start": 4, "end": 12}, {"start": 12, "end": 13}, {"start": 13, "end": 26}]
    without_the_citation = [{"start": 0, "end": 18}, {"start": 21, "end": 26}]
    assert kept_lines(text, all_lines) == text
    assert kept_lines(text, without_the_citation) == "one\nzwei é\n\nthree four"


@pytest.mark.parametrize("unit", [" ", "\n", " \t", "a", "ab", "!", "7", "\x1c", "\u3000"])
def test_a_run_of_a_million_characters_is_encoded_exactly_and_soon(unit: str, vocabulary: Path) -> None:
    encoding = load_encoding(vocabulary)
    text = "start" + unit * (1_000_000 // len(unit)) + "end"
    began = time.perf_counter()
    ids = encode(encoding, text)
    assert time.perf_counter() - began < 5
    assert b"".join(map(encoding.decode_single_token_bytes, ids.tolist())) == text.encode()


def test_the_same_part_gives_the_same_bytes(vocabulary: Path, tmp_path: Path) -> None:
    files = []
    for name in ("a", "b"):
        run(part := write_part(tmp_path / name, [SEED, "x y", ""]), vocabulary)
        files.append([(part / "out" / file).read_bytes() for file in ("tokens.bin", "spans.arrow", "pii.arrow")])
    assert files[0] == files[1]


@pytest.mark.parametrize("vocabulary", ["bpe"], indirect=True)
def test_a_pattern_that_leaves_text_out_is_bad_input(vocabulary: Path, tmp_path: Path) -> None:
    (narrow := tmp_path / "narrow").mkdir()
    (narrow / "ranks.tiktoken").write_bytes((vocabulary / "ranks.tiktoken").read_bytes())
    facts = (vocabulary / "tokenizer.json").read_text().splitlines()
    facts = ['  "pattern": "[a-z]+",' if '"pattern"' in line else line for line in facts]
    (narrow / "tokenizer.json").write_text("\n".join(facts))
    with pytest.raises(BadInput, match=r"tokenizer\.pattern leaves out part of https://mill\.example/0"):
        run(write_part(tmp_path / "in", ["two words"]), narrow)
