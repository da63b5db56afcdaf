"""The crawler: Scrapy's downloader asked wave by wave, in a process of its own.

Started by `launch` as `python -m pipeline.crawl.spider JOB PARENT`. It dies with its parent. Each answer goes to the
spool before it counts, and what to ask next is the frontier's business; Scrapy brings per-host delays, retries,
time-outs, decompression, TLS and HTTP. robots.txt is obeyed as RFC 9309 says: where it cannot be had, nothing is asked
for.
"""

import asyncio
import ipaddress
import json
import sys
import time
from collections.abc import AsyncIterator, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar
from urllib.parse import urlsplit
from urllib.request import getproxies

import scrapy
from protego import Protego
from scrapy import signals
from scrapy.crawler import CrawlerProcess
from scrapy.exceptions import IgnoreRequest, StopDownload
from scrapy.http import Response
from scrapy.resolver import CachingThreadedResolver
from twisted.internet import defer

from pipeline.crawl.answers import STORED_TYPES, cause, location, media_type, read_answer
from pipeline.crawl.frontier import Frontier, Visit
from pipeline.crawl.spool import Row, Spool, new_row
from pipeline.crawl.urls import host_of, is_loopback, netloc_of
from pipeline.engine.children import die_with

UNSETTLED = frozenset({"error"})
"""Outcomes that a crawl which is taken up again does not take for an answer."""

ROBOTS_MAX_BYTES = 500 * 1024
"""RFC 9309, 2.5: a crawler must read at least so much."""

ROBOTS_MAX_REDIRECTS = 5
"""RFC 9309, 2.3.1.2."""

MAX_CRAWL_DELAY = 60.0
"""Seconds; a longer Crawl-delay is cut to this."""

MAX_IN_FLIGHT = 256
"""Requests of all hosts together."""

PROGRESS_SECONDS = 0.25

SETTINGS: dict[str, Any] = {
    "ROBOTSTXT_OBEY": False,  # done here, where an unreachable robots.txt forbids and a refusal is a row
    "REDIRECT_ENABLED": False,  # a redirect is a row, its target a URL like any other
    "METAREFRESH_ENABLED": False,
    "COOKIES_ENABLED": False,
    # None of the default extensions but the counters: some listen on a port, and remote_control runs what it is sent.
    "EXTENSIONS_BASE": {"scrapy.extensions.corestats.CoreStats": 0},
    "TELNETCONSOLE_ENABLED": False,
    "REMOTE_CONTROL_ENABLED": False,
    "RETRY_TIMES": 2,
    "DOWNLOAD_DELAY_JITTER": 0.0,  # the delay is a promise, not a mean
    "DOWNLOAD_WARNSIZE": 0,
    "LOG_LEVEL": "INFO",
}


class PublicResolver(CachingThreadedResolver):
    """Resolves a name to a public address or not at all, so that no name on the web reaches into the local network."""

    allowed: frozenset[str] = frozenset()
    refused: ClassVar[dict[str, str]] = {}

    def getHostByName(self, name: str, timeout: Any = ()) -> Any:  # noqa: N802 (Twisted's name)
        """The IPv4 address of `name`; localhost and below are this machine (RFC 6761, 6.3)."""
        if is_loopback(name):
            return defer.succeed("127.0.0.1")
        found = super().getHostByName(name, timeout)
        return found if name in self.allowed else found.addCallback(self._public, name)

    def _public(self, address: str, name: str) -> str:
        if not ipaddress.ip_address(address).is_global:
            # Twisted swallows the exception and says that the name is unknown, so `ask` looks here for the reason.
            self.refused[name] = f"{name} is at the private address {address}; name it in private_hosts to allow that"
            raise IgnoreRequest(self.refused[name])
        return address


@dataclass
class Rules:
    """What an origin's robots.txt says; `missing` is why it could not be had, and then nothing is allowed."""

    parser: Protego | None = None
    missing: str | None = None


