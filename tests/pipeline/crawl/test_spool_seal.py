import gzip
import random
from collections import Counter
from pathlib import Path

import pytest
from fastwarc.warc import ArchiveIterator
from hypothesis import given
from hypothesis import strategies as st

from pipeline.crawl.frontier import Frontier
from pipeline.crawl.scope import Scope
from pipeline.crawl.seal import INDEX, PAGES, seal
from pipeline.crawl.spool import Row, Spool, Spools, new_row
from pipeline.crawl.warc import conversion_record, payload_digest
from pipeline.documents import read_table

SHARE = 4000


def page(number: int, fetched_at: int = 1000) -> tuple[Row, bytes]:
    url, text = f"http://h.localhost/{number:03}", f"text {number} ".encode() * 20
    row = new_row(
        url, "stored", status=200, fetched_at=fetched_at, payload_digest=payload_digest(text), payload_length=len(text)
    )
    return row, conversion_record(url, fetched_at, text)


def fill(folder: Path, numbers: list[int]) -> Spool:
    spool = Spool(folder)
    for number in numbers:
        spool.add(*page(number))
    return spool


def test_sealing_sorts_cuts_and_gives_the_same_bytes_in_whatever_order_pages_came(tmp_path: Path) -> None:
    numbers = list(range(50))
    snapshots = []
    for attempt in range(2):
        random.Random(attempt).shuffle(numbers)
        out = tmp_path / f"out{attempt}"
        out.mkdir()
        with fill(tmp_path / f"work{attempt}", numbers) as spool:
            spool.add(new_row("http://h.localhost/zzz", "http_404", status=404, fetched_at=5))
            stats = seal(spool, out, "s", segment_bytes=2000)
        assert stats["rows"] == 50
        assert stats["outcomes"] == {"http_404": 1, "stored": 50}
        snapshots.append({str(file.relative_to(out)): file.read_bytes() for file in sorted(out.rglob("*.*"))})
    assert snapshots[0] == snapshots[1]
    index = read_table(out / INDEX).to_pylist()
    assert [row["url"] for row in index] == sorted(row["url"] for row in index)
    assert stats["parts"] > 3
    for row in index[:-1]:
        member = (out / f"part-{row['part']:05d}" / PAGES).read_bytes()[row["offset"] : row["offset"] + row["length"]]
        assert row["url"].encode() in gzip.decompress(member)
    urls = []
    for part in sorted(out.glob("part-*")):
        records = list(ArchiveIterator(str(part / PAGES)))
        assert records[0].headers["WARC-Type"] == "warcinfo"
        urls += [record.headers["WARC-Target-URI"] for record in records[1:]]
    assert urls == [row["url"] for row in index[:-1]]


@pytest.mark.parametrize(("payload", "parts"), [(0.4, 1), (1.9, 1), (2.1, 2), (5.5, 5), (70.0, 8)])
def test_a_small_snapshot_has_parts_for_several_workers(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, payload: float, parts: int
) -> None:
    monkeypatch.setattr("pipeline.crawl.seal.SHARE_BYTES", SHARE)
    with Spool(tmp_path / "work") as spool:
        for number in range(round(payload * SHARE / 100)):
            text = f"{number:05d}".encode() * 20
            row, _ = page(number)
            spool.add(row | {"payload_length": len(text)}, conversion_record(row["url"], 1000, text))
        (tmp_path / "out").mkdir()
        assert seal(spool, tmp_path / "out", "s", segment_bytes=100 * SHARE)["parts"] == parts
    pages = list(Counter(row["part"] for row in read_table(tmp_path / "out" / INDEX).to_pylist()).values())
    assert len(pages) == parts
    assert max(pages) - min(pages) <= parts


def test_large_parts_are_cut_by_their_bytes_alone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("pipeline.crawl.seal.SHARE_BYTES", 100)
    with fill(tmp_path / "work", list(range(10, 100))) as spool:
        (tmp_path / "out").mkdir()
        seal(spool, tmp_path / "out", "s", segment_bytes=1500)
    pages = list(Counter(row["part"] for row in read_table(tmp_path / "out" / INDEX).to_pylist()).values())
    assert pages == [9] * 10


@pytest.mark.parametrize("torn", ["spool.jsonl", "spool.warc.gz"])
def test_a_spool_cut_anywhere_keeps_what_was_whole(tmp_path: Path, torn: str) -> None:
    fill(tmp_path / "work", [1, 2, 3]).close()
    whole = {name: (tmp_path / "work" / name).read_bytes() for name in ("spool.jsonl", "spool.warc.gz")}
    for cut in range(0, len(whole[torn]), 29):
        for name, data in whole.items():
            (tmp_path / "work" / name).write_bytes(data[:cut] if name == torn else data)
        with Spool(tmp_path / "work") as spool:
            survivors = [row["url"] for row in spool.rows()]
            assert survivors == [page(number)[0]["url"] for number in range(1, len(survivors) + 1)]
            spool.add(*page(9))
            assert spool.record(spool.row("http://h.localhost/009")) == page(9)[1]


def test_the_latest_answer_of_a_url_counts(tmp_path: Path) -> None:
    with Spool(tmp_path) as spool:
        assert spool.add(*page(1, fetched_at=2000))
        assert not spool.add(*page(1, fetched_at=1000))
        assert spool.add(new_row(page(1)[0]["url"], "http_410", status=410, fetched_at=3000))
        assert [row["outcome"] for row in spool.rows()] == ["http_410"]


def test_the_latest_capture_in_all_files_stays_whatever_file_it_is_in(tmp_path: Path) -> None:
    read = []
    captures = {1: (1000, 2000), 2: (2000, 1000), 3: (1000, 1000)}
    for number, folder in enumerate((tmp_path / "first", tmp_path / "second")):
        with Spool(folder) as spool:
            for url, times in captures.items():
                row, record = page(url, fetched_at=times[number])
                spool.add(row | {"depth": number}, record)
            spool.add(*page(10 + number))
        read.append((folder, spool.places, 4))
    with Spools(read) as spools:
        rows = list(spools.rows())
        assert [(row["url"][-3:], row["depth"]) for row in rows[:3]] == [("001", 1), ("002", 0), ("003", 1)]
        assert [row["url"][-3:] for row in rows[3:]] == ["010", "011"]
        assert spools.record(rows[1]) == page(2, fetched_at=2000)[1]
        assert spools.superseded == 3


@given(st.randoms(use_true_random=False), st.integers(1, 40))
def test_what_a_crawl_stores_does_not_depend_on_the_order_of_answers(chance: random.Random, max_pages: int) -> None:
    urls = [f"http://h/{number}" for number in range(40)]
    scope = Scope(["h"], [], [], [])
    web = {url: (chance.choice(["stored", "stored", "http_404", "redirect"]), chance.sample(urls, 4)) for url in urls}

    def crawl() -> list[str]:
        frontier = Frontier(urls[:2], scope, max_pages=max_pages, max_depth=5, max_bytes=10**9, max_body_bytes=10)
        stored = []
        while visits := frontier.wave():
            for visit in visits:
                outcome, links = web[visit.url]
                stored += [visit.url] if outcome == "stored" else []
                chance.shuffle(links)
                frontier.absorb(visit, new_row(visit.url, outcome, links=links, payload_length=1))
        return stored

    first = crawl()
    assert len(first) <= max_pages
    assert crawl() == first
