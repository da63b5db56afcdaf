"""Hosts that are bad all over, lie about themselves or have no end, and which outcomes in the url index are right.

`STORMS` misbehave wherever one asks, `ABOUT` in the files about a site (its pages are good), `FLOODS` by the number of
their URLs.
"""

import gzip
import json
from collections.abc import AsyncIterator
from email.utils import formatdate
from time import time

from tests.pipeline.crawl.hostile import (
    GARBAGE,
    GOOD,
    MIB,
    Ask,
    Behaviour,
    Piece,
    Site,
    Then,
    answer,
    at_first,
    bad,
    bomb,
    drips,
    everywhere,
    forever,
    head,
    packed,
    page,
    redirects,
    sends,
)

EITHER = "stored robots_unreachable private_address"
"""RFC 9309, 2.3.1.2, leaves it to the crawler."""

DYING_LINKS = 40

PRIVATE = ["169.254.169.254", "10.0.0.1", "192.168.0.1", "100.64.0.1", "0.0.0.0", "[fd00::1]", "[fe80::1]"]
"""Literal addresses that are in the crawl's hosts, but not in its private_hosts."""

LAUGHS = "<!DOCTYPE l [<!ENTITY a0 'ha'>" + "".join(f"<!ENTITY a{n} '{f'&a{n - 1};' * 10}'>" for n in range(1, 10))


async def _retry_after_date(_: Ask) -> AsyncIterator[Piece]:
    yield answer("later", "503 Service Unavailable", Retry_After=formatdate(time() + 2, usegmt=True))


def _busy(status: str, retry_after: str | None = None) -> Behaviour:
    more = {} if retry_after is None else {"Retry_After": retry_after}
    return sends(answer("later", status, **more), Then.KEEP)


def _dying(ask: Ask) -> AsyncIterator[Piece]:
    """A host that answers eight times and then no more."""
    links = page(*(f"/{n}" for n in range(DYING_LINKS)))
    return (sends(answer(links), Then.KEEP) if ask.site_turn <= 8 else sends(Then.RESET))(ask)


def _storm(behaviour: Behaviour, outcomes: str = "http_429 http_503 gave_up") -> Site:
    return Site(everywhere(behaviour), {"/": outcomes, "/bad": outcomes, "/after": outcomes})


def _robots(behaviour: Behaviour, outcomes: str = "stored", **more: str) -> Site:
    return Site({"/robots.txt": behaviour}, {"/": outcomes, "/after": outcomes} | more)


def _sitemap(behaviour: Behaviour, path: str = "/sitemap.xml") -> Site:
    named = sends("HTTP/1.1 200 OK\r\nContent-Type: text/plain\r\n\r\nSitemap: {base}" + path + "\n")
    return Site({"/robots.txt": named, path: behaviour}, GOOD)


def _tdmrep(body: bytes) -> Site:
    return Site({"/.well-known/tdmrep.json": sends(answer(body, media_type="application/json"))}, GOOD)


def _urlset(*locations: str, dtd: str = "") -> str:
    """A sitemap as a whole answer without a length."""
    urls = "".join(f"<url><loc>{location}</loc></url>" for location in locations)
    return (
        "HTTP/1.1 200 OK\r\nContent-Type: application/xml\r\n\r\n"
        f'<?xml version="1.0"?>{dtd}<urlset xmlns="http://www.sitemaps.org/schemas/sitemap/0.9">{urls}</urlset>'
    )


async def _nested_index(ask: Ask) -> AsyncIterator[Piece]:
    maps = "".join(f"<sitemap><loc>{ask.base}{ask.path}/{n}</loc></sitemap>" for n in range(3))
    yield answer(f"<sitemapindex>{maps}</sitemapindex>", media_type="application/xml")


async def _tree(ask: Ask) -> AsyncIterator[Piece]:
    yield answer(page(*(f"{ask.path.rstrip('/')}/{n}" for n in range(1000))))


