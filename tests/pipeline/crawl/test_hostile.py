"""A crawl of everything that the web throws at a crawler, and nothing of it leaves this machine.

All of `hostile_pages` and `hostile_hosts` is crawled at once, in a process tree that can reach nothing but loopback and
writes down what it tries; each test looks at one site of the result.
"""

import fcntl
import hashlib
import json
import os
import pickle
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from pipeline.crawl.seal import INDEX
from pipeline.documents import read_table
from pipeline.sources import CrawlSource
from tests.pipeline.crawl.hostile import MIB, HostileServer, page
from tests.pipeline.crawl.hostile_hosts import ABOUT, DYING_LINKS, FLOODS, PRIVATE, STORMS
from tests.pipeline.crawl.hostile_pages import LONG, PAGES, WHOLE

ROOT = Path(__file__).parents[3]
GUARD = Path(__file__).with_name("guard")

PUBLIC = "93.184.215.14"
"""A global address; the guard lets nothing through to it."""

NAMES: dict[str, list[list[str]]] = {
    "loopback.example": [["127.0.0.1"]],
    "loopback6.example": [["::1"]],
    "mapped.example": [["::ffff:127.0.0.1"]],
    "metadata.example": [["169.254.169.254"]],
    "metadata6.example": [["fd00:ec2::254"]],
    "inside.example": [["10.0.0.1"]],
    "carrier.example": [["100.64.0.1"]],
    "zero.example": [["0.0.0.0"]],
    "multicast.example": [["239.255.255.250"]],
    "broadcast.example": [["255.255.255.255"]],
    "linklocal.example": [["fe80::1"]],
    "nat64.example": [["64:ff9b::7f00:1"]],
    "sixtofour.example": [["2002:7f00:1::1"]],
}
"""Names that lead where no crawl may go."""

TURNING: dict[str, list[list[str]]] = {
    "mixed.example": [[PUBLIC, "127.0.0.1"]],
    "rebinding.example": [[PUBLIC], ["127.0.0.1"]],
}
"""Names that lead to a public address, and to this machine as well or at the next lookup."""

SETTINGS: dict[str, Any] = {
    "name": "hostile",
    "contact": "https://example.org/crawl",
    "delay_s": 0,
    "timeout_s": 8,
    "max_wait_s": 3,
    "concurrency_per_host": 4,
    "max_body_bytes": 4 * MIB,
}
SITES = PAGES | STORMS | ABOUT
MAX_SECONDS = 120
MAX_MEMORY = 1024 * MIB


@dataclass
class Crawled:
    """What a guarded crawl left behind."""

    rows: dict[str, dict[str, Any]]
    stats: dict[str, Any]
    server: HostileServer
    events: list[dict[str, Any]]
    seconds: float

    def row(self, site: str, path: str) -> dict[str, Any]:
        """Of a path of a site; empty where there is none."""
        return self.rows.get(self.server.url(site, path), {})

    def rows_of(self, site: str) -> list[dict[str, Any]]:
        """All rows of a site."""
        return [row for url, row in self.rows.items() if url.startswith(self.server.url(site))]

    def asked(self, site: str) -> list[str]:
        """Paths that the site was asked for, in order."""
        return [path for asked_site, path in self.server.asked if asked_site == site]


DRIVER = """
import json, resource, sys
from pathlib import Path
from pipeline.scrape import scrape
from pipeline.sources import CrawlSource
source, out, work = CrawlSource.model_validate_json(sys.argv[1]), Path(sys.argv[2]), Path(sys.argv[3])
out.mkdir(parents=True)
stats = scrape(source, out, work)
# Of the crawler's process alone: our own peak would be that of whoever started us, which exec does not forget.
print(json.dumps({"memory": resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss * 1024, **stats}))
"""


def guarded_crawl(server: HostileServer, folder: Path, **settings: Any) -> Crawled:
    """Crawl in processes that can reach nothing but loopback."""
    source = CrawlSource(**SETTINGS | settings)
    log = folder / "guard.jsonl"
    guard = {"GUARD_LOG": str(log), "GUARD_NAMES": json.dumps(NAMES | TURNING)}
    start = time.monotonic()
    done = subprocess.run(
        [sys.executable, "-c", DRIVER, source.model_dump_json(), str(folder / "out"), str(folder / "work")],
        env=os.environ | guard | {"PYTHONPATH": os.pathsep.join([str(GUARD), str(ROOT)])},
        stdout=subprocess.PIPE,
        text=True,
        timeout=2 * MAX_SECONDS,
        check=True,
    )
    seconds = time.monotonic() - start
    rows = {row["url"]: row for row in read_table(folder / "out" / INDEX).to_pylist()}
    events = [json.loads(line) for line in log.read_text().splitlines()]
    seen = HostileServer({}, server.asked, server.strays, server.port, server.canary)
    return Crawled(rows, json.loads(done.stdout), seen, events, seconds)


