"""Crawls of real sites on loopback."""

import gzip
import ipaddress
import json
import os
import re
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest
from fastwarc.warc import ArchiveIterator
from pydantic import ValidationError

from pipeline.config import BadInput
from pipeline.crawl.seal import INDEX, PAGES
from pipeline.crawl.spool import ABOUT_SITE
from pipeline.documents import read_table
from pipeline.scrape import scrape
from pipeline.sources import CrawlSource, FileSource, ScrapeConfig, source_id

ROOT = Path(__file__).parents[2]


def write_site(folder: Path, pages: dict[str, str]) -> None:
    for path, text in pages.items():
        file = folder / path
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(text, encoding="utf-8")


def html(*links: str, head: str = "") -> str:
    anchors = " ".join(f'<a href="{link}">link</a>' for link in links)
    return f"<!DOCTYPE html><html><head>{head}<title>t</title></head><body><p>A page.</p>{anchors}</body></html>"


def source_of(site: Path, **settings: Any) -> CrawlSource:
    return CrawlSource(
        **{"name": "s", "seeds": ["http://a.localhost/"], "serve": [str(site)], "delay_s": 0, "timeout_s": 10}
        | settings
    )


def crawl(source: CrawlSource, folder: Path, segment_bytes: int = 10_000) -> tuple[dict[str, dict[str, Any]], Any]:
    out = folder / "out"
    out.mkdir(parents=True)
    stats = scrape(source, out, folder / "work", segment_bytes)
    return pages_of(out), stats


def pages_of(out: Path) -> dict[str, dict[str, Any]]:
    """Rows of the url index by URL, without those of the files about a site."""
    return {row["url"]: row for row in read_table(out / INDEX).to_pylist() if row["outcome"] not in ABOUT_SITE}


def facts(rows: dict[str, dict[str, Any]]) -> set[tuple[str, int, str | None]]:
    return {(row["url"], row["status"], row["payload_digest"]) for row in rows.values()}


def test_a_crawl_stores_pages_and_has_a_row_for_everything_else(tmp_path: Path) -> None:
    site = tmp_path / "site"
    license_link = '<link rel="license" href="/license"><meta name="robots" content="noarchive">'
    write_site(
        site,
        {
            "a.localhost/index.html": html(
                "/b", "folder", "secret/x.html", "pic.png", "none.html", "http://b.localhost/"
            ),
            "a.localhost/b": "octets",
            "a.localhost/folder/index.html": html("../big.html", "/empty.html#x", "https://elsewhere.example/"),
            "a.localhost/big.html": "<p>" + "x" * 5000,
            "a.localhost/empty.html": " ",
            "a.localhost/pic.png": "PNG",
            "a.localhost/secret/x.html": html(),
            "a.localhost/robots.txt": "User-agent: *\nDisallow: /secret\n",
            "b.localhost/index.html": html("plain.txt", head=license_link),
            "b.localhost/plain.txt": "Plain text.",
        },
    )
    source = source_of(site, hosts=["a.localhost", "b.localhost"], max_body_bytes=4000)
    rows, stats = crawl(source, tmp_path)
    assert {url: (row["outcome"], row["status"]) for url, row in rows.items()} == {
        "http://a.localhost/": ("stored", 200),
        "http://a.localhost/b": ("not_html", 200),
        "http://a.localhost/big.html": ("too_large", 200),
        "http://a.localhost/empty.html": ("empty", 200),
        "http://a.localhost/folder": ("redirect", 301),
        "http://a.localhost/folder/": ("stored", 200),
        "http://a.localhost/none.html": ("http_404", 404),
        "http://a.localhost/pic.png": ("not_html", 200),
        "http://a.localhost/secret/x.html": ("robots", 0),
        "http://b.localhost/": ("stored", 200),
        "http://b.localhost/plain.txt": ("stored", 200),
    }
    assert rows["http://a.localhost/folder/"]["requested_url"] == "http://a.localhost/folder"
    assert rows["http://b.localhost/"]["license"] == "http://b.localhost/license"
    assert rows["http://b.localhost/"]["robots"] == "noarchive"
    assert stats["rows"] == 4
    assert {outcome: stats["outcomes"][outcome] for outcome in ("robots_txt", "tdmrep")} == {
        "robots_txt": 2,
        "tdmrep": 2,
    }
    assert sum(stats["outcomes"].values()) == len(rows) + 4
    records = {
        record.headers["WARC-Target-URI"]: record.reader.read()
        for record in ArchiveIterator(str(tmp_path / "out/part-00000" / PAGES), parse_http=True)
        if record.headers["WARC-Type"] == "response"
    }
    assert records["http://b.localhost/plain.txt"] == b"Plain text."
    assert list(records) == sorted(records)


