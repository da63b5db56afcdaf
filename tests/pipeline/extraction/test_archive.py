"""archive: of a WARC file in any state the good records come, and one Damage for each stretch that is none."""

import gzip
import random
import subprocess
import sys
import time
import zlib
from itertools import pairwise
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipeline.extraction import archive as archive
from pipeline.extraction.archive import FIRST, Damage, Place, read_records

ROOT = Path(__file__).resolve().parents[3]
SHARED = ROOT.parent / "shared/data/warc"
MAX_BYTES = 1 << 20
NOISE = random.Random(0).randbytes(30_000)


def record(name: str, body: bytes = b"<p>hi", length: int | None = None, more: str = "", version: str = "1.0") -> bytes:
    head = (
        f"WARC/{version}\r\nWARC-Type: resource\r\nWARC-Target-URI: http://a/{name}\r\n{more}"
        f"Content-Type: text/html\r\nContent-Length: {len(body) if length is None else length}\r\n\r\n"
    )
    return head.encode() + body + b"\r\n\r\n"


def packed(*records: bytes) -> bytes:
    return b"".join(gzip.compress(each, mtime=0) for each in records)


def found(file: Path, start: Place = FIRST) -> list[tuple[Place, str]]:
    """Places with the last part of the record's URL, or "damage"."""
    return [
        (place, "damage" if isinstance(item, Damage) else item.url.rpartition("/")[2])
        for place, item in read_records(file, MAX_BYTES, start)
    ]


A, B, C = record("a"), record("b"), record("c")
CUT = record("x", NOISE)[:20_000]
BROKEN = {
    "plain": (A + B, "a b"),
    "gzip as a whole": (gzip.compress(A + record("x", NOISE) + B), "a x b"),
    "WARC/0.18": (record("a", version="0.18") + record("b", version="0.17"), "a b"),
    "blank lines between": (A + b"\r\n" * 1000 + B, "a b"),
    "plain, last one cut": (A + B[:-8], "a damage"),
    "packed, last one cut": (packed(A, B)[:-20], "a damage"),
    "plain, cut before another": (A + CUT + B, "a damage b"),
    "packed, cut before another": (packed(A, record("x", NOISE))[:-9000] + packed(B), "a damage b"),
    "whole, cut before another": (gzip.compress(A + record("x", NOISE))[:-9000] + packed(B, C), "a damage b c"),
    "plain, garbage between": (A + b"garbage\n" * 50 + B, "a damage b"),
    "packed, garbage between": (packed(A) + b"garbage\n" * 50 + packed(B), "a damage b"),
    "packed, zeros between": (packed(A) + bytes(5000) + packed(B), "a damage b"),
    "plain, too short a length": (A + record("x", length=2) + B, "a x damage b"),
    "packed, too short a length": (packed(A, record("x", length=2), B), "a x damage b"),
    "plain, too long a length": (A + record("x", length=80) + B, "a damage b"),
    "packed, too long a length": (packed(A, record("x", length=80), B), "a damage b"),
    "plain, 5 GB announced": (A + record("x", length=5 << 30) + B, "a damage b"),
    "packed, 5 GB announced": (packed(A, record("x", length=5 << 30), B), "a damage b"),
    "plain, header without end": (A + record("x").replace(b"\r\n\r\n", b"\r\n") + B, "a damage b"),
    "negative length": (A + record("x", length=-5) + B, "a damage b"),
    "a length beyond all integers": (A + record("x", length=1 << 90) + B, "a damage b"),
    "plain, header of megabytes": (A + record("x", more="X: " + "x" * 5_000_000 + "\r\n") + B, "a damage b"),
    "packed, header of megabytes": (packed(A, record("x", more="X: y\r\n" * 1_000_000), B), "a damage b"),
    "packed, each in garbage": ((packed(A) + b"no\n") * 9, " ".join(["a damage"] * 9)),
    "plain, each in garbage": ((A + b"no\n") * 9, " ".join(["a damage"] * 9)),
    "plain, then packed": (A + packed(B) + C, "a b c"),
    "packed, then plain": (packed(A) + B + packed(C), "a b c"),
    "several in a member, then plain": (packed(A + record("x")) + B + packed(C), "a x damage b c"),
    "packed, each read once": (packed(A, B) + b"no" + packed(C, C, C) + b"no" + packed(A), "a b damage c c c damage a"),
    "plain, then packed garbage": (A + packed(b"garbage") + B, "a damage b"),
    "packed, a good record within another": (
        packed(A, record("x", b"\r\n" + C + b"\r\n")) + b"no\n" + B,
        "a x damage b",
    ),
    "plain, cut by some bytes": (A + record("x", b"1234")[:-6] + B + C, "a x damage b c"),
    "plain, its block lost": (A + record("x", b"1234" * 10)[:-44] + B + C, "a damage b c"),
    "no garbage but text": (b"<html>" * 1000, "damage"),
    "nothing": (b"", ""),
}


