import gzip
import time
import tracemalloc
from collections.abc import Callable
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipeline.crawl.sitemaps import MAX_SITEMAP_BYTES, MAX_SITEMAP_URLS, Sitemap, read_sitemap

HERE = "http://h.example/sitemap.xml"
PAGES = ["http://h.example/a", "http://h.example/b?x=1&y=2"]

URLSET = b"""<?xml version="1.0" encoding="UTF-8"?>
<urlset xmlns="http://www.sitemaps.org/schemas/sitemap/0.9" xmlns:image="http://www.google.com/schemas/sitemap-image/1.1">
  <url><loc>
    http://h.example/a#top </loc><lastmod>2024-01-01</lastmod>
    <image:image><image:loc>http://h.example/a.png</image:loc></image:image></url>
  <url><loc>http://h.example/b?y=2&amp;x=1</loc></url>
  <url><loc><![CDATA[HTTP://h.example:80/a]]></loc></url>
  <url><loc>mailto:a@h.example</loc></url>
  <url><loc/></url>
</urlset>
"""

FEEDS = {
    "RSS 2.0": b"""<rss version="2.0" xmlns:atom="http://www.w3.org/2005/Atom"><channel><link>http://h.example/</link>
        <atom:link href="http://h.example/feed" rel="self"/>
        <item><title>A</title><link>/a</link><guid>tag:1</guid></item>
        <item><link>http://h.example/b?x=1&amp;y=2</link></item></channel></rss>""",
    "RSS 1.0": b"""<rdf:RDF xmlns:rdf="http://www.w3.org/1999/02/22-rdf-syntax-ns#" xmlns="http://purl.org/rss/1.0/">
        <channel><link>http://h.example/</link></channel>
        <item><link>http://h.example/a</link></item><item><link>http://h.example/b?x=1&amp;y=2</link></item></rdf:RDF>""",
    "Atom": b"""<feed xmlns="http://www.w3.org/2005/Atom"><link rel="self" href="/feed"/>
        <entry><link href="/a"/><link rel="enclosure" href="/a.mp3"/></entry>
        <entry><link rel="alternate" href="/b?x=1&amp;y=2"/></entry></feed>""",
}


def urlset(*locations: str) -> bytes:
    return f"<urlset>{''.join(f'<url><loc>{location}</loc></url>' for location in locations)}</urlset>".encode()


def test_pages_are_canonical_in_order_and_once() -> None:
    assert read_sitemap(URLSET, HERE) == Sitemap(pages=PAGES)


def test_an_index_lists_sitemaps() -> None:
    body = b"<sitemapindex><sitemap><loc>http://h.example/1.xml.gz</loc></sitemap><sitemap><loc>/2.xml</loc></sitemap>"
    assert read_sitemap(body, HERE) == Sitemap(sitemaps=["http://h.example/1.xml.gz", "http://h.example/2.xml"])


@pytest.mark.parametrize("kind", FEEDS)
def test_feeds_are_sitemaps(kind: str) -> None:
    assert read_sitemap(FEEDS[kind], HERE) == Sitemap(pages=PAGES)


@pytest.mark.parametrize(
    "body",
    [
        URLSET.replace(b' xmlns="http://www.sitemaps.org/schemas/sitemap/0.9"', b""),
        URLSET.replace(b"<url", b"<s:url")
        .replace(b"</url", b"</s:url")
        .replace(b"<s:urlset", b'<s:urlset xmlns:s="s"'),
        b"\xef\xbb\xbf" + URLSET,
        b"\r\n\n  " + URLSET,
        URLSET.decode().replace("UTF-8", "UTF-16").encode("utf-16"),
        URLSET.replace(b"UTF-8", b"windows-1252"),
        URLSET.replace(b"<urlset", b'<!DOCTYPE urlset SYSTEM "http://h.example/sitemap.dtd"><urlset', 1),
    ],
    ids=["no namespace", "prefixes", "byte order mark", "blank lines first", "UTF-16", "windows-1252", "document type"],
)
def test_spellings_of_xml_make_no_difference(body: bytes) -> None:
    assert read_sitemap(body, HERE) == Sitemap(pages=PAGES)


@pytest.mark.parametrize("line_end", ["\n", "\r\n", "\r"])
def test_text_lists_one_url_a_line(line_end: str) -> None:
    text = line_end.join(
        ["\ufeffhttp://h.example/a", "", "no url", "/relative", " http://h.example/b?y=2&x=1 ", PAGES[0]]
    )
    assert read_sitemap(text.encode(), HERE) == Sitemap(pages=PAGES)


@pytest.mark.parametrize("body", [URLSET, "\n".join(PAGES).encode(), FEEDS["Atom"]])
def test_gzip_is_known_by_its_first_bytes(body: bytes) -> None:
    assert read_sitemap(gzip.compress(body, mtime=0), HERE) == Sitemap(pages=PAGES)
    assert read_sitemap(gzip.compress(body[:20], mtime=0) + gzip.compress(body[20:], mtime=0), HERE) == Sitemap(
        pages=PAGES
    )


