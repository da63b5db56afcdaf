"""What a crawl asks for, and in which order: a pure function of the answers.

A crawl goes in *waves*: the waiting URLs of the smallest depth, the hosts in turn, and no more of them than the budget
still allows. The next wave depends only on the answers to the ones before it, never on which answer came first. So
concurrency does not change what a crawl with a budget stores, and a killed crawl that meets its old answers again ends
as it would have. The price: a wave ends when its slowest host does.
"""

import heapq
from collections.abc import Iterable
from dataclasses import dataclass

from pipeline.crawl.scope import Scope
from pipeline.crawl.spool import REVISIT, STORED, Row
from pipeline.crawl.urls import netloc_of

MAX_REDIRECTS = 10
"""In a row, as in the Fetch standard's order of magnitude (20); RFC 9309 asks for at least 5."""

MAX_SITEMAP_DEPTH = 3
"""Sitemaps named by sitemaps; sitemaps.org allows one level."""

REQUESTS_PER_PAGE = 20
"""A site that answers with errors or redirects for ever is left after this many requests a page of the budget."""

MAX_WAITING_BYTES = 256 * 1024 * 1024
"""Of URLs that wait; more are not remembered, so that a site without end cannot fill the memory."""

_SMALLEST_WAVE = 8
"""So that a byte budget that nears its end does not make the crawl serial; it may be passed by so many bodies."""

_VISIT_BYTES = 300
"""Memory of a waiting URL beside its characters, about."""


@dataclass(frozen=True, order=True, slots=True)
class Visit:
    """A URL to ask for: `depth` links from a seed, `hops` redirects since the last link, from `requested_url`.

    Of a sitemap, `hops` counts the sitemaps before it too.
    """

    url: str
    depth: int = 0
    hops: int = 0
    requested_url: str | None = None
    sitemap: bool = False


class Frontier:
    """The waiting URLs and the budget of one crawl."""

    def __init__(
        self, seeds: Iterable[str], scope: Scope, *, max_pages: int, max_depth: int, max_bytes: int, max_body_bytes: int
    ) -> None:
        self._scope = scope
        self._max_depth = max_depth
        self._max_body_bytes = max_body_bytes
        self._pages_left = max_pages
        self._requests_left = max_pages * REQUESTS_PER_PAGE
        self._bytes_left = max_bytes
        self._seen: set[int] = set()  # hashes of URLs: a collision in 2**64 is no matter, 100 bytes a URL would be
        self._waiting: dict[int, dict[str, list[Visit]]] = {}  # depth → host → heap
        self._waiting_bytes = 0
        self.dropped = 0
        """URLs met but not remembered, because too many waited."""
        for seed in seeds:
            self._offer(Visit(seed))

    @property
    def seen(self) -> int:
        """URLs met so far."""
        return len(self._seen)

    @property
    def unreached(self) -> int:
        """URLs that wait, and will for ever once `wave` is empty: the budget was spent."""
        return self.dropped + sum(len(visits) for hosts in self._waiting.values() for visits in hosts.values())

    def offer_live(self, url: str, depth: int) -> None:
        """Have a page visited again that an earlier snapshot holds, whether or not anything still links to it."""
        if self._scope.covers(url):
            self._offer(Visit(url, depth))

    def offer_sitemaps(self, urls: Iterable[str]) -> None:
        """Have sitemaps read that a site names, where they lie on a host of the crawl."""
        for url in urls:
            self._offer_sitemap(url, 0)

    def wave(self) -> list[Visit]:
        """The next URLs to ask for; empty when nothing waits or the budget is spent.

        Hosts take turns in the order of their names, so that a budget is shared out among them.
        """
        room = min(self._pages_left, self._requests_left)
        if room <= 0 or self._bytes_left <= 0 or not self._waiting:
            return []
        room = min(room, max(_SMALLEST_WAVE, self._bytes_left // self._max_body_bytes))
        depth = min(self._waiting)
        hosts = self._waiting[depth]
        visits: list[Visit] = []
        while hosts and len(visits) < room:
            for host in sorted(hosts)[: room - len(visits)]:
                visits.append(heapq.heappop(hosts[host]))
                if not hosts[host]:
                    del hosts[host]
        if not hosts:
            del self._waiting[depth]
        self._waiting_bytes -= sum(map(_memory, visits))
        return visits

    def absorb(self, visit: Visit, row: Row) -> None:
        """Take the answer to `visit`; call it for a whole wave, in its order, before asking for the next."""
        self._requests_left -= 1
        if row["outcome"] in (STORED, REVISIT):
            self._pages_left -= 1
            self._bytes_left -= row["payload_length"]
        for url in row["sitemaps"]:
            self._offer_sitemap(url, visit.hops + 1)
        if row["outcome"] == "redirect":
            for url in row["links"]:
                if self._scope.covers(url):
                    self._offer(Visit(url, visit.depth, visit.hops + 1, visit.url))
        elif visit.depth < self._max_depth:
            for url in row["links"]:
                self._offer(Visit(url, visit.depth + 1))

    def _offer_sitemap(self, url: str, hops: int) -> None:
        if hops <= MAX_SITEMAP_DEPTH and self._scope.covers_host(netloc_of(url)):
            self._offer(Visit(url, 0, hops, sitemap=True))

    def _offer(self, visit: Visit) -> None:
        name = hash(visit.url)
        if name in self._seen:
            return
        if self._waiting_bytes > MAX_WAITING_BYTES:
            self.dropped += 1
            return
        self._seen.add(name)
        self._waiting_bytes += _memory(visit)
        heapq.heappush(self._waiting.setdefault(visit.depth, {}).setdefault(netloc_of(visit.url), []), visit)


def _memory(visit: Visit) -> int:
    return len(visit.url) + _VISIT_BYTES
