"""Cron's notation, and the schedules that others keep."""

import shlex
import shutil
import subprocess
from pathlib import Path

import pytest

from flows import cli
from flows.schedule.cron import allowed_values
from flows.schedule.timers import cron_line, on_calendar, systemd_units
from pipeline.config import BadInput

COMMAND = ["/opt/mill/gptmill", "refresh", "--config", "/etc/my mill/50%.toml"]
FOLDER, CONFIG = Path("/srv/my mill"), Path("/etc/my mill/50%.toml")


def test_lists_ranges_steps_and_names_are_values():
    assert allowed_values("*/20 3 1-10/4,31 jan-MAR 6,sun") == [[0, 20, 40], [3], [1, 5, 9, 31], [1, 2, 3], [0, 6]]
    assert allowed_values("5/25 * * * 7 10") == [[5, 30, 55], None, None, None, [7], [10]]


@pytest.mark.parametrize(
    ("cron", "told"),
    [
        ("0 3 * *", "has 4 fields"),
        ("", "has 0 fields"),
        ("61 3 * * 1", "the minute cannot be 61; it takes numbers from 0 to 59"),
        ("0 3 * * mond", "the day of the week cannot be mond"),
        ("0 5-3 * * 1", "the hour cannot be 5-3"),
        ("*/0 3 * * 1", "the minute cannot be */0"),
        ("0 3 L * *", "the day of the month cannot be L"),
        ("0 3 1,,2 * *", "the day of the month cannot be 1,,2"),
    ],
)
def test_what_is_no_cron_expression_is_told_in_one_sentence(cron, told, capfd):
    with pytest.raises(BadInput) as caught:
        allowed_values(cron)
    assert told in str(caught.value)
    assert cli.main(["schedule", "--cron", cron]) == 2
    assert told in capfd.readouterr().err


def test_a_timezone_that_nobody_knows_is_told_in_one_sentence(capfd):
    assert cli.main(["schedule", "--cron", "0 3 * * 1", "--timezone", "Mars/Base"]) == 2
    assert (
        capfd.readouterr().err == "gptmill: --timezone Mars/Base is not known here: give a name as in Europe/Berlin.\n"
    )


def test_a_server_that_is_not_there_is_told_in_one_sentence(monkeypatch, tmp_path, capfd):
    monkeypatch.setenv("PREFECT_API_URL", "http://127.0.0.1:9/api")
    assert cli.main(["schedule", "--cron", "0 3 * * 1", "--store", str(tmp_path)]) == 2
    assert "PREFECT_API_URL http://127.0.0.1:9/api cannot be reached" in capfd.readouterr().err


def test_the_cron_line_runs_the_very_command_and_one_at_a_time(tmp_path):
    """Cron turns \\% into %, and gives the rest to a shell."""
    (tmp_path / "a b%.toml").write_text("")
    write = [shutil.which("python3"), "-c", "import os, sys; print(os.getcwd(), *sys.argv[1:])", "a b", "50%", "$HOME"]
    line = cron_line("0 3 * * 1", None, write, tmp_path, tmp_path / "a b%.toml")
    assert line.startswith("0 3 * * 1 ")
    assert line.count("%") == line.count("\\%") > 0
    does = line.removeprefix("0 3 * * 1 ").replace("\\%", "%")
    done = subprocess.run(["sh", "-c", does], capture_output=True, text=True, check=True)
    assert done.stdout == f"{tmp_path} a b 50% $HOME\n"
    nested = does.replace(shlex.join(write), shlex.join(["sh", "-c", does]))
    assert subprocess.run(["sh", "-c", nested], capture_output=True, check=False).returncode != 0


@pytest.mark.parametrize(
    ("cron", "times"),
    [
        ("0 3 * * 1", ["Mon *-*-* 03:00:00"]),
        ("*/30 * * * *", ["*-*-* *:00,30:00"]),
        ("15 4 1,15 * *", ["*-*-01,15 04:15:00"]),
        ("0 0 1 jan-mar 0,7", ["*-01,02,03-01 00:00:00", "Sun *-01,02,03-* 00:00:00"]),
    ],
)
def test_systemd_gets_the_same_times_in_its_own_notation(cron, times):
    assert on_calendar(cron) == times
    if shutil.which("systemd-analyze"):
        for time in times:
            subprocess.run(["systemd-analyze", "calendar", time], capture_output=True, check=True)


def test_the_systemd_units_are_what_systemd_takes(tmp_path):
    command = [shutil.which("true"), *COMMAND[1:], "$HOME"]
    script = systemd_units("0 3 * * 1", "Europe/Berlin", command, Path("/tmp"), "web", catch_up=True)
    tools = tmp_path / "bin"
    tools.mkdir()
    for name in ("systemctl", "loginctl"):
        (tools / name).write_text(f'#!/bin/sh\necho {name} "$@" >>"$HOME/called"\n')
        (tools / name).chmod(0o755)
    environment = {"HOME": str(tmp_path), "PATH": f"{tools}:/usr/bin:/bin"}
    subprocess.run(["sh", "-e"], input=script, env=environment, text=True, check=True)
    units = tmp_path / ".config/systemd/user"
    assert "OnCalendar=Mon *-*-* 03:00:00 Europe/Berlin\nPersistent=true\n" in (units / "gptmill-web.timer").read_text()
    told = f'ExecStart={command[0]} refresh --config "/etc/my mill/50%%.toml" "$$HOME"\n'
    assert told in (units / "gptmill-web.service").read_text()
    assert "systemctl --user enable --now gptmill-web.timer" in (tmp_path / "called").read_text()
    if shutil.which("systemd-analyze"):
        verify = ["systemd-analyze", "verify", str(units / "gptmill-web.service"), str(units / "gptmill-web.timer")]
        done = subprocess.run(verify, capture_output=True, text=True, check=False)
        assert "gptmill-web" not in done.stderr


def test_skip_leaves_missed_runs_to_nobody():
    assert "Persistent=false\n" in systemd_units("0 3 * * 1", None, COMMAND, FOLDER, "web", catch_up=False)


def test_seconds_are_refused_where_others_keep_the_schedule():
    with pytest.raises(BadInput, match="five fields"):
        cron_line("0 3 * * 1 30", None, COMMAND, FOLDER, CONFIG)
