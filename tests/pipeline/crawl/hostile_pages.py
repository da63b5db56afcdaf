"""Pages that break the rules: what each does, and which outcomes in the url index are right.

Every site has a good page at / that links to /bad and /after, and a good page at /after; /bad misbehaves.
"""

import asyncio
import gzip
import zlib
from collections.abc import AsyncIterator

from tests.pipeline.crawl.hostile import (
    GARBAGE,
    GOOD,
    MIB,
    Ask,
    Piece,
    Site,
    Then,
    answer,
    bad,
    bomb,
    drips,
    everywhere,
    forever,
    head,
    packed,
    page,
    redirects,
    sends,
    zeros,
)

HTML = {"Content-Type": "text/html"}
CHUNKED = {"Content-Type": "text/html", "Transfer-Encoding": "chunked"}

LONG = page().encode() + b" " * (65_622 - len(page()))
"""A page of a little more than 64 KiB, most of it in a few compressed bytes."""

WHOLE = ("packed-gzip", "packed-deflate", "packed-deflate-bare", "packed-in-two-members")
"""Sites with that page at /bad, where it is not bad at all."""

NOWHERE = {
    "file": "file:///etc/passwd",
    "data": "data:text/html,<p>x",
    "ftp": "ftp://127.0.0.1:{canary}/x",
    "javascript": "javascript:alert(1)",
    "gopher": "gopher://127.0.0.1:{canary}/_x",
    "loopback": "http://127.0.0.1:{canary}/",
    "loopback6": "http://[::1]:{canary}/",
    "mapped": "http://[::ffff:127.0.0.1]:{canary}/",
    "hexadecimal": "http://0x7f.1:{canary}/",
    "decimal": "http://2130706433:{canary}/",
    "octal": "http://0177.0.0.1:{canary}/",
    "short": "http://127.1:{canary}/",
    "fullwidth": "http://%EF%BC%91%EF%BC%92%EF%BC%97.0.0.1:{canary}/",
    "zero": "http://0:{canary}/",
    "localhost": "http://localhost:{canary}/",
    "user": "http://good.localhost@127.0.0.1:{canary}/",
    "backslash": "//127.0.0.1:{canary}\\@good.localhost/",
    "metadata": "http://169.254.169.254:{canary}/inside",
    "name": "http://loopback.example:{canary}/inside",
    "split": "/%0d%0aHost:%20127.0.0.1\r\nX-Evil: 1",
    "garbage": GARBAGE[:200].replace(b"\r", b"").replace(b"\n", b"").decode("latin-1").replace("{", ""),
    "long": "/" + "x" * 7000,
    "empty": "",
}
"""Where no crawler follows: other schemes, another port of this machine in every notation, nonsense."""


def _bare_deflate(body: bytes) -> bytes:
    """As some servers send it by the name of deflate: without zlib's header and checksum, so it ends in mid-air."""
    deflater = zlib.compressobj(9, zlib.DEFLATED, -15)
    return deflater.compress(body) + deflater.flush()


async def _two_members(_: Ask) -> AsyncIterator[Piece]:
    """Two gzip members, cut inside the second one's first bytes."""
    first, second = gzip.compress(LONG[:1000]), gzip.compress(LONG[1000:])
    yield head(**HTML, Content_Encoding="gzip", Content_Length=str(len(first + second))) + first + second[:1]
    await asyncio.sleep(0.5)
    yield second[1:]


async def _chain(ask: Ask) -> AsyncIterator[Piece]:
    yield head("302 Found", Location=f"{ask.path}/on", Content_Length="0")


def _chunk(data: bytes) -> bytes:
    return f"{len(data):x}\r\n".encode() + data + b"\r\n"


_GZIP = gzip.compress(page("/bad", "/after").encode() * 1000)
_BEGUN = head(**HTML) + b"<p>begun"

