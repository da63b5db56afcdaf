"""Dedup at full speed: the kernels give what the plain rule gives, whatever memory they are allowed."""

from itertools import chain
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from pipeline.config import BadInput
from pipeline.dedup.buckets import Buckets, first_of_each, shared_buckets
from pipeline.dedup.matches import find_matches
from pipeline.dedup.order import Rows, Selected
from pipeline.dedup.reference import band_hashes, decide, leaders
from pipeline.dedup.reference import shared_buckets as plain_shared_buckets
from pipeline.dedup.shingle_sets import Sets, fill_ngram_sets
from pipeline.dedup.stats import CHARACTERS_BEFORE, EXCERPT_CHARACTERS, excerpts
from pipeline.dedup.urls import first_seen, sort_urls, starts_anew
from pipeline.documents import write_table
from pipeline.shingle_kernels import text_batches, texts_of
from pipeline.shingles import ngram_hashes
from pipeline.tombstones import hosts

COMPILES = settings(deadline=None)  # the first example may wait for the compiler


def strings(rows: list[str]) -> pa.ChunkedArray:
    return pa.chunked_array([pa.array(rows, pa.string())])


def everyone(parts: list[int]) -> Selected:
    """All rows of parts of these sizes, ranked as they stand."""
    rows = [np.arange(size, dtype=np.int32) for size in parts]
    count = sum(parts)
    return Selected(
        np.concatenate([np.zeros(0, np.int32), *rows]), np.cumsum([0, *parts]), np.arange(count, dtype=np.int32)
    )


def loader(sets: list[list[int]]) -> Any:
    def load(numbers: Rows) -> Sets:
        chosen = [sets[number] for number in numbers]
        sizes = np.array([len(each) for each in chosen], np.int64)
        return Sets(np.array(list(chain.from_iterable(chosen)), np.uint64), np.cumsum([0, *sizes]), sizes)

    return load


documents = st.lists(
    st.tuples(
        st.lists(st.integers(0, 2), min_size=3, max_size=3),  # values of its bands
        st.lists(st.integers(0, 9).map(lambda value: value * 8), min_size=1, max_size=9, unique=True),  # its shingles
    ),
    max_size=30,
)


@given(documents, st.sampled_from([0.3, 0.5, 0.8, 1.0]), st.integers(1, 1000), st.booleans())
@settings(COMPILES, max_examples=200)
def test_matches_in_any_memory_are_those_of_the_plain_rule(
    rows: list[tuple[list[int], list[int]]], threshold: float, memory_bytes: int, exact: bool
) -> None:
    sets = [shingles if exact else (shingles * 4)[:4] for _, shingles in rows]
    hashes = np.array([bands for bands, _ in rows], np.uint64).reshape(-1, 3)
    plain, count = plain_shared_buckets(hashes, np.ones(len(rows), np.bool_))
    ranks = np.flatnonzero((plain >= 0).any(axis=1))
    own = [[bucket for bucket in plain[rank] if bucket >= 0] for rank in ranks]
    flat = np.array(list(chain.from_iterable(own)), np.int32)
    buckets = Buckets(ranks, flat, np.cumsum([0, *map(len, own)]), np.bincount(flat, minlength=count))

    def similarity(row: int, earlier: int) -> float:
        if not exact:
            return float(np.mean(np.array(sets[row]) == np.array(sets[earlier])))
        left, right = set(sets[row]), set(sets[earlier])
        return len(left & right) / len(left | right)

    expected = decide(np.arange(len(rows)), plain, count, similarity, threshold)
    loaded = [sets[rank] for rank in ranks]
    sizes = np.array([len(each) for each in loaded], np.int64)
    found = find_matches(buckets, sizes, loader(loaded), exact, threshold, memory_bytes)
    original = np.full(len(rows), -1)
    original[ranks] = [ranks[number] if number >= 0 else -1 for number in found.original]
    assert original.tolist() == expected.original.tolist()
    assert found.similarity.tolist() == expected.similarity[ranks].tolist()
    assert found.comparisons == expected.comparisons


@given(st.lists(st.lists(st.integers(0, 1), min_size=6, max_size=6), max_size=24), st.integers(0, 400), st.data())
@settings(COMPILES, max_examples=50)
def test_buckets_in_any_memory_are_those_of_the_plain_rule(
    tmp_path_factory: pytest.TempPathFactory, rows: list[list[int]], memory_bytes: int, data: Any
) -> None:
    eligible = np.array(data.draw(st.lists(st.booleans(), min_size=len(rows), max_size=len(rows))), np.bool_)
    border = data.draw(st.integers(0, len(rows)))
    signatures = np.array(rows, np.uint32).reshape(-1, 6)
    folders = [tmp_path_factory.mktemp("part") for _ in range(2)]
    for folder, part in zip(folders, (signatures[:border], signatures[border:]), strict=True):
        column = pa.FixedSizeListArray.from_arrays(pa.array(part.reshape(-1)), 6)
        write_table(pa.table({"signature": column}), folder / "signatures.arrow")
    found = shared_buckets(folders, everyone([border, len(rows) - border]), eligible, 3, 2, memory_bytes)
    expected, count = plain_shared_buckets(band_hashes(signatures, 3, 2), eligible)
    assert found.ranks.tolist() == np.flatnonzero((expected >= 0).any(axis=1)).tolist()
    numbers: dict[int, int] = {}
    for number, rank in enumerate(found.ranks):
        own = found.own[found.ends[number] : found.ends[number + 1]].tolist()
        theirs = [bucket for bucket in expected[rank].tolist() if bucket >= 0]
        assert [numbers.setdefault(bucket, other) for bucket, other in zip(own, theirs, strict=True)] == theirs
    assert len(found.sizes) == count == len(set(numbers.values()))
    assert found.sizes.tolist() == np.bincount(found.own, minlength=count).tolist()


