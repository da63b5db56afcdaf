"""Normalisation, n-gram hashes and signatures: the kernels equal their plain definition, and datasketch."""

import hashlib
import json
from itertools import pairwise
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest
from datasketch import MinHash, MinHashLSH
from hypothesis import example, given, settings
from hypothesis import strategies as st
from pydantic import ValidationError

from pipeline.dedup.shingle_sets import Sets, fill_ngram_sets
from pipeline.documents import DOCUMENTS, doc_id, read_table, write_table
from pipeline.shingle_kernels import ngrams, normalised_texts, sign, text_batches, word_hashes
from pipeline.shingles import CLASSES, LOWER, ngram_hashes, normalise, permutations, text_hash, word_hash, words
from pipeline.signatures import SignaturesConfig, signatures

SCRIPTS = "aZ09_ .,-'\n\tÀßÇéœŠİıΑΩωЖяЁՍא؟עمرحबहुत।ไทยខមែ한국漢字かなカナー、。々〇\u200d\u00ad\ufeff😀𠀀𝔘\x00\u0301"
texts = st.text(st.one_of(st.characters(exclude_categories=["Cs"]), st.sampled_from(SCRIPTS)), max_size=300)
COMPILES = settings(deadline=None)  # the first example may wait for the compiler


def column(rows: list[str]) -> pa.ChunkedArray:
    return pa.chunked_array([pa.array(rows, pa.string())])


def write_documents(folder: Path, rows: list[str]) -> Path:
    folder.mkdir(parents=True)
    urls = [f"https://example.org/{i}" for i in range(len(rows))]
    columns = {name: [None] * len(rows) for name in DOCUMENTS.names}
    ids = [doc_id(url, text) for url, text in zip(urls, rows, strict=True)]
    write_table(pa.table(columns | {"doc_id": ids, "url": urls, "text": rows}, DOCUMENTS), folder / "documents.arrow")
    return folder


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("  The QUICK, brown—fox!\n", "the quick brown fox"),
        ("isn't isn’t snake_case 3.14", "isn t isn t snake_case 3 14"),
        ("ÀÉÎ ΑΒΓ ЖЯЁ Ӓ", "àéî αβγ жяё ӓ"),
        ("×÷ §1 «Straße»", "1 straße"),
        ("漢字かなカー、テスト。", "漢 字 か な カ ー テ ス ト"),
        ("한국어 텍스트", "한국어 텍스트"),
        ("हिन्दी में। ไทย", "हिन्दी में ไทย"),
        ("a\u200bb \ufeffc 😀 d", "a b c d"),
        ("... — !", ""),
    ],
)
def test_normalised_text_is_lower_case_words_joined_by_one_space(text: str, expected: str) -> None:
    assert normalise(text) == expected


def test_the_tables_are_the_same_in_every_python() -> None:
    digest = hashlib.sha256(CLASSES.tobytes() + LOWER.tobytes()).hexdigest()
    assert digest == "2ae5df38e3f0cc0409ee0e6327d5c38009d5af2b9fdda966a979d6fb1bb2c1fe"


@given(texts)
def test_normalising_twice_changes_nothing(text: str) -> None:
    assert normalise(normalise(text)) == normalise(text)


@given(st.lists(texts, max_size=6), st.integers(1, 400))
@COMPILES
def test_the_kernel_normalises_as_the_definition_does(rows: list[str], batch_bytes: int) -> None:
    found = []
    for batch in text_batches(column(rows), batch_bytes):
        data, ends = normalised_texts(batch)
        found += [bytes(data[start:stop]).decode() for start, stop in pairwise(ends)]
    assert found == [normalise(row) for row in rows]


@given(st.lists(texts, min_size=1, max_size=5), st.integers(1, 14))
@example(["one two three", "", "one two"], 5)
@COMPILES
def test_the_kernel_hashes_words_and_ngrams_as_the_definition_does(rows: list[str], n: int) -> None:
    (batch,) = text_batches(column(rows))
    hashed = word_hashes(batch)
    grams = ngrams(hashed, n)
    for row, text in enumerate(rows):
        assert hashed.values[hashed.ends[row] : hashed.ends[row + 1]].tolist() == [word_hash(w) for w in words(text)]
        assert grams.values[grams.ends[row] : grams.ends[row + 1]].tolist() == ngram_hashes(text, n)


@given(
    st.lists(texts, min_size=1, max_size=4),
    st.sampled_from([2, 16, 128, 130]),
    st.integers(0, 2**32 - 1),
    st.integers(1, 7),
    st.integers(1, 400),
)
@example(["one two three four five", "ééé 漢字 one", "", "a漢" * 100], 128, 1, 5, 1)
@settings(max_examples=100, deadline=None)
def test_signatures_equal_datasketch_affine32_for_any_text_in_any_script(
    rows: list[str], num_perm: int, seed: int, n: int, batch_bytes: int
) -> None:
    counts, found = [], []
    for batch in text_batches(column(rows), batch_bytes):
        _, some_counts, some = sign(batch, n, *permutations(num_perm, seed))
        counts += some_counts.tolist()
        found += some.tolist()
    grams = [ngram_hashes(text, n) for text in rows]
    theirs = MinHash.bulk(grams, num_perm=num_perm, seed=seed, hashfunc=lambda gram: gram & 0xFFFFFFFF)
    assert counts == [len(each) for each in grams]
    assert found == [each.hashvalues.tolist() for each in theirs]