PAGES: dict[str, Site] = {
    **{f"redirect-{name}": bad(redirects(to), "redirect http_302 bad_headers") for name, to in NOWHERE.items()},
    "redirect-without-location": bad(sends(head("302 Found", Content_Length="0")), "redirect http_302"),
    "redirect-itself": bad(redirects("/bad"), "redirect_loop"),
    "redirect-pair": Site(
        {"/bad": redirects("/worse"), "/worse": redirects("/bad")}, GOOD | {"/bad": "redirect", "/worse": "redirect"}
    ),
    "redirect-chain": Site(everywhere(_chain), {"/bad": "redirect"}),
    "redirect-fan": bad(
        sends("HTTP/1.1 300 Many\r\n" + "Location: /a\r\nLocation: /b\r\n" * 9 + "\r\n"),
        "redirect http_300 bad_headers",
    ),
    "links-nowhere": bad(sends("HTTP/1.1 200 OK\r\n\r\n" + page(*NOWHERE.values())), "stored"),
    "base-elsewhere": bad(
        sends("HTTP/1.1 200 OK\r\n\r\n" + page("x", above='<base href="http://127.0.0.1:{canary}/">')),
        "stored",
    ),
    "refresh-elsewhere": bad(
        sends(
            "HTTP/1.1 200 OK\r\nRefresh: 0;url=http://127.0.0.1:{canary}/\r\n\r\n"
            + page(above='<meta http-equiv="refresh" content="0;url=http://127.0.0.1:{canary}/">')
        ),
        "stored",
    ),
    # Bombs: 1 GiB from 1 MB, or from nothing at all.
    "bomb-gzip": bad(packed(bomb(), "gzip"), "too_large"),
    "bomb-deflate": bad(packed(bomb(15), "deflate"), "too_large"),
    "bomb-raw-deflate": bad(packed(bomb(-15), "deflate"), "too_large"),
    "bomb-of-members": bad(packed(gzip.compress(bytes(MIB)) * 1024, "gzip"), "too_large"),
    "bomb-in-a-bomb": bad(packed(gzip.compress(bomb(mib=4096)), "gzip, gzip"), "too_large broken"),
    "bomb-of-encodings": bad(packed(b"x", ", ".join(["gzip"] * 500)), "too_large broken bad_headers"),
    "bomb-endless": bad(forever(head(**HTML, Content_Encoding="gzip") + zeros(31)[0], zeros(31)[1]), "too_large"),
    "bomb-of-empty-members": bad(
        forever(head(**HTML, Content_Encoding="gzip"), gzip.compress(b"") * 1000), "too_large timeout broken empty"
    ),
    # Bodies without an end, or with none in sight.
    "endless-chunks": bad(forever(head(**CHUNKED), _chunk(b"<p>more " * 8000)), "too_large timeout"),
    "endless-tiny-chunks": bad(forever(head(**CHUNKED), _chunk(b"x") * 1000), "too_large timeout"),
    "endless-body": bad(forever(_BEGUN, b"<p>more " * 8000), "too_large timeout"),
    "endless-image": bad(forever(head(Content_Type="image/png"), GARBAGE), "not_html"),
    "endless-error": bad(forever(head("500 Oops", **HTML), GARBAGE), "http_500 gave_up"),
    "drip-body": bad(drips(_BEGUN), "timeout"),
    "drip-chunks": bad(drips(head(**CHUNKED), _chunk(b"x")), "timeout"),
    "drip-headers": bad(drips(b"HTTP/1.1 200 OK\r\nX-Slow: "), "timeout"),
    "drip-many-headers": bad(drips(b"HTTP/1.1 200 OK\r\n", b"X-Slow: 1\r\n"), "timeout"),
    "silence": bad(drips(b"", b""), "timeout"),
    "silence-after-headers": bad(drips(head(**HTML, Content_Length="9"), b""), "timeout"),
    "endless-continue": bad(forever(b"", b"HTTP/1.1 100 Continue\r\n\r\n"), "timeout bad_headers too_large broken"),
    # Lengths.
    "length-too-short": bad(
        sends(head(**HTML, Content_Length="9") + b"<p>begun and going on"), "stored broken bad_headers"
    ),
    "length-too-long": bad(sends(head(**HTML, Content_Length="99") + b"<p>begun"), "broken"),
    "length-negative": bad(sends(head(**HTML, Content_Length="-9") + b"<p>begun"), "broken bad_headers"),
    "length-no-number": bad(sends(head(**HTML, Content_Length="many") + b"<p>begun"), "broken bad_headers"),
    "length-twice": bad(
        sends(b"HTTP/1.1 200 OK\r\nContent-Length: 8\r\nContent-Length: 9\r\n\r\n<p>begun."), "broken bad_headers"
    ),
    "length-and-chunks": bad(
        sends(head(**CHUNKED, Content_Length="3") + _chunk(b"<p>begun") + b"0\r\n\r\n"), "stored broken bad_headers"
    ),
    "length-immense": bad(sends(head(**HTML, Content_Length="9" * 15) + b"<p>begun"), "too_large"),
    "length-beyond-integers": bad(
        sends(head(**HTML, Content_Length="9" * 40) + b"<p>begun"), "too_large broken bad_headers"
    ),
    "second-answer-smuggled": bad(
        sends(answer("<p>begun") + answer("<p>An answer that nobody asked for."), Then.KEEP), "stored broken"
    ),
    # Chunks.
    "chunk-size-no-number": bad(sends(head(**CHUNKED) + b"lots\r\n<p>begun\r\n0\r\n\r\n"), "broken bad_headers"),
    "chunk-size-negative": bad(sends(head(**CHUNKED) + b"-8\r\n<p>begun\r\n0\r\n\r\n"), "broken bad_headers"),
    "chunk-size-immense": bad(sends(head(**CHUNKED) + b"f" * 16 + b"\r\n<p>begun"), "broken bad_headers too_large"),
    "chunk-size-endless": bad(forever(head(**CHUNKED), b"0" * 60_000), "broken bad_headers too_large timeout"),
    "chunk-extension-endless": bad(forever(head(**CHUNKED) + b"8;x=", b"y" * 60_000), "broken bad_headers timeout"),
    "chunk-trailers-endless": bad(
        forever(head(**CHUNKED) + _chunk(b"<p>begun") + b"0\r\n", b"X-More: 1\r\n" * 1000),
        "stored broken bad_headers timeout too_large",
    ),
    "chunk-without-end": bad(sends(head(**CHUNKED) + _chunk(b"<p>begun")), "broken"),
    "chunk-longer-than-said": bad(sends(head(**CHUNKED) + b"3\r\n<p>begun\r\n0\r\n\r\n"), "broken bad_headers"),
    # Encodings of the body, and of its text.
    "packed-gzip": bad(packed(gzip.compress(LONG), "gzip"), "stored"),
    "packed-deflate": bad(packed(zlib.compress(LONG), "deflate"), "stored"),
    "packed-deflate-bare": bad(packed(_bare_deflate(LONG), "deflate"), "stored"),
    "packed-in-two-members": bad(_two_members, "stored"),
    "gzip-in-name-only": bad(packed(b"<p>not packed", "gzip"), "broken"),
    "gzip-cut-off": bad(packed(_GZIP[: len(_GZIP) // 2], "gzip"), "broken"),
    "gzip-garbage-behind": bad(packed(_GZIP + GARBAGE, "gzip"), "stored broken"),
    "gzip-damaged": bad(packed(_GZIP[:60] + b"\xff" * 9 + _GZIP[69:], "gzip"), "broken"),
    "gzip-of-nothing": bad(packed(b"", "gzip"), "broken empty"),
    "brotli-in-name-only": bad(packed(b"<p>not packed", "br"), "broken"),
    "zstd-in-name-only": bad(packed(b"<p>not packed", "zstd"), "broken"),
    "encoding-unknown": bad(packed(b"<p>not packed", "x-unheard-of"), "broken"),
    "charset-mislabelled": bad(sends(answer("<p>ä".encode("utf-16"), media_type="text/html; charset=utf-8")), "stored"),
    "charset-unheard-of": bad(sends(answer("<p>x", media_type="text/html; charset=\xff(klingon)")), "stored"),
    "charset-executable": bad(sends(answer("<p>x", media_type="text/html; charset=unicode_escape")), "stored"),
    "binary-as-html": bad(sends(answer(GARBAGE)), "stored not_html"),
    "nothing-but-zeros": bad(sends(answer(bytes(MIB))), "stored not_html empty"),
    "nested-a-million-deep": bad(sends(answer("<i>" * 1_000_000 + "<a href=/after>x")), "too_complex"),
    "attributes-a-million": bad(sends(answer("<a href=/after " + "x " * 1_000_000 + ">")), "stored"),
    "empty-body": bad(sends(answer(" ")), "empty"),
    # Headers.
    "header-of-megabytes": bad(sends(head(**HTML, X_Long="x" * 3 * MIB) + b"<p>x"), "bad_headers"),
    "header-line-endless": bad(forever(b"HTTP/1.1 200 OK\r\nX-Long: ", b"x" * 60_000), "bad_headers"),
    "headers-endless": bad(forever(b"HTTP/1.1 200 OK\r\n", b"X-More: 1\r\n" * 1000), "bad_headers"),
    "cookies-a-thousand": bad(
        sends(b"HTTP/1.1 200 OK\r\n" + b"Set-Cookie: a=" + b"x" * 100 + b"\r\n" * 1000 + b"\r\n<p>x"),
        "stored bad_headers",
    ),
    "status-line-endless": bad(forever(b"HTTP/1.1 200 ", b"OK" * 30_000), "bad_headers"),
    "status-line-missing": bad(sends(b"Content-Type: text/html\r\n\r\n<p>x"), "bad_headers"),
    "status-line-garbage": bad(sends(GARBAGE), "bad_headers"),
    "status-no-number": bad(sends(b"HTTP/1.1 fine\r\n\r\n<p>x"), "bad_headers"),
    "status-beyond": bad(sends(answer("<p>x", "999 Request denied")), "http_999 bad_headers"),
    "status-negative": bad(sends(answer("<p>x", "-200 OK")), "bad_headers"),
    "version-unheard-of": bad(sends(b"HTTP/9.9 200 OK\r\n\r\n<p>x"), "stored bad_headers"),
    "http-0.9": bad(sends(b"<html><p>An answer of 1991.</html>"), "bad_headers"),
    "not-http": bad(sends(b"SSH-2.0-OpenSSH_9.9\r\n"), "bad_headers"),
    "header-without-colon": bad(sends(b"HTTP/1.1 200 OK\r\nnonsense\r\n\r\n<p>x"), "stored bad_headers"),
    "header-with-zeros": bad(sends(b"HTTP/1.1 200 OK\r\nX-Zero: a\0b\r\n\r\n<p>x"), "stored bad_headers"),
    "header-not-ascii": bad(
        sends(b"HTTP/1.1 200 OK\r\nX-\xff: \xff\xfe\r\nETag: \xe4\r\n\r\n<p>x"), "stored bad_headers"
    ),
    "header-value-not-ascii": bad(
        sends(head(**HTML, ETag='"\xe4\xff"', Last_Modified="f\xfcr immer", X_Name="\xfc") + b"<p>x"), "stored"
    ),
    "switching-protocols": bad(
        sends(head("101 Switching Protocols", Upgrade="tunnel") + GARBAGE), "http_101 bad_headers"
    ),
    "not-modified-unasked": bad(sends(head("304 Not Modified")), "http_304"),
    "no-content-with-content": bad(sends(head("204 No Content") + b"<p>x"), "http_204 bad_headers"),
    # Resets.
    "reset-at-once": bad(sends(Then.RESET), "connection"),
    "closed-at-once": bad(sends(), "connection"),
    "reset-in-status-line": bad(sends(b"HTTP/1.1 2", Then.RESET), "connection broken"),
    "reset-in-headers": bad(sends(b"HTTP/1.1 200 OK\r\nContent-", Then.RESET), "connection broken"),
    "closed-in-headers": bad(sends(b"HTTP/1.1 200 OK\r\nContent-"), "connection broken bad_headers"),
    "reset-in-body": bad(sends(head(**HTML, Content_Length="99") + b"<p>begun", Then.RESET), "connection broken"),
}
"""Sites with good pages and a bad one."""
