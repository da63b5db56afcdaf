"""Sitemaps: the pages that a site lists of its own, as sitemaps.org has it.

XML (urlset and sitemapindex, with or without namespaces), plain text, RSS and Atom, each also as gzip. A sitemap comes
from outside, so nothing in it is an error and everything is bounded: bytes after decompression, entries, elements,
depth, and the size of one tag. A document type with declarations of its own ends the reading: no sitemap needs
entities, and attacks do. What was read until the end, or until something broke, counts.
"""

import io
import zlib
from collections.abc import Iterator
from dataclasses import dataclass, field
from xml.parsers import expat

from pipeline.crawl.urls import canonical_url

MAX_SITEMAP_BYTES = 50 * 1024 * 1024
"""Of one sitemap, decompressed (sitemaps.org)."""

MAX_SITEMAP_URLS = 50_000
"""Entries of one sitemap (sitemaps.org), repeated and unusable ones included."""

MAX_ELEMENTS = 40 * MAX_SITEMAP_URLS
"""Of XML, so that 50 MiB of empty tags take seconds and not minutes; a URL with a few images has about 20."""

_MAX_DEPTH = 50
_MAX_TOKEN_BYTES = 1024 * 1024
_MAX_LOCATION_LENGTH = 10_000
_CHUNK_BYTES = 64 * 1024
_GZIP_CHUNK_BYTES = 1024  # what is lost before a damaged place
_MAX_GZIP_MEMBERS = 5000
_GZIP = b"\x1f\x8b"
_UTF16_MARKS = (b"\xff\xfe", b"\xfe\xff")
_UTF8_MARK = b"\xef\xbb\xbf"

_ROOTS = frozenset({"urlset", "sitemapindex", "rss", "rdf", "feed"})
_PAGE_TEXTS = frozenset({("url", "loc"), ("item", "link")})
_SITEMAP_TEXT = ("sitemap", "loc")
_PAGE_REFERENCE = ("entry", "link")


@dataclass(frozen=True)
class Sitemap:
    """Canonical URLs that a sitemap lists, in its order, each once."""

    pages: list[str] = field(default_factory=list)
    sitemaps: list[str] = field(default_factory=list)


def read_sitemap(body: bytes, url: str) -> Sitemap:
    """What the sitemap `body`, fetched from `url`, lists; nothing where it is no sitemap."""
    content = b"".join(_decompressed(body)) if body.startswith(_GZIP) else body[:MAX_SITEMAP_BYTES]
    start = content[:1024].removeprefix(_UTF8_MARK).lstrip()
    if start.startswith((b"<", *_UTF16_MARKS)):
        # An XML declaration must be the first thing in a file, and in many it comes after a blank line.
        reader = _XmlReader(url)
        reader.read(content.removeprefix(_UTF8_MARK).lstrip() if start.startswith(b"<") else content)
        return Sitemap(list(reader.pages), list(reader.sitemaps))
    lines = (canonical_url(line) for line in _lines(content))
    return Sitemap(list(dict.fromkeys(line for line in lines if line is not None)))


def _decompressed(body: bytes) -> Iterator[bytes]:
    """`body` without its compression, up to the limit; of a damaged one what comes before the damage."""
    position, room = 0, MAX_SITEMAP_BYTES
    for _ in range(_MAX_GZIP_MEMBERS):
        stream = zlib.decompressobj(wbits=31)
        while not stream.eof:
            piece = body[position : position + _GZIP_CHUNK_BYTES]
            position += len(piece)
            try:
                content = stream.decompress(piece, room)
            except zlib.error:
                return
            yield content
            room -= len(content)
            if not piece or room <= 0:
                return
        position -= len(stream.unused_data)
        if not body.startswith(_GZIP, position):
            return


def _lines(content: bytes) -> Iterator[str]:
    text = io.TextIOWrapper(io.BytesIO(content), encoding="utf-8-sig", errors="replace")
    for _ in range(MAX_SITEMAP_URLS):
        line = text.readline(_MAX_LOCATION_LENGTH)
        if not line:
            return
        yield line


class _Enough(Exception):
    """The rest of the document is not to be read."""


class _XmlReader:
    """Reads with a parser that calls back and builds nothing, so memory stays that of the URLs found."""

    def __init__(self, url: str) -> None:
        self.pages: dict[str, None] = {}
        self.sitemaps: dict[str, None] = {}
        self._url = url
        self._path: list[str] = []
        self._text: str | None = None
        self._entries = 0
        self._elements = 0

    def read(self, content: bytes) -> None:
        parser = expat.ParserCreate()
        parser.buffer_text = True
        parser.StartDoctypeDeclHandler = self._doctype
        parser.StartElementHandler = self._start
        parser.EndElementHandler = self._end
        parser.CharacterDataHandler = self._characters
        try:
            for start in range(0, len(content), _CHUNK_BYTES):
                parser.Parse(content[start : start + _CHUNK_BYTES], False)
                if start - parser.CurrentByteIndex > _MAX_TOKEN_BYTES:
                    return
            parser.Parse(b"", True)
        except (_Enough, expat.ExpatError, ValueError, LookupError):  # the last two: encodings that it does not know
            return

    def _doctype(self, _name: str, _system: str | None, _public: str | None, has_declarations: int) -> None:
        if has_declarations:
            raise _Enough

    def _start(self, name: str, attributes: dict[str, str]) -> None:
        name = name.rpartition(":")[2].lower()
        self._elements += 1
        if len(self._path) == _MAX_DEPTH or self._elements > MAX_ELEMENTS or not (self._path or name in _ROOTS):
            raise _Enough
        self._path.append(name)
        place = tuple(self._path[-2:])
        self._text = "" if place in _PAGE_TEXTS or place == _SITEMAP_TEXT else None
        if place == _PAGE_REFERENCE and attributes.get("rel", "alternate") == "alternate":
            self._add(self.pages, attributes.get("href", ""))

    def _end(self, _name: str) -> None:
        place = tuple(self._path[-2:])
        self._path.pop()
        if self._text is not None:
            self._add(self.sitemaps if place == _SITEMAP_TEXT else self.pages, self._text)
            self._text = None

    def _characters(self, text: str) -> None:
        if self._text is not None and len(self._text) < _MAX_LOCATION_LENGTH:
            self._text += text

    def _add(self, found: dict[str, None], location: str) -> None:
        if not location.strip():
            return
        url = canonical_url(location, self._url)
        if url is not None:
            found[url] = None
        self._entries += 1
        if self._entries == MAX_SITEMAP_URLS:
            raise _Enough