class PageSpider(scrapy.Spider):
    """Asks for what the frontier names and spools what comes back."""

    name = "gptmill"

    def __init__(self, job: dict[str, Any], spool: Spool, **more: Any) -> None:
        super().__init__(**more)
        self.job = job
        self.spool = spool
        self.frontier = Frontier(job["seeds"], job["hosts"], **job["limits"])
        self.hosts = frozenset(job["hosts"])
        self.rules: dict[str, asyncio.Task[Rules]] = {}
        self.in_flight = asyncio.Semaphore(MAX_IN_FLIGHT)
        self.failure: BaseException | None = None
        self.finished = False
        self.pages = 0
        self._reported = 0.0

    async def start(self) -> AsyncIterator[Any]:
        """The whole crawl; yields nothing, because the frontier stands in for Scrapy's scheduler."""
        self.crawler.signals.connect(self.stop_unwanted, signals.headers_received)
        self.crawler.signals.connect(self.stop_too_large, signals.bytes_received)
        try:
            await self.crawl()
            self.finished = True
        except BaseException as failure:
            self.failure = failure
            raise
        return
        yield

    async def crawl(self) -> None:
        """Wave after wave until the frontier has none."""
        while visits := self.frontier.wave():
            waiting: dict[str, list[Visit]] = {}
            for visit in visits:
                if not self.answered(visit.url):
                    waiting.setdefault(netloc_of(visit.url), []).append(visit)
            hosts = [iter(host_visits) for host_visits in waiting.values()]
            await asyncio.gather(*(self.drain(host) for host in hosts for _ in range(self.job["concurrency_per_host"])))
            for visit in visits:
                self.frontier.absorb(visit, self.spool.row(visit.url))
            self.report(force=True)

    def answered(self, url: str) -> bool:
        """Whether an earlier process got an answer; one that never came is asked for again."""
        return url in self.spool and self.spool.row(url)["outcome"] not in UNSETTLED

    async def drain(self, visits: Iterator[Visit]) -> None:
        """One worker of a host: its next visit, until none is left."""
        for visit in visits:
            async with self.in_flight:
                row, record = await self.visit(visit)
            row |= {"depth": visit.depth, "requested_url": visit.requested_url}
            self.spool.add(row, record)
            self.pages += record is not None
            if row["detail"]:
                self.logger.info("%s: %s (%s)", row["url"], row["outcome"], row["detail"])
            self.report()

    async def visit(self, visit: Visit) -> tuple[Row, bytes | None]:
        """The row for one URL, and its record where it is stored."""
        rules = await self.rules_of(visit.url)
        now = int(time.time() * 1000)
        if rules.missing is not None:
            return new_row(visit.url, "error", fetched_at=now, detail=rules.missing), None
        if rules.parser is not None and not rules.parser.can_fetch(visit.url, self.job["user_agent"]):
            return new_row(visit.url, "robots", fetched_at=now), None
        answer = await self.ask(visit.url)
        now = int(time.time() * 1000)
        if isinstance(answer, Response):
            return read_answer(visit.url, answer, now, self.hosts)
        outcome = "too_large" if isinstance(answer, IgnoreRequest) and "DOWNLOAD_MAXSIZE" in str(answer) else "error"
        status = 200 if outcome == "too_large" else 0
        return new_row(visit.url, outcome, status=status, fetched_at=now, detail=cause(answer)), None

    async def ask(self, url: str, *, robots: bool = False) -> Response | Exception:
        """One request through Scrapy's downloader; what went wrong where nothing was answered."""
        meta: dict[str, Any] = {"robots": robots}
        if (host := host_of(url)) in self.job["proxies"]:
            meta["proxy"] = self.job["proxies"][host]
        elif is_loopback(host):
            meta["proxy"] = None  # whatever http_proxy says
        request = scrapy.Request(url, meta=meta, dont_filter=True)
        try:
            return await self.crawler.engine.download_async(request)
        except Exception as failure:
            return IgnoreRequest(PublicResolver.refused[host]) if host in PublicResolver.refused else failure

    async def rules_of(self, url: str) -> Rules:
        """The rules of the URL's origin, asked for once."""
        parts = urlsplit(url)
        origin = f"{parts.scheme}://{parts.netloc}"
        if origin not in self.rules:
            self.rules[origin] = asyncio.ensure_future(self.fetch_rules(origin))
        return await self.rules[origin]

    async def fetch_rules(self, origin: str) -> Rules:
        """Ask for robots.txt: an answer in the 400s allows all, 500s or none forbid (RFC 9309, 2.3.1)."""
        url: str | None = f"{origin}/robots.txt"
        answer: Response | Exception = IgnoreRequest("nothing was asked")
        for _ in range(ROBOTS_MAX_REDIRECTS + 1):
            if url is None or netloc_of(url) not in self.hosts:
                break
            answer = await self.ask(url, robots=True)
            if not isinstance(answer, Response):
                return Rules(missing=cause(answer))
            url = location(answer, url)
        assert isinstance(answer, Response)
        if 200 <= answer.status < 300:
            parser = Protego.parse(answer.body[:ROBOTS_MAX_BYTES].decode("utf-8", "replace"))
            self.slow_down(host_of(origin), parser)
            return Rules(parser=parser)
        if answer.status >= 500 or answer.status == 429:
            return Rules(missing=f"{origin}/robots.txt answered {answer.status}")
        return Rules()

    def slow_down(self, host: str, parser: Protego) -> None:
        """Honour a Crawl-delay that is longer than our own."""
        delay = min(parser.crawl_delay(self.job["user_agent"]) or 0.0, MAX_CRAWL_DELAY)
        if delay > self.job["delay_s"]:
            downloader = self.crawler.engine.downloader
            downloader.per_slot_settings[host] = {"delay": delay}
            if host in downloader.slots:
                downloader.slots[host].delay = delay

    def stop_unwanted(self, headers: Any, body_length: int, request: scrapy.Request, **_: Any) -> None:
        """Do not read the body of what would not be stored."""
        if request.meta.get("robots"):
            return
        content_type = media_type(headers)
        unwanted = content_type is not None and content_type not in STORED_TYPES
        too_large = (body_length or 0) > self.job["limits"]["max_body_bytes"]
        if unwanted or too_large:
            request.meta["verdict"]["outcome"] = "not_html" if unwanted else "too_large"
            raise StopDownload(fail=False)

    def stop_too_large(self, data: bytes, request: scrapy.Request, **_: Any) -> None:
        """Stop a body that grows beyond the limit."""
        verdict = request.meta["verdict"]
        verdict["bytes"] = verdict.get("bytes", 0) + len(data)
        limit = ROBOTS_MAX_BYTES if request.meta.get("robots") else self.job["limits"]["max_body_bytes"]
        if verdict["bytes"] > limit:
            verdict["outcome"] = "too_large"
            raise StopDownload(fail=False)

    def report(self, *, force: bool = False) -> None:
        """One line of JSON to the parent, not too often."""
        if force or time.monotonic() - self._reported > PROGRESS_SECONDS:
            self._reported = time.monotonic()
            total = min(self.job["limits"]["max_pages"], max(self.frontier.seen, self.pages))
            tell({"pages": self.pages, "total": total, "unreached": self.frontier.unreached})


