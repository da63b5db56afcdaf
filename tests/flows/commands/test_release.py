"""`gptmill export --release`: a run as a folder that others can open, with its datasheet; without a model here."""

import hashlib
import itertools
import json
import re
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest

from flows import runs
from flows.commands import datasheet
from flows.commands.release import _write_model
from flows.config import load_config
from flows.names import find_run
from model.folder import open_folder
from model.presets import MODERN
from pipeline import export
from pipeline.crawl.seal import INDEX
from pipeline.documents import read_table
from pipeline.engine import upkeep
from pipeline.engine.store import Store
from pipeline.pack import split_of
from pipeline.shards import load_encoding
from pipeline.sources import CrawlSource
from pipeline.tombstones import hosts
from tests.flows.commands.test_export import publish, write_checkpoint, write_tokenizer
from tests.flows.conftest import PAGES
from tests.flows.test_runs import changed, run_again  # noqa: F401


@pytest.fixture(scope="module")
def released(little, tmp_path_factory):
    """The folder, and its datasheet."""
    folder = tmp_path_factory.mktemp("release") / "mine"
    assert little.command("export", "--release", str(folder)).strip() == str(folder)
    return folder, json.loads((folder / "datasheet.json").read_text())


def rewrite_settings(little, rewritten):
    """Change what the log of the newest run tells of its settings."""
    path = little.store.root / "runs" / f"{runs.runs(little.store)[0].id}.jsonl"
    start, *rest = path.read_text().splitlines()
    row = json.loads(start)
    path.write_text("\n".join([json.dumps({**row, "settings": rewritten(row["settings"])}), *rest]) + "\n")


def of_source(released, source):
    """What the datasheet says of a corpus from that source."""
    _, told = released
    known = {**told["collection"]["sources"][0], "asked": datasheet._asked(source)}
    return datasheet.as_markdown({**told, "collection": {"sources": [known]}})


def test_the_ids_are_as_many_as_the_datasheet_says_and_the_table_covers_them(released):
    folder, told = released
    table = pq.read_table(folder / "data/documents.parquet")
    for split in ("train", "val"):
        ids = np.memmap(folder / f"data/{split}.bin", told["data"]["item_type"], "r")
        assert len(ids) == told["composition"]["tokens"][split]
        rows = [row for row in table.to_pylist() if row["split"] == split]
        assert len(rows) == told["composition"]["documents"][split] > 0
        ends = np.cumsum([row["length"] for row in rows])
        assert [row["start"] for row in rows] == [0, *ends[:-1]]
        assert ends[-1] == len(ids)
        assert (ids[ends - 1] == told["data"]["end_of_text"]).all()


def test_each_row_of_the_table_names_the_document_whose_text_its_ids_are(released):
    folder, told = released
    encoding = load_encoding(folder / "tokenizer")
    table = pq.read_table(folder / "data/documents.parquet")
    assert table["host"].equals(hosts(table["url"]))
    for row in table.to_pylist():
        ids = np.memmap(folder / f"data/{row['split']}.bin", told["data"]["item_type"], "r")
        text = encoding.decode(ids[row["start"] : row["start"] + row["length"] - 1].tolist())
        assert text == PAGES[row["url"]]
        assert split_of(row["url"], 0.4) == row["split"]
        assert row["language"] == "en"


def test_counts_add_up_from_urls_to_documents(released):
    _, told = released
    steps = told["processing"]["steps"]
    for step, following in itertools.pairwise(steps):
        assert step["count"] - sum(step["removed_next"].values()) == following["count"]
    assert steps[0]["count"] == len(PAGES)
    assert steps[-1]["count"] == sum(told["composition"]["documents"].values())
    assert sum(row["documents"] for row in told["composition"]["host"]) == steps[-1]["count"]


def test_the_table_has_no_titles(released):
    folder, _ = released
    assert "title" not in pq.read_schema(folder / "data/documents.parquet").names


def test_urls_are_said_to_stand_as_the_pages_have_them(released):
    folder, _ = released
    assert "URLs stand in `data/documents.parquet` as the pages have them" in (folder / "DATASHEET.md").read_text()


def test_the_index_of_a_snapshot_is_read_once_for_all_its_parts(little, tmp_path, monkeypatch):
    corpus = runs.corpus_of(little.store, find_run(little.store, None, "pack"))
    read: list[str] = []
    monkeypatch.setattr(export, "read_table", lambda path, *of: read.append(path.name) or read_table(path, *of))
    export.documents(corpus, tmp_path / "documents.parquet")
    assert len(corpus) > len(corpus.snapshots) == 1
    assert read.count(INDEX) == 1


