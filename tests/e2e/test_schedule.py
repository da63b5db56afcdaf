"""A real server, real ticks of cron seconds apart, and everything killed that can be."""

import os
import shutil
import signal
import subprocess
import urllib.error
from datetime import timedelta

import pytest

from tests.e2e.conftest import MillCommand
from tests.e2e.scheduled import Schedule, until
from tests.receiver import receiver

pytestmark = pytest.mark.slow

EVERY_THREE_SECONDS = "* * * * * */3"
SELDOM = "0 3 29 2 *"
NOTHING_NEW = {"force": "nothing"}
ONE_STAGE = {"force": "nothing", "until": "scrape"}


@pytest.fixture(scope="module")
def idle(milled, tmp_path_factory):
    """A schedule with a server of its own, on which nothing falls due but what a test asks for."""
    folder = tmp_path_factory.mktemp("idle")
    schedule = Schedule(milled.copy(folder), folder, "--cron", SELDOM)
    schedule.deployment()  # its server is there
    yield schedule
    schedule.stop(signal.SIGKILL)


def test_a_person_sees_the_graph_the_cached_badges_and_the_reports(idle, tmp_path):
    run = idle.ask(**NOTHING_NEW)
    assert idle.ends(run) == ("COMPLETED", "")
    until(lambda: list(idle.tasks(run).values()).count("Cached") == 14, idle.said)
    browser = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
    if browser is None:
        pytest.skip("no Chromium is installed here")
    page = f"{idle.url.removesuffix('/api')}/v2/runs/flow-run/{run}"

    def seen(tab):
        command = [browser, "--headless=new", "--no-sandbox", "--disable-gpu", f"--user-data-dir={tmp_path}"]
        more = ["--virtual-time-budget=15000", "--dump-dom", f"{page}?tab={tab}"]
        return subprocess.run([*command, *more], capture_output=True, text=True, timeout=120, check=True).stdout

    def shows(tab, *words):
        """A page may take longer on a busy machine: a person would wait, and so does this."""
        return until(lambda: all(map(seen(tab).__contains__, words)), lambda: seen(tab))

    assert shows("TaskRuns", "<canvas", "14 Task runs", ">Cached<", ">deduplicate<", ">tokenizer<")
    assert shows("Artifacts", ">report<", ">pretrain<", ">select<")


def test_what_the_form_cannot_mean_is_refused_before_it_runs(idle):
    for parameters in ({"until": "nowhere"}, {"jobs": -1}, {"lr": 0.1}):
        with pytest.raises(urllib.error.HTTPError) as caught:
            idle.ask(**parameters)
        assert caught.value.code == 409
    assert idle.ends(idle.ask(config="/nowhere.toml"))[0] == "FAILED"
    idle.hears(r"cannot start: The config /nowhere\.toml cannot be read")


def test_a_webhook_that_is_no_url_is_shown_neither_in_prefect_nor_in_what_the_schedule_says(idle, tmp_path):
    (tmp_path / "wrong.toml").write_text(
        '[notify]\nwebhook = "hooks.example.org/SECRET"\n' + idle.mill.config.read_text()
    )
    state, why = idle.ends(idle.ask(config=str(tmp_path / "wrong.toml")))
    assert state == "FAILED"
    assert "notify.webhook: it should match" in why
    assert "SECRET" not in why + idle.said()


def test_after_an_outage_only_the_latest_run_is_caught_up_on(idle):
    missed = [idle.ask(ago=timedelta(days=days), **ONE_STAGE) for days in (3, 2, 1)]
    assert [idle.ends(run)[0] for run in missed] == ["CANCELLED", "CANCELLED", "COMPLETED"]
    assert "the latest is caught up on" in idle.said()


def test_a_server_that_is_killed_is_started_again_under_its_run(idle):
    run = idle.ask(force="extract")
    until(lambda: idle.tasks(run), idle.said)
    os.kill(idle.server(), signal.SIGKILL)
    idle.hears("The server had died and was started again")
    assert idle.ends(run) == ("COMPLETED", "")


def test_a_run_that_is_cancelled_ends_and_its_children_with_it(idle):
    run = idle.ask(force="evaluate")
    until(lambda: idle.state(run)[0] == "RUNNING", idle.said)
    idle.post(f"/flow_runs/{run}/set_state", state={"type": "CANCELLING", "name": "Cancelling"})
    idle.hears("ended: it was cancelled")
    last = ("CANCELLED", "It was cancelled; the next run goes on there.")
    until(lambda: idle.state(run) == last, lambda: str(idle.state(run)))
    assert subprocess.run(["pgrep", "-g", str(idle.child())], capture_output=True, check=False).stdout == b""


def test_a_run_that_was_cancelled_before_it_could_begin_ends_as_an_interrupted_one(idle, copied, monkeypatch):
    flow = idle.post("/flows/filter", flows={"name": {"any_": ["gptmill"]}})[0]["id"]
    run = idle.post("/flow_runs/", flow_id=flow, state={"type": "PENDING"})["id"]
    idle.post(f"/flow_runs/{run}/set_state", state={"type": "CANCELLING", "name": "Cancelling"})
    monkeypatch.setenv("PREFECT_API_URL", idle.url)
    monkeypatch.setenv("GPTMILL_FLOW_RUN", run)
    told = copied("run", code=130).stderr
    assert told.endswith("gptmill: interrupted; what is done is kept.\n")
    assert "Traceback" not in told


