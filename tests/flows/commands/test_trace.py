"""Trace: every token has a document, every document its decisions, and every page what became of it."""

import pytest

from flows.names import find_run
from flows.runs import corpus_of
from pipeline.documents import read_table
from pipeline.shards import TokenShards, load_encoding
from tests.flows.conftest import PAGES, Little

ORIGINAL, COPY = "http://host1.localhost/1", "http://mirror.localhost/copy"


def shards_of(little: Little, split: str) -> TokenShards:
    artifacts = little.run()
    vocab_size = load_encoding(artifacts["tokenizer"].path).n_vocab
    return TokenShards.open([part.folder for part in artifacts["pack"].parts], split, vocab_size)


@pytest.mark.parametrize("split", ["train", "val"])
def test_every_token_is_traced_to_the_document_that_the_index_names(little, split):
    shards = shards_of(little, split)
    index = shards.index().to_pylist()
    for row in index[:: max(len(index) // 4, 1)]:
        for token in (row["start"], row["start"] + row["length"] - 1):
            found = little.asked("trace", "--split", split, "--token", str(token))
            assert [document["url"] for document in found["documents"]] == [row["url"]]
            assert found["token"]["token_of_document"] == token - row["start"]
            assert found["token"]["id"] == shards.window(token, 1)[0]


def test_a_token_outside_the_stream_is_refused(little, capsys):
    little.command("trace", "--token", "99999999", code=2)
    assert "There is no token 99,999,999 in train" in capsys.readouterr().err


def test_a_url_tells_its_document_its_ledgers_and_its_tokens(little):
    document = little.asked("trace", ORIGINAL)["documents"][0]
    assert document["stage"] == "pack"
    assert set(document["ledgers"]) == {
        "language", "quality", "contamination", "select", "deduplicate", "tokenize"
    }  # fmt: skip
    assert document["snapshot"].endswith("/0000")
    (place,) = document["tokens"]
    index = shards_of(little, place["split"]).index().to_pylist()
    rows = [(row["start"], row["length"]) for row in index if row["url"] == ORIGINAL]
    assert rows == [(place["token"], place["length"])]


def test_a_duplicate_names_its_original_and_the_original_its_duplicates(little):
    copy = little.asked("trace", COPY)["documents"][0]
    assert copy["ledgers"]["deduplicate"]["duplicate_of_url"] == ORIGINAL
    assert copy["tokens"] == []
    original = little.asked("trace", ORIGINAL)["documents"][0]
    assert {row["url"] for row in original["copies"]["named"]} == {COPY, "http://mirror.localhost/near"}


def test_a_dropped_document_tells_the_rule_its_score_and_the_bound(little):
    row = little.asked("trace", "http://host3.localhost/short")["documents"][0]["ledgers"]["select"]
    assert (row["reason"], row["score"], row["min"]) == ("quality:gopher_words", 4, 8)
    assert "it has 4 (min 8" in little.command("trace", "http://host3.localhost/short")


def test_a_document_in_another_language_is_told_to_have_no_scores(little):
    ledgers = little.asked("trace", "http://host2.localhost/wald")["documents"][0]["ledgers"]
    assert ledgers["select"]["reason"] == "language"
    assert set(ledgers["quality"].values()) == {None}
    assert "not scored: its language is not wanted" in little.command("trace", "http://host2.localhost/wald")


def test_a_text_is_found_in_documents_and_its_tokens_hold_it(little):
    wanted = "story of the kettle number 21"
    found = little.asked("trace", "--text", wanted)
    (document,) = found["documents"]
    (place,) = document["occurrences"]
    encoding = load_encoding(little.run()["tokenizer"].path)
    ids = shards_of(little, place["split"]).window(place["token"], place["tokens"]).tolist()
    assert wanted in encoding.decode(ids)
    assert wanted not in encoding.decode(ids[1:])
    assert wanted not in encoding.decode(ids[:-1])


def test_a_documents_id_is_a_name_too(little):
    document = little.asked("trace", ORIGINAL)["documents"][0]
    assert little.asked("trace", document["doc_id"])["documents"][0]["url"] == ORIGINAL


def test_a_page_that_nobody_met_is_told_as_such(little):
    assert "Nothing of it" in little.command("trace", "http://nobody.localhost/", code=1)


def test_what_stands_in_a_page_cannot_steer_the_terminal(little):
    text = little.command("trace", ORIGINAL)
    assert all(c.isprintable() or c == "\n" for c in text)


def test_all_documents_have_a_fate_and_they_add_up_to_the_counts_of_the_run(little):
    corpus = corpus_of(little.store, find_run(little.store, None, "pack"))
    fates = [row for part in range(len(corpus)) for row in corpus.fates(part, texts=False).to_pylist()]
    packed = [row["url"] for row in fates if row["stage"] == "pack"]
    assert len(fates) == len(PAGES)
    folders = [part.folder for part in corpus.artifacts["pack"].parts]
    names = (f"{split}.arrow" for split in ("train", "val"))
    assert sorted(packed) == sorted(
        url for name in names for folder in folders for url in read_table(folder / name)["url"].to_pylist()
    )
