"""Crawls of small sites on loopback: what is asked for, what is obeyed, what is asked for again."""

import gzip
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest
from fastwarc.warc import ArchiveIterator

from pipeline.config import BadInput
from pipeline.crawl.seal import HOST_COUNTS, INDEX, REVISITS
from pipeline.documents import read_table
from pipeline.scrape import NOTHING_PURGED, scrape
from pipeline.sources import CrawlSource

Reply = tuple[int, dict[str, str], str | bytes]
HTML = {"Content-Type": "text/html; charset=utf-8"}


class Site:
    """Pages by path (a text is an HTML page, else status, headers and body), and what was asked for, in order."""

    def __init__(self, pages: dict[str, str | Reply | Callable[[Any], Reply]]) -> None:
        self.pages = pages
        self.asked: list[str] = []
        self.base = ""

    def answer(self, path: str, headers: Any) -> Reply:
        self.asked.append(path)
        page = self.pages.get(path, (404, {}, ""))
        if callable(page):
            page = page(headers)
        return (200, HTML, page) if isinstance(page, str) else page


@contextmanager
def served(pages: dict[str, Any]) -> Iterator[Site]:
    site = Site(pages)

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"
        wbufsize = -1

        def do_GET(self) -> None:
            status, headers, body = site.answer(self.path, self.headers)
            payload = body.encode() if isinstance(body, str) else body
            self.send_response(status)
            for name, value in headers.items():
                self.send_header(name, value)
            self.send_header("Content-Length", str(len(payload)))
            self.end_headers()
            self.wfile.write(payload)

        def log_message(self, *_: Any) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    site.base = f"http://127.0.0.1:{server.server_address[1]}"
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield site
    server.shutdown()
    server.server_close()


def links(*targets: str, head: str = "") -> str:
    anchors = "".join(f'<a href="{target}">x</a>' for target in targets)
    return f"<!DOCTYPE html><head>{head}</head><p>A page.</p>{anchors}"


def crawl(
    site: Site,
    folder: Path,
    *,
    earlier: list[Path] | None = None,
    purged: Mapping[str, list[str]] = NOTHING_PURGED,
    **settings: Any,
) -> tuple[dict[str, dict[str, Any]], dict[str, Any]]:
    """Rows of the url index by path, and the counts."""
    out = folder / "out"
    out.mkdir(parents=True)
    source = CrawlSource(**{"name": "s", "seeds": [site.base + "/"], "delay_s": 0.0, "timeout_s": 10} | settings)
    stats = scrape(source, out, folder / "work", earlier=earlier or [], purged=purged)
    rows = {row["url"].removeprefix(site.base): row for row in read_table(out / INDEX).to_pylist()}
    return rows, stats


def outcomes(rows: dict[str, dict[str, Any]]) -> dict[str, str]:
    """Outcome by path, but of the files about the site."""
    return {
        path: row["outcome"] for path, row in rows.items() if path not in ("/robots.txt", "/.well-known/tdmrep.json")
    }


def test_pages_that_must_not_be_used_are_rows_and_their_links_are_followed(tmp_path: Path) -> None:
    pages = {
        "/": links("/meta", "/header", "/noindex", "/tdm", "/other-bot", "/mined/page", "/nofollow"),
        "/meta": links("/behind", head='<meta name="robots" content="noai, noimageai">'),
        "/header": (200, HTML | {"X-Robots-Tag": "noai"}, links()),
        "/noindex": links(head='<meta name="ROBOTS" content="NOINDEX">'),
        "/tdm": (200, HTML | {"tdm-reservation": "1"}, links()),
        "/other-bot": (200, HTML | {"X-Robots-Tag": "otherbot: noai"}, links()),
        "/nofollow": links("/unseen", head='<meta name="robots" content="nofollow">'),
        "/mined/page": links(),
        "/behind": links(),
        "/.well-known/tdmrep.json": (200, {}, '[{"location": "/mined/", "tdm-reservation": 1}]'),
    }
    with served(pages) as site:
        rows, _ = crawl(site, tmp_path / "obeyed")
        assert outcomes(rows) == {
            "/": "stored",
            "/behind": "stored",
            "/header": "no_ai",
            "/meta": "no_ai",
            "/mined/page": "tdm_reserved",
            "/nofollow": "stored",
            "/noindex": "noindex",
            "/other-bot": "stored",
            "/tdm": "tdm_reserved",
        }
        assert rows["/meta"]["robots"] == "noai, noimageai"
        assert rows["/tdm"]["tdm_reserved"] is True
        assert rows["/"]["tdm_reserved"] is None
        assert rows["/meta"]["payload_digest"] is None
        ignored, _ = crawl(site, tmp_path / "ignored", ignore_signals=["noai", "noindex", "tdm"])
    assert set(outcomes(ignored).values()) == {"stored"}
    assert ignored["/meta"]["robots"] == "noai, noimageai"


