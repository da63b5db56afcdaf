"""Ids as text while they come: letters are never broken, special tokens print nothing, and strings can end it."""

import codecs
from collections.abc import Callable, Iterable, Iterator, Sequence

from pipeline.shards import Encoding


def stream_text(encoding: Encoding, ids: Iterable[int], stops: Sequence[str] = ()) -> Iterator[str]:
    """The text of ids as it comes, held back while a letter is incomplete; it ends before the first of `stops`.

    What may be the beginning of a stop is held back too. Bytes that are no UTF-8 at all become U+FFFD.
    """
    special = {encoding.encode_single_token(name) for name in encoding.special_tokens_set}
    decoder = codecs.getincrementaldecoder("utf-8")(errors="replace")
    held = ""
    for token in ids:
        held += "" if token in special else decoder.decode(encoding.decode_single_token_bytes(token))
        whole = before_stop(held, stops)
        if whole is not None:
            if whole:
                yield whole
            return
        keep = max((_overlap(held, stop) for stop in stops), default=0)
        ready, held = held[: len(held) - keep], held[len(held) - keep :]
        if ready:
            yield ready
    if rest := held + decoder.decode(b"", final=True):
        yield rest


def before_stop(text: str, stops: Sequence[str]) -> str | None:
    """What comes before the first of `stops` in a text; None where there is none of them."""
    places = [place for place in (text.find(stop) for stop in stops) if place >= 0]
    return text[: min(places)] if places else None


def stopping(encoding: Encoding, stops: Sequence[str]) -> Callable[[list[int]], bool]:
    """A test whether written ids hold one of `stops`; it looks at their newest bytes, where a stop would be new."""
    ends = [stop.encode() for stop in stops]
    longest = max(map(len, ends), default=0)
    special = {encoding.encode_single_token(name) for name in encoding.special_tokens_set}

    def ended(ids: list[int]) -> bool:
        tail, newest = b"", 0
        for token in reversed(ids):
            piece = b"" if token in special else encoding.decode_single_token_bytes(token)
            newest = newest or len(piece)
            tail = piece + tail
            if len(tail) >= longest + newest:
                break
        return any(end in tail for end in ends)

    return ended


def _overlap(text: str, stop: str) -> int:
    """Length of the longest end of `text` that is a beginning of `stop`."""
    return next((size for size in range(min(len(text), len(stop) - 1), 0, -1) if text.endswith(stop[:size])), 0)
