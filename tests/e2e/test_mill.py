"""The whole mill, run for real: everything once, nothing twice, and after a change only what depends on it."""

import json
import shutil
import signal
import sqlite3
import subprocess
import sys
import time
from pathlib import Path

import pytest

from tests.e2e.conftest import ROOT, STAGES, MillCommand

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


def test_the_report_shows_every_kind_of_evaluation(milled):
    head, evaluation = Path(milled.first_run.stdout.strip()).read_text().split('<section id="evaluation">')
    assert "a 5-gram model" in head
    for shown in ("eval.jsonl", "pairs.jsonl", "Memorisation", "held out", "by host"):
        assert shown in evaluation


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
        known = {"stage", "status", "reasons", "key", "digest", "path"}
        assert set(decision) == known | {"estimated_seconds", "estimate_is_upper"}
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
