"""The decision that follows from four numbers, and the refs that it changes."""

import contextlib
import json
import threading

import pytest

from flows import cli, refs
from flows.commands.refresh import begin_anew, begin_refresh
from flows.config import load_config
from flows.display import Display
from flows.plan import Mill
from flows.promotion import conclude, judged, markdown
from flows.session import Selection, Session
from flows.validation import least_held_out
from pipeline.config import BadInput
from pipeline.engine import locks, upkeep
from pipeline.engine.store import FORMAT, Artifact, Store


def numbers(fixed, sampled):
    sets = {"fixed": fixed, "sampled": sampled}
    return {
        name: {"meaning": "…", "documents": 1, "bytes": 9, "promoted": promoted, "new": new}
        for name, (promoted, new) in sets.items()
    }


@pytest.mark.parametrize(
    ("fixed", "sampled", "promoted"),
    [
        ((1.0, 0.9), (1.0, 0.9), True),
        ((1.0, 1.02), (1.0, 1.02), True),
        ((1.0, 1.03), (1.0, 0.5), False),
        ((1.0, 0.5), (1.0, 1.03), False),
        ((1.0, float("nan")), (1.0, 0.5), False),
    ],
)
def test_a_model_must_hold_its_own_on_both_sets(fixed, sampled, promoted):
    verdict = judged(numbers(fixed, sampled), 0.02)
    assert verdict.promoted is promoted
    assert "| fixed |" in markdown(verdict)


def test_a_refusal_names_the_set_that_it_failed_on():
    reason = judged(numbers((1.0, 0.5), (1.0, 1.5)), 0.02).reason
    assert reason == "bits per byte 1.0000 → 1.5000 on the sampled texts: worse by more than the margin of 2.0%"


def test_without_a_text_to_compare_on_the_promoted_model_stays():
    assert not judged({}, 0.02).promoted


def artifact(stage, key):
    return Artifact(stage, key, f"digest of {key}", None)


@pytest.fixture
def store(tmp_path):
    return Store(tmp_path)


def publish(store, stage, key, **facts):
    """An artifact without files."""
    (aside := store.root / "work" / key).mkdir(parents=True)
    made = {"format": FORMAT, "stage": stage, "key": key, "digest": key, "files": {}, "parts": [], "inputs": {}}
    store.publish(aside, store.artifact_folder(stage, key), {**made, **facts})


def test_a_model_that_was_continued_was_trained_on_what_its_start_was_trained_on(store):
    start = {}
    for model, share in (("first", 0.1), ("second", 0.05), ("third", 0.2)):
        publish(store, "pack", f"pack-{model}", key_document={"config": {"val_fraction": share}})
        publish(store, "pretrain", model, inputs={"shards": {"key": f"pack-{model}"}, **start})
        start = {"start": {"key": model}}
    assert [least_held_out(store, model) for model in ("first", "second", "third")] == [0.1, 0.05, 0.05]


def test_what_is_newest_is_not_thereby_promoted(store):
    refs.promote(store, "small", refs.references({"pretrain": artifact("pretrain", "old")}), "run-1")
    refs.remember(store, "small", artifact("pretrain", "new"))
    assert refs.newest(store, "small")["pretrain"]["key"] == "new"
    assert refs.promoted(store, "small")["stages"]["pretrain"]["key"] == "old"


def test_promoting_again_what_is_promoted_changes_nothing(store):
    made = refs.references({"pack": artifact("pack", "a")})
    refs.promote(store, "small", made, "run-1")
    before = refs.promoted(store, "small")
    refs.promote(store, "small", made, "run-2")
    assert refs.promoted(store, "small") == before


def test_a_model_is_promoted_when_it_becomes_the_latest_and_not_with_what_follows_it(store):
    refs.promote(store, "small", refs.references({"pretrain": artifact("pretrain", "a")}), "run-1")
    at = refs.promoted(store, "small")["model_at"]
    refs.promote(store, "small", refs.references({"report": artifact("report", "b")}), "run-2")
    assert refs.promoted(store, "small")["model_at"] == at
    assert refs.promoted(store, "small")["run"] == "run-2"


@pytest.fixture
def mill(little, store):
    """The little config on an empty store."""
    return lambda: Mill(store, load_config(little.config))


def last_refresh(store):
    return refs.last_refresh(store, "little")


def end(mill, model, *, refresh=False):
    """What the end of a run decides that has made or found a model, in a session of its own."""
    with Session(mill, Selection(mill), 1, Display()) as session:
        if refresh:
            begin_refresh(mill, "scratch", Display())
        session.artifacts["pretrain"] = artifact("pretrain", model)
        return conclude(session)


def test_a_run_that_fails_before_its_crawl_leaves_an_open_refresh_open(mill, store):
    begin_refresh(mill(), "scratch", Display())
    with pytest.raises(BadInput), Session(mill(), Selection(mill()), 1, Display()):
        raise BadInput("Prefect's server does not answer.")
    assert last_refresh(store)["open"]


def test_a_run_ends_no_refresh_that_began_after_it(mill, store):
    early = mill()
    begin_refresh(mill(), "scratch", Display())
    end(early, "a")
    assert last_refresh(store)["open"]


