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
from urllib.parse import urljoin

from pipeline.crawl.answers import STORED_TYPES, Asked, conditions, read_answer, read_sitemap_answer
from pipeline.crawl.earlier import Earlier
from pipeline.crawl.fetch import Answer, Failure, Fetcher
from pipeline.crawl.frontier import MAX_REDIRECTS, Frontier, Visit
from pipeline.crawl.hosts import Hosts, Read, now
from pipeline.crawl.politeness import OVERLOADED, SHAKY
from pipeline.crawl.scope import Scope
from pipeline.crawl.site import ROBOTS_PATH, is_about_site, origin_of, redirect_target
from pipeline.crawl.sitemaps import MAX_SITEMAP_BYTES
from pipeline.crawl.spool import CLOCK, GAVE_UP, Row, Spool, new_row
from pipeline.crawl.urls import host_of, netloc_of
from pipeline.engine.children import die_with
from pipeline.versions import PURGED

UNSETTLED = frozenset(
    {"error", "dns", "connection", "tls", "timeout", "broken", GAVE_UP, "robots_unreachable", "private_address"}
    | {f"http_{status}" for status in OVERLOADED | SHAKY}
)
"""Outcomes that a crawl which is taken up again within the same wave does not take for an answer."""

SITEMAPS_AT_A_TIME = 2
"""They may be large: 50 MiB each."""

LARGE_BYTES = 256 * 1024
"""A body beyond is read by a thread, so that what a page does to a parser keeps no other host waiting; and one at a
time, for the tree of a million elements takes 300 MB."""

PROGRESS_SECONDS = 0.25

Found = tuple[Row, bytes | None]

logger = logging.getLogger("crawl")


