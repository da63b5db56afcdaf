"""Records of a WARC file in whatever state it is: the good ones, and one `Damage` for each stretch that is none.

WARC/1.1, 1.0 and 0.18, with each record a gzip member, gzip as a whole, or plain. After damage, reading goes on where
the next record seems to start. Memory is bounded by the largest record that is wanted.
"""

import mmap
import re
import zlib
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from fastwarc.warc import ArchiveIterator, HeaderMap, WarcRecord

HEADER_BYTES = 256 * 1024
"""A longer header, of the record or of HTTP, is damage. Servers and browsers stop at 8 to 256 KiB."""

Place = tuple[int, int]
"""Where a record is: the byte where reading began, and how many records it came to before."""

_RECORD_START = re.compile(rb"\x1f\x8b\x08[\x00-\x1f]|WARC/[01]\.\d")
"""The head of a gzip member (RFC 1952) or of a plain record."""
_ONCE = ("content-length", "warc-type", "warc-target-uri")
_BLANK_LINE = re.compile(rb"\r?\n\r?\n")


@dataclass(frozen=True)
class Record:
    """A record by what concerns us of its header, and its block, which is None where it is too large."""

    kind: str
    """WARC-Type in lower case."""
    url: str
    """WARC-Target-URI, empty where there is none."""
    date: str
    """WARC-Date as it stands there, empty where there is none."""
    content_type: str
    """Of the block: application/http where it is a response as it came."""
    length: int
    """Bytes of the block as announced."""
    block: bytes | None


@dataclass(frozen=True)
class Damage:
    """A stretch of the file that is no record, somewhere after byte `after`."""

    after: int
    problem: str


def read_records(file: Path, max_bytes: int, start: Place = (0, 0)) -> Iterator[tuple[Place, Record | Damage]]:
    """Records from the one at `start` on; the blocks of those that announce more than `max_bytes` are passed over."""
    if file.stat().st_size == 0:
        return
    with file.open("rb") as handle, mmap.mmap(handle.fileno(), 0, access=mmap.ACCESS_READ) as data:
        begin, skip = start
        in_damage = False
        while True:
            after, number = begin, 0
            handle.seek(begin)
            try:
                for record in ArchiveIterator(handle, parse_http=False, max_header_len=HEADER_BYTES):
                    # Within one gzip member of many records the position is only where the file was read to.
                    if _RECORD_START.match(data, begin + record.stream_pos):
                        after = begin + record.stream_pos
                    if number >= skip:
                        whole = _read(record, max_bytes)
                        _require_end(data, after, whole)
                        in_damage = False
                        yield (begin, number), whole
                    number += 1
            except (OSError, ValueError) as problem:
                if not in_damage:
                    yield (begin, number), Damage(after, str(problem))
                in_damage = True
            else:
                return
            following = _RECORD_START.search(data, after + 1)
            if following is None:
                return
            begin, skip = following.start(), 0


def http_response(block: bytes) -> tuple[int, HeaderMap, WarcRecord]:
    """Status and headers of an HTTP response, and a record whose reader gives its body with all codings undone.

    OSError where it is none, where its headers are too long, and, now or when it is read, where a coding is not kept.
    """
    response = WarcRecord()
    response.is_http = True
    response.set_bytes_content(block)
    response.parse_http(auto_decode="all", max_header_len=HEADER_BYTES)
    headers = response.http_headers
    status = headers.status_code if headers is not None else None
    if headers is None or status is None or not 100 <= status <= 999:
        raise OSError("no HTTP status line")
    return status, headers, response


def _read(record: WarcRecord, max_bytes: int) -> Record:
    """OSError where the block is shorter than announced."""
    headers = record.headers
    if "WARC-Type" not in headers:
        raise OSError("a record does not say its type")
    names = [name.lower() for name, _ in headers.items()]
    if any(names.count(name) > 1 for name in _ONCE):
        raise OSError("a record's header runs into the next")
    length = int(headers.get("Content-Length") or 0)
    block = record.reader.read(length) if 0 <= length <= max_bytes else None
    found = record.reader.consume() if block is None else len(block)
    if found != length:
        raise OSError(f"a record is cut short: {found} of {length} bytes")
    return Record(
        headers["WARC-Type"].strip().lower(),
        (headers.get("WARC-Target-URI") or "").strip("<>"),
        headers.get("WARC-Date") or "",
        headers.get("Content-Type") or "",
        length,
        block,
    )


def _require_end(data: mmap.mmap, position: int, record: Record) -> None:
    """OSError where what a record holds is partly the next one: it was cut short, or announces too much."""
    if record.block is None or b"\nWARC/" not in record.block:
        return
    if data[position : position + 5] == b"WARC/":
        head = _BLANK_LINE.search(data, position)
        end = head.end() + record.length if head else 0
        following = data[end : end + 16].lstrip(b"\r\n")
        whole = not following or following.startswith(b"WARC/")
    else:
        size = HEADER_BYTES + record.length  # and gzip makes nothing longer by a thousandth
        inflater = zlib.decompressobj(wbits=31)
        member = inflater.decompress(data[position : position + size], size)
        head = _BLANK_LINE.search(member)
        whole = not inflater.eof or (head is not None and head.end() + record.length <= len(member))
    if not whole:
        raise OSError("a record runs into the next")
