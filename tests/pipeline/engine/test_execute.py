"""Stages in a store: what is there is not made again, what is damaged is, and only that."""

import errno
import json
import multiprocessing
import shutil
from pathlib import Path

import pytest

from pipeline.config import BadInput, StageFailed
from pipeline.engine import upkeep
from pipeline.engine.resolve import accept, accepted_as, resolve
from pipeline.engine.store import FORMAT, Store
from tests.pipeline.engine import toy
from tests.pipeline.engine.conftest import JOIN, UPPER, Bench


def test_a_stage_runs_once_and_is_then_cached(bench):
    first, why = bench.upper("one", "two")
    assert (why.status, why.reasons) == ("run", ["never run"])
    again, how = bench.upper("one", "two")
    assert how.status == "cached"
    assert again.digest == first.digest
    assert bench.calls() == ["upper one", "upper two"]


def test_only_new_parts_are_made(bench):
    bench.upper("one", "two")
    bench.calls()
    _, why = bench.upper("one", "three", "two")
    assert bench.calls() == ["upper three"]
    assert (why.parts_to_do, why.parts) == (1, 3)
    assert why.reasons == ["input documents changed"]


def test_execution_settings_do_not_enter_a_key(bench):
    bench.upper("one")
    assert bench.upper("one", workers=7)[1].status == "cached"


def test_a_changed_setting_is_named_with_both_values(bench):
    bench.upper("one", suffix="a")
    assert bench.upper("one", suffix="b")[1].reasons == ["upper.suffix a → b"]


def test_digests_are_the_same_for_any_number_of_jobs_and_any_store(bench, tmp_path):
    one, _ = bench.upper("one", "two", "three", jobs=1)
    two, _ = Bench(Store(tmp_path / "other"), tmp_path).upper("one", "two", "three", jobs=2)
    assert one.digest == two.digest
    assert one.key == two.key


def test_stats_of_parts_add_up(bench):
    artifact, _ = bench.upper("one", "two", "three")
    assert artifact.manifest["stats"] == {"rows": 3, "letters": 11, "by": {"o": 1, "t": 2}}


def test_the_same_bytes_from_changed_code_stop_the_cascade(bench, monkeypatch):
    texts, _ = bench.upper("one", "two")
    bench.join(texts)
    changed = {**UPPER.code(), "tests/pipeline/engine/toy.py upper": "another"}
    monkeypatch.setattr(type(UPPER), "code", lambda self: changed if self.name == "upper" else {})
    again, why = bench.upper("one", "two")
    assert why.reasons == ["code tests/pipeline/engine/toy.py upper"]
    assert again.key != texts.key
    assert again.digest == texts.digest


def test_accepted_code_counts_as_the_code_it_replaces(bench, monkeypatch):
    texts, _ = bench.upper("one")
    changed = {**UPPER.code(), "tests/pipeline/engine/toy.py upper": "another"}
    monkeypatch.setattr(type(UPPER), "code", lambda _self: changed)
    assert accept(bench.store, UPPER, texts.manifest) is True
    found, why = bench.upper("one")
    assert why.status == "cached"
    assert found.key == texts.key
    assert accept(bench.store, UPPER, texts.manifest) is False
    assert accepted_as(bench.store, "join", "x") == "x"


@pytest.mark.parametrize("damage", ["deleted", "truncated"])
def test_a_damaged_part_is_named_and_only_it_is_made_again(bench, damage):
    texts, _ = bench.upper("one", "two", "three")
    bench.calls()
    file = texts.parts[1].folder / "upper.txt"
    file.unlink() if damage == "deleted" else file.write_text("T")
    again, why = bench.upper("one", "two", "three")
    assert why.reasons == ["part-00001 missing" if damage == "deleted" else "part-00001 has 1 bytes in place of 3"]
    assert bench.calls() == ["upper two"]
    assert again.digest == texts.digest


def test_a_flipped_byte_is_found_by_full_verification_put_aside_and_mended(bench):
    texts, _ = bench.upper("one", "two")
    (texts.parts[0].folder / "upper.txt").write_text("OnE")
    assert upkeep.verify(bench.store, full=False) == ([], 2)
    found, _ = upkeep.verify(bench.store, full=True)
    assert len(found) == 1
    assert found[0].endswith("upper.txt: corrupt (put aside)")
    bench.calls()
    again, why = bench.upper("one", "two")
    assert why.reasons == ["part-00000 corrupt"]
    assert bench.calls() == ["upper one"]
    assert again.digest == texts.digest
    assert upkeep.verify(bench.store, full=True) == ([], 2)


