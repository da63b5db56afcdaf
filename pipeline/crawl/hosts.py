"""The hosts of a crawl: each is asked in its turn, tried again where that may help, and its rules are remembered."""

import asyncio
import time
from collections import OrderedDict
from collections.abc import Awaitable, Callable
from typing import Any, TypeVar

from pipeline.crawl.fetch import Answer, Failure, Fetcher
from pipeline.crawl.politeness import OVERLOADED, SHAKY, Lane, retry_after_seconds
from pipeline.crawl.site import MAX_AGE_MS, ROBOTS_PATH, TDMREP_PATH, Site, read_site, remembered_site
from pipeline.crawl.spool import GAVE_UP, Spool
from pipeline.crawl.urls import netloc_of

TRANSIENT = frozenset({"dns", "connection", "timeout", "broken", "bad_headers"})
"""Failures after which the same may succeed."""

RETRIES = 2

MEMORY_BYTES = 256 * 1024 * 1024
"""Of bodies under way, all hosts together."""

MAX_IN_FLIGHT = 256
"""Requests of all hosts together."""

RULES_BYTES = 4 * 1024 * 1024
"""Of robots.txt files whose rules are held ready, parsed some 25 times as large; others are read from the spool."""


T = TypeVar("T")
Read = Callable[[Answer], Awaitable[T]]


class Hosts:
    """Lanes and rules of all hosts; see `pipeline.crawl.launch` for what `job` holds."""

    def __init__(self, job: dict[str, Any], spool: Spool, fetcher: Fetcher) -> None:
        self._job = job
        self._spool = spool
        self._fetcher = fetcher
        self._lanes: dict[str, Lane] = {}
        self._sites: OrderedDict[str, tuple[int, asyncio.Task[Site]]] = OrderedDict()
        self._rules_bytes = 0
        self._in_flight = asyncio.Semaphore(max(8, min(MAX_IN_FLIGHT, MEMORY_BYTES // job["limits"]["max_body_bytes"])))

    async def ask(self, url: str, max_bytes: int, read: Read[T] | None = None, **more: Any) -> Answer | Failure | T:
        """The answer to one request, tried again where that may help; what went wrong where there is none.

        An answer with a body gives what `read` makes of it, before another body may take the memory of this one.
        """
        lane = self._lane(url)
        answer: Answer | Failure | None = None
        for _ in range(RETRIES + 1):
            async with lane.turn(self._in_flight) as began:
                if lane.gave_up is not None:
                    return answer or Failure(GAVE_UP, lane.gave_up)
                reply = await self._fetch(url, max_bytes, **more)
                if isinstance(reply, Answer) and reply.body and read is not None:
                    self._note(lane, url, began, reply)
                    return await read(reply)
            # A connection that broke, perhaps only because it was kept, says less than what came before.
            if answer is None or not (isinstance(reply, Failure) and reply.outcome == "connection"):
                answer = reply
            if not self._note(lane, url, began, reply):
                break
        assert answer is not None
        return answer

    async def _fetch(self, url: str, max_bytes: int, **more: Any) -> Answer | Failure:
        try:
            return await self._fetcher.fetch(url, max_bytes=max_bytes, **more)
        except Failure as failure:
            return failure

    def _note(self, lane: Lane, url: str, began: float, answer: Answer | Failure) -> bool:
        """Tell the host's lane how it went; whether to try again."""
        if isinstance(answer, Failure):
            if answer.unreachable:
                lane.refused(url, began, str(answer))
            elif answer.outcome != "private_address":  # nothing was asked of it
                lane.failed(str(answer))
            return answer.outcome in TRANSIENT
        if answer.status in OVERLOADED:
            retry_after = retry_after_seconds(answer.header("Retry-After"))
            lane.refused(url, began, f"it answered {answer.status}", retry_after)
            return retry_after is None or retry_after <= self._job["max_wait_s"]
        if answer.status in SHAKY:
            lane.failed(f"it answered {answer.status}")
            return True
        lane.answered(answer.seconds, well=answer.status == 200)
        return False

    def _lane(self, url: str) -> Lane:
        name = netloc_of(url)
        if name not in self._lanes:
            self._lanes[name] = Lane(
                self._job["delay_s"],
                self._job["concurrency_per_host"],
                self._job["max_wait_s"],
                autothrottle=self._job["autothrottle"],
            )
        return self._lanes[name]

    async def site(self, origin: str) -> Site:
        """The rules of an origin, asked for once a day, or as an earlier process of the crawl read them."""
        read_at, task = self._sites.get(origin, (0, None))
        if task is None or now() - read_at > MAX_AGE_MS:
            task = asyncio.ensure_future(self._read_site(origin))
            task.add_done_callback(lambda _: self._forget())
            self._sites[origin] = (now(), task)
        self._sites.move_to_end(origin)
        return await task

    async def _read_site(self, origin: str) -> Site:
        names = (origin + ROBOTS_PATH, origin + TDMREP_PATH)
        rows = {name: self._spool.row(name) for name in names if name in self._spool}
        agent = self._job["user_agent"]
        site = remembered_site(origin, rows, now())
        if site is None:
            site = await read_site(origin, agent, self._ask_for_file, now)
            for row in site.rows:
                self._spool.add(row)
        if delay := site.robots.crawl_delay(agent):
            self._lane(origin + "/").slow_down(delay)
        self._rules_bytes += site.size
        return site

    def _forget(self) -> None:
        """Let go of the rules that were not asked for longest, where they are too many: the spool has them."""
        for origin in list(self._sites):
            if self._rules_bytes <= RULES_BYTES:
                return
            task = self._sites[origin][1]
            if task.done() and not task.cancelled() and task.exception() is None:
                self._rules_bytes -= task.result().size
                del self._sites[origin]

    async def _ask_for_file(self, url: str, max_bytes: int, *, foreign: bool) -> Answer | Failure:
        found: Answer | Failure = await self.ask(url, max_bytes, cut=True, public_only=foreign)
        return found


def now() -> int:
    """Milliseconds since the epoch."""
    return int(time.time() * 1000)