def test_a_site_whose_robots_txt_refuses_training_is_not_asked_for_pages(tmp_path: Path) -> None:
    pages = {"/": links(), "/robots.txt": (200, {}, "User-agent: *\nContent-Signal: ai-train=no\nAllow: /\n")}
    with served(pages) as site, pytest.raises(BadInput, match=r"1 no_ai: .*robots\.txt refuses training"):
        crawl(site, tmp_path)
    assert site.asked == ["/robots.txt", "/.well-known/tdmrep.json"]


def test_a_site_that_forbids_everything_is_asked_for_robots_txt_alone(tmp_path: Path) -> None:
    pages = {"/": links(), "/robots.txt": (200, {}, "User-agent: *\nDisallow: /\n")}
    with served(pages) as site, pytest.raises(BadInput, match=r"stored no page \(1 robots\)"):
        crawl(site, tmp_path)
    assert site.asked == ["/robots.txt"]


def test_sitemaps_that_robots_txt_names_are_read(tmp_path: Path) -> None:
    with served({}) as site:
        inner = (
            f"<urlset><url><loc>{site.base}/found</loc></url><url><loc>http://elsewhere.example/</loc></url></urlset>"
        )
        index = f"<sitemapindex><sitemap><loc>{site.base}/inner.xml.gz</loc></sitemap></sitemapindex>"
        site.pages |= {
            "/": links(),
            "/found": links(),
            "/robots.txt": (200, {}, f"Sitemap: {site.base}/index.xml\n"),
            "/index.xml": (200, {"Content-Type": "application/xml"}, index),
            "/inner.xml.gz": (200, {"Content-Type": "application/gzip"}, gzip.compress(inner.encode())),
        }
        rows, _ = crawl(site, tmp_path / "with")
        without, _ = crawl(site, tmp_path / "without", sitemaps=False)
    assert outcomes(rows) == {"/": "stored", "/found": "stored", "/index.xml": "sitemap", "/inner.xml.gz": "sitemap"}
    assert outcomes(without) == {"/": "stored"}


def test_the_scope_is_hosts_paths_and_patterns(tmp_path: Path) -> None:
    targets = ("/docs/a", "/docs/b.draft", "/docs/c?print=1", "/blog/d", "http://localhost/docs/e")
    with served({"/": links(*targets)} | dict.fromkeys(targets, links())) as site:
        rows, _ = crawl(site, tmp_path, paths=["/docs/"], include=["/[ab]"], exclude=[r"\.draft$"])
    assert outcomes(rows) == {"/": "stored", "/docs/a": "stored"}


def test_time_may_be_the_budget(tmp_path: Path) -> None:
    pages = {f"/{n}": links(f"/{n + 1}") for n in range(1000)} | {"/": links("/0")}
    with served(pages) as site:
        start = time.monotonic()
        rows, stats = crawl(site, tmp_path, max_minutes=1 / 60, delay_s=0.2)
        assert time.monotonic() - start < 5
    assert 2 <= sum(row["outcome"] == "stored" for row in rows.values()) <= 6
    assert stats["unreached"] == 1


def test_a_host_that_asks_for_peace_gets_it(tmp_path: Path) -> None:
    times: list[float] = []

    def busy_once(_: Any) -> Reply:
        times.append(time.monotonic())
        return (503, {"Retry-After": "1"}, "") if len(times) == 1 else (200, HTML, links())

    with served({"/": busy_once}) as site:
        rows, _ = crawl(site, tmp_path)
    assert outcomes(rows) == {"/": "stored"}
    assert times[1] - times[0] >= 1.0


