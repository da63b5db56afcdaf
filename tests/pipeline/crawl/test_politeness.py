"""Taking turns at a host, with a clock of the test's own."""

import asyncio
import time
from email.utils import formatdate

import pytest

from pipeline.crawl import politeness
from pipeline.crawl.politeness import MAX_FAILURES, MAX_REFUSALS, Lane, retry_after_seconds

NO_DATE = "Mon, 01 Jan 99999999999999999999 00:00:00 GMT"


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

        async def take() -> None:
            async with lane.turn(asyncio.Semaphore(9)):
                times.append(round(self.now - start, 3))

        for _ in range(count):
            asyncio.run(take())
        return times


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    return Clock(monkeypatch)


def lane(delay_s: float = 1.0, **settings: object) -> Lane:
    return Lane(delay_s, 2, 120.0, autothrottle=bool(settings.get("autothrottle", False)))


def refuse(host: Lane, clock: Clock, page: int = 0, retry_after: float | None = None, why: str = "busy") -> None:
    """A request for a page that began now is refused."""
    host.refused(f"/{page}", clock.now, why, retry_after)


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


def test_a_longer_delay_than_autothrottle_would_set_is_kept(clock: Clock) -> None:
    host = lane(300.0, autothrottle=True)
    host.answered(0.1, well=True)
    clock.turns(host, 1)
    assert clock.turns(host, 1) == [300]


def test_no_more_requests_run_than_may(clock: Clock) -> None:  # noqa: ARG001 (so that waiting takes no time)
    host, others = lane(0.0), asyncio.Semaphore(9)
    running = most = 0

    async def request() -> None:
        nonlocal running, most
        async with host.turn(others):
            running += 1
            most = max(most, running)
            for _ in range(3):
                await asyncio.get_running_loop().run_in_executor(None, lambda: None)
            running -= 1

    async def requests() -> None:
        await asyncio.gather(*(request() for _ in range(8)))

    asyncio.run(requests())
    assert most == 2


def test_a_host_that_asks_for_ten_minutes_between_requests_is_left_alone() -> None:
    host = lane()
    host.slow_down(86_400.0)
    assert host.gave_up == "its robots.txt asks for 86,400 s between two requests"


def test_retry_after_is_waited_for(clock: Clock) -> None:
    host = lane()
    clock.turns(host, 1)
    refuse(host, clock, retry_after=30.0)
    assert clock.turns(host, 2) == [30, 31]


def test_without_retry_after_each_refusal_is_waited_for_twice_as_long(clock: Clock) -> None:
    host = lane()
    waits = []
    for _ in range(MAX_REFUSALS - 1):
        clock.turns(host, 1)
        refuse(host, clock)
        waits += clock.turns(host, 1)
    assert waits == [1, 2, 4, 8, 16, 32, 64]


def test_a_host_that_keeps_refusing_is_left_alone(clock: Clock) -> None:
    host = lane()
    for page in range(MAX_REFUSALS):
        assert host.gave_up is None
        refuse(host, clock, page)
        clock.turns(host, 1)
    assert host.gave_up == "it refused 8 times in a row, at last: busy"
    assert clock.turns(host, 3) == [0, 0, 0]


def test_a_page_that_is_always_refused_does_not_end_its_host(clock: Clock) -> None:
    host = lane()
    for _ in range(2 * MAX_REFUSALS):
        refuse(host, clock)
        clock.turns(host, 1)
    assert host.gave_up is None


def test_requests_under_way_when_a_host_refuses_are_one_refusal(clock: Clock) -> None:
    host = lane()
    began = clock.now
    clock.now += 0.5
    for page in range(20):
        host.refused(f"/{page}", began, "busy", 1.0)
    assert host.gave_up is None
    assert clock.turns(host, 1) == [1]


def test_a_host_that_asks_for_longer_than_we_wait_on_several_pages_is_left_alone(clock: Clock) -> None:
    host = lane()
    for page in range(3):
        assert host.gave_up is None
        refuse(host, clock, page, 1e9)
        clock.turns(host, 1)
    assert host.gave_up == "it asks to wait 1,000,000,000 s, more than max_wait_s: busy"


def test_a_host_that_refuses_now_and_then_for_ever_is_left_alone_in_the_end(clock: Clock) -> None:
    host = lane()
    start = clock.now
    while host.gave_up is None:
        refuse(host, clock, retry_after=100.0)
        clock.turns(host, 1)
        host.answered(0.1, well=True)
    assert host.gave_up == "it made us wait 1,800 s in all, and again: busy"
    assert clock.now - start < 2000


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
