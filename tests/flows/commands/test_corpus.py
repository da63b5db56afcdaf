"""Looking through a corpus: every document and reject once, filtered, sampled, written."""

import pytest
from pyarrow import parquet

from flows.names import find_run
from flows.runs import corpus_of
from pipeline.browse import Wanted, look
from tests.flows.conftest import PAGES, Little


def rows(little: Little, *arguments: str) -> list[dict]:
    return little.asked("corpus", "--limit", "100", *arguments)["rows"]


def test_every_page_has_one_row_and_the_counts_add_up(little):
    told = little.asked("corpus", "--limit", "100")
    assert sorted(row["url"] for row in told["rows"]) == sorted(PAGES)
    assert sum(count["rows"] for count in told["counts"]) == len(PAGES)
    packed = {count["stage"]: count for count in told["counts"]}["pack"]
    manifest = little.run()["pack"].manifest
    assert packed["rows"] == manifest["rows"]
    assert packed["tokens"] + packed["rows"] == sum(manifest["stats"]["tokens"].values())


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        (("--stage", "deduplicate"), {"http://mirror.localhost/copy", "http://mirror.localhost/near"}),
        (("--reason", "quality"), {"http://host3.localhost/short"}),
        (("--reason", "quality:gopher_words"), {"http://host3.localhost/short"}),
        (("--host", "mirror.localhost"), {"http://mirror.localhost/copy", "http://mirror.localhost/near"}),
        (("--host", "localhost"), set()),
        (("--language", "xx"), set()),
        (("--language", "en", "--stage", "pack", "--host", "host0.localhost"), {u for u in PAGES if "host0" in u}),
    ],
)
def test_rows_are_filtered(little, arguments, expected):
    assert {row["url"] for row in rows(little, *arguments)} == expected


def test_a_seed_repeats_its_sample_and_another_draws_another(little):
    drawn = [[row["url"] for row in little.asked("corpus", "--limit", "6", "--sample", seed)["rows"]] for seed in "112"]
    assert drawn[0] == drawn[1] != drawn[2]
    assert len(set(drawn[0])) == 6


def test_a_sample_does_not_depend_on_how_rows_are_cut_into_tables(little):
    corpus = corpus_of(little.store, find_run(little.store, None, "pack"))
    whole = list(corpus.everything())
    halves = [table.slice(first, 1) for table in whole for first in range(len(table))]
    assert look(whole, Wanted(), 5, 3).shown == look(halves, Wanted(), 5, 3).shown


def test_all_that_matches_is_written_as_parquet_and_a_limit_holds_there_too(little, tmp_path):
    little.command("corpus", "--stage", "pack", "--parquet", str(tmp_path / "all.parquet"))
    table = parquet.read_table(tmp_path / "all.parquet")
    assert len(table) == little.run()["pack"].manifest["rows"]
    assert {row["url"]: row["text"] for row in table.to_pylist()}["http://host1.localhost/1"].startswith("This is")
    little.command("corpus", "--limit", "3", "--parquet", str(tmp_path / "some.parquet"))
    assert len(parquet.read_table(tmp_path / "some.parquet")) == 3
    assert [path.name for path in sorted(tmp_path.iterdir())] == ["all.parquet", "some.parquet"]


def test_people_see_counts_by_reason_and_texts(little):
    text = little.command("corpus", "--host", "host3.localhost")
    assert "in the corpus" in text
    assert "quality:gopher_words" in text
    assert "This is the story of" in text


def test_a_corpus_that_is_not_decided_yet_says_so(little, tmp_path):
    fresh = Little(little.config, type(little.store)(tmp_path / "fresh"))
    fresh.run(until="extract")
    assert {row["stage"] for row in rows(fresh)} == {None}
    assert "not decided" in fresh.command("corpus")