def test_a_host_that_never_stops_refusing_is_left_alone(tmp_path: Path) -> None:
    pages: dict[str, Any] = {f"/{n}": (429, {"Retry-After": "0"}, "") for n in range(40)}
    with served(pages | {"/": links(*pages)}) as site:
        rows, _ = crawl(site, tmp_path, concurrency_per_host=1)
    assert len(site.asked) < 14
    assert {row["outcome"] for path, row in rows.items() if path in pages} == {"http_429", "gave_up"}
    assert "it refused 8 times in a row, at last: it answered 429" in rows["/39"]["detail"]


def test_a_crawl_delay_is_honoured(tmp_path: Path) -> None:
    pages = {"/": links("/a", "/b"), "/a": links(), "/b": links()}
    with served(pages | {"/robots.txt": (200, {}, "User-agent: *\nCrawl-delay: 0.5\n")}) as site:
        start = time.monotonic()
        crawl(site, tmp_path, concurrency_per_host=4)
    assert time.monotonic() - start >= 1.5


def test_a_budget_is_shared_out_among_hosts(tmp_path: Path) -> None:
    pages = {"/": links(*(f"/{n}" for n in range(50)))} | {f"/{n}": links() for n in range(50)}
    with served(pages) as first, served(pages) as second:
        hosts = [site.base.removeprefix("http://") for site in (first, second)]
        crawl(first, tmp_path, seeds=[first.base, second.base], hosts=hosts, max_pages=12)
        table = read_table(tmp_path / "out" / HOST_COUNTS).to_pylist()
    assert {row["host"]: row["pages"] for row in table} == dict.fromkeys(hosts, 6)
    assert all(dict(row["outcomes"])["stored"] == 6 for row in table)
    assert all(dict(row["statuses"])[200] == 6 for row in table)


def revisitable(text: str, headers: dict[str, str] | None = None) -> Callable[[Any], Reply]:
    """A page that answers 304 to who has it."""
    etag = f'"{hash(text)}"'

    def answer(asked: Any) -> Reply:
        known = asked.get("If-None-Match") == etag
        return (304 if known else 200, HTML | {"ETag": etag} | (headers or {}), b"" if known else text)

    return answer


def test_a_second_crawl_stores_what_is_new_and_says_of_the_rest_that_it_is_unchanged(tmp_path: Path) -> None:
    pages: dict[str, Any] = {
        "/": revisitable(links("/same", "/changed", "/plain", "/orphan", "/deep/1")),
        "/same": revisitable(links("/below")),
        "/below": revisitable(links()),
        "/changed": revisitable(links() + "old"),
        "/plain": links() + "no validators",
        "/orphan": revisitable(links()),
    }
    with served(pages) as site:
        crawl(site, tmp_path / "1")
        pages["/"] = revisitable(links("/same", "/changed", "/plain", "/new"))
        pages["/changed"] = revisitable(links() + "new")
        pages["/new"] = links()
        site.asked.clear()
        rows, stats = crawl(site, tmp_path / "2", earlier=[tmp_path / "1/out"])
    assert {path: (row["outcome"], row["status"]) for path, row in rows.items() if path in pages} == {
        "/": ("stored", 200),
        "/below": ("revisit", 304),
        "/changed": ("stored", 200),
        "/new": ("stored", 200),
        "/orphan": ("revisit", 304),
        "/plain": ("revisit", 200),
        "/same": ("revisit", 304),
    }
    assert (stats["rows"], stats["pages"]) == (3, 7)
    assert rows["/same"]["links"] == [site.base + "/below"]
    assert len(site.asked) == len(set(site.asked))
    records = list(ArchiveIterator(str(tmp_path / "2/out" / REVISITS), parse_http=False))
    found = {record.headers["WARC-Target-URI"]: record.headers for record in records[1:]}
    assert {url.removeprefix(site.base) for url in found} == {"/below", "/orphan", "/plain", "/same"}
    assert found[site.base + "/same"]["WARC-Profile"].endswith("/revisit/server-not-modified")
    assert found[site.base + "/plain"]["WARC-Profile"].endswith("/revisit/identical-payload-digest")
    assert found[site.base + "/plain"]["WARC-Refers-To-Target-URI"] == site.base + "/plain"