class Crawl:
    """One crawl: its frontier, its hosts, and the spool that takes what comes."""

    def __init__(self, job: dict[str, Any], spool: Spool, fetcher: Fetcher) -> None:
        self._job = job
        self._spool = spool
        self._hosts = Hosts(job, spool, fetcher)
        self._scope = Scope(**job["scope"])
        self._ignored = frozenset(job["ignore_signals"])
        self._frontier = Frontier(job["seeds"], self._scope, **job["limits"])
        self._earlier = Earlier([Path(folder) for folder in job["earlier"]])
        for url, depth in self._earlier.live():
            self._frontier.offer_live(url, depth)
        self._origins_met: set[str] = set()
        self._sitemaps = asyncio.Semaphore(SITEMAPS_AT_A_TIME)
        self._large = asyncio.Semaphore(1)
        self._clock = _Clock(Path(job["spool"]) / CLOCK)
        self._cut_off = 0
        self._pages = 0

    async def run(self) -> None:
        """Wave after wave until the frontier has none or the time is up."""
        reporter = asyncio.ensure_future(self._report_often())
        try:
            while visits := self._frontier.wave():
                try:
                    async with asyncio.timeout(self._clock.left(self._job["max_seconds"])):
                        await self._ask_for(visits)
                except TimeoutError:
                    self._cut_off = sum(visit.url not in self._spool for visit in visits)
                    break
                self._spool.settle()
                self._offer_sitemaps(visits)
                for visit in visits:
                    self._frontier.absorb(visit, self._spool.row(visit.url))
        finally:
            reporter.cancel()
        self._report()

    async def _ask_for(self, visits: list[Visit]) -> None:
        """Have a row in the spool for each of `visits`."""
        waiting: dict[str, list[Visit]] = {}
        for visit in visits:
            if not self._answered(visit.url):
                waiting.setdefault(netloc_of(visit.url), []).append(visit)
        async with asyncio.TaskGroup() as group:
            for host_visits in map(iter, waiting.values()):
                for _ in range(self._job["concurrency_per_host"]):
                    group.create_task(self._drain(host_visits))

    def _answered(self, url: str) -> bool:
        """Whether an earlier process got an answer. What failed in the wave in which it ended is asked for again."""
        return self._spool.is_settled(url) or (url in self._spool and self._spool.row(url)["outcome"] not in UNSETTLED)

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
            try:
                row, record = await (self._visit_sitemap(visit.url) if visit.sitemap else self._visit(visit.url))
            except OSError:  # of our own disk: those of the network are answers
                raise
            except Exception as problem:  # whatever a page does to us, it is one row
                logger.exception("%s", visit.url)
                row, record = new_row(visit.url, "error", fetched_at=now(), detail=repr(problem)), None
            row |= {"depth": visit.depth, "requested_url": visit.requested_url}
            if row["outcome"] == "redirect" and visit.hops >= MAX_REDIRECTS:
                row |= {"outcome": "too_many_redirects", "links": [], "detail": f"more than {MAX_REDIRECTS} in a row"}
            self._spool.add(row, record)
            self._pages += record is not None
            if row["detail"]:
                logger.info("%s: %s (%s)", row["url"], row["outcome"], row["detail"])

    async def _visit(self, url: str) -> Found:
        """The row for a page, and its record where it is stored or found unchanged."""
        if url in self._job["purged"]["url"] or host_of(url) in self._job["purged"]["host"]:
            return new_row(url, PURGED, fetched_at=now(), detail="it was purged, and is not asked for again"), None
        if (refusal := await self._refusal(url)) is not None:
            return refusal, None
        tdmrep = (await self._hosts.site(origin_of(url))).tdmrep
        earlier = self._earlier.page(url)

        async def read(answer: Answer) -> Found:
            asked = Asked(url, now(), self._scope, tdmrep, self._ignored, earlier)
            if len(answer.body) <= LARGE_BYTES:
                return read_answer(asked, answer)
            async with self._large:
                return await asyncio.to_thread(read_answer, asked, answer)

        found = await self._ask_page(url, conditions(earlier), read)
        if isinstance(found, Failure):
            return new_row(url, found.outcome, fetched_at=now(), detail=str(found)), None
        return await read(found) if isinstance(found, Answer) else found

    async def _visit_sitemap(self, url: str) -> Found:
        """The row for a sitemap."""
        if (refusal := await self._refusal(url)) is not None:
            return refusal, None

        async def read(answer: Answer) -> Found:
            return await asyncio.to_thread(read_sitemap_answer, url, now(), self._scope, answer), None

        async with self._sitemaps:
            found = await self._hosts.ask(url, MAX_SITEMAP_BYTES, read, cut=True)
        if isinstance(found, Failure):
            return new_row(url, found.outcome, fetched_at=now(), detail=str(found)), None
        return await read(found) if isinstance(found, Answer) else found

    async def _refusal(self, url: str) -> Row | None:
        """The row of a URL that is not asked for, by the word of its site; None where it may be."""
        agent = self._job["user_agent"]
        site = await self._hosts.site(origin_of(url))
        if is_about_site(url):
            return self._spool.row(url) if url in self._spool else new_row(url, "robots", fetched_at=now())
        if site.missing is not None:
            return new_row(url, site.missing.outcome, fetched_at=now(), detail=str(site.missing))
        if not site.robots.allows(url, agent):
            return new_row(url, "robots", fetched_at=now())
        if "noai" not in self._ignored and site.robots.refuses_training(url, agent):
            return new_row(url, "no_ai", fetched_at=now(), detail="robots.txt refuses training")
        return None

    async def _ask_page(self, url: str, headers: dict[str, str], read: Read[Found]) -> Answer | Failure | Found:
        """What comes of a page's request; where it leads to another spelling of the same URL, what that says."""
        limit, asked = self._job["limits"]["max_body_bytes"], url
        for _ in range(MAX_REDIRECTS):
            found = await self._hosts.ask(asked, limit, read, wanted=STORED_TYPES, headers=headers)
            if not isinstance(found, Answer) or redirect_target(found, asked) != url:
                break
            literal = urljoin(asked, (found.header("Location") or "").strip()).partition("#")[0]
            if literal == asked or not literal.isascii() or " " in literal:
                break
            asked = literal
        return found

    async def _report_often(self) -> None:
        while True:
            self._report()
            await asyncio.sleep(PROGRESS_SECONDS)

    def _report(self) -> None:
        """One line of JSON to the parent."""
        self._clock.save()
        total = min(self._job["limits"]["max_pages"], max(self._frontier.seen, self._pages))
        tell({"pages": self._pages, "total": total, "unreached": self._frontier.unreached + self._cut_off})


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
        aside = self._path.with_suffix(".new")
        aside.write_text(f"{self._seconds():.1f}")
        aside.replace(self._path)

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


if __name__ == "__main__":
    sys.exit(main())
