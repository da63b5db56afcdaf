"""From the bytes of a page to text: which charset, and what a broken sequence costs.

The order is that of browsers (WHATWG Encoding, "determining the character encoding"): byte order mark, HTTP header,
`<meta>` or XML declaration, then statistics. One departure: bytes that are valid UTF-8 with characters beyond ASCII
are UTF-8 whatever single-byte charset a server's default claims, because such charsets accept any bytes at all.
Nothing here keeps state, so the same bytes give the same text.
"""

import codecs
import re

from resiliparse.parse.encoding import detect_encoding, map_encoding_to_html5

BYTE_ORDER_MARKS = (
    (codecs.BOM_UTF8, "utf-8"),
    (codecs.BOM_UTF32_LE, "utf-32-le"),
    (codecs.BOM_UTF32_BE, "utf-32-be"),
    (codecs.BOM_UTF16_LE, "utf-16-le"),
    (codecs.BOM_UTF16_BE, "utf-16-be"),
)
"""UTF-32's marks stand before UTF-16's: the little-endian ones begin alike."""

UNMARKED_WIDE = ((b"<\0\0\0", "utf-32-le"), (b"\0\0\0<", "utf-32-be"), (b"<\0", "utf-16-le"), (b"\0<", "utf-16-be"))
"""How a page in UTF-16 or UTF-32 begins without a mark (XML 1.0, appendix F)."""

PRESCAN_BYTES = 2048
"""Where a declaration is looked for: HTML asks for the first 1,024 bytes, real pages are a little late."""

SUPERSETS = {"shift_jis": "cp932", "euc_kr": "cp949", "gbk": "gb18030", "gb2312": "gb18030", "big5": "big5hkscs"}
"""What a label means on the web (WHATWG's tables) where Python's codec of that name is narrower."""

ESCAPE = b"\x1b"
"""ISO-2022 switches its character sets by this byte and is else pure ASCII, hence valid UTF-8."""

MULTIBYTE = frozenset({"cp932", "cp949", "gb18030", "big5hkscs", "euc_jp", "iso2022_jp", "johab"})
UTF_8 = "utf-8"

MAX_REPLACED = 0.05
"""Above this share of undecodable characters the page is no text in the charset chosen."""

MIN_HANGUL = 0.8
"""Share of syllables among the characters beyond ASCII in Korean text; the rest is punctuation and hanja."""

NEAR_MISSES = {
    "cp1253": (re.compile(rb"\xb6[\xdc-\xfe]"), "iso8859_7"),
    "koi8-r": (re.compile(rb"[\xa4\xa6\xa7\xad][\xc0-\xdf]|[\xc0-\xdf][\xa4\xa6\xa7\xad]"), "koi8_u"),
}
"""Charsets that differ in a few letters, where the one suggested has signs: beside other letters they are letters.

Greek has a capital Alpha with accent where Windows has a pilcrow, Ukrainian four letters where Russian has box lines.
"""

_DECLARATION = re.compile(
    rb"""<meta[^>]{0,200}?charset\s*=\s*["']?\s*([a-zA-Z0-9_.:-]{2,40})"""
    rb"""|<\?xml[^>]{0,100}?encoding\s*=\s*["']([a-zA-Z0-9_.:-]{2,40})""",
    re.IGNORECASE,
)


def codec_for(label: str | None) -> str | None:
    """Python's codec for a charset label met on the web; None where the label is missing or names nothing known."""
    if not label:
        return None
    mapped = map_encoding_to_html5(label.strip().lower(), fallback_utf8=False)
    if mapped is None:
        try:
            b"a".decode(label.strip(), errors="replace")  # unlike a lookup, this refuses codecs that give no text
        except (LookupError, ValueError):
            return None
        mapped = codecs.lookup(label.strip()).name
    return SUPERSETS.get(mapped, mapped)


def declared_charset(body: bytes) -> str | None:
    """The codec that the page's own `<meta>` or XML declaration names; UTF-16 there can only mean UTF-8."""
    match = _DECLARATION.search(body[:PRESCAN_BYTES])
    if match is None:
        return None
    codec = codec_for((match.group(1) or match.group(2)).decode("ascii"))
    return UTF_8 if codec is not None and codec.startswith("utf-16") else codec


def decode(body: bytes, http_charset: str | None = None, *, markup: bool = True) -> str | None:
    """The text of `body`, or None where it is text in no charset that anything suggests.

    `http_charset` is the label of the Content-Type header. `markup` says whether declarations inside count.
    """
    for mark, codec in BYTE_ORDER_MARKS:
        if body.startswith(mark):
            return _lossy(body[len(mark) :], codec)
    for start, codec in UNMARKED_WIDE:
        if body.startswith(start):
            return _lossy(body, codec)
    claimed = codec_for(http_charset) or (declared_charset(body) if markup else None)
    if claimed is None or not (claimed in MULTIBYTE or claimed.startswith("utf-")):
        if ESCAPE not in body and (text := _strict(body, UTF_8)) is not None:
            return text
        if claimed is not None:
            return _lossy(body, claimed)
    elif (text := _strict(body, claimed)) is not None or (text := _strict(body, UTF_8)) is not None:
        return text
    guessed = _guess(body)
    if guessed is not None and (text := _strict(body, guessed)) is not None:
        return text
    return _lossy(body, claimed or guessed or UTF_8)


def _guess(body: bytes) -> str | None:
    """The codec that statistics suggest, corrected where they are known to miss.

    They never suggest Johab, so it is tried where they see no multi-byte charset: few other texts decode in it.
    """
    guessed = codec_for(detect_encoding(body, html5_compatible=False))
    if guessed not in MULTIBYTE and (text := _strict(body, "johab")) is not None:
        beyond_ascii = [character for character in text if character > "\x7f"]
        if sum("\uac00" <= character <= "\ud7a3" for character in beyond_ascii) > MIN_HANGUL * len(beyond_ascii):
            return "johab"
    letters, nearby = NEAR_MISSES.get(guessed or "", (None, guessed))
    return nearby if letters is not None and letters.search(body) else guessed


def _strict(body: bytes, codec: str) -> str | None:
    try:
        return body.decode(codec)
    except UnicodeError:
        return None


def _lossy(body: bytes, codec: str) -> str | None:
    text = body.decode(codec, errors="replace")
    if text.count("\N{REPLACEMENT CHARACTER}") > MAX_REPLACED * len(text):
        return None
    return text
