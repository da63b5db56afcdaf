"""Records of a WARC file in whatever state it is: the good ones, and one `Damage` for each stretch that is none.

WARC/1.1, 1.0 and 0.18, with each record a gzip member, gzip as a whole, or plain. After damage, reading goes on where
the next record seems to start. Memory is bounded by the largest record that is wanted, and time by the file's size:
what only seems to be a record may hold another, and so on, so the bytes that are read again are counted.
"""

import mmap
import re
import zlib
from collections.abc import Iterator
from dataclasses import dataclass
from io import BytesIO
from pathlib import Path
from typing import BinaryIO, cast

from fastwarc.warc import ArchiveIterator, HeaderMap, WarcRecord

HEADER_BYTES = 256 * 1024
"""A longer header, of the record or of HTTP, is damage. Servers and browsers stop at 8 to 256 KiB."""

MAX_AGAIN = 16
"""So many times a file's size may be read again. A damaged record takes once what it announces, mostly a few KiB."""

FREE_RATIO = 16
"""Of what is decompressed again, one byte in so many counts; text is packed less, bombs 1,000 to 1."""

MIN_AGAIN_BYTES = 16 * 1024 * 1024
"""So much may be read again of the smallest file."""

Place = tuple[int, int, int, int]
"""Where a record is: the byte where reading began, how many records it came to before, and, when it began, the byte
up to which all had been read and how many bytes had been read again."""

FIRST: Place = (0, 0, 0, 0)

Headers = tuple[tuple[str, str], ...]

_RECORD_START = re.compile(rb"\x1f\x8b\x08[\x00-\x1f]|WARC/[01]\.\d")
"""The head of a gzip member (RFC 1952) or of a plain record."""
_PLAIN_START = re.compile(rb"WARC/[01]\.\d\r?\n")
_FIRST_READ_BYTES = 1024
_READ_BYTES = 64 * 1024
_ONCE = ("content-length", "warc-type", "warc-target-uri")
_BLANK_LINE = re.compile(rb"\r?\n\r?\n")
_LINE_ENDS = re.compile(rb"[\r\n]*")
_END_BYTES = 4
"""Of the two line ends behind a block."""


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


def read_records(file: Path, max_bytes: int, start: Place = FIRST) -> Iterator[tuple[Place, Record | Damage]]:
    """Records from the one at `start` on; the blocks of those that announce more than `max_bytes` are passed over."""
    if file.stat().st_size == 0:
        return
    with file.open("rb") as handle, mmap.mmap(handle.fileno(), 0, access=mmap.ACCESS_READ) as data:
        begin, skip, *counted = start
        reader = _Reader(handle, len(data), *counted)
        in_damage = False
        while True:
            starts, number, last_length = (begin, begin), 0, None
            headers: Headers = ()
            before = reader.begin(begin)
            try:
                for record in ArchiveIterator(cast(BinaryIO, reader), parse_http=False, max_header_len=HEADER_BYTES):
                    last_length = None
                    headers = record.headers.items()
                    position = begin + record.stream_pos
                    if position != starts[1] and _RECORD_START.match(data, position):
                        starts = (starts[1], position)
                    room = len(data) - position if _is_plain(data, begin) else None
                    # Those before `skip` too, so that the same bytes count.
                    whole = _read(record, max_bytes, room, reader)
                    if whole.block is not None and b"WARC/" in whole.block and _PLAIN_START.search(whole.block):
                        _require_end(data, _start(data, starts, headers), whole.length)
                    in_damage = False
                    if number >= skip:
                        yield (begin, number, *before), whole
                    last_length = whole.length
                    number += 1
            except (OSError, ValueError) as problem:
                after = _start(data, starts, headers)
                end = None if last_length is None else _end(data, after, last_length)
                if end is not None and end >= before[0]:
                    reader.read_to = end  # what was read ahead of a good record is no more than that record
                if end is not None and _RECORD_START.match(data, end):
                    begin, skip = end, 0  # what follows may be good, but is plain behind gzip, or the reverse
                    continue
                if not in_damage:
                    yield (begin, number, *before), Damage(after, str(problem))
                in_damage = True
            else:
                # A head that announces more than the file holds ends it without a word.
                end = begin if last_length is None else _end(data, _start(data, starts, headers), last_length)
                if end is None or _LINE_ENDS.fullmatch(data, end):
                    return
                after = end
                reader.read_to = max(end, before[0])
                if not in_damage:
                    yield (begin, number, *before), Damage(after, "what follows is no record")
                in_damage = True
            # A plain record that lost bytes may hold what is behind it; a gzip member has a checksum.
            search_from = after + 1 if end in (None, after) or _is_plain(data, after) else end
            following = _RECORD_START.search(data, max(search_from, reader.read_to if reader.exhausted else 0))
            if following is None:
                return
            begin, skip = following.start(), 0


