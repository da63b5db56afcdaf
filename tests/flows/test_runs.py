"""Runs: listed, found by name, id or its beginning, kept by their names, and set against each other."""

import json

import pytest

from flows import cli, running, runs
from flows.comparison.diff import _run_that_saw
from flows.display import Display
from flows.names import find_run
from flows.session import Selection
from pipeline.config import BadInput
from pipeline.engine import upkeep
from pipeline.engine.store import Store
from tests.flows.conftest import PAGES, Little


def run_again(little: Little, *settings: str) -> runs.Run:
    """A later run with a changed config; its artifacts become the latest."""
    config = little.config.with_name("changed.toml")
    config.write_text('name = "little"\n' + little.config.read_text().replace("min_gopher_words = 8", settings[0]))
    Little(config, little.store).run()
    return runs.runs(little.store)[0]


@pytest.fixture
def changed(copied: Little) -> tuple[Little, str, str]:
    """A store with two runs, the later with a stricter policy; their ids."""
    copied.run()
    first = runs.runs(copied.store)[0].id
    log = copied.store.root / "runs" / f"{first}.jsonl"
    log.rename(log.with_name("20000101T000000Z-1.jsonl"))
    second = run_again(copied, "min_gopher_words = 130")
    return copied, "20000101T000000Z-1", second.id


def test_runs_are_listed_newest_first_with_what_they_ran(changed):
    little, _, second = changed
    listed = little.asked("runs")
    assert listed[0]["run"] == second
    assert listed[0]["ran"] == ["select", "deduplicate", "pack"]
    assert listed[0]["config"] == "little"
    assert listed[0]["status"] == "done"
    assert len(little.command("runs", "--limit", "1").splitlines()) == 1


def test_a_run_whose_name_was_taken_meanwhile_has_failed(changed):
    little, first, _ = changed
    arguments = ["run", "-c", str(little.config), "--store", str(little.store.root), "--until", "pack"]
    options = cli.parser().parse_args([*arguments, "--name", "kept"])
    mill = running.mill_of(options)

    def take(_mill):
        runs.give_name(little.store, find_run(little.store, first), "kept")

    with pytest.raises(BadInput, match="kept is the name of the run"):
        running.run_mill(mill, Selection(mill, until="pack"), options, Display(), take)
    assert runs.runs(little.store)[0].status == "failed"


def test_a_name_keeps_from_gc_what_the_run_made_and_without_it_gc_takes_it(changed):
    little, first, _ = changed
    little.command("runs", "--name", first, "release")
    pack = little.store.artifact_folder("pack", find_run(little.store, first).stages["pack"]["key"])
    upkeep.collect(little.store, dry_run=False)
    assert pack.is_dir()
    assert upkeep.verify(little.store, full=False)[0] == []
    little.command("runs", "--forget", "release")
    upkeep.collect(little.store, dry_run=False)
    assert not pack.exists()
    with pytest.raises(BadInput, match="no longer in the store"):
        find_run(little.store, first, "pack")


def test_what_a_named_run_made_is_whole_after_gc_and_as_it_was(changed):
    little, first, _ = changed
    little.command("runs", "--name", first, "release")
    run = find_run(little.store, first)
    before = {stage: artifact.digest for stage, artifact in runs.artifacts(little.store, run).items()}
    shards = [part.folder for artifact in runs.artifacts(little.store, run).values() for part in artifact.parts]
    assert upkeep.collect(little.store, dry_run=False) == []
    assert all(folder.is_dir() for folder in shards)
    assert upkeep.verify(little.store, full=True)[0] == []
    assert {stage: artifact.digest for stage, artifact in runs.artifacts(little.store, run).items()} == before
    little.command("runs", "--forget", "release")
    gone = {folder for folder, _ in upkeep.collect(little.store, dry_run=False)}
    assert gone & set(shards)
    assert upkeep.verify(little.store, full=True)[0] == []


