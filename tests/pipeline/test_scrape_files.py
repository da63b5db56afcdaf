"""Given files as sources."""

import gzip
import json
import random
from collections.abc import Iterator
from itertools import starmap
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from fastwarc.warc import ArchiveIterator

from pipeline.config import BadInput
from pipeline.crawl import given, given_rows
from pipeline.crawl.seal import INDEX, PAGES
from pipeline.crawl.warc import response_record, warcinfo_record
from pipeline.documents import read_table
from pipeline.engine.executor import Workers
from pipeline.scrape import scrape
from pipeline.sources import FileSource, given_files

SHARED = Path(__file__).parents[3] / "shared/data/warc"


def read(folder: Path, *paths: Path, **settings: Any) -> tuple[list[dict[str, Any]], list[tuple[str, str, bytes]], Any]:
    out = folder / "out"
    out.mkdir()
    source = FileSource(name="given", paths=[str(path) for path in paths], **settings)
    stats = scrape(source, out, folder / "work")
    records = [
        (record.headers["WARC-Type"], record.headers["WARC-Target-URI"], record.reader.read())
        for part in sorted(out.glob("part-*"))
        for record in ArchiveIterator(str(part / PAGES), parse_http=True)
        if record.headers["WARC-Type"] != "warcinfo"
    ]
    return read_table(out / INDEX).to_pylist(), records, stats


def test_a_text_file_is_one_document_with_a_stable_url(tmp_path: Path) -> None:
    (tmp_path / "a b.txt").write_text("Grüße.")
    rows, records, stats = read(tmp_path, tmp_path / "*.txt")
    assert records == [("conversion", "file://given/a%20b.txt/0", "Grüße.".encode())]
    assert rows[0]["outcome"] == "stored"
    assert stats["rows"] == 1


def test_files_of_one_name_are_told_apart_by_their_folders(tmp_path: Path) -> None:
    for folder in ("x", "y"):
        (tmp_path / folder).mkdir()
        (tmp_path / folder / "t.txt").write_text(folder)
    rows, _, _ = read(tmp_path, tmp_path / "**/t.txt")
    assert [row["url"] for row in rows] == ["file://given/x/t.txt/0", "file://given/y/t.txt/0"]


@pytest.mark.parametrize("name", ["rows.jsonl", "rows.jsonl.gz", "rows.parquet"])
def test_rows_become_documents_with_their_url_or_one_from_their_place(tmp_path: Path, name: str) -> None:
    data = [{"body": "One.", "url": "HTTP://h.example/a#b"}, {"body": "Two.", "url": None}, {"body": "  ", "url": None}]
    file = tmp_path / name
    if name.endswith("parquet"):
        pq.write_table(pa.Table.from_pylist(data), file)
    else:
        lines = "".join(json.dumps(row) + "\n" for row in data).encode()
        file.write_bytes(gzip.compress(lines) if name.endswith("gz") else lines)
    rows, records, _ = read(tmp_path, file, text_field="body")
    assert records == [
        ("conversion", f"file://given/{name}/1", b"Two."),
        ("conversion", "http://h.example/a", b"One."),
    ]
    assert [row["outcome"] for row in rows] == ["stored", "empty", "stored"]


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("a.jsonl", b'\n{"text": \n{"text": "x"\n', r"a\.jsonl, line 2: not valid JSON"),
        ("a.jsonl", b"[1]\n", r"a\.jsonl, line 1: not a JSON object"),
        ("a.jsonl", b'{"body": "x"}\n{"body": "x"}\n', r"a\.jsonl, line 1: there is no field 'text'; set text_field"),
        ("a.jsonl", b'{"text": 5}\n', "the field 'text' is no text"),
        ("a.jsonl.gz", b"no gzip", r"a\.jsonl\.gz, line 1: cannot be read"),
        ("a.txt.gz", b"no gzip", "hold no page or text"),
        ("a.parquet", b"no parquet at all", r"a\.parquet is not a readable Parquet file"),
        ("a.warc.gz", b"garbage" * 99, r"a\.warc\.gz is not a WARC file"),
        ("a.warc", b"", r"a\.warc is empty"),
        ("a.bin", b"x", "does not tell its format"),
        ("a.txt", b"  ", "hold no page or text"),
        ("a.txt", b"\xff\xfe\xff", "hold no page or text"),
    ],
)
def test_what_cannot_be_understood_is_one_sentence_that_names_the_place(
    tmp_path: Path, name: str, content: bytes, message: str
) -> None:
    (tmp_path / name).write_bytes(content)
    with pytest.raises(BadInput, match=message) as problem:
        read(tmp_path, tmp_path / name)
    assert "\n" not in str(problem.value)
    assert not list((tmp_path / "out").iterdir())