async def _million_locations(ask: Ask) -> AsyncIterator[Piece]:
    yield head(**{"Content-Type": "application/xml"}) + b"<urlset>"
    for thousand in range(1000):
        yield b"".join(b"<url><loc>%s/s%d</loc></url>" % (ask.base.encode(), thousand * 1000 + n) for n in range(1000))
    yield b"</urlset>"


def _endless_robots() -> Behaviour:
    rules = b"User-agent: *\nDisallow: /bad\n"
    return forever(head(**{"Content-Type": "text/plain"}) + rules, b"# and so on, and so forth\n" * 1000)


STORMS: dict[str, Site] = {
    "storm-429": _storm(_busy("429 Too Many Requests")),
    "storm-503": _storm(_busy("503 Service Unavailable")),
    "storm-429-seconds": _storm(_busy("429 Too Many Requests", "1")),
    "storm-503-date": _storm(_retry_after_date),
    "storm-429-absurd": _storm(_busy("429 Too Many Requests", "1000000000"), "gave_up http_429"),
    "storm-503-absurd": _storm(_busy("503 Service Unavailable", "9" * 400), "gave_up http_503"),
    "storm-429-far-date": _storm(_busy("429 Too Many Requests", "Fri, 31 Dec 9999 23:59:59 GMT"), "gave_up http_429"),
    "storm-429-negative": _storm(_busy("429 Too Many Requests", "-5")),
    "storm-429-garbage": _storm(_busy("429 Too Many Requests", "when hell freezes over")),
    "storm-429-passing": Site(
        {"/bad": at_first(1, _busy("429 Too Many Requests", "1"), sends(answer(page())))}, GOOD | {"/bad": "stored"}
    ),
    "storm-503-passing": Site(
        {"/bad": at_first(1, _busy("503 Service Unavailable"), sends(answer(page())))}, GOOD | {"/bad": "stored"}
    ),
    "dying": Site(everywhere(_dying), {"/": "stored"}),
    "resets-only": _storm(sends(Then.RESET), "connection gave_up timeout"),
    "silence-only": _storm(drips(b"", b""), "timeout gave_up"),
}
"""Sites that are bad wherever one asks."""