@given(st.lists(st.tuples(st.integers(0, 2), st.integers(0, 2), st.integers(0, 1)), max_size=20))
@COMPILES
def test_rows_are_the_same_where_all_words_of_their_keys_are(rows: list[tuple[int, int, int]]) -> None:
    # Keys that differ only in bits that are not looked at first, and keys that differ in their second word.
    keys = np.array([(high << 60 | low, second) for high, low, second in rows], np.uint64).reshape(-1, 2)
    expected = leaders(keys, np.zeros(len(rows), np.bool_))
    assert first_of_each(np.ascontiguousarray(keys.T)).tolist() == expected.tolist()


def joined(urls: list[str]) -> tuple[NDArray[np.uint8], Rows]:
    encoded = [url.encode() for url in urls]
    return np.frombuffer(b"".join(encoded), np.uint8), np.cumsum([0, *map(len, encoded)])


@given(st.lists(st.tuples(st.text("aé/", max_size=3), st.integers(0, 2)), max_size=40), st.booleans())
@COMPILES
def test_urls_are_sorted_by_their_bytes_then_source_then_place(rows: list[tuple[str, int]], presorted: bool) -> None:
    rows = sorted(rows) if presorted else rows
    sources = np.array([source for _, source in rows], np.int32)
    expected = sorted(range(len(rows)), key=lambda i: (rows[i][0].encode(), rows[i][1], i))
    assert sort_urls(*joined([url for url, _ in rows]), sources).tolist() == expected


@given(st.lists(st.tuples(st.sampled_from(["a", "ab", "b"]), st.integers(0, 1), st.integers(0, 3)), max_size=20))
@COMPILES
def test_a_url_is_as_old_as_its_first_document_in_its_source(rows: list[tuple[str, int, int]]) -> None:
    data, ends = joined([url for url, _, _ in rows])
    sources = np.array([source for _, source, _ in rows], np.int32)
    ages = np.array([age for _, _, age in rows], np.int16)
    first_seen(data, ends, sources, sort_urls(data, ends, sources), ages)
    assert ages.tolist() == [min(age for u, s, age in rows if (u, s) == (url, source)) for url, source, _ in rows]


@given(st.lists(st.text("ab/:?#@[]", max_size=8).map("http://".__add__) | st.text("ab/:?#@", max_size=8), max_size=12))
@COMPILES
def test_urls_that_do_not_start_anew_have_the_host_of_the_one_before(urls: list[str]) -> None:
    urls = [url for url in urls for _ in range(2)]
    anew = starts_anew(*texts_of(strings(urls)))
    names = hosts(strings(urls)).to_pylist()
    assert not anew[1::2].any()
    assert all(anew[i] or names[i] == names[i - 1] for i in range(1, len(urls)))


@given(st.lists(st.text("ab 漢", max_size=40), min_size=1, max_size=6), st.integers(1, 4), st.data())
@example(["a b a b a b a b"], 2, None)
@COMPILES
def test_sets_of_ngrams_are_those_of_the_definition(rows: list[str], n: int, data: Any) -> None:
    chosen = list(range(len(rows))) if data is None else data.draw(st.permutations(range(len(rows))))
    grams = [ngram_hashes(rows[row], n) for row in chosen]
    starts = np.cumsum([0, *map(len, grams)])
    sets = Sets(np.empty(starts[-1], np.uint64), starts, np.zeros(len(rows), np.int64))
    (texts,) = text_batches(strings(rows))
    fill_ngram_sets(sets, np.arange(len(rows)), texts, np.array(chosen), n)
    for place, expected in enumerate(grams):
        values = sets.values[starts[place] : starts[place] + sets.sizes[place]].tolist()
        assert len(values) == len(set(values))
        assert set(values) == set(expected)


def test_a_text_with_more_ngrams_than_its_ledger_says_is_refused() -> None:
    (texts,) = text_batches(strings(["a b c d", "a b c d e f"]))
    sets = Sets(np.empty(8, np.uint64), np.array([0, 3, 8]), np.zeros(2, np.int64))
    with pytest.raises(ValueError, match="the text in row 1 has more 2-grams"):
        fill_ngram_sets(sets, np.array([0]), texts, np.array([1]), 2)


def test_signatures_too_short_for_the_bands_are_one_clear_sentence(tmp_path: Path) -> None:
    column = pa.FixedSizeListArray.from_arrays(pa.array([1, 2], pa.uint32()), 2)
    write_table(pa.table({"signature": column}), tmp_path / "signatures.arrow")
    with pytest.raises(BadInput, match="3 x 1 = 3, but signatures have 2 values"):
        shared_buckets([tmp_path], everyone([1]), np.ones(1, np.bool_), 3, 1, 100)


@given(st.text("ab ", max_size=900), st.text("ab ", max_size=900), st.text("ab ", max_size=900))
def test_excerpts_are_short_and_hold_the_first_difference(same: str, left: str, right: str) -> None:
    one, other = same + left, same + right
    shown = excerpts(one, other)
    assert all(len(each) <= EXCERPT_CHARACTERS + 2 for each in shown)
    assert (shown[0] == shown[1]) == (one == other)
    short = len(same) <= CHARACTERS_BEFORE and len(one) <= EXCERPT_CHARACTERS and left[:1] != right[:1]
    assert not short or shown[0] == one