@pytest.mark.parametrize(
    ("line", "detail"),
    [
        (b'{"text": ', "not valid JSON: "),
        (b"\xff\xfe", "not valid JSON: "),
        (b"[" * 100_000, "not valid JSON: "),
        (b'"text"', "not a JSON object"),
        (b'{"body": "x"}', "there is no field 'text'; set text_field"),
        (b'{"text": ["x"]}', "the field 'text' is no text; set text_field"),
    ],
)
def test_a_broken_line_is_a_row_and_the_others_are_read(tmp_path: Path, line: bytes, detail: str) -> None:
    file = tmp_path / "a.jsonl"
    file.write_bytes(b'{"text": "One."}\n' + line + b'\n{"text": "Three."}\n')
    found = list(read_rows(file))
    assert [row["outcome"] for row, _ in found] == ["stored", "broken", "stored"]
    assert found[1][0]["url"] == "file://given/a.jsonl/1"
    assert found[1][0]["detail"].startswith(f"line 2: {detail}")


def test_a_line_without_end_is_a_row_and_takes_no_more_memory_than_the_limit(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(given_rows, "MAX_LINE_BYTES", 1000)
    file = tmp_path / "a.jsonl"
    file.write_bytes(b'{"text": "One."}\n{"text": "' + b"x" * 5000 + b'"}\n{"text": "Three."}\n')
    found = list(read_rows(file))
    assert [row["outcome"] for row, _ in found] == ["stored", "broken", "stored"]
    assert found[1][0]["detail"] == "line 2: longer than 1000 bytes"


@pytest.mark.parametrize("name", ["a.jsonl.gz", "a.parquet"])
def test_of_a_file_that_is_cut_short_the_rows_before_are_kept(tmp_path: Path, name: str) -> None:
    file = tmp_path / name
    texts = [{"text": f"Row {n} {random.Random(n).randbytes(40).hex()}"} for n in range(5000)]
    if name.endswith("gz"):
        whole = gzip.compress("".join(json.dumps(row) + "\n" for row in texts).encode())
        file.write_bytes(whole[: len(whole) // 2])
    else:
        pq.write_table(pa.Table.from_pylist(texts), file, row_group_size=1000, compression="zstd")
        whole = bytearray(file.read_bytes())
        middle = len(whole) // 2
        whole[middle : middle + 20_000] = bytes(20_000)
        file.write_bytes(whole)
    *rows, last = [row for row, _ in read_rows(file)]
    assert len(rows) >= 1000
    assert {row["outcome"] for row in rows} == {"stored"}
    assert last["outcome"] == "broken"
    assert "cannot be read, nor what follows" in last["detail"]


def read_rows(file: Path) -> Iterator[tuple[dict[str, Any], bytes | None]]:
    """What `pipeline.crawl.given` finds in one file."""
    source = FileSource(name="given", paths=[str(file)])
    return given._found(file, given.format_of(file), f"file://given/{file.name}", source)


def test_a_path_that_matches_nothing_is_named(tmp_path: Path) -> None:
    with pytest.raises(BadInput, match=r"\*\.warc\.gz matches no file"):
        given_files(FileSource(name="f", paths=[str(tmp_path / "*.warc.gz")]))


def members(count: int) -> list[bytes]:
    pages = [
        response_record(f"http://h.example/{n}", 1000 * n, 200, [("Content-Type", "text/html")], b"<p>%d" % n * 50)
        for n in range(count)
    ]
    return [warcinfo_record("w", 0, 0), *pages]


@pytest.mark.parametrize("packed", [True, False])
@pytest.mark.parametrize("damage", ["overwritten", "flipped", "cut"])
def test_a_damaged_record_is_a_row_and_the_good_ones_are_kept(tmp_path: Path, packed: bool, damage: str) -> None:
    parts = members(8)
    if not packed:
        parts = [gzip.decompress(part) for part in parts]
    hurt = bytearray(parts[4])
    if damage == "overwritten":
        hurt[: len(hurt) // 2] = b"\0" * (len(hurt) // 2)
    elif damage == "flipped":
        hurt[3 if not packed else len(hurt) // 2] ^= 0xFF
    else:
        del hurt[len(hurt) // 2 :]
    parts[4] = bytes(hurt)
    file = tmp_path / ("w.warc.gz" if packed else "w.warc")
    file.write_bytes(b"".join(parts))
    rows, records, stats = read(tmp_path, file)
    good = {f"http://h.example/{n}" for n in range(8)} - {"http://h.example/3"}
    assert {url for _, url, _ in records} == good
    assert stats["outcomes"]["broken"] == 1
    assert [row["url"] for row in rows if row["outcome"] == "broken"] == [f"file://given/{file.name}/damage-1"]


def test_of_several_captures_the_latest_is_kept(tmp_path: Path) -> None:
    (tmp_path / "w.warc.gz").write_bytes(
        b"".join(
            response_record("http://h.example/", date, 200, [("Content-Type", "text/html")], body)
            for date, body in ((3000, b"<p>new"), (1000, b"<p>old"))
        )
    )
    _, records, stats = read(tmp_path, tmp_path / "w.warc.gz")
    assert records == [("response", "http://h.example/", b"<p>new")]
    assert stats["superseded"] == 1


@pytest.mark.parametrize(
    ("name", "outcomes"),
    [
        ("example.warc.gz", {"stored": 1}),
        ("example-iana.org-chunked.warc", {"stored": 1}),
        ("example-bad-non-chunked.warc.gz", {"stored": 1}),
        ("example-trunc.warc", {"stored": 1, "broken": 1}),
        ("whirlwind.warc.gz", {"stored": 1}),
        ("whirlwind.warc.wet", {"stored": 1}),
    ],
)
def test_archives_of_others_are_read(tmp_path: Path, name: str, outcomes: dict[str, int]) -> None:
    if not (SHARED / name).exists():
        pytest.skip(f"{SHARED / name} is not there")
    _, records, stats = read(tmp_path, SHARED / name)
    assert stats["outcomes"] == outcomes
    assert b"Content-Encoding" not in records[0][2]
    assert len(records[0][2]) > 1000


def response(http: bytes, url: str = "http://h.example/bad") -> bytes:
    """A WARC record of an HTTP response as it was on the wire."""
    head = f"WARC/1.0\r\nWARC-Type: response\r\nWARC-Target-URI: {url}\r\nContent-Length: {len(http)}\r\n"
    return gzip.compress(
        head.encode() + b"Content-Type: application/http; msgtype=response\r\n\r\n" + http + b"\r\n\r\n", mtime=0
    )


OK = b"HTTP/1.1 200 OK\r\nContent-Type: text/html\r\n"


@pytest.mark.parametrize(
    ("http", "outcome"),
    [
        (OK + b"Transfer-Encoding: chunked\r\n\r\n<p>not chunked", "broken"),
        (OK + b"Transfer-Encoding: chunked\r\n\r\nfffffffffffffff\r\n<p>", "broken"),
        (OK + b"Content-Encoding: gzip\r\n\r\n<p>not gzip", "broken"),
        (OK + b"Content-Encoding: br\r\n\r\n<p>not brotli", "broken"),
        (OK + b"Content-Encoding: rot13\r\n\r\n<p>", "broken"),
        (OK + b"X: " + b"x" * 3_000_000 + b"\r\n\r\n<p>", "broken"),
        (OK + b"X: x\r\n" * 500_000 + b"\r\n<p>", "broken"),
        (OK + b"Content-Encoding: gzip\r\n\r\n" + gzip.compress(bytes(70 << 20)), "too_large"),
        (b"<p>no headers at all", "broken"),
        (b"\x00\x01\x02", "broken"),
        (b"", "broken"),
        (OK + b"\r\n", "empty"),
        (b"HTTP/1.1 200 OK\r\n\r\n<p>no content type", "stored"),
        (b"HTTP/1.1 200\r\n\r\n<p>no phrase", "stored"),
        (b"HTTP/1.1 99999 OK\r\n\r\n<p>", "broken"),
        (b"HTTP/1.1 0 OK\r\n\r\n<p>", "broken"),
        (b"HTTP/1.1 200 OK\r\nContent-Type: \xff\xfe\r\n\r\n<p>", "not_html"),
    ],
)
def test_a_response_that_is_none_is_a_row_and_the_good_ones_around_it_are_read(
    tmp_path: Path, http: bytes, outcome: str
) -> None:
    good = members(3)
    file = tmp_path / "w.warc.gz"
    file.write_bytes(b"".join(good[:2]) + response(http) + b"".join(good[2:]))
    outcomes = {row["url"]: row["outcome"] for row, _ in read_rows(file)}
    fine = {f"http://h.example/{n}": "stored" for n in range(3)}
    assert outcomes == fine | {"http://h.example/bad": outcome}


def test_several_processes_read_files_into_the_same_snapshot_as_one(tmp_path: Path) -> None:
    chance = random.Random(0)
    for number in range(4):
        words = (" ".join(chance.choices(["mill", "grain", "stone", "water"], k=700)) for _ in range(600))
        rows = ({"text": text, "url": f"http://h.example/{chance.randrange(1500)}"} for text in words)
        (tmp_path / f"{number}.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    source = FileSource(name="given", paths=[f"{tmp_path}/*.jsonl"])
    assert len(given.in_groups(given_files(source))) > 1
    snapshots = []
    with Workers(2) as workers:
        for name, each in (("one", starmap), ("two", workers.each)):
            (tmp_path / name).mkdir()
            stats = scrape(source, tmp_path / name, tmp_path / f"{name}-work", each=each)
            files = sorted(path for path in (tmp_path / name).rglob("*") if path.is_file())
            snapshots.append((stats, [(path.name, path.read_bytes()) for path in files]))
        assert workers.started
    assert snapshots[0] == snapshots[1]


def test_a_file_that_another_process_cannot_understand_is_one_sentence(tmp_path: Path) -> None:
    for name in ("a", "b"):
        (tmp_path / f"{name}.txt").write_bytes(b"Text. " * given.GROUP_BYTES)
    (tmp_path / "c.warc").write_bytes(b"no archive " * 1000)
    source = FileSource(name="given", paths=[f"{tmp_path}/*.*"])
    (tmp_path / "out").mkdir()
    with Workers(2) as workers, pytest.raises(BadInput, match=r"c\.warc is not a WARC file"):
        scrape(source, tmp_path / "out", tmp_path / "work", each=workers.each)


def test_groups_hold_all_files_in_order_and_are_as_many_as_their_size_is_worth(tmp_path: Path) -> None:
    sizes = [1, given.GROUP_BYTES, given.GROUP_BYTES, 0, 2 * given.GROUP_BYTES, 1]
    for number, size in enumerate(sizes):
        with (tmp_path / f"{number}").open("wb") as file:
            file.truncate(size)
    files = sorted(tmp_path.iterdir())
    groups = given.in_groups(files)
    assert [file for group in groups for file in group] == files
    assert len(groups) > 2
    assert given.in_groups(files[:1]) == [files[:1]]
    assert given.in_groups([]) == []


def test_files_without_a_byte_may_come_last(tmp_path: Path) -> None:
    sizes = (5, given.GROUP_BYTES, 0, 0)
    files = [tmp_path / str(number) for number in range(len(sizes))]
    for path, size in zip(files, sizes, strict=True):
        with path.open("wb") as file:
            file.truncate(size)
    assert [file for group in given.in_groups(files) for file in group] == files
