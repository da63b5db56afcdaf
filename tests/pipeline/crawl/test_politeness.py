"""Taking turns at a host, with a clock of the test's own."""

import asyncio
import time
from email.utils import formatdate

import pytest

from pipeline.crawl import politeness
from pipeline.crawl.politeness import MAX_FAILURES, MAX_REFUSALS, Lane, retry_after_seconds


class Clock:
    """A clock that sleeping moves on."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.now = 100.0
        monkeypatch.setattr(politeness.time, "monotonic", lambda: self.now)
        monkeypatch.setattr(politeness.asyncio, "sleep", self.sleep)

    async def sleep(self, seconds: float) -> None:
        self.now += seconds

    def turns(self, lane: Lane, count: int) -> list[float]:
        """When `count` turns come, after now."""
        start, times = self.now, []
        for _ in range(count):
            asyncio.run(lane.turn())
            times.append(round(self.now - start, 3))
        return times


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    return Clock(monkeypatch)


def lane(delay_s: float = 1.0, **settings: object) -> Lane:
    return Lane(delay_s, 2, 120.0, autothrottle=bool(settings.get("autothrottle", False)))


def test_requests_to_a_host_are_its_delay_apart(clock: Clock) -> None:
    assert clock.turns(lane(), 4) == [0, 1, 2, 3]


def test_a_longer_crawl_delay_is_honoured_at_once_and_a_shorter_one_is_not(clock: Clock) -> None:
    host = lane()
    clock.turns(host, 1)
    host.slow_down(5.0)
    assert clock.turns(host, 3) == [5, 10, 15]
    host.slow_down(0.1)
    assert clock.turns(host, 2) == [5, 10]


def test_a_slow_host_is_asked_less_often_and_its_errors_never_more(clock: Clock) -> None:
    host = lane(autothrottle=True)
    for _ in range(20):
        host.answered(8.0, well=True)
    clock.turns(host, 1)
    assert clock.turns(host, 1) == [pytest.approx(4.0, abs=0.01)]  # 8 s an answer, 2 at a time
    for _ in range(20):
        host.answered(0.01, well=False)
    clock.turns(host, 1)
    assert clock.turns(host, 1) == [pytest.approx(4.0, abs=0.01)]
    for _ in range(20):
        host.answered(0.01, well=True)
    clock.turns(host, 2)
    assert clock.turns(host, 1) == [pytest.approx(1.0, abs=0.01)]  # never faster than configured


def test_retry_after_is_waited_for(clock: Clock) -> None:
    host = lane()
    clock.turns(host, 1)
    host.refused("it answered 429", 30.0)
    assert clock.turns(host, 2) == [30, 31]


def test_without_retry_after_each_refusal_is_waited_for_twice_as_long(clock: Clock) -> None:
    host = lane()
    waits = []
    for _ in range(MAX_REFUSALS - 1):
        clock.turns(host, 1)
        host.refused("it answered 503")
        waits += clock.turns(host, 1)
    assert waits == [1, 2, 4, 8, 16]


def test_a_host_that_keeps_refusing_is_left_alone(clock: Clock) -> None:
    host = lane()
    for _ in range(MAX_REFUSALS):
        assert host.gave_up is None
        host.refused("it answered 503")
    assert host.gave_up == "6 requests were refused in a row, at last: it answered 503"
    assert clock.turns(host, 3) == [0, 0, 0]


def test_a_host_that_asks_for_longer_than_we_wait_is_left_alone() -> None:
    host = lane()
    host.refused("it answered 429", 1e9)
    assert host.gave_up == "it asks to wait 1,000,000,000 s, more than max_wait_s: it answered 429"


def test_broken_pages_do_not_end_a_host_that_also_answers(clock: Clock) -> None:
    host = lane(0.0)
    for _ in range(10):
        for _ in range(MAX_FAILURES - 1):
            host.failed("timeout")
        host.answered(0.1, well=True)
    assert host.gave_up is None
    assert clock.turns(host, 2) == [0, 0]
    for _ in range(MAX_FAILURES):
        host.failed("timeout")
    assert host.gave_up == f"{MAX_FAILURES} requests to it failed in a row, at last: timeout"


@pytest.mark.parametrize(
    ("value", "seconds"),
    [
        (None, None),
        ("17", 17.0),
        (" 0 ", 0.0),
        ("-5", None),
        ("soon", None),
        ("", None),
        ("9" * 400, 999_999_999_999.0),
    ],
)
def test_retry_after_in_seconds(value: str | None, seconds: float | None) -> None:
    assert retry_after_seconds(value) == seconds


def test_retry_after_as_a_date() -> None:
    assert retry_after_seconds(formatdate(time.time() + 60, usegmt=True)) == pytest.approx(60, abs=2)
    assert retry_after_seconds(formatdate(time.time() - 60, usegmt=True)) == 0.0
