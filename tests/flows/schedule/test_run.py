"""What a schedule starts is what the command line takes."""

from pathlib import Path

import pytest
from pydantic import ValidationError

from flows import cli
from flows.commands import refresh
from flows.schedule.run import Parameters, command, gptmill
from flows.schedule.scheduler import _reason


def parsed(**parameters):
    """The options that the command line reads out of a scheduled command."""
    words = command(Parameters(config="/etc/web.toml", **parameters), Path("/srv/store"))
    assert words[: len(gptmill())] == gptmill()
    return cli.parser().parse_args(words[len(gptmill()) :])


def test_by_default_it_is_a_refresh():
    options = parsed(settings=["pretrain.lr=0.001", "pretrain.steps=5"])
    assert (options.config, options.store) == (Path("/etc/web.toml"), Path("/srv/store"))
    assert options.settings == ["pretrain.lr=0.001", "pretrain.steps=5"]
    assert (options.command, options.start) == (refresh.run, None)
    assert parsed(start="continue").start == "continue"


def test_a_webhook_on_the_command_line_is_refused_before_prefect_shows_it(little, capsys):
    where = ["--config", str(little.config), "--cron", "0 3 * * 1", "--print", "cron"]
    setting = 'notify={webhook = "https://hooks.example.org/SECRET"}'
    little.command("schedule", *where, "--set", setting, code=2)
    assert "SECRET" not in capsys.readouterr().err


def test_a_form_that_names_stages_runs_just_these():
    options = parsed(force="nothing", until="pack", jobs=3)
    assert (options.force, options.until, options.jobs) == (None, "pack", 3)
    assert parsed(force="extract").force == "extract"


def test_a_form_with_a_key_that_there_is_not_is_refused():
    with pytest.raises(ValidationError, match="lr"):
        parsed(lr=0.1)


@pytest.mark.parametrize("setting", ["notify.webhook=https://hooks.example.org/SECRET", "notify=SECRET"])
def test_a_form_that_holds_a_webhook_is_refused_without_showing_it(setting):
    with pytest.raises(ValidationError) as caught:
        parsed(settings=[setting])
    assert "would show the webhook" in (told := _reason(caught.value))
    assert "SECRET" not in told
