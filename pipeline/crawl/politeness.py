"""The turn-taking at one host: how many requests at a time, how long between two, when to wait, when to leave it alone.

The delay is the configured one, or the host's Crawl-delay where that is longer. With autothrottle it follows how
quickly the host answers, as Scrapy's AutoThrottle does: a host that needs a second for an answer is asked as many times
a second as requests to it may run at a time, and its errors never make us faster.
"""

import asyncio
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import UTC
from email.utils import parsedate_to_datetime

MAX_THROTTLE_S = 60.0
"""Seconds between two requests at most, as far as autothrottle goes."""

MAX_CRAWL_DELAY_S = 600.0
"""A host whose robots.txt asks for more seconds between two requests asks not to be crawled."""

MAX_REFUSALS = 8
"""Waits in a row, each twice the one before, after which a host that refuses is left alone: two minutes at least."""

FEWEST_REFUSED = 3
"""Different pages that must have been refused by then: one that always answers 503 says nothing of the others."""

MAX_FAILURES = 50
"""Requests in a row that fail in any way before a host is left alone: single broken pages say little of the rest."""

MAX_WAITING_S = 1800.0
"""Seconds of waiting, in all, after which a host that asks for more is left alone."""

OVERLOADED = frozenset({429, 503})
"""The host asks to be left alone for a while (RFC 6585, section 4; RFC 9110, 15.6.4)."""

SHAKY = frozenset({408, 500, 502, 504, 520, 522, 524})
"""The host, or what stands before it, failed this time."""

BACKOFF_S = 0.5
"""Seconds waited after the first refusal where the host does not say how many."""


class Lane:
    """One host: `turn` lets one request after another start; `answered`, `failed` and `refused` tell how it went."""

    def __init__(self, delay_s: float, concurrency: int, max_wait_s: float, *, autothrottle: bool) -> None:
        self._base = self._delay = delay_s
        self._concurrency = concurrency
        self._running = asyncio.Semaphore(concurrency)
        self._max_wait_s = max_wait_s
        self._autothrottle = autothrottle
        self._next = 0.0
        self._failures = self._refusals = 0
        self._refused: set[str] = set()
        self._refused_at = 0.0
        self._waited = 0.0
        self.gave_up: str | None = None
        """Why the host is left alone, or None."""

    @asynccontextmanager
    async def turn(self, others: asyncio.Semaphore) -> AsyncIterator[float]:
        """The time in which a request may run, among those to all hosts that `others` admits; gives when it began.

        At once where the host is left alone, so look at `gave_up` then.
        """
        async with self._running:
            while True:
                while self.gave_up is None and (wait := self._next - time.monotonic()) > 0:
                    await asyncio.sleep(wait)
                async with others:
                    now = time.monotonic()
                    if self.gave_up is not None or now >= self._next:  # another took the turn while we waited
                        self._next = max(self._next, now + self._delay)
                        yield now
                        return

    def slow_down(self, crawl_delay: float) -> None:
        """Honour a Crawl-delay that is longer than our own."""
        if crawl_delay > MAX_CRAWL_DELAY_S:
            self.gave_up = f"its robots.txt asks for {crawl_delay:,.0f} s between two requests"
        self._base = max(self._base, crawl_delay)
        self._delay = max(self._delay, self._base)
        self._next = max(self._next, time.monotonic() + self._base)

    def answered(self, seconds: float, *, well: bool) -> None:
        """An answer came after so many seconds; `well` where it was what was asked for."""
        self._refusals = self._failures = 0
        self._refused.clear()
        if self._autothrottle:
            target = seconds / self._concurrency
            delay = min(max(target, (self._delay + target) / 2), MAX_THROTTLE_S)
            if well or delay > self._delay:
                self._delay = max(delay, self._base)

    def failed(self, why: str) -> None:
        """A page could not be had, which says little of the others."""
        self._failures += 1
        if self._failures >= MAX_FAILURES:
            self.gave_up = f"{self._failures} requests to it failed in a row, at last: {why}"

    def refused(self, url: str, began: float, why: str, retry_after: float | None = None) -> None:
        """The host cannot be reached or asks for peace: nobody asks it anything for a while, or never again.

        `began` is when the request did: those under way when the first was refused are no further refusals.
        """
        self.failed(why)
        self._refused.add(url)
        if began < self._refused_at:
            return
        self._refusals += 1
        self._refused_at = now = time.monotonic()
        wait = max(BACKOFF_S, self._delay) * 2 ** (self._refusals - 1)
        if retry_after is not None and retry_after <= self._max_wait_s:
            wait = max(retry_after, self._delay)
        wait = min(wait, self._max_wait_s)
        several = len(self._refused) >= FEWEST_REFUSED
        if several and retry_after is not None and retry_after > self._max_wait_s:
            self.gave_up = f"it asks to wait {retry_after:,.0f} s, more than max_wait_s: {why}"
        elif self._refusals >= MAX_REFUSALS and several:
            self.gave_up = f"it refused {self._refusals} times in a row, at last: {why}"
        elif self._waited + wait > MAX_WAITING_S:
            self.gave_up = f"it made us wait {self._waited:,.0f} s in all, and again: {why}"
        else:
            self._waited += wait
            self._next = max(self._next, now + wait)


def retry_after_seconds(value: str | None) -> float | None:
    """Seconds that a Retry-After header asks for (RFC 9110, 10.2.3); None where it says nothing understandable."""
    if value is None:
        return None
    if value.strip().isdecimal():
        return float(value.strip()[:12])
    try:
        date = parsedate_to_datetime(value)
        return max(0.0, (date if date.tzinfo else date.replace(tzinfo=UTC)).timestamp() - time.time())
    except (ValueError, OverflowError):
        return None