def test_the_page_budget_is_exact_and_independent_of_concurrency(tmp_path: Path) -> None:
    site = tmp_path / "site"
    pages = {f"a.localhost/{n}.html": html(f"{n * 2}.html", f"{n * 2 + 1}.html", f"no{n}.html") for n in range(1, 40)}
    write_site(site, pages | {"a.localhost/index.html": html("1.html")})
    found = []
    for concurrency in (1, 8):
        source = source_of(site, max_pages=11, concurrency_per_host=concurrency)
        rows, stats = crawl(source, tmp_path / str(concurrency))
        assert stats["pages"] == 11
        assert stats["unreached"] > 0
        found.append(facts(rows))
    assert found[0] == found[1]


def test_the_crawl_ends_at_its_depth(tmp_path: Path) -> None:
    write_site(tmp_path / "site", {f"a.localhost/{n}.html": html(f"{n + 1}.html") for n in range(9)})
    rows, _ = crawl(source_of(tmp_path / "site", seeds=["http://a.localhost/0.html"], max_depth=3), tmp_path)
    assert [row["depth"] for row in rows.values()] == [0, 1, 2, 3]


def test_a_killed_crawl_continues_and_ends_like_an_undisturbed_one(tmp_path: Path) -> None:
    site = tmp_path / "site"
    pages = {f"a.localhost/{n}.html": html(*(f"{n * 3 + k}.html" for k in range(3))) for n in range(1, 30)}
    write_site(site, pages | {"a.localhost/index.html": html("1.html"), "a.localhost/robots.txt": "Disallow:"})
    expected, _ = crawl(source_of(site), tmp_path / "undisturbed")
    work, out = tmp_path / "work", tmp_path / "killed"
    out.mkdir()
    slow = source_of(site, delay_s=0.05, concurrency_per_host=1)
    script = (
        "import sys; from pathlib import Path; from pipeline.scrape import *\n"
        "scrape(CrawlSource.model_validate_json(sys.argv[1]), Path(sys.argv[2]), Path(sys.argv[3]))"
    )
    process = subprocess.Popen(
        [sys.executable, "-c", script, slow.model_dump_json(), str(out), str(work)],
        env=os.environ | {"PYTHONPATH": str(ROOT)},
    )
    journal = work / "spool.jsonl"
    deadline = time.monotonic() + 20
    while not journal.exists() or journal.read_bytes().count(b"\n") < 8:
        assert process.poll() is None
        assert time.monotonic() < deadline
        time.sleep(0.02)
    process.send_signal(signal.SIGKILL)
    process.wait()
    time.sleep(0.3)
    answered = journal.read_bytes()
    time.sleep(0.3)
    assert journal.read_bytes() == answered, "the crawler outlived its parent"
    assert answered.count(b"\n") < len(expected)
    rows = scrape(source_of(site), out, work)
    assert rows["urls"] == len(expected) + len(ABOUT_SITE) - 1  # robots.txt and tdmrep.json
    assert journal.read_bytes().startswith(answered)
    assert facts(pages_of(out)) == facts(expected)


@contextmanager
def web(answer: Any, address: str = "127.0.0.1") -> Iterator[str]:
    """A server that answers each path with what `answer` returns: status, headers, body."""

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            status, headers, body = answer(self.path)
            self.send_response(status)
            for name, value in headers.items():
                self.send_header(name, value)
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *_: Any) -> None:
            pass

    server = ThreadingHTTPServer((address, 0), Handler)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield f"http://127.0.0.1:{server.server_address[1]}"
    server.shutdown()
    server.server_close()