class VerdictMiddleware:
    """Gives each attempt a place where signals can say why its body was not read."""

    def process_request(self, request: scrapy.Request) -> None:
        """A retry starts anew."""
        request.meta["verdict"] = {}


def tell(message: dict[str, Any]) -> None:
    """One line to the parent."""
    sys.stdout.write(json.dumps(message) + "\n")
    sys.stdout.flush()


def main() -> int:
    """Run the job described by the JSON file in the first argument."""
    die_with(int(sys.argv[2]))
    job = json.loads(Path(sys.argv[1]).read_text())
    environment_proxies = {urlsplit(proxy).hostname or "" for proxy in getproxies().values()}
    PublicResolver.allowed = frozenset(job["private_hosts"]) | environment_proxies
    settings = SETTINGS | {
        "TWISTED_DNS_RESOLVER": PublicResolver,  # the class: by name, this module would be loaded a second time
        "USER_AGENT": job["user_agent"],
        "DOWNLOAD_DELAY": job["delay_s"],
        "CONCURRENT_REQUESTS_PER_DOMAIN": job["concurrency_per_host"],
        "DOWNLOAD_TIMEOUT": job["timeout_s"],
        # One byte more, so that our own limit speaks first; this one still bounds what is decompressed.
        "DOWNLOAD_MAXSIZE": max(job["limits"]["max_body_bytes"], ROBOTS_MAX_BYTES) + 1,
        "DOWNLOADER_MIDDLEWARES": {VerdictMiddleware: 1},
    }
    failure: BaseException | None = None
    finished = False
    try:
        with Spool(Path(job["spool"])) as spool:
            process = CrawlerProcess(settings)
            crawler = process.create_crawler(PageSpider)
            process.crawl(crawler, job=job, spool=spool)
            process.start(install_signal_handlers=False)
            if isinstance(crawler.spider, PageSpider):
                failure, finished = crawler.spider.failure, crawler.spider.finished
    except OSError as problem:  # closing a spool on a full disk fails too
        failure = problem
    if isinstance(failure, OSError):
        tell({"errno": failure.errno, "error": failure.strerror, "path": str(failure.filename or job["spool"])})
    return 0 if finished and failure is None else 1


if __name__ == "__main__":
    sys.exit(main())
