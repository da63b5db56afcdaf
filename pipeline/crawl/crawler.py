"""The crawler: asks wave by wave for what the frontier names, in a process of its own.

Started by `launch` as `python -m pipeline.crawl.crawler JOB PARENT`. It dies with its parent. Each answer goes to the
spool before it counts. Before the first page of an origin its robots.txt is read; where that cannot be had, nothing is
asked for (RFC 9309, 2.3.1.4).
"""

import asyncio
import json
import logging
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from pipeline.crawl.answers import STORED_TYPES, Asked, conditions, read_answer, read_sitemap_answer
from pipeline.crawl.earlier import Earlier
from pipeline.crawl.fetch import Answer, Failure, Fetcher
from pipeline.crawl.frontier import MAX_REDIRECTS, Frontier, Visit
from pipeline.crawl.politeness import OVERLOADED, SHAKY, Lane, retry_after_seconds
from pipeline.crawl.scope import Scope
from pipeline.crawl.site import (
    MAX_AGE_MS,
    ROBOTS_PATH,
    TDMREP_PATH,
    Site,
    is_about_site,
    origin_of,
    read_site,
    remembered_site,
)
from pipeline.crawl.sitemaps import MAX_SITEMAP_BYTES
from pipeline.crawl.spool import Row, Spool, new_row
from pipeline.crawl.urls import host_of
from pipeline.engine.children import die_with

UNSETTLED = frozenset(
    {"error", "dns", "connection", "tls", "timeout", "broken", "gave_up", "robots_unreachable", "private_address"}
    | {f"http_{status}" for status in OVERLOADED | SHAKY}
)
"""Outcomes that a crawl which is taken up again does not take for an answer."""

TRANSIENT = frozenset({"dns", "connection", "timeout", "broken", "bad_headers"})
"""Failures after which the same may succeed."""

RETRIES = 2

MEMORY_BYTES = 512 * 1024 * 1024
"""Of bodies under way, all hosts together."""

MAX_IN_FLIGHT = 256
"""Requests of all hosts together."""

PROGRESS_SECONDS = 0.25

logger = logging.getLogger("crawl")


