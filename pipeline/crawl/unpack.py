"""Undoing a Content-Encoding piece by piece, so that what unpacks to too much is noticed on the way."""

import zlib
from collections.abc import Iterator
from typing import Any

_CHUNK = 64 * 1024
_GZIP = b"\x1f\x8b"


class Unpacker:
    """Undoes gzip or deflate in pieces of at most 64 KiB, several gzip members one after another included."""

    def __init__(self) -> None:
        self._inflater: Any = None
        self._members = 0
        self._ended = False
        self._held = b""  # a single byte does not say yet what begins with it

    @property
    def whole(self) -> bool:
        """Whether the data so far could be all of it."""
        return self._inflater is None and (self._members > 0 or not self._held)

    def __call__(self, data: bytes) -> Iterator[bytes]:
        """Pieces of what `data` unpacks to; zlib.error where it is not what it says."""
        data, self._held = self._held + data, b""
        while data and not self._ended:
            if self._inflater is None:
                if len(data) < 2:
                    self._held = data
                    return
                if self._members and not data.startswith(_GZIP):
                    self._ended = True  # whatever follows the end is left alone, as browsers do
                    return
                self._inflater = zlib.decompressobj(_window(data))
                self._members += 1
            piece = self._inflater.decompress(data, _CHUNK)
            yield piece
            # A full piece may leave output behind although all input is taken; at the end, the tail is no input.
            while not self._inflater.eof and (self._inflater.unconsumed_tail or len(piece) == _CHUNK):
                piece = self._inflater.decompress(self._inflater.unconsumed_tail, _CHUNK)
                yield piece
            data = b""
            if self._inflater.eof:
                data = self._inflater.unused_data
                self._inflater = None


def _window(data: bytes) -> int:
    """Zlib's `wbits` for data that begins so: gzip, zlib, or the bare deflate that some servers send by its name."""
    named = data.startswith(_GZIP) or (data[0] & 15 == 8 and int.from_bytes(data[:2], "big") % 31 == 0)
    return 47 if named else -15
