"""Kills, interrupts and damage: run again, and the result is what it would have been."""

import json
import os
import shutil
import signal
import subprocess
import time
from pathlib import Path

import pytest

from tests.e2e.conftest import STAGES, MillCommand, kill_group

pytestmark = pytest.mark.slow


def test_a_killed_crawl_ends_with_the_same_pages(milled, tmp_path):
    mill = MillCommand(milled.config, tmp_path / "store")
    run = mill.unwatched()
    while run.poll() is None and not any(path.stat().st_size for path in mill.store.glob("work/scrape-*/state/spool*")):
        time.sleep(0.002)
    kill_group(run)
    assert not list(mill.store.glob("snapshots/*/*"))
    mill.finish()
    assert pages(mill) == pages(milled)


def test_a_run_killed_in_every_stage_in_turn_ends_with_the_same_digests(milled, tmp_path):
    """Run, SIGKILL just as a stage begins, run on, SIGKILL as the next one begins, and so on to the end."""
    mill = MillCommand(milled.config, tmp_path / "store")
    shutil.copytree(milled.store / "snapshots", mill.store / "snapshots")
    for before in STAGES[:-1]:
        run = mill.unwatched(jobs=2)
        while run.poll() is None and not any(row.get("stage") == before for row in logged(mill, run)):
            time.sleep(0.002)
        kill_group(run)
    mill.finish(jobs=2)
    assert set(mill.statuses().values()) == {"cached"}
    assert mill.digests() == milled.digests()
    assert list((mill.store / "work").iterdir()) == []
    assert mill("verify", "--full").stdout == ""


def logged(mill, run):
    """What a run still at work has logged so far."""
    paths = list((mill.store / "runs").glob(f"*-{run.pid}.jsonl"))
    lines = paths[0].read_text().splitlines(keepends=True) if paths else []
    return [json.loads(line) for line in lines if line.endswith("\n")]


def pages(mill):
    """(URL, status, payload digest) of everything that the snapshots hold."""
    from pipeline.documents import read_table

    rows = set()
    for path in mill.store.glob("snapshots/*/0000/urls.arrow"):
        table = read_table(path, ["url", "status", "payload_digest"])
        rows |= set(zip(*(table[name].to_pylist() for name in table.column_names), strict=True))
    return rows


@pytest.mark.parametrize("before", ["scrape", "pack"])
def test_ctrl_c_ends_a_run_soon_with_one_sentence_and_nobody_left(before, milled, tmp_path):
    """As a terminal sends it: to the whole process group."""
    mill = MillCommand(milled.config, tmp_path / "store")
    shutil.copytree(milled.store / "snapshots", mill.store / "snapshots")
    run = mill.start("run", "--jobs", "2")
    while run.poll() is None and not any(row.get("stage") == before for row in logged(mill, run)):
        time.sleep(0.002)
    os.killpg(run.pid, signal.SIGINT)
    told = run.communicate(timeout=20)[1]
    assert run.returncode == 130
    assert "Traceback" not in told
    assert told.strip().splitlines()[-1].startswith("gptmill: ")
    deadline = time.monotonic() + 10
    while subprocess.run(["pgrep", "-g", str(run.pid)], capture_output=True, check=False).stdout or servers_of(mill):
        assert time.monotonic() < deadline, "somebody outlived the run"
        time.sleep(0.05)
    mill.finish()
    assert mill.digests() == milled.digests()


def servers_of(mill):
    """Processes that run in the store's Prefect folder, as its embedded server does."""
    folders = []
    for place in Path("/proc").glob("[0-9]*/cwd"):
        try:
            folders.append(place.readlink())
        except OSError:  # gone, or not ours
            continue
    return [folder for folder in folders if folder == mill.store / "prefect"]


def test_a_killed_run_leaves_no_server_behind(milled, tmp_path):
    mill = MillCommand(milled.config, tmp_path / "store")
    shutil.copytree(milled.store / "snapshots", mill.store / "snapshots")
    run = mill.start("run")
    while run.poll() is None and not any(row["event"] == "stage" for row in logged(mill, run)):
        time.sleep(0.01)
    assert servers_of(mill)
    run.kill()
    run.communicate()
    deadline = time.monotonic() + 10
    while servers_of(mill):
        assert time.monotonic() < deadline
        time.sleep(0.05)


def test_training_killed_after_a_checkpoint_resumes_and_gives_the_same_model(milled, tmp_path):
    mill = milled.copy(tmp_path)
    for stage in ("pretrain", "evaluate", "report"):
        shutil.rmtree(mill.store / "artifacts" / stage)
    run = mill.unwatched()
    while run.poll() is None and not list(mill.store.glob("work/pretrain-*/state/**/state.json")):
        time.sleep(0.001)
    assert run.poll() is None
    kill_group(run)
    mill.finish()
    assert mill.plan()["pretrain"]["digest"] == milled.plan()["pretrain"]["digest"]


@pytest.mark.parametrize(
    ("stage", "damage"),
    [
        ("extract", "deleted"),
        ("select", "truncated"),
        ("quality", "flipped"),
        ("tokenizer", "flipped"),
        ("pack", "flipped"),
    ],
)
def test_a_damaged_file_is_named_and_only_it_is_made_again(stage, damage, milled, tmp_path):
    mill = milled.copy(tmp_path)
    digests = milled.digests()
    files = mill.manifest(stage)["files"]
    name = max(files, key=lambda each: files[each]["size"])
    path = mill.store / files[name]["at"]
    if damage == "deleted":
        path.unlink()
    elif damage == "truncated":
        path.write_bytes(path.read_bytes()[:-1])
    else:
        content = bytearray(path.read_bytes())
        content[len(content) // 2] ^= 1
        path.write_bytes(content)
        told = mill("verify", "--full", code=1).stdout
        assert f"{files[name]['at']}: corrupt (put aside)" in told
    decision = mill.plan()[stage]
    assert decision["status"] == "run"
    assert decision["reasons"][0].startswith(name.split("/")[0])
    mill.finish()
    events = {row["stage"]: row["status"] for row in mill.log() if row["event"] == "stage"}
    assert events == {each: "run" if each == stage else "cached" for each in STAGES}
    assert mill.digests() == digests
    assert mill("verify", "--full").stdout == ""


def test_a_damaged_snapshot_is_an_error_and_never_rebuilt(copied):
    part = next(copied.store.glob("snapshots/*/0000/part-00000/pages.warc.gz"))
    part.write_bytes(part.read_bytes()[:-1])
    for command in ("plan", "run"):
        told = copied(command, code=2).stderr
        assert "A snapshot is never rebuilt" in told
        assert str(part) in told


def test_a_snapshot_with_an_unreadable_manifest_is_an_error_too(copied):
    manifest = next(copied.store.glob("snapshots/*/0000/manifest.json"))
    manifest.write_text("{")
    for command in ("plan", "run"):
        told = copied(command, code=2).stderr
        assert "its manifest is missing or unreadable. A snapshot is never rebuilt" in told
        assert str(manifest.parent) in told
    assert manifest.read_text() == "{"