def test_a_refresh_asks_its_question_though_another_run_has_ended_it(mill, store):
    slow = mill()
    begin_refresh(slow, "scratch", Display())
    end(mill(), "a")
    end(slow, "b")
    assert [row["by"] for row in refs.decisions(store, "little")] == ["refresh", "refresh"]


def test_a_run_that_is_told_anew_where_to_start_leaves_the_refresh_what_it_has_to_do(mill, store):
    begin_refresh(mill(), "scratch", Display())
    before = last_refresh(store)
    begin_anew(mill(), "continue", Display())
    after = last_refresh(store)
    assert after["start"] == "continue"
    assert {name: after[name] for name in ("id", "open", "crawls")} == {
        name: before[name] for name in ("id", "open", "crawls")
    }


def by_hand(store, model):
    """What `gptmill promote` keeps of a decision."""
    refs.promote(store, "little", refs.references({"pretrain": artifact("pretrain", model)}), "run-1")
    facts = {"promoted": True, "reason": "it was promoted by hand", "numbers": {}, "by": "hand", "against": None}
    refs.decide(store, "little", {**facts, "model": model})


def latest(store):
    return refs.promoted(store, "little")["stages"]["pretrain"]["key"]


@pytest.fixture
def rolled_back(mill, store):
    """Refreshes promoted `old`, `between` and `new`; then somebody promoted `old` by hand."""
    for model in ("old", "between", "new"):
        end(mill(), model, refresh=True)
    by_hand(store, "old")
    return mill


@pytest.mark.parametrize("refresh", [False, True])
def test_what_was_promoted_by_hand_stays_where_a_run_or_a_refresh_finds_the_model_before_it(
    rolled_back, store, capfd, refresh
):
    assert not end(rolled_back(), "new", refresh=refresh).promoted
    assert latest(store) == "old"
    assert "another one since, by hand" in " ".join(capfd.readouterr().err.split())


def test_a_new_model_takes_the_place_of_what_was_promoted_by_hand(rolled_back, store):
    end(rolled_back(), "newer")
    assert latest(store) == "newer"


def test_going_back_to_an_earlier_config_makes_its_model_the_latest_again(mill, store):
    for model in ("a", "b", "a"):
        end(mill(), model)
        assert latest(store) == model


def test_a_run_promotes_what_a_killed_one_had_decided_to(mill, store):
    end(mill(), "old", refresh=True)
    before = refs.promoted(store, "little")["stages"]
    end(mill(), "new", refresh=True)
    refs.promote(store, "little", before, "run-1")
    end(mill(), "new")
    assert latest(store) == "new"


def test_a_run_without_a_model_leaves_the_promoted_one_and_what_belongs_to_it(mill, store):
    end(mill(), "old")
    before = refs.promoted(store, "little")
    with Session(mill(), Selection(mill(), until="pack"), 1, Display()) as session:
        session.artifacts["pack"] = artifact("pack", "other")
        conclude(session)
    assert refs.promoted(store, "little") == before


def as_logged(store, run, *stages):
    """A run's log as far as it tells what its stages gave."""
    rows = [{"event": "start", "config": "little", "at": 1.0}]
    rows += [{"event": "stage", "stage": stage, "status": "run", "key": stage, "digest": stage} for stage in stages]
    (path := store.root / "runs" / f"{run}.jsonl").parent.mkdir(exist_ok=True)
    path.write_text("".join(f"{json.dumps(row)}\n" for row in rows))


@pytest.fixture
def trained(store):
    """A run by the id `trained` whose report is no longer in the store."""
    store.create()
    for stage in ("tokenizer", "pretrain"):
        publish(store, stage, stage)
    as_logged(store, "trained", "scrape", "tokenizer", "pretrain", "report")
    return ["promote", "trained", "--store", str(store.root)]


def test_what_is_no_longer_in_the_store_is_not_promoted_with_the_rest(trained, store):
    assert cli.main(trained) == cli.DONE
    assert refs.promoted(store, "little")["stages"].keys() == {"scrape", "tokenizer", "pretrain"}


@contextlib.contextmanager
def deciding(store, capfd, work):
    """While another run decides, and this work waits for its end in a thread of its own."""
    thread = threading.Thread(target=work)
    with locks.held(store.root / "locks" / "promote-little.lock"):
        thread.start()
        told = ""
        while thread.is_alive() and "another run is deciding" not in told:
            told += " ".join(capfd.readouterr().err.split())
        yield
    thread.join()


def test_a_refresh_compares_with_what_is_promoted_when_its_turn_to_decide_comes(mill, store, capfd):
    with deciding(store, capfd, lambda: end(mill(), "new", refresh=True)):
        refs.promote(store, "little", refs.references({"pretrain": artifact("pretrain", "meanwhile")}), "run-1")
    assert refs.decisions(store, "little")[-1]["against"] == "meanwhile"


def test_nothing_is_deleted_while_a_model_is_promoted_by_hand(trained, store, capfd):
    with deciding(store, capfd, lambda: cli.main(trained)), pytest.raises(BadInput, match="A run is using the store"):
        upkeep.collect(store, dry_run=True)
