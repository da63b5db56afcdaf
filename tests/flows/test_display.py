"""What a person sees: a pace that is one, and a line now and then where there is no terminal."""

import pytest

from flows import display
from flows.display import Display, Pace, QuietBar


@pytest.fixture
def clock(monkeypatch):
    """A clock that stands still until it is set."""

    class Clock:
        now = 0.0

    monkeypatch.setattr(display.time, "monotonic", lambda: Clock.now)
    return Clock


def test_what_was_done_before_and_the_time_to_set_up_are_no_pace(clock):
    pace = Pace()
    assert pace.seconds_each(400) is None  # resumed at 400
    clock.now = 30.0
    assert pace.seconds_each(401) is None  # after half a minute of compiling
    clock.now = 31.0
    assert pace.seconds_each(411) == pytest.approx(0.1)


def test_a_slow_pace_is_told_in_seconds_a_fast_one_in_units():
    assert Pace.words(0.1) == " · 10.0/s"
    assert Pace.words(4.0) == " · 4.0 s each"
    assert Pace.words(None) == ""


def test_text_from_outside_is_one_line_that_steers_no_terminal():
    assert display.printable("a\n\tb\x1b[31mred\x07\u202e") == "a  b\ufffd[31mred\ufffd\ufffd"


def test_without_a_terminal_progress_is_a_line_now_and_then(clock, capsys):
    bar = QuietBar(Display(), "pretrain")
    for step in range(100):
        clock.now = float(step)
        bar(step, 200, "loss 2.31")
    lines = capsys.readouterr().err.splitlines()
    assert len(lines) == 6
    assert lines[-1].split("pretrain")[1].strip() == "90 of 200 loss 2.31 · 1.0/s, 110 s left"
