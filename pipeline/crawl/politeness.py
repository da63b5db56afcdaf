"""The turn-taking at one host: how long between two requests, when to wait, and when to leave it alone.

The delay is the configured one, or the host's Crawl-delay where that is longer. With autothrottle it follows how
quickly the host answers, as Scrapy's AutoThrottle does: a host that needs a second for an answer is asked as many times
a second as requests to it may run at a time, and its errors never make us faster.
"""

import asyncio
import time
from datetime import UTC
from email.utils import parsedate_to_datetime

MAX_DELAY_S = 60.0
"""Seconds between two requests at most, whatever Crawl-delay and autothrottle say."""

MAX_REFUSALS = 6
"""Times in a row, retries counted, that a host cannot be reached or asks for peace, before it is left alone."""

MAX_FAILURES = 50
"""Requests in a row that fail in any way before a host is left alone: single broken pages say little of the rest."""

OVERLOADED = frozenset({429, 503})
"""The host asks to be left alone for a while (RFC 6585, section 4; RFC 9110, 15.6.4)."""

SHAKY = frozenset({408, 500, 502, 504, 520, 522, 524})
"""The host, or what stands before it, failed this time."""

BACKOFF_S = 0.5
"""Seconds waited after the first failure; twice as many after each further one."""


class Lane:
    """One host: `turn` lets one request after another start; `answered`, `failed` and `refused` tell how it went."""

    def __init__(self, delay_s: float, concurrency: int, max_wait_s: float, *, autothrottle: bool) -> None:
        self._base = self._delay = delay_s
        self._concurrency = concurrency
        self._max_wait_s = max_wait_s
        self._autothrottle = autothrottle
        self._next = 0.0
        self._refusals = self._failures = 0
        self.gave_up: str | None = None
        """Why the host is left alone, or None."""

    async def turn(self) -> None:
        """Return when the next request may start; at once where the host is left alone."""
        while self.gave_up is None:
            now = time.monotonic()
            if now >= self._next:
                self._next = now + self._delay
                return
            await asyncio.sleep(self._next - now)

    def slow_down(self, crawl_delay: float) -> None:
        """Honour a Crawl-delay that is longer than our own."""
        self._base = min(max(self._base, crawl_delay), MAX_DELAY_S)
        self._delay = max(self._delay, self._base)
        self._next = max(self._next, time.monotonic() + self._base)

    def answered(self, seconds: float, *, well: bool) -> None:
        """An answer came after so many seconds; `well` where it was what was asked for."""
        self._refusals = self._failures = 0
        if self._autothrottle:
            target = seconds / self._concurrency
            delay = max(target, (self._delay + target) / 2)
            if well or delay > self._delay:
                self._delay = min(max(delay, self._base), MAX_DELAY_S)

    def failed(self, why: str) -> None:
        """A page could not be had, which says little of the others."""
        self._failures += 1
        if self._failures >= MAX_FAILURES:
            self.gave_up = f"{self._failures} requests to it failed in a row, at last: {why}"

    def refused(self, why: str, retry_after: float | None = None) -> None:
        """The host cannot be reached or asks for peace: nobody asks it anything for a while, or never again."""
        self._refusals += 1
        if retry_after is not None and retry_after > self._max_wait_s:
            self.gave_up = f"it asks to wait {retry_after:,.0f} s, more than max_wait_s: {why}"
        elif self._refusals >= MAX_REFUSALS:
            self.gave_up = f"{self._refusals} requests were refused in a row, at last: {why}"
        else:
            wait = max(BACKOFF_S, self._delay) * 2 ** (self._refusals - 1) if retry_after is None else retry_after
            self._next = max(self._next, time.monotonic() + min(max(wait, self._delay), self._max_wait_s))


def retry_after_seconds(value: str | None) -> float | None:
    """Seconds that a Retry-After header asks for (RFC 9110, 10.2.3); None where it says nothing understandable."""
    if value is None:
        return None
    if value.strip().isdecimal():
        return float(value.strip()[:12])
    try:
        date = parsedate_to_datetime(value)
    except ValueError:
        return None
    return max(0.0, (date if date.tzinfo else date.replace(tzinfo=UTC)).timestamp() - time.time())