def test_each_file_has_the_hash_that_the_datasheet_tells(released):
    folder, told = released
    there = {path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file()}
    assert there == {*told["files"], "DATASHEET.md", "datasheet.json"}
    for name, facts in told["files"].items():
        assert hashlib.sha256((folder / name).read_bytes()).hexdigest() == facts["sha256"], name


def test_what_the_mill_does_not_know_is_null_and_said_to_be_so(released):
    folder, told = released
    assert told["motivation"] == {"purpose": None, "creators": None, "funding": None}
    text = (folder / "DATASHEET.md").read_text()
    assert "For what purpose: Not known to the mill" in text
    assert "Under which licence: Not known to the mill" in text
    assert told["model"] is None
    assert "The run trained none." in text


def test_cut_offs_stand_with_their_values_and_whether_they_had_effect(released):
    folder, told = released
    settings = {row["setting"]: row for row in told["processing"]["settings"]["select"]}
    assert settings["policy.min_gopher_words"]["value"] == 8
    assert settings["policy.min_gopher_words"]["in_effect"]
    assert not settings["policy.min_c4_sentences"]["in_effect"]
    assert settings["policy.min_language_score"]["value"] is None
    assert "| `policy.min_gopher_words` | 8 | Words. |" in (folder / "DATASHEET.md").read_text()


def test_the_config_in_it_is_that_of_the_run(released, little):
    folder, told = released
    assert load_config(folder / "config.toml") == load_config(little.config)
    [source] = told["collection"]["sources"]
    assert (source["name"], source["asked"]["kind"]) == ("pages", "files")
    manifest = json.loads(next(little.store.root.glob("snapshots/*/0000/manifest.json")).read_text())
    assert source["snapshots"][0]["digest"] == manifest["digest"]


def test_who_is_told_and_who_works_are_not_in_the_config_of_a_release(copied, tmp_path):
    secrets = {"notify": {"webhook": "https://hooks.example.org/SECRET"}, "workers": {"address": "tcp://SECRET:1"}}
    rewrite_settings(copied, lambda settings: settings | secrets)
    copied.command("export", "--release", str(tmp_path / "out"))
    for path in (tmp_path / "out").rglob("*"):
        assert path.is_dir() or b"SECRET" not in path.read_bytes(), path
    assert load_config(tmp_path / "out/config.toml") == load_config(copied.config)


def test_the_names_beyond_those_told_are_counted_in_a_row(little, monkeypatch):
    monkeypatch.setattr(datasheet, "MOST_NAMED", 2)
    found = datasheet.facts(little.store, find_run(little.store, None, "pack"))
    told, others = found["composition"], found["composition"]["others"]["host"]
    hosts_told = sum(row["documents"] for row in told["host"])
    assert len(told["host"]) == 2
    assert others["documents"] == sum(told["documents"].values()) - hosts_told > 0
    row = f"| {others['names']} others | {others['documents']} | {others['tokens']:,} |"
    found |= {
        "files": {},
        "config_file": None,
        "data": dict.fromkeys(("item_type", "item_type_in_words", "end_of_text")),
    }
    assert row in datasheet.as_markdown(found)


@pytest.mark.parametrize(
    ("settings", "told"),
    [
        ({}, "A crawl, which obeyed signals against use: noindex, noai"),
        ({"ignore_signals": ["noai", "tdm"]}, "were recorded, not obeyed: noai, tdm."),
    ],
)
def test_a_crawl_is_said_to_obey_only_the_signals_that_it_obeyed(released, settings, told):
    assert told in of_source(released, CrawlSource(name="web", seeds=["http://localhost/"], **settings))


def test_seeds_from_a_file_are_said_to_be_so(released):
    told = of_source(released, CrawlSource(name="web", seeds_file=Path("seeds.txt")))
    assert "- seeds: from a file, not told here" in told


def test_hosts_in_the_own_network_are_not_in_the_datasheet(released):
    source = CrawlSource(name="web", seeds=["http://localhost/"], private_hosts=["SECRET.internal"])
    assert "SECRET" not in json.dumps(datasheet._asked(source))
    assert "SECRET" not in of_source(released, source)