def test_a_body_is_stored_decoded_and_bombs_and_endless_redirects_are_rows(tmp_path: Path) -> None:
    def answer(path: str) -> tuple[int, dict[str, str], bytes]:
        packed = {"Content-Type": "text/html", "Content-Encoding": "gzip"}
        if path in ("/robots.txt", "/.well-known/tdmrep.json"):
            return 404, {}, b""
        if path == "/":
            return 200, packed, gzip.compress(html("/bomb", "/r0", "/late").encode())
        if path == "/bomb":
            return 200, packed, gzip.compress(b"x" * 3_000_000)
        if path == "/late":
            return 200, {"Content-Type": "text/html"}, b"y" * 2_000_000
        return 302, {"Location": f"/r{int(path[2:]) + 1}"}, b""

    with web(answer) as base:
        source = CrawlSource(name="s", seeds=[base], delay_s=0, max_body_bytes=1_000_000)
        rows, _ = crawl(source, tmp_path)
    outcomes = {url.removeprefix(base): row["outcome"] for url, row in rows.items()}
    assert (outcomes["/"], outcomes["/bomb"], outcomes["/late"]) == ("stored", "too_large", "too_large")
    assert sum(outcome == "redirect" for outcome in outcomes.values()) == 10
    assert outcomes["/r10"] == "too_many_redirects"
    records = ArchiveIterator(str(tmp_path / "out/part-00000" / PAGES), parse_http=True)
    record = next(record for record in records if record.headers["WARC-Type"] == "response")
    assert record.reader.read() == html("/bomb", "/r0", "/late").encode()
    assert record.http_headers.get("Content-Encoding") is None


def test_nothing_is_asked_for_where_robots_txt_cannot_be_had(tmp_path: Path) -> None:
    asked = []

    def answer(path: str) -> tuple[int, dict[str, str], bytes]:
        asked.append(path)
        return (403 if path == "/robots.txt" else 200) if path in codes else 500, {"Content-Type": "text/html"}, b"<p>x"

    codes = {"/"}
    with web(answer) as base, pytest.raises(BadInput, match=r"no seed could be fetched: .*robots\.txt answered 500"):
        crawl(CrawlSource(name="s", seeds=[base], delay_s=0), tmp_path / "5xx")
    assert set(asked) == {"/robots.txt"}
    codes = {"/", "/robots.txt"}
    with web(answer) as base:
        assert len(crawl(CrawlSource(name="s", seeds=[base], delay_s=0), tmp_path / "4xx")[0]) == 1


def test_an_unreachable_seed_is_named_with_its_cause_and_can_be_tried_again(tmp_path: Path) -> None:
    with socket.socket() as closed:
        closed.bind(("127.0.0.1", 0))
        seed = f"http://127.0.0.1:{closed.getsockname()[1]}/"
    source = CrawlSource(name="s", seeds=[seed], delay_s=0)
    with pytest.raises(BadInput, match=f"no seed could be fetched: {seed} .*refused"):
        crawl(source, tmp_path)
    assert not (tmp_path / "work/spool.jsonl").exists()
    assert not list((tmp_path / "out").iterdir())


def test_an_empty_crawl_says_what_was_met(tmp_path: Path) -> None:
    write_site(tmp_path / "site", {"a.localhost/other.html": html()})
    with pytest.raises(BadInput, match="stored no page \\(1 http_404\\)"):
        crawl(source_of(tmp_path / "site"), tmp_path)


def test_a_public_host_needs_a_contact_before_anything_is_asked(tmp_path: Path) -> None:
    source = CrawlSource(name="s", seeds=["https://www.example.org/"])
    with pytest.raises(BadInput, match=r"to crawl www\.example\.org, set contact"):
        scrape(source, tmp_path, tmp_path / "work")


def test_a_name_that_leads_into_the_local_network_is_refused_unless_allowed(tmp_path: Path) -> None:
    name = socket.gethostname().lower()
    try:
        address = socket.gethostbyname(name)
    except OSError:
        pytest.skip("this machine's own name does not resolve")
    if ipaddress.ip_address(address).is_global or name.endswith("localhost"):
        pytest.skip("this machine's own name is at no private address")
    with web(lambda path: (404 if path == "/robots.txt" else 200, {"Content-Type": "text/html"}, b"<p>x"), "") as base:
        source = CrawlSource(name="s", seeds=[base.replace("127.0.0.1", name)], contact="me@example.org", delay_s=0)
        with pytest.raises(BadInput, match=f"{name} is at the private address {address}; name it in private_hosts"):
            crawl(source, tmp_path / "refused")
        rows, _ = crawl(source.model_copy(update={"private_hosts": [name]}), tmp_path / "allowed")
    assert [row["outcome"] for row in rows.values()] == ["stored"]