def test_a_page_that_forbids_its_use_with_a_304_is_withdrawn(tmp_path: Path) -> None:
    pages: dict[str, Any] = {"/": revisitable(links("/a")), "/a": revisitable(links())}
    with served(pages) as site:
        crawl(site, tmp_path / "1")
        pages["/a"] = revisitable(links(), {"X-Robots-Tag": "noai"})
        rows, _ = crawl(site, tmp_path / "2", earlier=[tmp_path / "1/out"])
    assert (rows["/a"]["status"], rows["/a"]["outcome"]) == (304, "no_ai")
    assert rows["/"]["outcome"] == "revisit"


def test_a_public_host_in_the_scope_needs_a_contact_too(tmp_path: Path) -> None:
    source = CrawlSource(name="s", seeds=["http://localhost/"], hosts=["localhost", "*.example.org"])
    with pytest.raises(BadInput, match=r"to crawl example\.org, set contact"):
        scrape(source, tmp_path, tmp_path / "work")


def test_a_seed_that_leads_elsewhere_says_where(tmp_path: Path) -> None:
    moved = (301, {"Location": "https://www.elsewhere.example/start"}, "")
    with served({"/": moved}) as site, pytest.raises(BadInput, match=r"1 redirect: .*scope, to https://www\.elsewhere"):
        crawl(site, tmp_path)


def test_licence_links_stand_in_the_index(tmp_path: Path) -> None:
    commons = "https://creativecommons.org/licenses/by-sa/4.0/"
    pages = {"/": links("/a", commons), "/a": links(commons) + '<a rel="license" href="/terms">terms</a>'}
    with served(pages) as site:
        rows, _ = crawl(site, tmp_path, max_depth=1)
    assert {path: rows[path]["license"] for path in pages} == {"/": commons, "/a": site.base + "/terms"}


@pytest.mark.parametrize("why", ["robots", "gone", "noai"])
def test_a_site_that_withdraws_everything_is_a_snapshot_too(tmp_path: Path, why: str) -> None:
    pages: dict[str, Any] = {"/": revisitable(links("/a")), "/a": revisitable(links())}
    with served(pages) as site:
        crawl(site, tmp_path / "1")
        if why == "robots":
            pages["/robots.txt"] = (200, {}, "User-agent: *\nDisallow: /\n")
        else:
            answer = (410, {}, "") if why == "gone" else revisitable(links("/a"), {"X-Robots-Tag": "noai"})
            pages |= {"/": answer, "/a": answer}
        rows, stats = crawl(site, tmp_path / "2", earlier=[tmp_path / "1/out"])
    expected = {"robots": "robots", "gone": "http_410", "noai": "no_ai"}[why]
    assert outcomes(rows) == {"/": expected, "/a": expected}
    assert stats["pages"] == 0


def test_a_site_that_is_down_is_no_snapshot(tmp_path: Path) -> None:
    with served({"/": links()}) as site:
        crawl(site, tmp_path / "1")
    with pytest.raises(BadInput, match="no seed could be fetched"):
        crawl(site, tmp_path / "2", earlier=[tmp_path / "1/out"], max_wait_s=0.1)


def test_a_page_that_permits_what_its_site_reserves_stays_when_it_is_unchanged(tmp_path: Path) -> None:
    reserve = (200, {}, '[{"location": "/", "tdm-reservation": 1}]')
    free = revisitable(links(head='<meta name="tdm-reservation" content="0">'))
    with served({"/": free, "/.well-known/tdmrep.json": reserve}) as site:
        crawl(site, tmp_path / "1")
        rows, _ = crawl(site, tmp_path / "2", earlier=[tmp_path / "1/out"])
    assert (rows["/"]["outcome"], rows["/"]["tdm_page"], rows["/"]["tdm_reserved"]) == ("revisit", False, False)


