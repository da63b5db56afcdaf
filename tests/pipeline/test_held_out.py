"""Samples of held-out texts: what is drawn, what leaves them, and what is taken off the disk."""

import json

import pyarrow as pa
import pytest

from pipeline import held_out
from pipeline.documents import read_table, write_table
from pipeline.pack import split_of
from pipeline.tombstones import NONE
from tests.model.conftest import shards, tokenizer  # noqa: F401

URLS = ("http://a/1", "http://a/2", "http://b/1")


@pytest.fixture
def table():
    ids = [bytes([number]) * 16 for number in range(len(URLS))]
    return pa.table([ids, list(URLS), [f"text of {url}" for url in URLS]], schema=held_out.HELD_OUT)


def part(folder, urls, reasons):
    """A part of documents beside its `select` ledger."""
    folder.mkdir()
    write_table(pa.table({"url": pa.array(urls, pa.string())}), folder / "documents.arrow")
    write_table(pa.table({"reason": pa.array(reasons, pa.string())}), folder / "select.arrow")
    return folder


def test_a_whole_sample_is_the_split_in_its_order(shards, tokenizer):  # noqa: F811
    table = held_out.sample(shards, tokenizer)
    urls = [url for each in shards for url in read_table(each / "val.arrow")["url"].to_pylist()]
    assert table["url"].to_pylist() == urls
    ends = b"".join((each / "val.bin").read_bytes() for each in shards)
    assert sum(len(text.encode()) + 1 for text in table["text"].to_pylist()) == len(ends) // 2


def test_a_smaller_sample_is_part_of_a_larger_one_and_never_empty(shards, tokenizer):  # noqa: F811
    drawn = [held_out.sample(shards, tokenizer, size)["text"].to_pylist() for size in (1, 600, 10_000)]
    assert set(drawn[0]) < set(drawn[1]) < set(drawn[2])
    assert len(drawn[0]) == 1


@pytest.mark.parametrize("reason", held_out.WITHDRAWN)
def test_what_was_withdrawn_leaves_it_whatever_version_it_was_and_what_was_filtered_does_not(reason, table, tmp_path):
    first = part(tmp_path / "first", URLS, ["superseded", "quality:gopher_words", None])
    second = part(tmp_path / "second", URLS[:1], [reason])
    left = held_out.without(table, tmp_path / "none.jsonl", [first, second], [first, second])
    assert left["url"].to_pylist() == list(URLS[1:])


@pytest.mark.parametrize(("stone", "left"), [({"url": URLS[0]}, URLS[1:]), ({"host": "a"}, URLS[2:])])
def test_what_a_tombstone_names_leaves_it_before_the_next_run(stone, left, table, tmp_path):
    (path := tmp_path / "tombstones.jsonl").write_text(json.dumps(stone) + "\n")
    assert held_out.without(table, path, [], [])["url"].to_pylist() == list(left)


def test_what_a_corpus_with_a_smaller_share_for_validation_trains_on_leaves_it(table):
    left = {share: held_out.unseen(table, share)["url"].to_pylist() for share in (1e-9, 0.5, 0.999)}
    assert left == {share: [url for url in URLS if split_of(url, share) == "val"] for share in left}
    assert left[1e-9] == []
    assert left[0.999] == list(URLS)


def test_what_is_forgotten_is_off_the_disk(table, tmp_path):
    held_out.write(table, path := tmp_path / "validation.arrow")
    assert held_out.forget(path, NONE._replace(host=["b"]), {URLS[0]})
    assert read_table(path)["url"].to_pylist() == [URLS[1]]
    assert URLS[0].encode() not in path.read_bytes()
    assert not held_out.forget(path, NONE, set(URLS[2:]))