def once(factory: pytest.TempPathFactory, name: str, crawl: Callable[[Path], Crawled]) -> Crawled:
    """What `crawl` gives in a folder of its own, done by the first of the test processes that wants it."""
    base = factory.getbasetemp()
    shared = base.parent if "PYTEST_XDIST_WORKER" in os.environ else base
    with (shared / f"{name}.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        kept = shared / f"{name}.pickle"
        if not kept.exists():
            kept.write_bytes(pickle.dumps(crawl(factory.mktemp(name))))
        found: Crawled = pickle.loads(kept.read_bytes())
        return found


@pytest.fixture(scope="module")
def crawled(tmp_path_factory: pytest.TempPathFactory) -> Crawled:
    """Everything but the floods, at once."""

    def crawl(folder: Path) -> Crawled:
        with HostileServer(SITES) as server:
            seeds = [server.url(name, path) for name, site in SITES.items() for path in {"/", *site.outcomes}]
            seeds += [f"http://{name}:{server.canary}/" for name in (*NAMES, *TURNING, *PRIVATE)]
            seeds += ["http://nowhere.example/", server.url("tls").replace("http:", "https:")]
            return guarded_crawl(server, folder, seeds=seeds, max_pages=1000)

    return once(tmp_path_factory, "hostile", crawl)


@pytest.fixture(scope="module")
def flooded(tmp_path_factory: pytest.TempPathFactory) -> Crawled:
    """The floods, with a budget of 30 pages."""

    def crawl(folder: Path) -> Crawled:
        with HostileServer(FLOODS) as server:
            seeds = [server.url(name, path) for name, site in FLOODS.items() for path in site.outcomes]
            return guarded_crawl(server, folder, seeds=seeds, max_pages=30, max_body_bytes=16 * MIB)

    return once(tmp_path_factory, "flooded", crawl)


CASES = [(name, path, allowed) for name, site in SITES.items() for path, allowed in site.outcomes.items()]


@pytest.mark.parametrize(("site", "path", "allowed"), CASES, ids=[f"{name}{path[:20]}" for name, path, _ in CASES])
def test_every_url_has_a_row_with_the_right_outcome(crawled: Crawled, site: str, path: str, allowed: str) -> None:
    row = crawled.row(site, path)
    assert row.get("outcome") in allowed.split(), row.get("detail")


def test_what_went_wrong_is_said_in_words(crawled: Crawled) -> None:
    plain = {"stored", "redirect", "robots", "empty", "robots_txt", "tdmrep", "sitemap"}
    failed = [row for row in crawled.rows.values() if row["outcome"] not in plain]
    speechless = [
        (url_row["url"], url_row["outcome"])
        for url_row in failed
        if not url_row["outcome"].startswith("http_") and len((url_row["detail"] or "").split()) < 2
    ]
    assert speechless == []


def test_a_good_page_is_stored_as_it_is_whatever_stands_beside_it(crawled: Crawled) -> None:
    good = hashlib.sha256(page().encode()).hexdigest()
    sites = [name for name, site in PAGES.items() if site.outcomes.get("/after") == "stored"]
    assert {crawled.row(name, "/after")["payload_digest"] for name in sites} == {good}


@pytest.mark.parametrize("site", WHOLE)
def test_a_packed_page_is_stored_whole(crawled: Crawled, site: str) -> None:
    assert crawled.row(site, "/bad")["payload_digest"] == hashlib.sha256(LONG).hexdigest()


@pytest.mark.parametrize("site", ["reset-at-once", "closed-at-once", "silence", "resets-only"])
def test_a_page_that_fails_is_asked_for_a_few_times_and_no_more(crawled: Crawled, site: str) -> None:
    assert (
        1 <= crawled.asked(site).count("/bad") <= 6
    )  # three attempts, each repeated where a kept connection may be to blame


def test_the_crawl_ends_in_time(crawled: Crawled) -> None:
    assert crawled.seconds < MAX_SECONDS


def test_the_crawler_takes_less_than_a_gibibyte(crawled: Crawled, flooded: Crawled) -> None:
    assert crawled.stats["memory"] < MAX_MEMORY
    assert flooded.stats["memory"] < MAX_MEMORY


@pytest.mark.parametrize("name", [*NAMES, *PRIVATE])
def test_a_name_or_address_inside_is_refused_though_it_is_in_hosts(crawled: Crawled, name: str) -> None:
    row = crawled.rows[f"http://{name}:{crawled.server.canary}/"]
    # A crawler that asks for IPv4 only finds nothing at a name with none.
    allowed = {"private_address", "dns"} if ":" in str(NAMES.get(name)) else {"private_address"}
    assert row["outcome"] in allowed, row["detail"]


@pytest.mark.parametrize("name", ["169.254.169.254", "loopback.example"])
def test_a_redirect_to_such_a_host_is_refused_too(crawled: Crawled, name: str) -> None:
    assert crawled.rows[f"http://{name}:{crawled.server.canary}/inside"]["outcome"] == "private_address"


@pytest.mark.parametrize("name", TURNING)
def test_a_name_that_turns_private_is_not_followed_there(crawled: Crawled, name: str) -> None:
    outcome = crawled.rows[f"http://{name}:{crawled.server.canary}/"]["outcome"]
    assert outcome in {"private_address", "connection", "robots_unreachable", "gave_up"}


def test_a_name_that_does_not_exist_is_a_row(crawled: Crawled) -> None:
    assert crawled.rows["http://nowhere.example/"]["outcome"] in {"dns", "robots_unreachable"}


def test_a_server_without_tls_is_a_row(crawled: Crawled) -> None:
    url = crawled.server.url("tls").replace("http:", "https:")
    assert crawled.rows[url]["outcome"] in {"tls", "connection", "robots_unreachable"}


def test_nothing_private_was_fetched(crawled: Crawled, flooded: Crawled) -> None:
    assert crawled.server.strays == []
    assert flooded.server.strays == []
    assert not [row for row in crawled.rows.values() if "root:" in row["url"] or row["url"].startswith("file")]


def test_no_packet_leaves_loopback(crawled: Crawled, flooded: Crawled) -> None:
    events = crawled.events + flooded.events
    lookups = {event["target"] for event in events if event["event"] == "lookup"}
    assert lookups <= {*NAMES, *TURNING, "nowhere.example"}
    tried = {event["target"].split(" ")[0] for event in events if event["event"] != "lookup"}
    assert "127.0.0.1" in tried, "the guard saw nothing"
    # The guard stops what goes to the public address; nothing else may even be tried.
    assert tried <= {"127.0.0.1", "::1", PUBLIC}


def test_a_chain_of_redirects_is_left_soon(crawled: Crawled) -> None:
    outcomes = [row["outcome"] for row in crawled.rows_of("redirect-chain")]
    assert "too_many_redirects" in outcomes
    assert len(crawled.asked("redirect-chain")) < 70


def test_a_sitemap_index_without_an_end_is_left_soon(crawled: Crawled) -> None:
    assert len(crawled.asked("sitemap-nested")) < 200


def test_a_host_that_dies_is_left_alone_and_every_page_of_it_is_a_row(crawled: Crawled) -> None:
    rows = crawled.rows_of("dying")
    outcomes = [row["outcome"] for row in rows if row["outcome"] not in {"robots_txt", "tdmrep"}]
    assert len(outcomes) == 1 + DYING_LINKS
    assert set(outcomes) == {"stored", "connection", "gave_up"}
    assert len(crawled.asked("dying")) < 70


@pytest.mark.parametrize("site", sorted(STORMS.keys() - {"dying"}))
def test_a_host_in_trouble_is_asked_less_than_ten_times_a_page(crawled: Crawled, site: str) -> None:
    assert 0 < len(crawled.asked(site)) <= 30


def test_what_is_no_page_is_not_read_to_its_end(crawled: Crawled) -> None:
    assert crawled.row("endless-image", "/bad")["outcome"] == "not_html"


@pytest.mark.parametrize("site", FLOODS)
def test_a_flood_of_urls_ends_with_the_budget(flooded: Crawled, site: str) -> None:
    assert flooded.stats["pages"] <= 30
    assert flooded.stats["unreached"] > 0
    assert flooded.seconds < MAX_SECONDS
    for path, allowed in FLOODS[site].outcomes.items():
        assert flooded.row(site, path).get("outcome") in allowed.split()


def test_a_crawl_ends_with_its_minutes(tmp_path: Path) -> None:
    with HostileServer(FLOODS) as server:
        crawled = guarded_crawl(server, tmp_path, seeds=[server.url("flood-tree")], max_minutes=0.05)
    assert 3 <= crawled.seconds < 20
    assert crawled.stats["pages"] > 0
    assert crawled.stats["unreached"] > 0


def test_a_name_inside_is_asked_where_private_hosts_names_it(tmp_path: Path) -> None:
    with HostileServer({}) as server:
        seed = f"http://loopback.example:{server.port}/"
        crawled = guarded_crawl(server, tmp_path, seeds=[seed], private_hosts=["loopback.example"])
    assert crawled.rows[seed]["outcome"] == "stored"
