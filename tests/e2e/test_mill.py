"""The whole mill, run for real: everything once, nothing twice, and after a change only what depends on it."""

import json
import os
import shutil
import signal
import sqlite3
import subprocess
import sys
import time
from pathlib import Path

import pytest

from tests.e2e.conftest import MADE_FROM_SNAPSHOT, ROOT, STAGES, MillCommand, kill_group

pytestmark = pytest.mark.slow


def test_the_first_run_runs_every_stage_and_ends_with_a_report(milled):
    report = Path(milled.first_run.stdout.strip())
    assert report.name == "report.html"
    page = report.read_text()
    assert "http://" not in page.split("<body")[0]
    events = [row for row in milled.log() if row["event"] == "stage"]
    assert [event["stage"] for event in events] == list(STAGES)
    assert {event["status"] for event in events} == {"run"}
    assert f"{len(STAGES)} stages ran, 0 cached." in milled.first_run.stderr


def test_results_go_to_stdout_and_everything_else_to_stderr(milled):
    assert len(milled.first_run.stdout.splitlines()) == 1
    assert "Traceback" not in milled.first_run.stderr


def test_the_second_run_does_nothing_and_never_imports_prefect(milled):
    code = (
        "import sys; from flows.cli import main; "
        f"code = main(['run', '-c', {str(milled.config)!r}, '--store', {str(milled.store)!r}]); "
        "sys.exit(code or ('prefect' in sys.modules) * 9)"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=ROOT, env=milled.environment(), capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    assert f"0 stages ran, {len(STAGES)} cached." in done.stderr


def test_the_plan_has_the_fields_that_scripts_rely_on(milled):
    decisions = json.loads(milled("plan", "--json").stdout)
    assert [decision["stage"] for decision in decisions] == list(STAGES)
    for decision in decisions:
        assert set(decision) == {"stage", "status", "reasons", "key", "digest", "path"}
        assert decision["status"] == "cached"
        assert decision["reasons"] == []
        assert Path(decision["path"]).exists()


def test_prefect_keeps_a_flow_run_with_a_task_run_and_an_artifact_for_every_stage(copied):
    """A second run under Prefect: what is up to date ends as `Cached`, and its report is there all the same."""
    copied("run", "--force", "report")
    with sqlite3.connect(copied.store / "prefect" / "prefect.db") as database:
        flows = database.execute("select id, state_type from flow_run order by created").fetchall()
        states = dict(
            database.execute("select name, state_name from task_run where flow_run_id = ?", flows[-1][:1]).fetchall()
        )
        reports = {key for (key,) in database.execute("select key from artifact where flow_run_id = ?", flows[-1][:1])}
    assert [state for _, state in flows] == ["COMPLETED", "COMPLETED"]
    assert states == {stage: "Completed" if stage == "report" else "Cached" for stage in STAGES}
    assert reports == set(STAGES)


def test_a_changed_training_setting_touches_only_training_and_what_follows(milled):
    plan = milled.plan("--set", "pretrain.lr=0.004")
    assert plan["pretrain"]["reasons"] == ["pretrain.lr 0.008 → 0.004"]
    statuses = {stage: decision["status"] for stage, decision in plan.items()}
    changed = {"pretrain": "run", "evaluate": "unknown", "report": "unknown"}
    assert statuses == {stage: changed.get(stage, "cached") for stage in STAGES}
    assert plan["evaluate"]["digest"] is None
    assert plan["evaluate"]["key"] is None


def test_a_changed_cut_off_leaves_everything_that_is_blind_to_policy(milled):
    plan = milled.plan("--set", "policy.min_gopher_words=60")
    assert plan["select"]["reasons"] == ["policy.min_gopher_words 50 → 60"]
    kept = {stage for stage, decision in plan.items() if decision["status"] == "cached"}
    blind = {"scrape", "extract", "language", "quality", "signatures", "contamination", "tokenizer", "tokenize"}
    assert kept == blind


def test_execution_settings_change_nothing(milled):
    settings = ("--set", "pretrain.threads=2", "--set", "scrape.sources.0.delay_s=3.0")
    assert set(milled.statuses(*settings).values()) == {"cached"}


@pytest.fixture
def project(copied, tmp_path):
    """The project's code in a folder of its own, to be edited, with a copy of the store."""
    for package in ("flows", "model", "pipeline"):
        shutil.copytree(ROOT / package, tmp_path / "code" / package, ignore=shutil.ignore_patterns("__pycache__"))
    shutil.copytree(ROOT / "data" / "demo", tmp_path / "code" / "data" / "demo")
    return MillCommand(copied.config, copied.store, tmp_path / "code")


def edit(project, file, old, new):
    path = project.root / file
    source = path.read_text()
    assert source.count(old) >= 1, f"{file} has no {old!r}"
    path.write_text(source.replace(old, new, 1))


def test_a_comment_changes_nothing(project):
    path = project.root / "pipeline" / "quality.py"
    path.write_text(path.read_text().replace("\ndef quality(", "\n# A comment.\ndef quality(") + "\n# Another.\n")
    assert set(project.statuses().values()) == {"cached"}


def test_edited_logic_is_named_by_file_and_function_and_the_same_bytes_stop_there(project):
    edit(project, "pipeline/tokenize.py", "BATCH_TEXTS = 256", "BATCH_TEXTS = 255")
    plan = project.plan()
    assert plan["tokenize"]["reasons"] == ["code pipeline/tokenize.py BATCH_TEXTS"]
    project.finish()
    events = {row["stage"]: row["status"] for row in project.log() if row["event"] == "stage"}
    assert events == {stage: "run" if stage == "tokenize" else "cached" for stage in STAGES}


def test_accepted_code_needs_no_run(project):
    edit(project, "pipeline/tokenize.py", "BATCH_TEXTS = 256", "BATCH_TEXTS = 255")
    project("accept", "tokenize")
    assert set(project.statuses().values()) == {"cached"}


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


@pytest.mark.parametrize("before", ["scrape", "extract", "pack"])
def test_ctrl_c_ends_a_run_soon_with_one_sentence_and_nobody_left(before, milled, tmp_path):
    """As a terminal sends it: to the whole process group."""
    mill = MillCommand(milled.config, tmp_path / "store")
    shutil.copytree(milled.store / "snapshots", mill.store / "snapshots")
    run = mill.start("run", "--jobs", "2")
    while run.poll() is None and not any(row.get("stage") == before for row in logged(mill, run)):
        time.sleep(0.002)
    os.killpg(run.pid, signal.SIGINT)
    told = run.communicate(timeout=20)[1]
    assert run.returncode in {1, 130}
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


def test_jobs_and_stores_do_not_change_a_digest(milled, tmp_path):
    for jobs in (1, 2):
        mill = MillCommand(milled.config, tmp_path / f"store-{jobs}")
        shutil.copytree(milled.store / "snapshots", mill.store / "snapshots")
        mill.finish(jobs=jobs)
        assert mill.digests() == milled.digests()


def test_of_two_runs_at_once_one_works_and_both_end_well(milled, tmp_path):
    mill = MillCommand(milled.config, tmp_path / "store")
    shutil.copytree(milled.store / "snapshots", mill.store / "snapshots")
    runs = [mill.unwatched(), mill.unwatched()]
    assert [run.wait(timeout=300) for run in runs] == [0, 0]
    logs = [json.loads(line) for path in (mill.store / "runs").iterdir() for line in path.read_text().splitlines()]
    worked = [row["stage"] for row in logs if row["event"] == "stage" and row["status"] == "run"]
    assert sorted(worked) == sorted(set(worked) - {"scrape"})


@pytest.mark.parametrize(
    ("stage", "damage"),
    [
        ("extract", "deleted"),
        ("select", "truncated"),
        ("pack", "deleted"),
        *((s, "flipped") for s in MADE_FROM_SNAPSHOT),
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


def test_a_report_shows_the_settings_that_its_run_had(copied):
    """Though the documents selected are the same ones, and so their digest."""
    done = copied("run", "--set", "policy.max_gopher_words=99999")
    assert "2 stages ran" in done.stderr
    assert "99999" in Path(done.stdout.strip()).read_text()


def test_only_runs_one_stage_and_refuses_a_stale_upstream(copied):
    copied("run", "--only", "select", "--set", "policy.min_gopher_words=60")
    log = [row["stage"] for row in copied.log() if row["event"] == "stage" and row["status"] == "run"]
    assert log == ["select"]
    told = copied("run", "--only", "pack", "--set", "policy.min_gopher_words=70", code=2).stderr
    assert "--only pack cannot run: select before it is not up to date (policy.min_gopher_words 60 → 70)" in told


def test_until_stops_after_a_stage(milled, tmp_path):
    mill = MillCommand(milled.config, tmp_path / "store")
    shutil.copytree(milled.store / "snapshots", mill.store / "snapshots")
    mill("run", "--until", "language")
    assert [row["stage"] for row in mill.log() if row["event"] == "stage"] == ["scrape", "extract", "language"]


def test_a_forced_crawl_adds_a_snapshot_and_unchanged_pages_change_nothing_downstream(copied):
    copied("run", "--force", "scrape", "--until", "extract")
    assert len(list(copied.store.glob("snapshots/*/0001/manifest.json"))) == 2


def test_generate_streams_from_the_newest_model_and_a_seed_repeats_it(milled):
    texts = {milled("generate", "The ", "--seed", "3", "--max-tokens", "12").stdout for _ in range(2)}
    assert len(texts) == 1
    assert texts.pop().startswith("The ")


def test_gc_deletes_only_what_the_latest_run_does_not_need(copied):
    copied("run", "--only", "select", "--set", "policy.min_gopher_words=60")
    told = copied("gc", "--dry-run")
    copied("run")
    would = copied("gc", "--dry-run").stdout
    assert copied("gc").stdout == would
    assert "select" in would
    assert told.returncode == 0
    assert set(copied.statuses().values()) == {"cached"}
    assert copied("gc").stdout == ""


def test_gc_refuses_while_a_run_uses_the_store(milled, tmp_path):
    mill = MillCommand(milled.config, tmp_path / "store")
    shutil.copytree(milled.store / "snapshots", mill.store / "snapshots")
    run = mill.unwatched()
    while not (mill.store / "locks" / "store.lock").exists() or not mill.log():
        time.sleep(0.01)
    assert "A run is using the store" in mill("gc", code=2).stderr
    run.send_signal(signal.SIGKILL)
    run.wait()
