"""Which model a command means by a name."""

import json

import pytest

from flows.models import model_in, model_named
from pipeline.config import BadInput
from pipeline.engine.store import describe_files
from tests.flows.commands.test_export import store, write_checkpoint, write_tokenizer  # noqa: F401


@pytest.fixture
def step(tmp_path):
    """A checkpoint without a tokenizer."""
    folder = tmp_path / "step"
    folder.mkdir()
    write_checkpoint(folder)
    return folder


def log_run(store):  # noqa: F811
    """A run's log, as a session leaves it."""
    rows = [{"event": "start", "at": 1.0, "config": "small", "arguments": []}]
    rows += [
        {"event": "stage", "stage": stage, "status": "run", "key": "key", "digest": ""}
        for stage in ("tokenizer", "pretrain")
    ]
    (store.root / "runs").mkdir(exist_ok=True)
    (store.root / "runs/20260101T000000Z-7.jsonl").write_text("\n".join(map(json.dumps, rows)))


def test_a_tokenizer_beside_a_model_is_taken_before_any_other(store, step):  # noqa: F811
    assert model_in(step, store.root).tokenizer == store.artifact_folder("tokenizer", "key")
    write_tokenizer(step)
    assert model_in(step, store.root).tokenizer == step


def test_an_artifact_has_the_tokenizer_that_it_was_made_from_though_there_is_a_newer_one(store):  # noqa: F811
    aside = store.work_folder("pretrain", "old") / "out"
    aside.mkdir()
    write_checkpoint(aside)
    folder = store.artifact_folder("pretrain", "old")
    inputs = {"tokenizer": {"stage": "tokenizer", "key": "old", "digest": ""}}
    store.publish(aside, folder, {"stage": "pretrain", "key": "old", "inputs": inputs, "files": describe_files(aside)})
    assert model_in(folder, store.root).tokenizer == store.artifact_folder("tokenizer", "old")


@pytest.mark.parametrize("name", ["small", "latest", "20260101T000000Z-7", "20260101"])
def test_a_config_a_run_and_the_latest_are_found_by_name(store, name):  # noqa: F811
    log_run(store)
    found = model_named(name, store.root)
    assert (found.folder, found.tokenizer) == tuple(
        store.artifact_folder(stage, "key") for stage in ("pretrain", "tokenizer")
    )
    assert name in found.name


def test_a_folder_comes_before_a_config_of_that_name(store, step, monkeypatch):  # noqa: F811
    monkeypatch.chdir(step.parent)
    step.rename(step.parent / "small")
    assert model_named("small", store.root).folder.resolve() == step.parent / "small"


@pytest.mark.parametrize("name", ["bread", "../small"])
def test_a_name_that_nothing_has_is_refused(store, name):  # noqa: F811
    with pytest.raises(BadInput, match="is no folder"):
        model_named(name, store.root)