def named(name, milled, folder, more=""):
    """The milled config under another name, with a store of its own."""
    (folder / f"{name}.toml").write_text(milled.config.read_text() + more)
    return MillCommand(folder / f"{name}.toml", milled.copy(folder).store)


def test_a_schedule_whose_process_was_killed_marks_its_run_crashed_when_it_comes_back(idle, milled, tmp_path):
    """Without its schedule a run ends too: the kernel sees to it."""
    schedule = Schedule(named("mortal", milled, tmp_path), tmp_path, "--cron", SELDOM, url=idle.url)
    run = schedule.ask(force="evaluate")
    until(lambda: schedule.state(run)[0] == "RUNNING", schedule.said)
    schedule.stop(signal.SIGKILL)
    assert schedule.state(run)[0] == "RUNNING"
    again = Schedule(schedule.mill, tmp_path, "--cron", SELDOM, url=idle.url)
    again.hears("was left running by a process that is gone: it is marked crashed")
    assert again.ends(run)[0] == "CRASHED"
    assert again.stop(signal.SIGTERM) == 0


def test_a_schedule_that_is_paused_in_the_ui_says_so_and_one_that_is_deleted_ends(idle, milled, tmp_path):
    schedule = Schedule(named("unwanted", milled, tmp_path), tmp_path, "--cron", SELDOM, url=idle.url)
    schedule.post(f"/deployments/{schedule.deployment()}/pause_deployment")
    schedule.hears("The schedule is paused on the server: nothing is due")
    schedule.post(f"/deployments/{schedule.deployment()}", method="DELETE")
    assert schedule.process.wait(timeout=60) == 1
    assert schedule.said().endswith("gptmill: The schedule was deleted on the server: nothing more would ever run.\n")


@pytest.fixture(scope="module")
def webhook():
    """A receiver's address, and the notices that it got."""
    with receiver() as it:
        yield it


@pytest.fixture(scope="module")
def ticking(idle, milled, webhook, tmp_path_factory):
    """Another config's schedule on the same server, which ticks every three seconds."""
    folder = tmp_path_factory.mktemp("ticking")
    mill = named("ticking", milled, folder, f'\n[notify]\nwebhook = "{webhook[0]}"\n')
    schedule = Schedule(mill, folder, "--cron", EVERY_THREE_SECONDS, "--catchup", "skip", url=idle.url)
    yield schedule
    schedule.stop(signal.SIGKILL)


def test_a_tick_starts_a_run_and_later_ticks_are_skipped_until_it_ends(ticking):
    ticking.hears(r"starts, as process \d+")
    ticking.hears(r"is skipped: that of .* is still at work")
    skipped = ticking.runs("CANCELLED")
    assert all(run["state"]["message"].startswith("Skipped: the run of ") for run in skipped)
    assert len(ticking.runs("PENDING", "RUNNING")) == 1


def test_a_killed_run_is_marked_crashed_with_its_tasks_and_the_next_one_goes_on(ticking, webhook):
    run, child = until(lambda: held_in_a_task(ticking), ticking.said)
    started = ticking.said().count("starts, as process")
    os.kill(child, signal.SIGKILL)
    ticking.hears(r"was killed after .* \(signal 9\)\. The next one goes on there\.")
    assert ticking.ends(run)[0] == "CRASHED"
    assert "Running" not in ticking.tasks(run).values()
    assert [notice["config"] for notice in webhook[1] if notice["event"] == "crashed"] == ["ticking"]
    ticking.hears(r"starts, as process \d+", times=started + 1)


def held_in_a_task(schedule):
    """The run at work and its process, stopped while one of its tasks runs; None where there is none now."""
    for run in schedule.runs("RUNNING"):
        child = schedule.child()
        try:
            os.kill(child, signal.SIGSTOP)
        except ProcessLookupError:
            return None
        if "Running" in schedule.tasks(run["id"]).values():
            return run["id"], child
        os.kill(child, signal.SIGCONT)
    return None


def test_skip_catches_up_on_nothing(ticking):
    state, why = ticking.ends(ticking.ask(ago=timedelta(days=1), **ONE_STAGE))
    assert (state, why) == ("CANCELLED", "Skipped: it was missed, and is not caught up on.")


def test_two_schedules_of_one_config_are_refused(ticking):
    told = ticking.mill("schedule", "-c", str(ticking.mill.config), "--cron", SELDOM, code=2)
    assert "A schedule of ticking is running on the store" in told.stderr


def test_sigterm_ends_the_schedule_its_server_and_its_run_and_leaves_nobody_behind(copied, tmp_path):
    schedule = Schedule(copied, tmp_path, "--cron", SELDOM)
    schedule.ask(force="evaluate")
    schedule.hears(r"starts, as process \d+")
    assert schedule.stop(signal.SIGTERM) == 0
    assert "it was stopped together with the schedule" in schedule.said()
    assert schedule.said().strip().splitlines()[-1].startswith("The schedule has ended")
    assert "Traceback" not in schedule.said()
