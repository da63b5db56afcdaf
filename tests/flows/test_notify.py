"""Notices: sent to a real receiver on loopback, and harmless where there is none."""

import json

import pytest

from flows import dag
from flows.config import load_config
from flows.display import Display
from flows.notify import NotifyConfig, masked, tell
from flows.plan import Mill
from flows.session import Selection, Session
from pipeline.config import StageFailed
from tests.receiver import receiver


def session_of(little, notify):
    """A run of the corpus that is all cached, with notices."""
    mill = Mill(little.store, load_config(little.config, [f"notify={notify}"]))
    return Session(mill, Selection(mill, until="pack"), 1, Display())


def test_a_run_that_fails_is_told_with_its_sentence_and_the_run(copied):
    with receiver() as (url, received):
        session = session_of(copied, f'{{webhook = "{url}"}}')
        with pytest.raises(StageFailed), session:
            raise StageFailed("The disk is on fire.")
        (notice,) = received
    assert notice["event"] == "failed"
    assert notice["text"] == "gptmill: little failed: The disk is on fire."
    assert (notice["config"], notice["run"]) == ("little", session.log_path.stem)
    assert notice["store"] == str(copied.store.root)


@pytest.mark.parametrize(("promoted", "event"), [(True, "promoted"), (False, "refused")])
def test_what_became_of_the_new_model_is_told_with_the_reason(promoted, event, copied):
    with receiver() as (url, received):
        with session_of(copied, f'{{webhook = "{url}"}}') as session:
            session.start({})
            session.log("promotion", promoted=promoted, reason="bits per byte 1.20 → 1.10")
        (notice,) = received
    assert notice["event"] == event
    assert notice["reason"] == "bits per byte 1.20 → 1.10"
    assert "bits per byte 1.20 → 1.10" in notice["text"]


@pytest.mark.parametrize("on", ["failed", "done"])
def test_a_run_that_is_done_is_told_only_where_that_is_asked_for(on, copied):
    with receiver() as (url, received):
        with session_of(copied, f'{{webhook = "{url}", on = ["{on}"]}}') as session:
            session.start({})
            dag.mill(session.walk, session.mill.config, session.mill)
        assert [notice["event"] for notice in received] == (["done"] if on == "done" else [])


def test_ctrl_c_is_no_failure_to_tell_of(copied):
    with receiver() as (url, received):
        with pytest.raises(KeyboardInterrupt), session_of(copied, f'{{webhook = "{url}"}}'):
            raise KeyboardInterrupt
        assert received == []


@pytest.mark.parametrize("webhook", ["http://127.0.0.1:9/", "http://no.such.host.invalid/", "http://127.0.0.1:x/"])
def test_a_receiver_that_is_not_there_is_a_sentence_and_nothing_more(webhook):
    (problem,) = tell(NotifyConfig(webhook=webhook), "web", event="failed", text="It failed.")
    assert problem.startswith("The notice of failed could not be sent (")


def test_a_receiver_that_refuses_is_a_sentence_and_nothing_more():
    with receiver(status=500) as (url, received):
        (problem,) = tell(NotifyConfig(webhook=url), "web", event="failed", text="It failed.")
    assert "HTTP 500" in problem
    assert len(received) == 1


def test_the_environment_names_a_webhook_that_is_a_secret(monkeypatch):
    with receiver() as (url, received):
        monkeypatch.setenv("GPTMILL_WEBHOOK", url)
        assert tell(NotifyConfig(), "web", event="failed", text="It failed.") == []
    assert received[0]["text"] == "It failed."


def test_a_webhook_that_is_no_url_is_not_shown_with_its_secret(monkeypatch):
    monkeypatch.setenv("GPTMILL_WEBHOOK", "hooks.example.org/services/SECRET")
    (problem,) = tell(NotifyConfig(), "little", event="failed", text="It failed.")
    assert "SECRET" not in problem


@pytest.mark.parametrize(
    "set_so",
    [
        ["--set", "notify.webhook=https://hooks.example.org/SECRET"],
        ["--set=notify.webhook=https://hooks.example.org/SECRET"],
        ["--set", 'notify={ webhook = "https://hooks.example.org/SECRET" }'],
        ["--set", " notify.webhook=https://hooks.example.org/SECRET"],
    ],
)
def test_a_logged_command_line_has_no_webhook(set_so):
    told = masked(["run", *set_so, "--set", "pretrain.lr=0.1"])
    assert "SECRET" not in " ".join(told)
    assert told[-2:] == ["--set", "pretrain.lr=0.1"]


def test_the_settings_in_a_log_have_no_webhook(copied):
    with receiver() as (url, _), session_of(copied, f'{{webhook = "{url}", on = ["done"]}}') as session:
        session.start({})
        told = session.log_path.read_text()
    assert url not in told
    assert json.loads(told.splitlines()[0])["settings"]["notify"] == {"on": ["done"]}