class _Reader:
    """A file for ArchiveIterator, which counts the bytes that are read again and ends that at a limit."""

    def __init__(self, handle: BinaryIO, size: int, read_to: int, again: int) -> None:
        self.handle = handle
        self.read_to = read_to
        self.again = again
        self.may_again = MAX_AGAIN * size + MIN_AGAIN_BYTES

    @property
    def exhausted(self) -> bool:
        """Only bytes from `read_to` on can still be read."""
        return self.again >= self.may_again

    def begin(self, position: int) -> tuple[int, int]:
        """Go there, to read little at first and then more; the last two parts of a Place."""
        self.handle.seek(position)
        self.begun = self.position = position
        self.piece = _FIRST_READ_BYTES
        return self.read_to, self.again

    def count_decompressed(self, size: int) -> None:
        """Note that `size` bytes are about to come, or came, of those last read."""
        if self.position < self.read_to:
            self.again += size // FREE_RATIO

    def tell(self) -> int:
        """Bytes from where reading began, so that positions of records are that too."""
        return self.position - self.begun

    def read(self, size: int = _READ_BYTES) -> bytes:
        """At most `size` bytes; OSError where too many were read again."""
        if self.position < self.read_to and self.exhausted:
            raise OSError("too much of the file would have to be read again")
        content = self.handle.read(min(size, self.piece))
        self.again += max(0, min(self.read_to, self.position + len(content)) - self.position)
        self.position += len(content)
        self.read_to = max(self.read_to, self.position)
        self.piece = min(2 * self.piece, _READ_BYTES)
        return content


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


def _read(record: WarcRecord, max_bytes: int, room: int | None, reader: _Reader) -> Record:
    """OSError where the block is shorter than announced, at once where there is no such `room`."""
    headers = record.headers
    if "WARC-Type" not in headers:
        raise OSError("a record does not say its type")
    names = [name.lower() for name, _ in headers.items()]
    if any(names.count(name) > 1 for name in _ONCE):
        raise OSError("a record's header runs into the next")
    length = int(headers.get("Content-Length") or 0)
    if room is not None and length > room:
        raise OSError(f"a record is cut short: it announces {length} bytes")
    block = None
    found = 0
    if 0 <= length <= max_bytes:
        reader.count_decompressed(length)
        block = record.reader.read(length)
        found = len(block)
    else:
        while passed_over := len(record.reader.read(_READ_BYTES)):
            reader.count_decompressed(passed_over)
            found += passed_over
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


def _is_plain(data: mmap.mmap, position: int) -> bool:
    return data[position : position + 5] == b"WARC/"


def _start(data: mmap.mmap, starts: tuple[int, int], headers: Headers) -> int:
    """The record of these headers, or the gzip member that it shares with others, in which positions say little.

    `starts` are the last two positions where something starts: the last may be the member behind, where all of the one
    before has been read.
    """
    before, last = starts
    if before == last or _is_plain(data, before):
        return last
    try:
        packed = BytesIO(data[last : last + HEADER_BYTES])
        there = next(iter(ArchiveIterator(packed, parse_http=False, max_header_len=HEADER_BYTES)), None)
    except (OSError, ValueError):
        return before
    return last if there is not None and there.headers.items() == headers else before


def _require_end(data: mmap.mmap, position: int, length: int) -> None:
    """OSError where a block of `length` is partly the next record: it was cut short, or announces too much."""
    if _is_plain(data, position):
        head = _BLANK_LINE.search(data, position)
        end = head.end() + length if head else 0
        following = data[end : end + 16].lstrip(b"\r\n")
        whole = not following or _RECORD_START.match(following) is not None
    else:
        spare, _ = _member(data, position, length)
        whole = spare >= 0
    if not whole:
        raise OSError("a record runs into the next")


def _end(data: mmap.mmap, position: int, length: int) -> int | None:
    """The byte behind a good record and its line ends; None where it is packed with others."""
    if _is_plain(data, position):
        head = _BLANK_LINE.search(data, position)
        end = head.end() + length if head else None
    else:
        spare, end = _member(data, position, length)
        end = end if 0 <= spare <= _END_BYTES else None
    line_ends = None if end is None else _LINE_ENDS.match(data, end)
    return line_ends.end() if line_ends else None


def _member(data: mmap.mmap, position: int, length: int) -> tuple[int, int | None]:
    """Bytes that a gzip member has beyond a record of `length`, and where it ends.

    No further is it decompressed than to see that there is more than a record and its line ends: the end is None then.
    """
    inflater = zlib.decompressobj(wbits=31)
    head, size, wanted, source = b"", 0, HEADER_BYTES + length, position
    while not inflater.eof and size <= wanted + _END_BYTES:
        packed = inflater.unconsumed_tail
        if not packed:
            packed = data[source : source + _FIRST_READ_BYTES]
            source += len(packed)
        try:
            content = inflater.decompress(packed, _READ_BYTES)
        except zlib.error:
            return 0, None
        if not packed and not content:
            return 0, None
        size += len(content)
        if wanted == HEADER_BYTES + length and len(head) < HEADER_BYTES:
            head += content
            blank = _BLANK_LINE.search(head)
            wanted = blank.end() + length if blank else wanted
    return size - wanted, source - len(inflater.unused_data) if inflater.eof else None
