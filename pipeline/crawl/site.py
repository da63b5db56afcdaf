"""What a site says about itself before any page: robots.txt and the TDM reservation file."""

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Protocol
from urllib.parse import urlsplit

from pipeline.crawl.fetch import Answer, Failure
from pipeline.crawl.permissions import MAX_TDMREP_BYTES, TdmRep, parse_tdmrep
from pipeline.crawl.robots import MAX_ROBOTS_BYTES, Robots, parse_robots
from pipeline.crawl.spool import Row, new_row
from pipeline.crawl.urls import canonical_url, netloc_of
from pipeline.crawl.warc import payload_digest

MAX_REDIRECTS = 5
"""RFC 9309, 2.3.1.2, also to other hosts."""

MAX_AGE_MS = 24 * 3600 * 1000
"""RFC 9309, 2.4: after a day robots.txt is asked for again."""

ROBOTS_PATH = "/robots.txt"
TDMREP_PATH = "/.well-known/tdmrep.json"

_SITE_BYTES = 1024

_PASSED_ON = ("private_address", "gave_up")
"""Failures that say more of a page's fate than that robots.txt could not be had."""


class Ask(Protocol):
    """Asks for a file."""

    async def __call__(self, url: str, max_bytes: int, *, foreign: bool) -> Answer | Failure:
        """The answer, its body cut at `max_bytes`."""


@dataclass(frozen=True)
class Site:
    """The rules of an origin; `missing` is why robots.txt could not be had, and then nothing is allowed."""

    origin: str
    robots: Robots = field(default_factory=lambda: parse_robots(b""))
    tdmrep: TdmRep = field(default_factory=lambda: parse_tdmrep(b""))
    missing: Failure | None = None
    rows: tuple[Row, ...] = ()

    @property
    def size(self) -> int:
        """Characters of the files, and something for being there."""
        return _SITE_BYTES + sum(len(row["kept"] or "") for row in self.rows)


def origin_of(url: str) -> str:
    """Scheme, host and port of a canonical URL."""
    parts = urlsplit(url)
    return f"{parts.scheme}://{parts.netloc}"


def is_about_site(url: str) -> bool:
    """Whether a canonical URL is one of the files that `read_site` asks for."""
    return urlsplit(url).path in (ROBOTS_PATH, TDMREP_PATH)


async def read_site(origin: str, agent: str, ask: Ask, now: Callable[[], int]) -> Site:
    """Ask for an origin's two files, for the second only where the first allows it.

    `ask` gives the answer to a URL, of at most so many bytes; a `foreign` one was named by another host.
    """
    row, body, missing = await _read(origin + ROBOTS_PATH, "robots_txt", MAX_ROBOTS_BYTES, ask, now)
    if missing is not None:
        return Site(origin, missing=missing, rows=(row,))
    row["sitemaps"], may_ask = _look_into(body, origin, agent)
    if not may_ask:
        return Site(origin, parse_robots(body), rows=(row,))
    tdm_row, tdm_body, _ = await _read(origin + TDMREP_PATH, "tdmrep", MAX_TDMREP_BYTES, ask, now)
    return Site(origin, parse_robots(body), parse_tdmrep(tdm_body), None, (row, tdm_row))


def _look_into(body: bytes, origin: str, agent: str) -> tuple[list[str], bool]:
    """The sitemaps that a robots.txt names, and whether the second file may be asked for.

    Rules take 25 times the memory of their text, so they are not held while another answer is waited for.
    """
    robots = parse_robots(body)
    named = (canonical_url(place, origin) for place in robots.sitemaps)
    return [place for place in named if place is not None], robots.allows(origin + TDMREP_PATH, agent)


def remembered_site(origin: str, rows: dict[str, Row], now: int) -> Site | None:
    """The site as an earlier process read it; None where it did not, or more than a day ago."""
    robots, tdmrep = rows.get(origin + ROBOTS_PATH), rows.get(origin + TDMREP_PATH)
    if robots is None or robots["kept"] is None or now - robots["fetched_at"] > MAX_AGE_MS:
        return None
    reserved = parse_tdmrep(((tdmrep or {}).get("kept") or "").encode("latin-1"))
    return Site(origin, parse_robots(robots["kept"].encode("latin-1")), reserved, None, tuple(rows.values()))


async def _read(
    url: str, outcome: str, max_bytes: int, ask: Ask, now: Callable[[], int]
) -> tuple[Row, bytes, Failure | None]:
    """The row and the body of a file, following redirects; for robots.txt also why it must be taken to forbid all.

    An answer in the 400s says that there are no rules, one in the 500s or none forbids (RFC 9309, 2.3.1.3 and 2.3.1.4).
    """
    place: str | None = url
    for _ in range(MAX_REDIRECTS + 1):
        assert place is not None
        reply = await ask(place, max_bytes, foreign=netloc_of(place) != netloc_of(url))
        if isinstance(reply, Failure):
            word = reply.outcome if reply.unreachable or reply.outcome in _PASSED_ON else "robots_unreachable"
            row = new_row(url, outcome, fetched_at=now(), detail=str(reply))
            return row, b"", Failure(word, f"{url}: {reply}")
        answer = reply
        place = redirect_target(answer, place)
        if place is None:
            break
    row = new_row(url, outcome, status=answer.status, fetched_at=now(), content_type=answer.header("Content-Type"))
    if answer.status >= 500 or answer.status == 429:
        return row, b"", Failure("robots_unreachable", f"{url} answered {answer.status}")
    body = answer.body if 200 <= answer.status < 300 else b""
    row |= {"kept": body.decode("latin-1"), "payload_digest": payload_digest(body) if body else None}
    if place is not None:
        row["detail"] = f"more than {MAX_REDIRECTS} redirects"
    return row, body, None


def redirect_target(answer: Answer, url: str) -> str | None:
    """Where a redirect leads, as a canonical URL; None where the answer is none or it leads nowhere."""
    value = answer.header("Location")
    return canonical_url(value, url) if 300 <= answer.status < 400 and value is not None else None
