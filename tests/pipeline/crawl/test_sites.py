"""Whole real sites from a real web server on loopback: each page once, through kills, and no body a second time."""

import contextlib
import hashlib
import mimetypes
import os
import shutil
import signal
import subprocess
import sys
import threading
import time
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from functools import partial
from html.parser import HTMLParser
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any
from urllib.parse import unquote, urldefrag, urljoin, urlsplit

import pytest
from fastwarc.warc import ArchiveIterator

from pipeline.crawl.seal import INDEX, PAGES
from pipeline.documents import read_table
from pipeline.scrape import scrape
from pipeline.sources import CrawlSource

ROOT = Path(__file__).parents[3]
SITES = ROOT.parent / "shared" / "data" / "sites"
pytestmark = pytest.mark.skipif(not SITES.is_dir(), reason="the shared sites are not beside the project")

REVISITS = "revisits.warc.gz"
CONCURRENCY = 4
KILLS = 3
LONG_AGO = 1_000_000_000


@dataclass
class Server:
    """A folder on a port of loopback, and each request it answered: path, status, whether it was conditional."""

    base: str
    asked: list[tuple[str, int, bool]] = field(default_factory=list)

    def given(self) -> Counter[str]:
        """How often each path was answered with its body."""
        return Counter(path for path, status, _ in self.asked if status == 200)