ABOUT: dict[str, Site] = {
    "robots-endless": _robots(_endless_robots(), **{"/bad": "robots"}),
    "robots-10-mb": _robots(
        sends(answer("User-agent: *\nDisallow: /bad\n" + "# more\n" * 1_500_000, media_type="text/plain")),
        **{"/bad": "robots"},
    ),
    "robots-one-line": _robots(sends(answer("User-agent: *\nDisallow: /" + "x" * 10 * MIB))),
    "robots-bomb": _robots(packed(bomb(), "gzip"), EITHER),
    "robots-loop": _robots(redirects("/robots.txt"), EITHER),
    "robots-to-canary": _robots(redirects("http://127.0.0.1:{canary}/robots.txt"), EITHER),
    "robots-to-metadata": _robots(redirects("http://169.254.169.254:{canary}/robots.txt"), EITHER),
    "robots-to-file": _robots(redirects("file:///etc/passwd"), EITHER),
    "robots-429": _robots(_busy("429 Too Many Requests"), "robots_unreachable"),
    "robots-503": _robots(_busy("503 Service Unavailable"), "robots_unreachable"),
    "robots-503-absurd": _robots(_busy("503 Service Unavailable", "1000000000"), "robots_unreachable gave_up"),
    "robots-binary": _robots(sends(answer(GARBAGE, media_type="text/plain"))),
    "robots-html": _robots(sends(answer(page("/bad")))),
    "robots-drip": _robots(drips(head(Content_Type="text/plain") + b"User-agent: *\n"), "robots_unreachable timeout"),
    "robots-reset": _robots(sends(Then.RESET), "robots_unreachable connection"),
    "robots-backtracking": Site(
        {"/robots.txt": sends(answer("User-agent: *\nDisallow: /" + "*a" * 30 + "*b$", media_type="text/plain"))},
        GOOD | {"/" + "a" * 1500: "http_404"},
    ),
    "sitemap-bomb": _sitemap(sends(answer(bomb(), media_type="application/gzip")), "/sitemap.xml.gz"),
    "sitemap-laughs": _sitemap(sends(_urlset("{base}/&a9;", dtd=LAUGHS + "]>"))),
    "sitemap-entity": _sitemap(
        sends(_urlset("{base}/&x;", dtd="<!DOCTYPE u [<!ENTITY x SYSTEM 'file:///etc/passwd'>]>"))
    ),
    "sitemap-entity-canary": _sitemap(
        sends(_urlset("{base}/&x;", dtd="<!DOCTYPE u [<!ENTITY x SYSTEM 'http://127.0.0.1:{canary}/'>]>"))
    ),
    "sitemap-dtd-canary": _sitemap(
        sends(_urlset("{base}/after", dtd="<!DOCTYPE u SYSTEM 'http://127.0.0.1:{canary}/u.dtd'>"))
    ),
    "sitemap-nowhere": _sitemap(
        sends(
            _urlset("file:///etc/passwd", "http://127.0.0.1:{canary}/", "http://10.9.9.9/", "http://0x7f.1:{canary}/")
        )
    ),
    "sitemap-index-nowhere": _sitemap(
        sends(
            _urlset("file:///etc/passwd", "http://127.0.0.1:{canary}/")
            .replace("urlset", "sitemapindex")
            .replace("url>", "sitemap>")
        )
    ),
    "sitemap-of-itself": _sitemap(
        sends(_urlset("{base}/sitemap.xml").replace("urlset", "sitemapindex").replace("url>", "sitemap>"))
    ),
    "sitemap-nested": Site(
        _sitemap(_nested_index, "/s").pages | {f"/s{'/0' * n}": _nested_index for n in range(1, 99)}, GOOD
    ),
    "sitemap-endless": _sitemap(forever(head(**{"Content-Type": "application/xml"}) + b"<urlset>", b"<url>" * 1000)),
    "sitemap-drip": _sitemap(drips(head(**{"Content-Type": "application/xml"}) + b"<urlset>")),
    "sitemap-garbage": _sitemap(sends(answer(GARBAGE, media_type="application/xml"))),
    "sitemap-cut-off": _sitemap(
        sends(answer(gzip.compress(GARBAGE)[:50], media_type="application/gzip")), "/sitemap.xml.gz"
    ),
    "sitemap-loop": _sitemap(redirects("/sitemap.xml")),
    "sitemap-reset": _sitemap(sends(Then.RESET)),
    "tdmrep-garbage": _tdmrep(GARBAGE),
    "tdmrep-deep": _tdmrep(b"[" * 1_000_000),
    "tdmrep-numbers": _tdmrep(b'[1, null, {}, [], {"location": 5, "tdm-reservation": {}}]'),
    "tdmrep-immense-number": _tdmrep(b'[{"location": "/none", "tdm-reservation": ' + b"9" * 100_000 + b"}]"),
    "tdmrep-backtracking": Site(
        _tdmrep(json.dumps([{"location": "/" + "*a" * 30 + "*b$", "tdm-reservation": 1}]).encode()).pages,
        GOOD | {"/" + "a" * 1500: "http_404"},
    ),
    "tdmrep-bomb": Site({"/.well-known/tdmrep.json": packed(bomb(), "gzip")}, GOOD),
    "tdmrep-endless": Site({"/.well-known/tdmrep.json": forever(head(), b"[" * 60_000)}, GOOD),
}
"""Sites that are good, and what they say about themselves is not."""

FLOODS: dict[str, Site] = {
    "flood-of-links": bad(sends(answer("".join(f"<a href={n:x}>" for n in range(1_000_000)))), "stored"),
    "flood-tree": Site(everywhere(_tree), GOOD | {"/bad": "stored"}),
    "flood-sitemap": _sitemap(_million_locations),
}
"""Sites with more URLs than anybody wants. What they link to is good, or not there."""