@pytest.mark.parametrize("text", ["a漢", "a b", "漢", "a", "é漢", "𠀀a", " ", "é ", "a\u3000"])
def test_normalised_text_and_hashes_fit_into_their_buffers_at_their_worst(text: str) -> None:
    """Written past their end, a buffer spoils what stands behind it, and sooner or later the process falls."""
    rows = [text * repeats for repeats in (1, 2, 3, 1000, 100_000)]
    (batch,) = text_batches(column(rows), 1 << 30)
    data, ends = normalised_texts(batch)
    assert [bytes(data[start:stop]).decode() for start, stop in pairwise(ends)] == [normalise(row) for row in rows]
    assert len(data) > ends[-1]
    assert len(word_hashes(batch).values) == sum(len(words(row)) for row in rows)
    _, counts, _ = sign(batch, 1, *permutations(2, 1))
    assert counts.tolist() == [len(words(row)) for row in rows]


def test_a_text_longer_than_every_buffer_has_the_signature_of_the_definition() -> None:
    text = " ".join(f"w{i * i}" for i in range(9001))
    (batch,) = text_batches(column([text]), 1)
    _, counts, found = sign(batch, 5, *permutations(128, 1))
    theirs = MinHash(128, 1, hashfunc=lambda gram: gram & 0xFFFFFFFF)
    theirs.update_batch(ngram_hashes(text, 5))
    assert counts.tolist() == [8997]
    assert found[0].tolist() == theirs.hashvalues.tolist()


def test_the_ledger_has_the_documents_rows_in_order_and_the_hash_of_the_normalised_text(tmp_path: Path) -> None:
    rows = ["A b, c d e f", "", "a  B c — d e f!", "one two", "…"]
    documents = write_documents(tmp_path / "documents", rows)
    stats = signatures(out=tmp_path, config=SignaturesConfig(), documents=documents)
    ledger = read_table(tmp_path / "signatures.arrow")
    assert ledger["doc_id"].equals(read_table(documents / "documents.arrow")["doc_id"])
    assert ledger["text_hash"].to_pylist() == [text_hash(row) for row in rows]
    assert ledger["shingles"].to_pylist() == [2, 0, 2, 1, 0]
    assert ledger.schema.field("signature").type == pa.list_(pa.uint32(), 128)
    assert ledger["signature"][1].as_py() == [2**32 - 1] * 128
    assert stats == {"rows": 5, "shingles": 5, "empty": 2}


def test_no_documents_give_an_empty_ledger(tmp_path: Path) -> None:
    stats = signatures(out=tmp_path, config=SignaturesConfig(), documents=write_documents(tmp_path / "documents", []))
    assert stats["rows"] == 0
    assert read_table(tmp_path / "signatures.arrow")["signature"].type == pa.list_(pa.uint32(), 128)


def test_datasketch_lsh_can_load_the_ledger(tmp_path: Path) -> None:
    text = " ".join(f"w{i}" for i in range(200))
    documents = write_documents(tmp_path / "documents", [text, text + " more", text[::-1]])
    signatures(out=tmp_path, config=SignaturesConfig(), documents=documents)
    rows = read_table(tmp_path / "signatures.arrow")["signature"].to_pylist()
    index = MinHashLSH(num_perm=128, params=(16, 8))
    for key, values in enumerate(rows):
        index.insert(key, MinHash(hashvalues=values, scheme="affine32"))
    assert set(index.query(MinHash(hashvalues=rows[0], scheme="affine32"))) == {0, 1}


def test_jaccard_of_bible_chapters_is_that_of_their_shingles() -> None:
    folder = Path(__file__).parents[2] / ".." / "shared" / "data" / "dedup"
    if not folder.is_dir():
        pytest.skip("the shared data folder with the Bible pairs is not there")
    texts = {}
    for path in sorted(folder.glob("bible_*.jsonl")):
        for line in path.read_text().splitlines():
            texts[json.loads(line)["id"]] = json.loads(line)["text"]
    (batch,) = text_batches(column(list(texts.values())), 1 << 30)
    room = np.cumsum([0, *map(len, texts.values())])
    sets = Sets(np.empty(room[-1], np.uint64), room, np.zeros(len(texts), np.int64))
    fill_ngram_sets(sets, np.arange(len(texts)), batch, np.arange(len(texts)), 5)
    shingles = {
        name: set(sets.values[start : start + size].tolist())
        for name, start, size in zip(texts, sets.starts, sets.sizes, strict=False)
    }
    for line in (folder / "bible_pairs_books01-05.tsv").read_text().splitlines()[1::5]:
        a, b, expected = line.split("\t")
        exact_a, exact_b = (set(zip(*(words(texts[name])[i:] for i in range(5)), strict=False)) for name in (a, b))
        found = len(shingles[a] & shingles[b]) / len(shingles[a] | shingles[b])
        assert found == len(exact_a & exact_b) / len(exact_a | exact_b)
        assert found == pytest.approx(float(expected), abs=0.02)


@pytest.mark.parametrize("wrong", [{"num_perm": 1}, {"shingle_words": 0}, {"seed": -1}, {"perms": 3}])
def test_impossible_values_are_refused(wrong: dict[str, int]) -> None:
    with pytest.raises(ValidationError):
        SignaturesConfig(**wrong)