class Crawl:
    """One crawl: its frontier, its hosts, and the spool that takes what comes."""

    def __init__(self, job: dict[str, Any], spool: Spool, fetcher: Fetcher) -> None:
        self._job = job
        self._spool = spool
        self._fetcher = fetcher
        self._scope = Scope(**job["scope"])
        self._frontier = Frontier(job["seeds"], self._scope, **job["limits"])
        self._earlier = Earlier([Path(folder) for folder in job["earlier"]])
        for url, depth in self._earlier.live():
            self._frontier.offer_live(url, depth)
        self._lanes: dict[str, Lane] = {}
        self._sites: dict[str, tuple[int, asyncio.Task[Site]]] = {}
        self._origins_met: set[str] = set()
        self._in_flight = asyncio.Semaphore(max(8, min(MAX_IN_FLIGHT, MEMORY_BYTES // job["limits"]["max_body_bytes"])))
        self._cut_off = 0
        self._pages = 0
        self._clock = _Clock(Path(job["spool"]) / "elapsed")
        self._reported = 0.0

    async def run(self) -> None:
        """Wave after wave until the frontier has none or the time is up."""
        while visits := self._frontier.wave():
            try:
                async with asyncio.timeout(self._clock.left(self._job["max_seconds"])):
                    await self._ask_for(visits)
            except TimeoutError:
                self._cut_off = sum(visit.url not in self._spool for visit in visits)
                break
            for visit in visits:
                self._frontier.absorb(visit, self._spool.row(visit.url))
            self._offer_sitemaps(visits)
            self._report(force=True)
        self._report(force=True)

    async def _ask_for(self, visits: list[Visit]) -> None:
        """Have a row in the spool for each of `visits`."""
        waiting: dict[str, list[Visit]] = {}
        for visit in visits:
            if not self._answered(visit.url):
                waiting.setdefault(host_of(visit.url), []).append(visit)
        async with asyncio.TaskGroup() as group:
            for host_visits in map(iter, waiting.values()):
                for _ in range(self._job["concurrency_per_host"]):
                    group.create_task(self._drain(host_visits))

    def _answered(self, url: str) -> bool:
        """Whether an earlier process got an answer; one that never came is asked for again."""
        return url in self._spool and self._spool.row(url)["outcome"] not in UNSETTLED

    def _offer_sitemaps(self, visits: list[Visit]) -> None:
        """Have the frontier know the sitemaps of the origins that a wave met first, in the order of their names."""
        origins = {origin_of(visit.url) for visit in visits} - self._origins_met
        self._origins_met |= origins
        for name in sorted(origin + ROBOTS_PATH for origin in origins if self._job["sitemaps"]):
            if name in self._spool:
                self._frontier.offer_sitemaps(self._spool.row(name)["sitemaps"])

    async def _drain(self, visits: Iterator[Visit]) -> None:
        """One worker of a host: its next visit, until none is left."""
        for visit in visits:
            row, record = await self._visit(visit)
            row |= {"depth": visit.depth, "requested_url": visit.requested_url}
            if row["outcome"] == "redirect" and visit.hops >= MAX_REDIRECTS:
                row |= {"outcome": "too_many_redirects", "links": [], "detail": f"more than {MAX_REDIRECTS} in a row"}
            self._spool.add(row, record)
            self._pages += record is not None
            if row["detail"]:
                logger.info("%s: %s (%s)", row["url"], row["outcome"], row["detail"])
            self._report()

    async def _visit(self, visit: Visit) -> tuple[Row, bytes | None]:
        """The row for one URL, and its record where it is stored."""
        url, agent = visit.url, self._job["user_agent"]
        site = await self._site(origin_of(url))
        if is_about_site(url):
            return (self._spool.row(url) if url in self._spool else new_row(url, "robots", fetched_at=_now())), None
        if site.missing is not None:
            return new_row(url, site.missing.outcome, fetched_at=_now(), detail=str(site.missing)), None
        if not site.robots.allows(url, agent):
            return new_row(url, "robots", fetched_at=_now()), None
        ignored = frozenset(self._job["ignore_signals"])
        if "noai" not in ignored and site.robots.refuses_training(url, agent):
            return new_row(url, "no_ai", fetched_at=_now(), detail="robots.txt refuses training"), None
        earlier = None if visit.sitemap else self._earlier.page(url)
        answer = await (self._ask_sitemap(url) if visit.sitemap else self._ask_page(url, earlier))
        if isinstance(answer, Failure):
            return new_row(url, answer.outcome, fetched_at=_now(), detail=str(answer)), None
        asked = Asked(url, _now(), self._scope, site.tdmrep, ignored, earlier)
        try:
            if visit.sitemap:  # 50 MiB of XML take seconds
                return await asyncio.to_thread(read_sitemap_answer, asked, answer), None
            return read_answer(asked, answer)
        except Exception as problem:  # whatever a page does to a parser, it is one row
            return new_row(url, "error", status=answer.status, fetched_at=asked.now, detail=repr(problem)), None

    async def _ask_page(self, url: str, earlier: Row | None) -> Answer | Failure:
        limit = self._job["limits"]["max_body_bytes"]
        return await self._ask(url, limit, wanted=STORED_TYPES, headers=conditions(earlier))

    async def _ask_sitemap(self, url: str) -> Answer | Failure:
        return await self._ask(url, MAX_SITEMAP_BYTES, cut=True)

    async def _ask(self, url: str, max_bytes: int, **more: Any) -> Answer | Failure:
        """The answer to one request, tried again where that may help; what went wrong where there is none."""
        lane = self._lane(host_of(url))
        answer: Answer | Failure = Failure("gave_up", "nothing was asked")
        for attempt in range(RETRIES + 1):
            await lane.turn()
            if lane.gave_up is not None:
                return Failure("gave_up", lane.gave_up) if attempt == 0 else answer
            async with self._in_flight:
                answer = await self._fetch(url, max_bytes, **more)
            if not self._note(lane, answer):
                break
        return answer

    async def _fetch(self, url: str, max_bytes: int, **more: Any) -> Answer | Failure:
        try:
            return await self._fetcher.fetch(url, max_bytes=max_bytes, **more)
        except Failure as failure:
            return failure

    def _note(self, lane: Lane, answer: Answer | Failure) -> bool:
        """Tell the host's lane how it went; whether to try again."""
        if isinstance(answer, Failure):
            if answer.unreachable:
                lane.refused(str(answer))
            elif answer.outcome != "private_address":  # nothing was asked of it
                lane.failed(str(answer))
            return answer.outcome in TRANSIENT
        if answer.status in OVERLOADED:
            lane.refused(f"it answered {answer.status}", retry_after_seconds(answer.header("Retry-After")))
        elif answer.status in SHAKY:
            lane.failed(f"it answered {answer.status}")
        else:
            lane.answered(answer.seconds, well=answer.status == 200)
        return answer.status in OVERLOADED or answer.status in SHAKY

    def _lane(self, host: str) -> Lane:
        if host not in self._lanes:
            self._lanes[host] = Lane(
                self._job["delay_s"],
                self._job["concurrency_per_host"],
                self._job["max_wait_s"],
                autothrottle=self._job["autothrottle"],
            )
        return self._lanes[host]

    async def _site(self, origin: str) -> Site:
        """The rules of an origin, asked for once a day, or as an earlier process of the crawl read them."""
        read_at, task = self._sites.get(origin, (0, None))
        if task is None or _now() - read_at > MAX_AGE_MS:
            task = asyncio.ensure_future(self._read_site(origin))
            self._sites[origin] = (_now(), task)
        return await task

    async def _read_site(self, origin: str) -> Site:
        names = (origin + ROBOTS_PATH, origin + TDMREP_PATH)
        rows = {name: self._spool.row(name) for name in names if name in self._spool}
        site = remembered_site(origin, rows, _now())
        if site is None:
            site = await read_site(origin, lambda url, limit: self._ask(url, limit, cut=True), _now)
            for row in site.rows:
                self._spool.add(row)
        delay = site.robots.crawl_delay(self._job["user_agent"])
        if delay:
            self._lane(host_of(origin)).slow_down(delay)
        return site

    def _report(self, *, force: bool = False) -> None:
        """One line of JSON to the parent, not too often."""
        if force or time.monotonic() - self._reported > PROGRESS_SECONDS:
            self._reported = time.monotonic()
            self._clock.save()
            total = min(self._job["limits"]["max_pages"], max(self._frontier.seen, self._pages))
            tell(
                {
                    "pages": self._pages,
                    "total": total,
                    "unreached": self._frontier.unreached + self._cut_off,
                }
            )


class _Clock:
    """Seconds that the crawl has taken, those of earlier processes included."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._start = time.monotonic()
        try:
            self._before = float(path.read_text())
        except (OSError, ValueError):
            self._before = 0.0

    def left(self, budget: float | None) -> float | None:
        """Seconds left of a budget; None where there is no end to it."""
        return None if budget is None else max(0.0, budget - self._seconds())

    def save(self) -> None:
        """Remember the time for a process that takes the crawl up again."""
        self._path.write_text(f"{self._seconds():.1f}")

    def _seconds(self) -> float:
        return self._before + time.monotonic() - self._start


def tell(message: dict[str, Any]) -> None:
    """One line to the parent."""
    sys.stdout.write(json.dumps(message) + "\n")
    sys.stdout.flush()


def main() -> int:
    """Run the job described by the JSON file in the first argument."""
    die_with(int(sys.argv[2]))
    logging.basicConfig(stream=sys.stderr, level=logging.INFO, format="%(asctime)s %(message)s")
    job = json.loads(Path(sys.argv[1]).read_text())
    failed = False
    try:
        with Spool(Path(job["spool"])) as spool:  # closing it on a full disk fails too
            asyncio.run(_run(job, spool))
    except* OSError as problems:
        problem = _first(problems)
        tell({"errno": problem.errno, "error": problem.strerror, "path": str(problem.filename or job["spool"])})
        failed = True
    return int(failed)


async def _run(job: dict[str, Any], spool: Spool) -> None:
    fetcher = Fetcher(
        user_agent=job["user_agent"], timeout_s=job["timeout_s"], named=job["named_hosts"], proxies=job["proxies"]
    )
    async with fetcher:
        await Crawl(job, spool, fetcher).run()


def _first(problems: BaseExceptionGroup) -> Any:
    problem: Any = problems
    while isinstance(problem, BaseExceptionGroup):
        problem = problem.exceptions[0]
    return problem


def _now() -> int:
    """Milliseconds since the epoch."""
    return int(time.time() * 1000)


if __name__ == "__main__":
    sys.exit(main())
