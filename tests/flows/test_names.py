"""Which run or snapshot a name means, and which run is meant where none is named."""

import json

import pytest

from flows import refs, runs
from flows.names import find_run, latest_run
from pipeline.config import BadInput
from tests.flows.commands.test_export import publish
from tests.flows.conftest import Little
from tests.flows.test_runs import changed, run_again  # noqa: F401

MODEL = {"key": "key", "digest": ""}


def train(little: Little, run: str) -> None:
    """Let a run have trained the model."""
    with (little.store.root / "runs" / f"{run}.jsonl").open("a") as log:
        log.write(json.dumps({"event": "stage", "stage": "pretrain", "status": "run", **MODEL}) + "\n")


def promote_model(little: Little, run: str) -> None:
    """Let a run have trained the model, and the model be the latest."""
    publish(little.store, "pretrain", lambda _: None)
    train(little, run)
    refs.promote(little.store, "little", {"pretrain": MODEL}, run)


@pytest.fixture
def other(changed):  # noqa: F811
    """The store after the run of another config, which gave a corpus of its own; that run's id."""
    little, _, _ = changed
    config = little.config.with_name("other.toml")
    config.write_text(little.config.read_text().replace("min_gopher_words = 8", "min_gopher_words = 60"))
    Little(config, little.store).run()
    assert runs.runs(little.store)[0].config == "other"
    return runs.runs(little.store)[0].id


def test_a_run_is_found_by_its_name_its_id_the_beginning_of_it_its_config_and_as_the_latest(changed):  # noqa: F811
    little, first, second = changed
    little.command("runs", "--name", first, "release")
    found = {"release": first, first: first, "2000": first, "little": second, "latest": second, None: second}
    assert {wanted: find_run(little.store, wanted, "pack").id for wanted in found} == found
    with pytest.raises(BadInput, match="is no run"):
        find_run(little.store, "nothing")


def test_a_whole_id_is_that_run_though_another_begins_with_it(changed):  # noqa: F811
    little, first, _ = changed
    log = little.store.root / "runs" / f"{first}.jsonl"
    log.with_stem(f"{first}-again").write_bytes(log.read_bytes())
    assert find_run(little.store, first).id == first
    with pytest.raises(BadInput, match="is the beginning of several runs"):
        find_run(little.store, first[:-1])


def test_the_latest_run_is_that_of_the_latest_model_though_a_later_one_packed(changed):  # noqa: F811
    little, first, _ = changed
    promote_model(little, first)
    run_again(little, "min_gopher_words = 60")
    assert find_run(little.store, None, "pack").id == latest_run(little.store, "little", "pack").id == first


def test_of_several_configs_the_one_whose_model_was_promoted_last_is_the_latest(changed, other):  # noqa: F811
    little, first, _ = changed
    assert find_run(little.store, None).id == find_run(little.store, "other").id == other
    promote_model(little, first)
    assert find_run(little.store, None).id == first
    assert find_run(little.store, "other").id == other


def test_where_the_promoted_run_did_not_get_so_far_another_of_the_same_model_is_meant(changed):  # noqa: F811
    little, first, second = changed
    train(little, second)
    promote_model(little, first)
    log = little.store.root / "runs" / f"{first}.jsonl"
    rows = [line for line in log.read_text().splitlines() if json.loads(line).get("stage") != "extract"]
    log.write_text("\n".join(rows))
    assert find_run(little.store, None, "pretrain").id == first
    assert find_run(little.store, None, "extract").id == second


@pytest.mark.parametrize("arguments", [("corpus",), ("trace", "http://host1.localhost/1")])
def test_a_newer_run_with_another_corpus_than_the_latest_is_told_of(changed, other, capsys, arguments):  # noqa: F811
    little, first, _ = changed
    little.command(*arguments)
    assert "which is newer" not in capsys.readouterr().err
    promote_model(little, first)
    assert little.asked(*arguments)["run"] == first
    assert f"{other}, which is newer, has another corpus: --run {other}." in " ".join(capsys.readouterr().err.split())
    little.command(*arguments, "--run", first)
    assert "which is newer" not in capsys.readouterr().err


def test_a_config_without_a_run_that_is_still_there_is_one_sentence(changed, other):  # noqa: F811
    little, _, _ = changed
    (little.store.root / "runs" / f"{other}.jsonl").unlink()
    with pytest.raises(BadInput, match="No run of other has got as far as pack, or what it gave is gone"):
        find_run(little.store, "other", "pack")


@pytest.mark.parametrize(
    "arguments",
    [
        ("trace", "--token", "1", "--run"),
        ("corpus", "--run"),
        ("export", "--nanogpt", "out", "--run"),
        ("export", "--release", "out", "--run"),
        ("promote",),
        ("compare", "little"),
        ("evaluate",),
    ],
)
def test_a_snapshot_in_the_place_of_a_run_is_called_one_and_told_which_command_takes_it(little, capsys, arguments):
    rest = [__file__] if arguments == ("evaluate",) else []
    little.command(*arguments, "pages/0000", *rest, code=2)
    told = " ".join(capsys.readouterr().err.split())
    assert "pages/0000 is a snapshot and no run: gptmill diff takes two snapshots, gptmill runs lists the runs." in told


@pytest.mark.parametrize(
    ("first", "second", "told"),
    [
        (
            "pages/0",
            "latest",
            "latest means a run, and the other name a snapshot: diff takes two",
        ),
        (
            "little",
            "pages/0",
            "little means a run, and the other name a snapshot: diff takes two",
        ),
        ("pages/0", "pages/7", "pages/7 is no snapshot of this store: the newest of pages is pages/0000."),
        ("pages/0", "bread", "bread is no run of this store: gptmill runs lists them with their names."),
        ("other/0", "pages/0", "other/0 is no run of this store: gptmill runs lists them with their names."),
    ],
)
def test_diff_says_what_each_of_two_unlike_names_is(little, capsys, first, second, told):
    little.command("diff", first, second, code=2)
    assert told in " ".join(capsys.readouterr().err.split())


def test_a_config_and_the_latest_can_be_told_apart_from_an_earlier_run(changed):  # noqa: F811
    little, first, second = changed
    assert little.asked("diff", first, "latest") == {**little.asked("diff", first, second), "names": [first, "latest"]}
