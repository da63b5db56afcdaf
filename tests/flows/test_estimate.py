"""What a plan says its stages would cost, from what the last runs took."""

import json
import shutil

import pytest

from flows import estimate
from flows.config import load_config
from flows.estimate import Estimate
from flows.plan import Decision, Mill
from model.config import PretrainConfig
from pipeline.engine.store import Store, seal_of, write_atomically
from tests.flows.conftest import Little

MAPS = {"extract", "language", "quality", "signatures", "contamination", "tokenize", "pack"}


def planned(little: Little, *arguments: str, code: int = 0) -> dict[str, dict]:
    """The plan by stage."""
    decisions = little.asked("plan", "-c", str(little.config), *arguments, code=code)
    return {decision["stage"]: decision for decision in decisions}


def work(little: Little, stage: str) -> dict:
    """What the newest artifact of a stage says of the work on it."""
    return next(little.store.manifests(stage))["run"]


def close(seconds: float) -> object:
    return pytest.approx(seconds, abs=0.001)


def test_what_is_cached_costs_nothing(little):
    plan = planned(little, "--until", "pack")
    assert {(row["estimated_seconds"], row["estimate_is_upper"]) for row in plan.values()} == {(0.0, False)}
    assert "In all" not in little.command("plan", "-c", str(little.config), "--until", "pack")


def test_a_forced_map_costs_what_its_parts_took_and_what_follows_has_an_upper_figure(little):
    plan = planned(little, "--force", "extract", "--until", "pack")
    extract = plan.pop("extract")
    assert extract["estimated_seconds"] == close(work(little, "extract")["seconds"])
    assert not extract["estimate_is_upper"]
    del plan["scrape"]
    assert {row["estimate_is_upper"] for row in plan.values()} == {True}
    for stage in MAPS & plan.keys():
        assert plan[stage]["estimated_seconds"] == close(work(little, stage)["seconds"]), stage
    assert plan["select"]["estimated_seconds"] == close(work(little, "select")["wall_seconds"])


def test_a_map_with_one_part_to_do_costs_that_part(copied):
    manifest = next(copied.store.manifests("quality"))
    shutil.rmtree(copied.store.root / manifest["parts"][0]["at"])
    made = manifest["run"]["parts_made"]
    assert made > 2
    assert planned(copied)["quality"]["estimated_seconds"] == close(manifest["run"]["seconds"] / made)
    told = copied.command("plan", "-c", str(copied.config), "--until", "pack")
    assert f"(1 of {made} parts)" in told
    assert "going by the last runs" in told


def test_an_artifact_that_only_found_its_parts_done_tells_nothing(copied):
    took = work(copied, "extract")["seconds"]
    copied.run(until="extract", force="scrape")  # given files again: every part twice, and all of them there
    assert work(copied, "extract")["parts_made"] == 0
    assert planned(copied, "--force", "extract")["extract"]["estimated_seconds"] == close(2 * took)


def test_a_recrawl_costs_what_the_last_one_took(little):
    [manifest] = [json.loads(path.read_text()) for path in little.store.root.glob("snapshots/*/0000/manifest.json")]
    plan = planned(little, "--force", "scrape", "--until", "extract")
    assert plan["scrape"]["estimated_seconds"] == close(manifest["run"]["seconds"])


def test_what_was_never_measured_is_said_to_be_so(little, tmp_path):
    told = little.command("plan", "-c", str(little.config), "--force", "extract")
    assert "without pretrain, evaluate, report, never measured here" in told
    assert planned(little)["pretrain"]["estimated_seconds"] is None
    empty = Little(little.config, Store(tmp_path / "store"))
    assert "Nothing was measured here yet" in empty.command("plan", "-c", str(empty.config))


@pytest.mark.parametrize(
    ("change", "factor"),
    [({}, 1), ({"steps": 800}, 10), ({"steps": 80, "batch_tokens": 4096}, 2), ({"layers": 8}, 2)],
)
def test_a_training_is_estimated_by_its_tokens_and_weights(change, factor):
    shape = {"layers": 4, "heads": 2, "width": 64, "context": 64, "steps": 80, "batch_tokens": 2048}
    old = PretrainConfig(**shape)
    last = {
        "run": {"wall_seconds": 130.0},
        "stats": {"seconds": {"compile": 10.0, "train": 100.0}},
        "key_document": {"config": old.model_dump(mode="json")},
    }
    assert estimate._training_seconds(last, PretrainConfig(**{**shape, **change})) == pytest.approx(30 + 100 * factor)


def test_of_a_training_that_was_resumed_all_steps_count():
    last = {
        "run": {"wall_seconds": 5.0},
        "stats": {"seconds": {"compile": 0.0, "train": 100.0}},
        "key_document": {"config": PretrainConfig().model_dump(mode="json")},
    }
    assert estimate._training_seconds(last, PretrainConfig()) == 100


def test_a_sum_whose_two_ends_read_alike_is_told_once():
    found = {"select": Estimate(0.2), "deduplicate": Estimate(0.3, upper=True)}
    assert estimate.total(found) == "In all under 1 s, start-up aside, going by the last runs."


def test_a_training_that_goes_on_where_it_was_stopped_takes_up_to_the_whole(little, tmp_path):
    mill = Mill(Store(tmp_path / "store"), load_config(little.config))
    last = {
        "stage": "pretrain",
        "run": {"wall_seconds": 130.0},
        "stats": {"seconds": {"compile": 10.0, "train": 100.0}},
        "key_document": {"config": mill.config.pretrain.model_dump(mode="json")},
    }
    folder = mill.store.artifact_folder("pretrain", "key")
    write_atomically(folder / "manifest.json", json.dumps({**last, "seal": seal_of(last)}))
    for reasons, words in (([], "about 2 min 10 s"), (["goes on where it was stopped"], "up to 2 min 10 s")):
        decision = Decision("pretrain", "run", ["artifact missing", *reasons])
        assert str(estimate.estimates(mill, [decision])["pretrain"]) == words


def test_a_plan_has_the_stages_of_the_run_and_refuses_what_the_run_would(little, capsys):
    stages = planned(little, "--until", "language")
    assert list(stages) == ["scrape", "extract", "language"]
    stale = planned(little, "--only", "pack", "--set", "policy.min_gopher_words=9", code=2)
    assert stale["select"]["status"] == "run"
    assert "--only pack cannot run" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("found", "words"),
    [
        (Estimate(None), "not measured"),
        (Estimate(0.3), "under 1 s"),
        (Estimate(40.0), "about 40 s"),
        (Estimate(190.0, upper=True), "up to 3 min 10 s"),
    ],
)
def test_an_estimate_says_how_sure_it_is(found, words):
    assert str(found) == words