def test_a_source_is_its_seeds_scope_and_limits() -> None:
    source = CrawlSource(name="s", seeds=["http://a.localhost/"])
    same = CrawlSource(name="s", seeds=["HTTP://a.localhost"], delay_s=9, serve=["x"], hosts=["a.localhost"])
    assert source_id(source, {}) == source_id(same, {})
    assert source_id(source, {}) != source_id(source.model_copy(update={"max_depth": 2}), {})
    files = FileSource(name="f", paths=["x/a.txt"])
    assert source_id(files, {"x/a.txt": "00"}) == source_id(files, {"/elsewhere/a.txt": "00"})
    assert source_id(files, {"x/a.txt": "00"}) != source_id(files, {"x/a.txt": "01"})


def test_seeds_may_stand_in_a_file(tmp_path: Path) -> None:
    seeds = tmp_path / "seeds.txt"
    seeds.write_text("# ours\nhttp://a.localhost/\n\n")
    source = CrawlSource(name="s", seeds_file=seeds)
    assert source_id(source, {}) == source_id(CrawlSource(name="s", seeds=["http://a.localhost/"]), {})
    seeds.unlink()
    with pytest.raises(BadInput, match=r"seeds\.txt cannot be read"):
        source_id(source, {})


@pytest.mark.parametrize(
    ("config", "message"),
    [
        ({"sources": []}, "at least 1 item"),
        ({"sources": [{"name": "a"}]}, "needs seeds"),
        ({"sources": [{"name": "a", "seeds": ["http://x/"]}, {"name": "a", "paths": ["x"]}]}, "two sources are called"),
        ({"sources": [{"kind": "ftp", "name": "a"}]}, 'kind must be "crawl" or "files"'),
        ({"sources": [{"name": "A b", "seeds": ["http://x/"]}]}, "pattern"),
    ],
)
def test_impossible_configurations_are_refused(config: dict[str, Any], message: str) -> None:
    with pytest.raises(ValidationError, match=message):
        ScrapeConfig.model_validate(config)


def test_the_configuration_imports_nothing_heavy() -> None:
    script = "import sys, pipeline.scrape; print(*{m.partition('.')[0] for m in sys.modules})"
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True, cwd=ROOT)
    assert not {"aiohttp", "asyncio", "fastwarc", "resiliparse", "lxml", "pyarrow"} & set(done.stdout.split())


def test_the_demo_evaluation_set_is_quoted_in_the_demo_site() -> None:
    items = [json.loads(line) for line in (ROOT / "data/demo/eval.jsonl").read_text().splitlines()]
    site = " ".join(
        page.read_text() for page in sorted((ROOT / "data/demo/site").rglob("*.html")) if "de" not in page.parts
    )
    assert [item["id"] for item in items if item["text"] in site] == ["bridge"]
    assert all(len(item["text"].split()) >= 40 for item in items)


def test_pydoc_pages_are_the_same_in_every_environment_and_their_links_resolve(tmp_path: Path) -> None:
    script = str(ROOT / "pipeline/crawl/pydoc_site.py")
    modules = ["configparser", "ctypes", "difflib", "email", "http", "json", "os", "sys", "this"]
    for name, home in (("one", "/"), ("two", str(tmp_path))):
        command = [sys.executable, "-S", "-P", script, str(tmp_path / name), *modules]
        subprocess.run(command, env={"PYTHONHASHSEED": "0", "HOME": home}, cwd=home, check=True, capture_output=True)
    pages = {page.name: page.read_bytes() for page in (tmp_path / "one").iterdir()}
    assert pages == {page.name: page.read_bytes() for page in (tmp_path / "two").iterdir()}
    assert {"index.html", "os.html", "email.mime.text.html"} < pages.keys()
    assert "this.html" not in pages
    for name, page in pages.items():
        links = re.findall(r'<a href="([^"#:]*?)(?:#[^"]*)?"', page.decode())
        assert set(links) - pages.keys() <= {"", "."}, name
        assert sys.base_prefix.encode() not in page
        assert sys.prefix.encode() not in page
        assert b'href="file:' not in page
