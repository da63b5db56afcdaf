"""Runs again, side by side, elsewhere and together: with the real command line and real models."""

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from rich.cells import cell_len
from transformers import AutoModelForCausalLM, AutoTokenizer

from tests.e2e.conftest import ROOT, STAGES, MillCommand


def test_a_training_is_estimated_at_the_pace_of_the_last(milled):
    manifest = milled.manifest("pretrain")
    spent = manifest["stats"]["seconds"]
    plan = milled.plan("--set", "pretrain.steps=80")
    expected = manifest["run"]["wall_seconds"] - spent["train"] + 10 * spent["train"]
    assert plan["pretrain"]["estimated_seconds"] == pytest.approx(expected, abs=0.01)
    assert plan["report"]["estimate_is_upper"]


def test_two_runs_stand_side_by_side_with_their_curves_scores_and_texts(copied, tmp_path, monkeypatch):
    first = json.loads(copied("runs", "--json").stdout)[0]["run"]
    copied("run", "--name", "slow", "--set", "pretrain.lr=0.0001", "--set", "pretrain.muon_lr=0.0001")
    monkeypatch.setattr(copied, "environment", lambda: MillCommand.environment(copied) | {"COLUMNS": "80"})
    told = copied("compare", first, "slow", "--max-tokens", "8", "--html", str(tmp_path / "page.html")).stdout
    assert max(map(cell_len, told.splitlines())) <= 80  # a model may write what has no width
    for words in ("pretrain.lr", "after 1k tokens", "intervals", "The models", "from nothing  greedy"):
        assert words in told, words
    page = (tmp_path / "page.html").read_text()
    assert page.count("<polyline") == 4  # of each run, the training and the held-out loss
    for fetched in ("<script", "src=", "href=", "url("):
        assert fetched not in page


def test_a_difference_of_snapshots_tells_what_the_runs_that_ended_at_them_scored(copied):
    first = json.loads(copied("runs", "--json").stdout)[0]["run"]
    copied("run", "--force", "scrape")
    told = json.loads(copied("diff", "site/0", "site/1", "--json").stdout)
    assert told["runs"][0] == first
    assert told["runs"][1] != first
    assert [told[name]["documents"] for name in ("gained", "lost", "changed")] == [0, 0, 0]
    scores = {row["name"]: row for row in told["scores"]}
    # Given files stand twice in the corpus now, but the same documents are held out.
    assert scores["bits per byte, held out"]["worth"] == "+0.0000, too few to judge"


def test_a_release_opens_in_transformers_and_numpy(milled, tmp_path):
    folder = tmp_path / "release"
    milled("export", "--release", str(folder))
    told = json.loads((folder / "datasheet.json").read_text())
    model = AutoModelForCausalLM.from_pretrained(folder / "model")
    assert sum(weight.numel() for weight in model.parameters()) >= told["model"]["parameters"]
    tokenizer = AutoTokenizer.from_pretrained(folder / "model")
    assert tokenizer.eos_token_id == told["data"]["end_of_text"]
    for split, count in told["composition"]["tokens"].items():
        ids = np.memmap(folder / "data" / f"{split}.bin", told["data"]["item_type"], "r")
        assert len(ids) == count
        assert int(ids.max()) < told["data"]["vocabulary"]
    assert told["evaluation"]["validation"]["bits_per_byte"] > 0
    datasheet = (folder / "DATASHEET.md").read_text()
    assert "http://notes.localhost/" in datasheet
    assert "held-out text | bits per byte |" in datasheet


def test_the_config_of_a_release_is_up_to_date_with_its_run(milled, tmp_path):
    milled("export", "--release", str(tmp_path / "release"))
    again = MillCommand(tmp_path / "release" / "config.toml", milled.store)
    assert set(again.statuses().values()) == {"cached"}


def test_a_store_that_was_moved_ends_with_everything_cached(copied, tmp_path):
    copied.store.rename(tmp_path / "elsewhere")
    moved = MillCommand(copied.config, tmp_path / "elsewhere")
    assert f"0 stages ran, {len(STAGES)} cached" in moved("run").stderr
    assert moved("verify", "--full").stdout == ""
    assert moved("generate", "The ", "--max-tokens", "3").stdout.startswith("The ")
    assert moved("trace", "--token", "3").stdout


def test_two_users_with_different_configs_share_a_store(milled, tmp_path):
    """Both at once, from the same snapshots: each ends well, and what both need is made once."""
    store = tmp_path / "store"
    shutil.copytree(milled.store / "snapshots", store / "snapshots")
    other = tmp_path / "other.toml"
    other.write_text(milled.config.read_text().replace("[policy]", "[policy]\nmin_gopher_words = 120"))
    mills = [MillCommand(config, store) for config in (milled.config, other)]
    assert [run.wait(timeout=300) for run in [mill.unwatched() for mill in mills]] == [0, 0]
    for mill in mills:
        assert set(mill.statuses().values()) == {"cached"}
    assert mills[0].digests() == milled.digests()
    rows = [json.loads(line) for path in store.glob("runs/*.jsonl") for line in path.read_text().splitlines()]
    made = [(row["stage"], row["key"]) for row in rows if row["event"] == "stage" and row["status"] == "run"]
    assert len(made) == len(set(made))
    assert not mills[0]("verify", "--full").stdout
    assert not list(Path(store / "aside").glob("*/*"))


@pytest.fixture
def unwritable(copied):
    """A store that nobody may write to, root neither."""
    if os.geteuid() == 0 and shutil.which("setpriv") is None:
        pytest.skip("root may write anywhere, and there is no setpriv to take that from it")
    # Another time of the given file, so that its hash, which the store remembers by that, is to be remembered anew.
    os.utime(copied.config.with_name("modules.jsonl"))
    folders = [copied.store, *(path for path in copied.store.rglob("*") if path.is_dir())]
    for folder in folders:
        folder.chmod(0o555)
    for path in copied.store.glob("locks/*"):
        path.chmod(0o444)
    yield copied
    for folder in folders:
        folder.chmod(0o755)


@pytest.mark.parametrize(
    "command",
    [
        "plan",
        "runs",
        "verify --full",
        "gc --dry-run",
        "trace --token 3",
        "corpus",
        "takedown",
        "generate --max-tokens 2",
    ],
)
def test_looking_at_a_store_that_cannot_be_written_works(unwritable, command):
    powerless = ["setpriv", "--bounding-set=-all", "--inh-caps=-all"] if os.geteuid() == 0 else []
    arguments = [*command.split(), "--store", str(unwritable.store)]
    arguments += ["-c", str(unwritable.config)] if command == "plan" else []
    started = [*powerless, sys.executable, "-m", "flows", *arguments]
    done = subprocess.run(
        started, cwd=ROOT, env=unwritable.environment(), capture_output=True, text=True, timeout=300, check=False
    )
    assert done.returncode == 0, done.stderr
