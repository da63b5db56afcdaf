"""What a crawl asks for, and in which order: a pure function of the answers.

A crawl goes in *waves*: the waiting URLs of the smallest depth, in order, and no more of them than the budget still
allows. The next wave depends only on the answers to the ones before it, never on which answer came first. So
concurrency does not change what a crawl with a budget stores, and a killed crawl that meets its old answers again ends
as it would have. The price: a wave ends when its slowest host does.
"""

from collections.abc import Iterable
from dataclasses import dataclass

from pipeline.crawl.spool import Row
from pipeline.crawl.urls import netloc_of

MAX_REDIRECTS = 10
"""In a row, as in the Fetch standard's order of magnitude (20); RFC 9309 asks for at least 5."""

REQUESTS_PER_PAGE = 20
"""A site that answers with errors or redirects for ever is left after this many requests a page of the budget."""

_SMALLEST_WAVE = 8
"""So that a byte budget that nears its end does not make the crawl serial; it may be passed by so many bodies."""


@dataclass(frozen=True, order=True)
class Visit:
    """A URL to ask for: `depth` links from a seed, `hops` redirects since the last link, from `requested_url`."""

    url: str
    depth: int = 0
    hops: int = 0
    requested_url: str | None = None


class Frontier:
    """The waiting URLs and the budget of one crawl."""

    def __init__(
        self,
        seeds: Iterable[str],
        hosts: Iterable[str],
        *,
        max_pages: int,
        max_depth: int,
        max_bytes: int,
        max_body_bytes: int,
    ) -> None:
        self._hosts = frozenset(hosts)
        self._max_depth = max_depth
        self._max_body_bytes = max_body_bytes
        self._pages_left = max_pages
        self._requests_left = max_pages * REQUESTS_PER_PAGE
        self._bytes_left = max_bytes
        self._seen: set[str] = set()
        self._waiting: dict[int, dict[str, Visit]] = {}
        for seed in seeds:
            self._offer(Visit(seed))

    @property
    def seen(self) -> int:
        """URLs met so far."""
        return len(self._seen)

    @property
    def unreached(self) -> int:
        """URLs that wait, and will for ever once `wave` is empty: the budget was spent."""
        return sum(map(len, self._waiting.values()))

    def wave(self) -> list[Visit]:
        """The next URLs to ask for, sorted; empty when nothing waits or the budget is spent."""
        room = min(self._pages_left, self._requests_left)
        if room <= 0 or self._bytes_left <= 0 or not self._waiting:
            return []
        room = min(room, max(_SMALLEST_WAVE, self._bytes_left // self._max_body_bytes))
        depth = min(self._waiting)
        waiting = self._waiting[depth]
        visits = [waiting.pop(url) for url in sorted(waiting)[:room]]
        if not waiting:
            del self._waiting[depth]
        return visits

    def absorb(self, visit: Visit, row: Row) -> None:
        """Take the answer to `visit`; call it for a whole wave, in its order, before asking for the next."""
        self._requests_left -= 1
        if row["outcome"] == "stored":
            self._pages_left -= 1
            self._bytes_left -= row["payload_length"]
        if row["outcome"] == "redirect":
            if visit.hops < MAX_REDIRECTS:
                for url in row["links"]:
                    self._offer(Visit(url, visit.depth, visit.hops + 1, visit.url))
        elif visit.depth < self._max_depth:
            for url in row["links"]:
                self._offer(Visit(url, visit.depth + 1))

    def _offer(self, visit: Visit) -> None:
        if visit.url not in self._seen and netloc_of(visit.url) in self._hosts:
            self._seen.add(visit.url)
            self._waiting.setdefault(visit.depth, {})[visit.url] = visit