def test_one_held_out_document_has_no_interval():
    held_out = {"documents": 1, "bits_per_byte": 2.0, "bits_per_byte_interval": [2.0, 2.0]}
    evaluation = {"validation": held_out, "sets": {}, "tasks": {}}
    assert datasheet.scored(evaluation)[0].interval is None
    evaluation["validation"] = {**held_out, "documents": 2}
    assert datasheet.scored(evaluation)[0].interval == (2.0, 2.0)


@pytest.mark.parametrize(("corpus", "on"), [("old", "an earlier corpus"), ("new", "this corpus")])
def test_a_model_that_went_on_from_a_checkpoint_is_said_to_be_one(released, tmp_path, corpus, on):
    store = Store(tmp_path / "store")
    publish(store, "pretrain", lambda _: None, inputs={"shards": {"digest": corpus}})
    stats = {"parameters": 1, "steps": 1, "epochs": 1.0, "val_loss": 1.0, "rows": 1}
    manifest = {
        "stats": {**stats, "hardware": {"name": "CPU", "dtype": "float32"}},
        "inputs": {"shards": {"digest": "new"}, "start": {"key": "key", "digest": "digest"}},
        "key_document": {"config": {}},
    }
    model = datasheet._model(store, {"pretrain": manifest})
    told = datasheet.as_markdown({**released[1], "model": {**model, "opens_in": "gptmill"}})
    assert f"it went on from the checkpoint `key`, which was trained on {on}." in told


def test_every_table_of_the_datasheet_has_as_many_cells_in_each_row(released):
    folder, _ = released
    for table in re.findall(r"(?:^\|.*\n)+", (folder / "DATASHEET.md").read_text(), re.MULTILINE):
        widths = {len(re.findall(r"(?<!\\)\|", row)) for row in table.splitlines()}
        assert len(widths) == 1, table


def test_a_folder_that_holds_something_is_left_alone(little, released, capsys):
    folder, _ = released
    before = sorted(folder.rglob("*"))
    little.command("export", "--release", str(folder), code=2)
    assert "is not empty" in capsys.readouterr().err
    assert sorted(folder.rglob("*")) == before


def test_an_earlier_run_is_released_by_its_id_and_its_own_config_goes_with_it(changed, tmp_path):  # noqa: F811
    little, first, second = changed
    for run, words in ((first, 8), (second, 130)):
        little.command("export", "--release", str(tmp_path / run), "--run", run)
        assert load_config(tmp_path / run / "config.toml").policy.min_gopher_words == words
        told = json.loads((tmp_path / run / "datasheet.json").read_text())
        assert told["run"]["run"] == run
    little.command("export", "--nanogpt", str(tmp_path / "nanogpt"), "--run", first)
    assert (tmp_path / "nanogpt/train.bin").read_bytes() == (tmp_path / first / "data/train.bin").read_bytes()


def test_a_run_that_gc_collected_is_one_sentence_and_nothing_is_written(changed, tmp_path, capsys):  # noqa: F811
    little, first, _ = changed
    upkeep.collect(little.store, dry_run=False)
    little.command("export", "--release", str(tmp_path / "out"), "--run", first, code=2)
    told = capsys.readouterr().err
    assert f"gave in the run {first} is no longer in the store" in told
    assert told.count("\n") == 1
    assert not (tmp_path / "out").exists()


def test_a_run_whose_log_has_no_settings_is_released_without_a_config(copied, tmp_path):
    run = runs.runs(copied.store)[0].id
    path = copied.store.root / "runs" / f"{run}.jsonl"
    lines = path.read_text().splitlines()
    start = {name: value for name, value in json.loads(lines[0]).items() if name != "settings"}
    path.write_text("\n".join([json.dumps(start), *lines[1:]]))
    copied.command("export", "--release", str(tmp_path / "out"), "--run", run)
    assert not (tmp_path / "out/config.toml").exists()
    assert "does not tell its whole config" in (tmp_path / "out/DATASHEET.md").read_text()


def test_a_shape_that_transformers_has_not_is_released_in_our_own_format(tmp_path):
    store = Store(tmp_path / "store")
    publish(store, "tokenizer", write_tokenizer)
    publish(store, "pretrain", lambda aside: write_checkpoint(aside, {**MODERN, "norm": "layernorm"}))
    stages = {stage: {"key": "key", "digest": "", "status": "run"} for stage in ("tokenizer", "pretrain")}
    run = runs.Run("one", "small", 0.0, "done", 1.0, (), stages)
    opens_in, told = _write_model(store, run, tmp_path / "out")
    assert opens_in == "gptmill"
    assert 'norm is "layernorm"' in told
    assert open_folder(tmp_path / "out").model.config.norm == "layernorm"
