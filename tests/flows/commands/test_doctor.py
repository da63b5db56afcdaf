"""What killed runs left behind is found and mended, and nothing else is touched."""

import json
import subprocess
import sys
import time

from pipeline.engine import locks


def killed_run(store, name="20260101T000000Z-1"):
    """The log of a run that was killed as it wrote a line."""
    log = store.root / "runs" / f"{name}.jsonl"
    start = {"event": "start", "at": time.time(), "config": "little", "arguments": ["run"], "plan": []}
    log.write_text(json.dumps(start) + '\n{"event": "sta')
    return log


def files(folder):
    return {path: path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def test_a_store_in_order_has_nothing_to_mend(copied):
    before = files(copied.store.root)
    assert copied.command("doctor") == ""
    assert files(copied.store.root) == before


def test_a_killed_run_is_said_to_be_killed(copied):
    log = killed_run(copied.store)
    assert copied.command("doctor") == f"Run {log.stem} was killed; marked so.\n"
    statuses = {run["run"]: run["status"] for run in copied.asked("runs")}
    assert statuses.pop(log.stem) == "killed"
    assert set(statuses.values()) == {"done"}
    assert copied.command("doctor") == ""


def test_a_killed_run_on_a_server_that_is_not_there_is_told_with_that(copied):
    log = killed_run(copied.store)
    flow = {"event": "flow", "at": 2.0, "started": True, "id": "0" * 32, "server": "http://127.0.0.1:9/api"}
    log.write_text(log.read_text().splitlines()[0] + "\n" + json.dumps(flow) + "\n")
    told = (
        f"Run {log.stem} was killed; marked so. http://127.0.0.1:9/api does not answer, and may still say that it runs."
    )
    assert copied.command("doctor") == f"{told}\n"


def test_half_written_files_go_and_whole_ones_stay(copied):
    before = files(copied.store.root)
    half = copied.store.root / "refs" / "little" / ".latest.json.0a1b2c3d"
    half.write_text('{"stages": {')
    assert copied.command("doctor") == "refs/little/.latest.json.0a1b2c3d is half-written; deleted.\n"
    assert files(copied.store.root) == before


def test_a_server_whose_run_is_gone_is_ended(copied):
    home = copied.store.root / "prefect"
    home.mkdir(exist_ok=True)
    command = [sys.executable, "-c", "import time; time.sleep(600)", "prefect.server.api.server:create_app"]
    left = subprocess.Popen(command, cwd=home)
    other = subprocess.Popen(command[:-1], cwd=home)
    try:
        assert copied.command("doctor") == f"Prefect server, process {left.pid}: its run is gone; ended.\n"
        assert left.wait(timeout=30) == -9
        assert other.poll() is None
    finally:
        left.kill()
        other.kill()
        left.wait()
        other.wait()


def test_a_dry_run_tells_the_same_and_changes_nothing(copied):
    killed_run(copied.store)
    (copied.store.root / ".store.json.0a1b2c3d").write_text("{")
    before = files(copied.store.root)
    would = copied.command("doctor", "--dry-run")
    assert files(copied.store.root) == before
    assert copied.command("doctor") == would.replace("would be ", "")


def test_work_that_the_next_run_goes_on_with_stays_and_other_work_goes(copied):
    for name in ("scrape-0", "pretrain-1", "select-2", "ahead-3"):
        (copied.store.root / "work" / name).mkdir(parents=True)
    told = copied.command("doctor").splitlines()
    assert [line.split()[0] for line in told] == ["work/ahead-3", "work/select-2"]
    assert {folder.name for folder in (copied.store.root / "work").iterdir()} == {"scrape-0", "pretrain-1"}


def test_a_store_in_use_is_left_alone(copied):
    killed_run(copied.store)
    before = files(copied.store.root)
    with locks.using_store(copied.store.root):
        assert copied.command("doctor", code=2) == ""
    assert files(copied.store.root) == before


def test_what_else_a_person_keeps_in_the_stores_folder_stays(copied):
    own = [copied.store.root / name for name in (".env.template", ".backup.20250101")]
    for path in own:
        path.write_text("mine")
    assert copied.command("doctor") == ""
    assert all(path.is_file() for path in own)


def test_a_log_cut_within_a_letter_is_read_by_everybody(copied):
    log = killed_run(copied.store)
    log.write_bytes(log.read_bytes() + "ü".encode()[:1])
    assert log.stem in {run["run"] for run in copied.asked("runs")}
    assert copied.command("doctor") == f"Run {log.stem} was killed; marked so.\n"