def test_a_sitemap_that_is_also_linked_is_read(tmp_path: Path) -> None:
    with served({}) as site:
        site.pages |= {
            "/": links("/sitemap.xml"),
            "/robots.txt": (200, {}, f"Sitemap: {site.base}/sitemap.xml\n"),
            "/sitemap.xml": (
                200,
                {"Content-Type": "text/xml"},
                f"<urlset><url><loc>{site.base}/b</loc></url></urlset>",
            ),
            "/b": links(),
        }
        rows, _ = crawl(site, tmp_path)
    assert outcomes(rows) == {"/": "stored", "/sitemap.xml": "sitemap", "/b": "stored"}


def test_another_spelling_of_the_same_url_is_followed_at_once(tmp_path: Path) -> None:
    pages = {
        "/": links("/page", "/loop"),
        "/page": (302, {"Location": "/page?PHPSESSID=1"}, ""),
        "/page?PHPSESSID=1": links(),
        "/loop": (301, {"Location": "/loop"}, ""),
    }
    with served(pages) as site:
        rows, _ = crawl(site, tmp_path)
    assert outcomes(rows) == {"/": "stored", "/page": "stored", "/loop": "redirect_loop"}


def test_links_are_found_however_deep_they_are(tmp_path: Path) -> None:
    deep = "<!DOCTYPE html>" + "<div><font>" * 600 + '<a href="/deep">x</a>'
    with served({"/": deep, "/deep": links()}) as site:
        rows, _ = crawl(site, tmp_path)
    assert outcomes(rows) == {"/": "stored", "/deep": "stored"}


def test_a_page_made_to_break_a_parser_is_a_row_soon(tmp_path: Path) -> None:
    page = "<a " + " ".join(f"a{n}=1" for n in range(200_000)) + ">x</a>"
    with served({"/": links("/bad"), "/bad": page}) as site:
        start = time.monotonic()
        rows, _ = crawl(site, tmp_path)
    assert outcomes(rows) == {"/": "stored", "/bad": "too_complex"}
    assert time.monotonic() - start < 20


def test_a_page_that_always_fails_does_not_end_its_host(tmp_path: Path) -> None:
    pages: dict[str, Any] = {f"/{n}": links() for n in range(10)}
    busy = (503, {"Retry-After": "3600"}, "")
    with served(pages | {"/busy": busy, "/": links("/busy", *pages)}) as site:
        rows, _ = crawl(site, tmp_path, concurrency_per_host=1)
    assert outcomes(rows) == dict.fromkeys(("/", *pages), "stored") | {"/busy": "http_503"}


def test_robots_txt_may_not_lead_another_host_to_a_private_address(tmp_path: Path) -> None:
    with served({"/admin": (200, {}, "secret")}) as victim:
        pages = {"/": links(), "/robots.txt": (302, {"Location": victim.base + "/admin"}, "")}
        with served(pages) as site, pytest.raises(BadInput, match="is at the private address"):
            crawl(site, tmp_path)
    assert victim.asked == []


def test_a_snapshot_holds_no_more_than_its_budget_after_failures_that_passed(tmp_path: Path) -> None:
    state = {"down": True}
    pages: dict[str, Any] = {
        f"/{n}": (lambda _: (500, {}, "") if state["down"] else (200, HTML, links())) if n < 2 else links()
        for n in range(9)
    }
    with served(pages | {"/": links(*pages)}) as site:
        source = CrawlSource(name="s", seeds=[site.base], delay_s=0, max_pages=5)
        for attempt in ("first", "again"):
            (tmp_path / attempt).mkdir()
            stats = scrape(source, tmp_path / attempt, tmp_path / "work")
            assert stats["pages"] == 5
            state["down"] = False


def test_what_was_purged_is_not_asked_for_again(tmp_path: Path) -> None:
    with served({"/": links("/gone", "/kept"), "/gone": links(), "/kept": links()}) as site:
        rows, _ = crawl(site, tmp_path, purged={"url": [f"{site.base}/gone"], "host": []})
        assert outcomes(rows) == {"/": "stored", "/gone": "purged", "/kept": "stored"}
        assert "/gone" not in site.asked


def test_of_a_purged_host_nothing_is_asked(tmp_path: Path) -> None:
    with served({"/": links()}) as site, pytest.raises(BadInput, match="it was purged"):
        crawl(site, tmp_path, purged={"url": [], "host": ["127.0.0.1"]})
    assert site.asked == []