def test_a_damaged_whole_artifact_is_made_again_and_the_old_one_put_aside(bench):
    texts, _ = bench.upper("one", "two")
    joined, _ = bench.join(texts)
    (joined.path / "all.txt").unlink()
    again, why = bench.join(texts)
    assert why.reasons == ["all.txt missing"]
    assert again.digest == joined.digest
    assert list((bench.store.root / "aside" / "join").iterdir())


def test_an_unreadable_manifest_is_noticed(bench):
    texts, _ = bench.upper("one")
    (texts.path / "manifest.json").write_text("{")
    _, why = bench.upper("one")
    assert why.reasons == ["manifest missing or unreadable"]
    assert bench.upper("one")[1].status == "cached"


def test_files_of_the_report_folder_are_no_part_of_the_digest(bench):
    texts, _ = bench.upper("one", "two")
    first, _ = bench.join(texts)
    second, why = bench.join(texts, force=True)
    assert why.reasons == ["forced"]
    times = {artifact.manifest["files"]["report/time.txt"]["sha256"] for artifact in (first, second)}
    assert len(times) == 2
    assert first.digest == second.digest


def test_forcing_a_map_makes_all_its_parts_again(bench):
    bench.upper("one", "two")
    bench.calls()
    bench.upper("one", "two", force=True)
    assert bench.calls() == ["upper one", "upper two"]


def test_a_part_that_fails_names_itself_and_keeps_what_was_done(bench):
    with pytest.raises(StageFailed, match="upper failed on part-00002: ValueError: cannot take bad"):
        bench.upper("one", "two", "bad", fail="bad")
    assert [p for p in (bench.store.root / "work").glob("*/*") if p.name != "state"] == []
    bench.calls()
    bench.upper("one", "two", "bad")
    assert bench.calls() == ["upper bad"]


@pytest.mark.usefixtures("processes")
def test_a_killed_worker_is_one_sentence_and_loses_only_its_part(bench):
    with pytest.raises(StageFailed, match="A worker was killed at upper"):
        bench.upper("one", "two", "bad", jobs=2, fail="die bad")
    _, why = bench.upper("one", "two", "bad")
    assert why.status == "run"
    assert "upper bad" in bench.calls()


def test_bad_input_of_a_stage_comes_through_as_it_is_and_publishes_nothing(bench):
    texts, _ = bench.upper("one")
    with pytest.raises(BadInput, match="The input is bad"):
        bench.join(texts, fail="bad input")
    assert list(bench.store.manifests("join")) == []


def test_a_full_disk_publishes_nothing(bench, monkeypatch):
    texts, _ = bench.upper("one")

    def full(*_args):
        raise OSError(errno.ENOSPC, "No space left on device", "x")

    with monkeypatch.context() as patched:
        patched.setattr("pipeline.engine.store.flush", full)
        with pytest.raises(OSError, match="No space left"):
            bench.join(texts)
    assert list(bench.store.manifests("join")) == []
    assert bench.join(texts)[0].digest


def _race(root: Path, folder: Path) -> None:
    from pipeline.engine import code

    code.FIRST_PARTY = (*code.FIRST_PARTY, "tests")
    Bench(Store(root), folder).upper("one", "two", sleep=0.3)


def test_of_two_racing_runs_one_works_and_both_end_well(bench, tmp_path):
    context = multiprocessing.get_context("spawn")
    racers = [context.Process(target=_race, args=(bench.store.root, tmp_path)) for _ in range(2)]
    for racer in racers:
        racer.start()
    for racer in racers:
        racer.join(60)
    assert [racer.exitcode for racer in racers] == [0, 0]
    assert bench.calls() == ["upper one", "upper two"]


def _share(root: Path, folder: Path, own: str) -> None:
    from pipeline.engine import code

    code.FIRST_PARTY = (*code.FIRST_PARTY, "tests")
    bench = Bench(Store(root), folder)
    for turn in range(20):
        bench.upper(*(f"shared{turn}-{i}" for i in range(5)), own)


def test_runs_that_share_parts_do_not_stand_in_each_others_way(bench, tmp_path):
    """Two artifacts with most parts in common: each part is locked by nobody, and whoever is first wins."""
    context = multiprocessing.get_context("spawn")
    racers = [context.Process(target=_share, args=(bench.store.root, tmp_path / own, own)) for own in ("mine", "yours")]
    for own in ("mine", "yours"):
        (tmp_path / own).mkdir()
    for racer in racers:
        racer.start()
    for racer in racers:
        racer.join(60)
    assert [racer.exitcode for racer in racers] == [0, 0]