@contextlib.contextmanager
def serving(folder: Path) -> Iterator[Server]:
    """The standard library's file server, which knows Last-Modified and 304, but with kept connections."""

    class Handler(SimpleHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def log_request(self, code: Any = "-", _size: Any = "-") -> None:
            server.asked.append((self.path, int(code), "If-Modified-Since" in self.headers))

        def log_message(self, *_: Any) -> None:
            pass

    listener = ThreadingHTTPServer(("127.0.0.1", 0), partial(Handler, directory=str(folder)))
    server = Server(f"http://127.0.0.1:{listener.server_address[1]}")
    threading.Thread(target=listener.serve_forever, kwargs={"poll_interval": 0.05}, daemon=True).start()
    yield server
    listener.shutdown()
    listener.server_close()


class Links(HTMLParser):
    """Where the anchors of a page lead."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.found: list[str] = []
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.found += [value for name, value in attrs if tag == "a" and name == "href" and value]


def reachable(folder: Path, base: str) -> dict[str, bytes]:
    """URL and content of each page that links lead to from the start, by another parser than the crawler's."""
    found: dict[str, bytes] = {}
    waiting, met = [f"{base}/"], {f"{base}/"}
    while waiting:
        url = waiting.pop()
        file = folder / (unquote(urlsplit(url).path).lstrip("/") or "index.html")
        if not file.is_file() or mimetypes.guess_type(file.name)[0] not in {"text/html", "text/plain"}:
            continue
        found[url] = file.read_bytes()
        for link in Links(found[url].decode("utf-8", "replace")).found:
            target = urldefrag(urljoin(url, link)).url
            if target.startswith(f"{base}/") and target not in met:
                met.add(target)
                waiting.append(target)
    return found


def write_index(folder: Path, without: str = "") -> None:
    """A start page: the index pages of each folder, or where it has none, all its pages; but not `without`."""
    links = []
    for path in sorted({file.parent for file in folder.rglob("*.html") if file.parent != folder}):
        pages = sorted(file for file in path.glob("*.html") if file.name != without)
        indexes = [file for file in pages if file.name.startswith("index")]
        links += [file.relative_to(folder).as_posix() for file in indexes or pages]
    anchors = "".join(f'<li><a href="{link}">{link}</a>' for link in links)
    (folder / "index.html").write_text(f"<!DOCTYPE html><title>All sites</title><ul>{anchors}</ul>")


def source_at(base: str, **settings: Any) -> CrawlSource:
    return CrawlSource(
        **{"name": "sites", "seeds": [f"{base}/"], "delay_s": 0, "concurrency_per_host": CONCURRENCY} | settings
    )


def crawl(source: CrawlSource, out: Path, work: Path, *earlier: Path) -> tuple[dict[str, dict[str, Any]], Any]:
    out.mkdir(parents=True)
    stats = scrape(source, out, work, earlier=list(earlier))
    rows = read_table(out / INDEX).to_pylist()
    assert len({row["url"] for row in rows}) == len(rows)
    return {row["url"]: row for row in rows}, stats


def facts(rows: dict[str, dict[str, Any]]) -> set[tuple[str, int, str | None]]:
    return {(row["url"], row["status"], row["payload_digest"]) for row in rows.values()}


def of_outcome(rows: dict[str, dict[str, Any]], outcome: str) -> set[str]:
    return {url for url, row in rows.items() if row["outcome"] == outcome}


@dataclass
class First:
    """The undisturbed first crawl."""

    folder: Path
    server: Server
    out: Path
    rows: dict[str, dict[str, Any]]
    asked: Counter[str]


@pytest.fixture(scope="module")
def first(tmp_path_factory: pytest.TempPathFactory) -> Iterator[First]:
    folder = tmp_path_factory.mktemp("sites") / "web"
    shutil.copytree(SITES, folder)
    write_index(folder)
    for file in folder.rglob("*.html"):
        os.utime(file, (LONG_AGO, LONG_AGO))
    with serving(folder) as server:
        out = folder.parent / "first"
        rows, _ = crawl(source_at(server.base), out, folder.parent / "first-work")
        yield First(folder, server, out, rows, Counter(path for path, _, _ in server.asked))


def test_every_page_that_links_lead_to_is_there_once(first: First) -> None:
    expected = reachable(first.folder, first.server.base)
    assert len(expected) > 300
    assert of_outcome(first.rows, "stored") == set(expected)
    for url, body in expected.items():
        assert first.rows[url]["payload_digest"] == hashlib.sha256(body).hexdigest()
    recorded = Counter(
        record.headers["WARC-Target-URI"]
        for part in first.out.glob(f"part-*/{PAGES}")
        for record in ArchiveIterator(str(part))
        if record.headers["WARC-Type"] == "response"
    )
    assert recorded == dict.fromkeys(expected, 1)


def test_nothing_is_asked_for_twice(first: First) -> None:
    assert set(first.asked.values()) == {1}


def test_a_crawl_killed_three_times_has_the_same_pages_and_fetches_nothing_again(first: First, tmp_path: Path) -> None:
    work, out = tmp_path / "work", tmp_path / "out"
    script = (
        "import sys; from pathlib import Path; from pipeline.scrape import *\n"
        "scrape(CrawlSource.model_validate_json(sys.argv[1]), Path(sys.argv[2]), Path(sys.argv[3]))"
    )
    slow = source_at(first.server.base, delay_s=0.01, autothrottle=False)
    journal = work / "spool.jsonl"
    start = len(first.server.asked)
    answered = 0
    for _ in range(KILLS):
        process = subprocess.Popen(
            [sys.executable, "-c", script, slow.model_dump_json(), str(out), str(work)],
            env=os.environ | {"PYTHONPATH": str(ROOT)},
        )
        deadline = time.monotonic() + 30
        while not journal.exists() or journal.read_bytes().count(b"\n") < answered + 40:
            assert process.poll() is None, "it ended before it could be killed"
            assert time.monotonic() < deadline
            time.sleep(0.02)
        process.send_signal(signal.SIGKILL)
        process.wait()
        time.sleep(0.5)  # the crawler's own process sees that its parent is gone
        answered = journal.read_bytes().count(b"\n")
    rows, _ = crawl(slow, out, work)
    assert facts(rows) == facts(first.rows)
    again = Counter(path for path, _, _ in first.server.asked[start:]) - Counter(first.asked.keys())
    assert again.total() <= KILLS * CONCURRENCY, "only what was under way at a kill may be asked for again"


@pytest.fixture(scope="module")
def second(first: First) -> tuple[Path, dict[str, dict[str, Any]], Any, list[tuple[str, int, bool]]]:
    start = len(first.server.asked)
    out = first.folder.parent / "second"
    rows, stats = crawl(source_at(first.server.base), out, first.folder.parent / "second-work", first.out)
    return out, rows, stats, first.server.asked[start:]


def test_a_second_crawl_fetches_no_body_again(first: First, second: Any) -> None:
    out, rows, stats, asked = second
    assert [path for path, status, _ in asked if status == 200] == []
    assert of_outcome(rows, "revisit") == of_outcome(first.rows, "stored")
    assert stats["parts"] == 0
    assert not list(out.glob("part-*"))


def test_a_page_that_was_not_there_is_asked_for_again_and_only_once(first: First, second: Any) -> None:
    asked = Counter(path for path, _, _ in second[3])
    assert asked == first.asked


def test_a_revisit_knows_what_the_page_was(first: First, second: Any) -> None:
    for url in of_outcome(first.rows, "stored"):
        row = second[1][url]
        assert row["status"] == 304
        for column in ("payload_digest", "links", "license", "content_type"):
            assert row[column] == first.rows[url][column], column


def test_all_records_read_back_in_fastwarc_with_their_digests(first: First, second: Any) -> None:
    for archive in [*first.out.glob(f"part-*/{PAGES}"), second[0] / REVISITS]:
        kinds: Counter[str] = Counter()
        for record in ArchiveIterator(str(archive), parse_http=True):
            kind = record.headers["WARC-Type"]
            kinds[kind] += 1
            if kind == "response":
                assert record.verify_payload_digest()
            if kind == "revisit":
                assert record.headers["WARC-Profile"].startswith("http://netpreserve.org/warc/1.")
                assert record.headers["WARC-Target-URI"] in first.rows
        assert kinds["warcinfo"] == 1
        assert kinds.total() > 1
    assert kinds["revisit"] == len(of_outcome(second[1], "revisit"))


def test_all_records_read_back_in_warcio_with_their_digests(first: First, second: Any) -> None:
    warcio = pytest.importorskip("warcio.archiveiterator", reason="warcio is not installed")
    for archive in [*first.out.glob(f"part-*/{PAGES}"), second[0] / REVISITS]:
        with archive.open("rb") as file:
            iterator = warcio.ArchiveIterator(file, check_digests="raise")
            for record in iterator:
                record.content_stream().read()
                assert record.digest_checker.passed is not False
            assert iterator.err_count == 0


def test_a_third_crawl_sees_what_changed_what_went_what_came_and_what_nobody_links_to(
    first: First, second: Any
) -> None:
    changed, vanished, orphan = sorted((first.folder / "udhr").glob("*.html"))[:3]
    changed.write_text(changed.read_text(encoding="utf-8").replace("</body>", "<p>Changed.</body>"), encoding="utf-8")
    os.utime(changed, (LONG_AGO + 10, LONG_AGO + 10))
    vanished.unlink()
    (first.folder / "udhr" / "new.html").write_text("<!DOCTYPE html><p>A new page.")
    write_index(first.folder, without=orphan.name)
    start = len(first.server.asked)
    rows, stats = crawl(
        source_at(first.server.base),
        first.folder.parent / "third",
        first.folder.parent / "third-work",
        first.out,
        second[0],
    )
    asked = {path: (status, conditional) for path, status, conditional in first.server.asked[start:]}
    at = f"{first.server.base}/udhr/"
    assert of_outcome(rows, "stored") == {f"{first.server.base}/", at + changed.name, at + "new.html"}
    assert rows[at + changed.name]["payload_digest"] == hashlib.sha256(changed.read_bytes()).hexdigest()
    assert rows[at + vanished.name]["outcome"] == "http_404"
    assert rows[at + orphan.name]["outcome"] == "revisit"
    assert asked[f"/udhr/{orphan.name}"] == (304, True)
    assert stats["rows"] == 3