@pytest.mark.parametrize("name", BROKEN)
def test_good_records_are_read_whatever_lies_between_them(tmp_path: Path, name: str) -> None:
    content, names = BROKEN[name]
    file = tmp_path / "w.warc"
    file.write_bytes(content)
    assert [what for _, what in found(file)] == names.split()


@pytest.mark.parametrize("name", BROKEN)
def test_reading_can_go_on_from_any_place_as_if_it_had_not_stopped(tmp_path: Path, name: str) -> None:
    file = tmp_path / "w.warc"
    file.write_bytes(BROKEN[name][0])
    items = found(file)
    for number, (place, _) in enumerate(items):
        assert found(file, place) == items[number:]


PARTS = [
    *(
        A,
        packed(B),
        packed(A + B),
        record("x", NOISE),
        packed(record("x", NOISE)),
        CUT,
        packed(record("x", NOISE))[:9000],
    ),
    *(record("x", length=length)[:-9] for length in (1, 80, 3000, 1 << 40)),
    *(packed(record("x", b"", length=length)[:-4])[:-8] for length in (80, 3000)),
    *(b"garbage", bytes(5000), b"\r\n", NOISE),
]


@given(st.lists(st.sampled_from(PARTS), max_size=30), st.integers(0, 20_000))
def test_damage_is_a_row_a_stretch_and_no_obstacle_to_going_on_however_little_may_be_read_again(
    tmp_path_factory: pytest.TempPathFactory, parts: list[bytes], again: int
) -> None:
    file = tmp_path_factory.mktemp("warc") / "w.warc"
    file.write_bytes(b"".join(parts))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(archive, "MAX_AGAIN", 0)
        patch.setattr(archive, "MIN_AGAIN_BYTES", again)
        items = found(file)
        assert all((one, next_one) != ("damage", "damage") for (_, one), (_, next_one) in pairwise(items))
        for number, (place, _) in enumerate(items):
            assert found(file, place) == items[number:]


def test_where_too_much_would_be_read_again_reading_goes_on_behind_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(archive, "MAX_AGAIN", 0)
    monkeypatch.setattr(archive, "MIN_AGAIN_BYTES", 10_000)
    false_head = record("x", b"", length=30_000)[:-4]
    file = tmp_path / "w.warc"
    file.write_bytes(A + false_head * 10 + bytes(200_000) + A + packed(B) + C)
    assert [what for _, what in found(file)] == ["a", "damage", "a", "b", "c"]


def test_a_gzip_head_that_announces_more_than_the_file_holds_is_damage(tmp_path: Path) -> None:
    hurt = bytearray(packed(B))
    hurt[3] = 4  # now a field of up to 65,535 bytes seems to follow (RFC 1952, FEXTRA)
    file = tmp_path / "w.warc.gz"
    file.write_bytes(packed(A) + hurt + packed(C))
    assert [what for _, what in found(file)] == ["a", "damage", "c"]
    file.write_bytes(packed(A) + packed(B) + hurt)
    assert [what for _, what in found(file)] == ["a", "b", "damage"]


@given(st.data())
def test_any_damage_to_one_record_leaves_those_far_from_it(
    tmp_path_factory: pytest.TempPathFactory, data: st.DataObject
) -> None:
    records = [record(str(number), NOISE[number * 100 : number * 100 + 400]) for number in range(7)]
    parts = [packed(each) for each in records] if data.draw(st.booleans()) else records
    hurt = bytearray(parts[3])
    for _ in range(data.draw(st.integers(1, 5))):
        hurt[data.draw(st.integers(0, len(hurt) - 1))] = data.draw(st.integers(0, 255))
    if data.draw(st.booleans()):
        del hurt[data.draw(st.integers(0, len(hurt) - 1)) :]
    file = tmp_path_factory.mktemp("warc") / "w.warc"
    file.write_bytes(b"".join(parts[:3]) + hurt + b"".join(parts[4:]))
    names = [what for _, what in found(file)]
    assert names[:3] == ["0", "1", "2"]
    assert names[-3:] == ["4", "5", "6"]


def test_a_record_above_the_limit_is_passed_over_and_the_next_one_read(tmp_path: Path) -> None:
    file = tmp_path / "w.warc.gz"
    file.write_bytes(packed(A, record("x", bytes(MAX_BYTES + 1)), B))
    assert [what for _, what in found(file)] == ["a", "x", "b"]