def test_broken_xml_yields_what_was_read_before_the_break() -> None:
    body = urlset(*PAGES[:1], "http://h.example/b?x&y", "http://h.example/c")
    assert read_sitemap(body, HERE) == Sitemap(pages=PAGES[:1])
    assert read_sitemap(URLSET[: URLSET.index(b"<![CDATA")], HERE) == Sitemap(pages=PAGES)


def test_broken_gzip_yields_what_was_read_before_the_break() -> None:
    numbers = [f"http://h.example/{number * 7919 % 100_003}" for number in range(5000)]
    body = bytearray(gzip.compress(urlset(*numbers)))
    truncated = read_sitemap(bytes(body[: len(body) // 2]), HERE).pages
    body[len(body) // 2] ^= 0xFF
    damaged = read_sitemap(bytes(body), HERE).pages
    for pages in (truncated, damaged):
        assert len(pages) > 1000
        assert pages[:1000] == numbers[:1000]


GARBAGE = [
    b"",
    b"<",
    b"<html><body><a href='/a'>",
    b"<a>" * 10,
    b"\x1f\x8b",
    b"\x1f\x8bgarbage",
    b"\x00\xff\x89PNG",
    b"not found",
    b"{}",
    gzip.compress(b"", mtime=0),
    b"<?xml version='1.0' encoding='euc-jp'?><urlset/>",
    b"<?xml version='1.0' encoding='nope'?><urlset/>",
]


@pytest.mark.parametrize("body", GARBAGE)
def test_garbage_gives_an_empty_one(body: bytes) -> None:
    assert read_sitemap(body, HERE) == Sitemap()


@given(st.one_of(st.binary(), st.binary().map(lambda end: URLSET[:500] + end)))
def test_no_bytes_are_an_error(body: bytes) -> None:
    assert len(read_sitemap(body, HERE).pages) <= 10
    assert len(read_sitemap(gzip.compress(body, mtime=0)[:-1], HERE).pages) <= 10


def test_entities_are_never_resolved(tmp_path: Path) -> None:
    secret = tmp_path / "secret"
    secret.write_text("http://h.example/secret")
    laughs = "".join(f'<!ENTITY l{n} "{f"&l{n - 1};" * 10}">' for n in range(1, 10))
    for declarations, reference in [
        (f'<!ENTITY x SYSTEM "{secret.as_uri()}">', "&x;"),
        ('<!ENTITY l0 "http://h.example/l">' + laughs, "&l9;"),
        (f'<!ENTITY % p SYSTEM "{secret.as_uri()}"> %p;', "http://h.example/c"),
        ('<!ATTLIST url a CDATA "x">', "http://h.example/c"),
    ]:
        assert read_sitemap(f"<!DOCTYPE urlset [{declarations}]>".encode() + urlset(reference), HERE) == Sitemap()


def test_at_most_so_many_entries_are_read() -> None:
    numbers = [f"http://h.example/{number}" for number in range(MAX_SITEMAP_URLS + 10)]
    assert read_sitemap(urlset(*numbers), HERE).pages == numbers[:MAX_SITEMAP_URLS]
    assert read_sitemap("\n".join(numbers).encode(), HERE).pages == numbers[:MAX_SITEMAP_URLS]


def test_at_most_so_many_bytes_are_read() -> None:
    filler = b"<!--" + b" " * 500_000 + b"-->"
    body = (
        b"<urlset><url><loc>/a</loc></url>"
        + filler * (MAX_SITEMAP_BYTES // len(filler) + 1)
        + b"<url><loc>/b</loc></url>"
    )
    assert read_sitemap(body, HERE).pages == PAGES[:1]
    assert read_sitemap(gzip.compress(body, 1, mtime=0), HERE).pages == PAGES[:1]


HOSTILE: dict[str, Callable[[], bytes]] = {
    "empty tags": lambda: b"<urlset>" + b"<a/>" * 500_000,
    "depth": lambda: b"<urlset>" + b"<a>" * 2_000_000,
    "one tag of attributes": lambda: b"<urlset " + b"".join(b"a%d='>' " % number for number in range(700_000)),
    "one location": lambda: b"<urlset><url><loc>" + b"&amp;" * 2_000_000,
    "one comment": lambda: b"<urlset><!--" + b"x" * 8_000_000,
    "one line": lambda: b"h" * 8_000_000,
    "no lines": lambda: b"\n" * 8_000_000,
    "no gzip members": lambda: gzip.compress(b"", mtime=0) * 400_000,
    "a bomb": lambda: gzip.compress(b"<urlset>" + b"\n" * 2 * MAX_SITEMAP_BYTES, 1, mtime=0),
}


@pytest.mark.parametrize("kind", HOSTILE)
def test_hostile_sitemaps_take_bounded_time_and_memory(kind: str) -> None:
    body = HOSTILE[kind]()
    tracemalloc.start()
    started = time.perf_counter()
    assert read_sitemap(body, HERE) == Sitemap()
    seconds = time.perf_counter() - started
    _, most = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert seconds < 30
    assert most < 3 * MAX_SITEMAP_BYTES
