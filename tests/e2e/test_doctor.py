"""A run that was killed, and what Prefect believes of it until somebody looks."""

import sqlite3
import time
from contextlib import closing

import pytest

pytestmark = pytest.mark.slow


def states(mill, table):
    """How many flow or task runs the embedded Prefect has in each state."""
    with closing(sqlite3.connect(mill.store / "prefect" / "prefect.db")) as database:
        return dict(database.execute(f"select state_type, count(*) from {table} group by state_type"))


def logs(mill, run):
    return list(mill.store.glob(f"runs/*-{run.pid}.jsonl"))


def test_a_killed_run_is_marked_crashed_in_the_embedded_prefect_too(copied):
    run = copied.start("run", "--force", "pretrain")
    while run.poll() is None and not any('{"event": "flow"' in log.read_text() for log in logs(copied, run)):
        time.sleep(0.01)
    run.kill()
    run.communicate()
    assert states(copied, "flow_run") == {"COMPLETED": 1, "RUNNING": 1}
    assert "was killed; marked so" in copied("doctor").stdout
    assert states(copied, "flow_run") == {"COMPLETED": 1, "CRASHED": 1}
    assert "RUNNING" not in states(copied, "task_run")
    assert '"status": "killed"' in logs(copied, run)[0].read_text().splitlines()[-1]
    copied.finish()