def test_a_run_that_gc_collected_cannot_be_named(changed, capsys):
    little, first, _ = changed
    upkeep.collect(little.store, dry_run=False)
    little.command("runs", "--name", first, "release", code=2)
    assert f"gave in the run {first} is no longer in the store" in capsys.readouterr().err
    assert little.asked("runs")[1]["names"] == []


def test_a_name_that_nobody_has_cannot_be_forgotten(copied, capsys):
    copied.command("runs", "--forget", "release", code=2)
    assert "No run is called release" in capsys.readouterr().err


@pytest.mark.parametrize("name", ["latest", "", "a/b", ".hidden", "two words", "little"])
def test_what_is_no_name_is_refused(copied, name):
    with pytest.raises(BadInput, match=r"cannot name a run|is the name of a config"):
        runs.refuse_name(copied.store, name)


def test_a_name_is_given_once(changed):
    little, first, second = changed
    little.command("runs", "--name", first, "release")
    little.command("runs", "--name", second, "release", code=2)
    assert find_run(little.store, "release").id == first


def test_a_log_cut_off_by_a_kill_is_a_run_without_an_end(copied):
    copied.run()
    path = copied.store.root / "runs" / f"{runs.runs(copied.store)[0].id}.jsonl"
    lines = path.read_text().splitlines()
    path.write_text("\n".join([*lines[:4], lines[4][:20]]))
    run = next(run for run in runs.runs(copied.store) if run.id == path.stem)
    assert (run.status, list(run.stages)) == ("unended", ["scrape", "extract", "language"])


def test_two_runs_differ_in_what_the_later_dropped_and_say_which_setting_did_it(changed):
    little, first, second = changed
    told = little.asked("diff", first, second)
    assert "policy.min_gopher_words 8 → 130" in told["settings"]
    assert told["gained"]["documents"] == 0
    assert told["lost"]["documents"] == told["before"]["documents"] - told["after"]["documents"] > 0
    assert told["lost_because"] == {"select: quality:gopher_words": told["lost"]["documents"]}
    back = little.asked("diff", second, first)
    assert back["gained_because"] == told["lost_because"]
    assert back["gained"] == told["lost"]


def test_tokens_of_a_difference_add_up(changed):
    little, first, second = changed
    told = little.asked("diff", first, second)
    kept = told["unchanged"]["tokens"] + told["changed"]["tokens"]
    assert told["before"]["tokens"] == told["lost"]["tokens"] + kept


def test_what_a_log_rules_out_is_not_loaded(copied):
    copied.run(force="scrape")
    loaded = []

    class Watched(Store):
        def manifest(self, stage, key):
            loaded.append(key)
            return super().manifest(stage, key)

    run = runs.runs(copied.store)[0]
    rows = [{"event": "start", "config": "little", "at": run.started + 1}]
    rows += [{"event": "stage", **row, "key": "another"} for row in run.stages.values()]
    rows[1]["snapshots"] = run.stages["scrape"]["snapshots"][:1]
    (copied.store.root / "runs" / "first-only.jsonl").write_text("\n".join(map(json.dumps, rows)))
    both = [copied.store.root / name for name in run.stages["scrape"]["snapshots"]]
    assert runs.runs(copied.store)[0].id == "first-only"
    assert _run_that_saw(Watched(copied.store.root), *both).snapshots == tuple(both)
    assert run.stages["extract"]["key"] in loaded
    assert "another" not in loaded


def test_two_snapshots_of_a_source_that_did_not_change_have_all_in_common(copied):
    copied.run(force="scrape")
    told = copied.asked("diff", "pages/0", "pages/1")
    assert told["unchanged"]["documents"] == len(PAGES)
    assert told["what"] == "documents"
    assert told["unchanged"]["tokens"] > 0
    assert told["runs"] is None
    assert "no run that was evaluated" in copied.command("diff", "pages/0", "pages/1")
    copied.command("diff", "pages/0", runs.runs(copied.store)[0].id, code=2)