def test_forcing_replaces_parts_one_by_one_so_that_others_can_read_on(bench):
    texts, _ = bench.upper("one", "two")
    with pytest.raises(StageFailed):
        bench.upper("one", "two", force=True, fail="one")
    assert bench.store.damage(texts.path, texts.manifest) == []


def test_an_edited_manifest_is_noticed_and_made_again(bench):
    texts, _ = bench.upper("one", "two")
    shard = texts.parts[0].folder
    for path in (texts.path / "manifest.json", shard / "manifest.json"):
        path.write_text(path.read_text().replace('"rows"', '"rowz"', 1))
    found, _ = upkeep.verify(bench.store, full=False)
    assert len(found) == 2
    assert all(line.endswith("manifest missing or unreadable") for line in found)
    again, why = bench.upper("one", "two")
    assert why.reasons == ["manifest missing or unreadable"]
    assert again.digest == texts.digest
    assert upkeep.verify(bench.store, full=True)[0] == []


def test_accepting_in_a_circle_keeps_every_implementation_in_one_class(bench, monkeypatch):
    first, _ = bench.upper("one")
    artifacts = {"a": first.manifest}
    for name in ("b", "c"):
        monkeypatch.setattr(type(UPPER), "code", lambda _self, name=name: {"unit": name})
        artifacts[name] = bench.upper("one")[0].manifest
    for now, last in (("b", "a"), ("a", "c"), ("c", "b"), ("b", "c")):
        units = artifacts[now]["key_document"]["code"]
        monkeypatch.setattr(type(UPPER), "code", lambda _self, units=units: units)
        accept(bench.store, UPPER, artifacts[last])
    classes = {accepted_as(bench.store, "upper", artifact["implementation"]) for artifact in artifacts.values()}
    assert len(classes) == 1


def test_a_torn_list_of_accepted_code_is_one_sentence(bench):
    bench.store.create()
    (bench.store.root / "accepted.jsonl").write_text('{"stage": "upp')
    with pytest.raises(BadInput, match=r"accepted\.jsonl has a line that gptmill did not write"):
        bench.upper("one")


def test_a_moved_store_is_still_valid(bench, tmp_path):
    bench.upper("one", "two")
    shutil.move(bench.store.root, tmp_path / "moved")
    moved = Bench(Store(tmp_path / "moved"), tmp_path)
    assert moved.upper("one", "two")[1].status == "cached"
    assert upkeep.verify(moved.store, full=True) == ([], 2)


@pytest.mark.parametrize(
    ("found", "sentence"),
    [
        ("99", "has format 99, newer than the 1 that this gptmill reads and writes: update gptmill"),
        ("0", "has format 0, older than the 1 that this gptmill reads and writes: use the gptmill that made it"),
        ('"zero"', "has format zero, older than the 1"),
    ],
)
def test_a_store_of_another_format_is_refused(tmp_path, found, sentence):
    (tmp_path / "store.json").write_text(f'{{"format": {found}}}')
    with pytest.raises(BadInput, match=sentence):
        Store(tmp_path)
    assert [path.name for path in tmp_path.iterdir()] == ["store.json"]


def test_a_store_without_a_marker_is_of_the_present_format_and_gets_one(bench):
    bench.upper("one")
    (bench.store.root / "store.json").unlink(missing_ok=True)
    again = Store(bench.store.root)
    assert again.exists()
    again.create()
    assert json.loads((again.root / "store.json").read_text()) == {"format": FORMAT}
    assert bench.upper("one")[1].status == "cached"


def test_planning_writes_nothing_into_the_artifacts(bench):
    request = bench.request(UPPER, {"documents": bench.documents("one")})
    assert resolve(bench.store, request).status == "run"
    assert not (bench.store.root / "artifacts").exists()


def test_garbage_is_what_no_latest_artifact_descends_from(bench):
    texts, _ = bench.upper("one", "two")
    joined, _ = bench.join(texts)
    stale, _ = bench.upper("one", "three")
    refs = bench.store.root / "refs" / "toy"
    refs.mkdir(parents=True)
    (refs / "latest.json").write_text(json.dumps({"stages": {"join": {"key": joined.key, "digest": joined.digest}}}))
    would = upkeep.collect(bench.store, dry_run=True)
    assert stale.path.exists()
    assert upkeep.collect(bench.store, dry_run=False) == would
    assert {path.parent.name for path, _ in would} == {"upper"}
    assert len(would) == 2  # the stale manifest and the shard of "three"
    assert bench.upper("one", "two")[1].status == "cached"
    assert bench.join(texts)[1].status == "cached"


def test_stage_functions_are_loaded_by_name():
    assert JOIN.load() is toy.join