def test_a_bomb_takes_no_memory(tmp_path: Path) -> None:
    file = tmp_path / "w.warc.gz"
    zeros, pieces = bytes(1 << 20), 1 << 10
    with gzip.open(file, "wb", compresslevel=1) as stream:
        head, _, tail = record("x", b"|", length=pieces << 20).partition(b"|")
        stream.write(head)
        for _ in range(pieces):
            stream.write(zeros)
        stream.write(tail)
    with file.open("ab") as stream:
        stream.write(packed(B))
    code = (
        "import re, sys; from pathlib import Path; from pipeline.extraction.archive import Damage, read_records\n"
        "print([isinstance(item, Damage) for _, item in read_records(Path(sys.argv[1]), 1 << 20)])\n"
        "print(re.search(r'VmHWM:\\s+(\\d+) kB', Path('/proc/self/status').read_text())[1])"
    )
    done = subprocess.run([sys.executable, "-c", code, str(file)], capture_output=True, text=True, check=True, cwd=ROOT)
    items, kibibytes = done.stdout.splitlines()
    assert items == "[False, False]"
    assert int(kibibytes) < 100_000


@pytest.mark.parametrize(
    ("name", "records", "damages"),
    [
        ("example.warc.gz", 6, 0),
        ("example-bad-non-chunked.warc.gz", 6, 0),
        ("example-digest.warc", 4, 0),
        ("example-iana.org-chunked.warc", 3, 0),
        ("example-trunc.warc", 4, 1),
        ("whirlwind.warc", 4, 0),
        ("whirlwind.warc.gz", 4, 0),
        ("whirlwind.warc.wat", 2, 0),
        ("whirlwind.warc.wet", 2, 0),
    ],
)
def test_archives_of_others_are_read(name: str, records: int, damages: int) -> None:
    if not (SHARED / name).exists():
        pytest.skip(f"{SHARED / name} is not there")
    names = [what for _, what in found(SHARED / name)]
    assert (len(names) - names.count("damage"), names.count("damage")) == (records, damages)


def stored(content: bytes) -> bytes:
    """A deflate block, not the last one, of bytes as they are (RFC 1951, 3.2.4)."""
    return b"\0" + len(content).to_bytes(2, "little") + (len(content) ^ 0xFFFF).to_bytes(2, "little") + content


def bomb(size: int) -> bytes:
    """The deflate blocks of `size` zeros, of which the last is not the last."""
    deflater = zlib.compressobj(wbits=-15)
    return deflater.compress(bytes(size)) + deflater.flush(zlib.Z_FULL_FLUSH)


FILLER = 10_000_000
GZIP_HEAD = gzip.compress(b"", mtime=0)[:10]
HEAD, HUGE, IN_FILE = (record("x", b"", length=length)[:-4] for length in (60_000_000, 600_000_000, FILLER // 2))
ADVERSE = {
    "heads that announce more than there is": HEAD * 40_000 + bytes(FILLER),
    "heads that announce what runs into another": IN_FILE.replace(b"\r\n\r\n", b"\r\n\r\n|") * 40_000 + bytes(FILLER),
    "versions only": b"WARC/1.0\r\n" * 2_000_000,
    "versions in one line": b"WARC/1.0" * 2_500_000,
    "versions in headers": b"X: WARC/1.0\r\n" * 1_500_000,
    "heads of gzip only": GZIP_HEAD * 2_000_000,
    "members, each within the one before": GZIP_HEAD
    + (stored(HEAD) + stored(GZIP_HEAD)) * 40_000
    + stored(bytes(50_000)) * (FILLER // 50_000),
    "bombs, each within the one before": GZIP_HEAD + (stored(HEAD) + stored(GZIP_HEAD)) * 40_000 + bomb(FILLER * 4),
    "bombs too large to be wanted": GZIP_HEAD + (stored(HUGE) + stored(GZIP_HEAD)) * 40_000 + bomb(FILLER * 4),
    "good records, each within the one before": b"".join(
        record("x", b"", length=FILLER - 200 * number)[:-4] for number in range(40_000)
    )
    + bytes(FILLER)
    + b"\nno",
    "good records, each followed by garbage": (packed(A) + b"no\n") * 100_000,
}


@pytest.mark.parametrize("name", ADVERSE)
def test_the_time_it_takes_is_bounded_by_the_size_of_the_file(tmp_path: Path, name: str) -> None:
    file = tmp_path / "w.warc"
    file.write_bytes(ADVERSE[name])
    begun = time.process_time()
    for _ in read_records(file, 1 << 26):
        pass
    assert time.process_time() - begun < 5
