"""A web server that can break every rule of HTTP: each of its sites is a host below .localhost.

A *behaviour* gives what goes over the wire for one request, piece by piece, until it ends or the client leaves. Nothing
is added to it, so it may be half an answer, two, or none.
"""

import asyncio
import contextlib
import enum
import random
import socket
import struct
import threading
import zlib
from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import dataclass, field

MIB = 1024 * 1024
GOOD = {"/": "stored", "/after": "stored"}
GARBAGE = random.Random(0).randbytes(100_000)


class Then(enum.Enum):
    """What a behaviour may do besides sending bytes and closing."""

    KEEP = "leave the connection open for the next request"
    RESET = "send a TCP reset"


@dataclass(frozen=True)
class Ask:
    """One request."""

    site: str
    path: str
    turn: int
    """How often this path was asked for by now; 1 at first."""
    site_turn: int
    """How often anything of the site was asked for by now."""
    port: int
    canary: int
    """Port on loopback where nobody has any business."""

    @property
    def base(self) -> str:
        """The site's origin."""
        return f"http://{self.site}.localhost:{self.port}"

    def fill(self, text: str) -> bytes:
        """`text` with {base} and {canary} filled in."""
        return text.replace("{base}", self.base).replace("{canary}", str(self.canary)).encode()


Piece = bytes | Then
Behaviour = Callable[[Ask], AsyncIterator[Piece]]


@dataclass(frozen=True)
class Site:
    """What the paths of a site do, and what the url index must say of them: outcomes, any of which is right."""

    pages: dict[str, Behaviour]
    outcomes: dict[str, str]


def answer(body: bytes | str, status: str = "200 OK", media_type: str = "text/html", **headers: str) -> bytes:
    """A proper answer; an underscore in a header's name stands for a hyphen."""
    body = body.encode() if isinstance(body, str) else body
    fields = {"Content-Type": media_type, "Content-Length": str(len(body))} | headers
    return head(status, **fields) + body


def head(status: str = "200 OK", **headers: str) -> bytes:
    """Status line and headers."""
    lines = "".join(f"{name.replace('_', '-')}: {value}\r\n" for name, value in headers.items())
    return f"HTTP/1.1 {status}\r\n{lines}\r\n".encode("latin-1")


def page(*links: str, above: str = "") -> str:
    """A small HTML page."""
    anchors = " ".join(f'<a href="{link}">a link</a>' for link in links)
    return f"<!DOCTYPE html><html><head>{above}<title>t</title></head><body><p>A good page.</p>{anchors}</body></html>"


def sends(*pieces: Piece | str) -> Behaviour:
    """Always the same pieces; {base} and {canary} are filled in where a piece is text."""

    async def behaviour(ask: Ask) -> AsyncIterator[Piece]:
        for piece in pieces:
            yield ask.fill(piece) if isinstance(piece, str) else piece

    return behaviour


def redirects(location: str, status: str = "302 Found") -> Behaviour:
    """A redirect to `location`, in which {base} and {canary} are filled in."""
    return sends(f"HTTP/1.1 {status}\r\nLocation: {location}\r\nContent-Length: 0\r\n\r\n", Then.KEEP)


def forever(first: bytes, then: bytes) -> Behaviour:
    """`first`, and then `then` for as long as somebody listens."""

    async def behaviour(_: Ask) -> AsyncIterator[Piece]:
        yield first
        while True:
            yield then

    return behaviour


def drips(first: bytes, then: bytes = b"x", seconds: float = 0.2) -> Behaviour:
    """`first`, and then `then` every so many seconds, for ever."""

    async def behaviour(_: Ask) -> AsyncIterator[Piece]:
        yield first
        while True:
            await asyncio.sleep(seconds)
            yield then

    return behaviour


def at_first(times: int, behaviour: Behaviour, later: Behaviour) -> Behaviour:
    """One behaviour for the first `times` requests of a path, another one later."""

    def chosen(ask: Ask) -> AsyncIterator[Piece]:
        return (behaviour if ask.turn <= times else later)(ask)

    return chosen


def bad(behaviour: Behaviour, outcomes: str) -> Site:
    """A site that misbehaves at /bad."""
    return Site({"/bad": behaviour}, GOOD | {"/bad": outcomes})


def packed(body: bytes, encoding: str) -> Behaviour:
    return sends(answer(body, Content_Encoding=encoding))


def zeros(wbits: int) -> tuple[bytes, bytes]:
    """The start of a compressed stream with a MiB of zeros, and a piece that adds another whenever it is repeated."""
    deflater = zlib.compressobj(9, zlib.DEFLATED, wbits)
    first, another = (deflater.compress(bytes(MIB)) + deflater.flush(zlib.Z_FULL_FLUSH) for _ in range(2))
    return first, another


def bomb(wbits: int = 31, mib: int = 1024) -> bytes:
    first, another = zeros(wbits)
    return first + another * (mib - 1)


def everywhere(behaviour: Behaviour) -> dict[str, Behaviour]:
    """Every path but those of files about the site."""
    missing = sends(answer("", "404 Not Found"), Then.KEEP)
    return {**dict.fromkeys(("/robots.txt", "/.well-known/tdmrep.json", "/sitemap.xml"), missing), "*": behaviour}


@dataclass
class HostileServer:
    """Serves `sites` on a free port of loopback while it is entered; `asked` and `strays` say what came."""

    sites: dict[str, Site]
    asked: list[tuple[str, str]] = field(default_factory=list)
    """Site and path of each request."""
    strays: list[bytes] = field(default_factory=list)
    """What reached the canary, a port that no crawl may touch."""
    port: int = 0
    canary: int = 0

    def __enter__(self) -> "HostileServer":
        started = threading.Event()
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._serve, args=(started,), daemon=True)
        self._thread.start()
        assert started.wait(10)
        return self

    def __exit__(self, *_: object) -> None:
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join()

    def url(self, site: str, path: str = "/") -> str:
        """Where a path of a site is."""
        return f"http://{site}.localhost:{self.port}{path}"

    def _serve(self, started: threading.Event) -> None:
        asyncio.set_event_loop(self._loop)
        self.port = self._loop.run_until_complete(self._listen(self._converse))
        self.canary = self._loop.run_until_complete(self._listen(self._catch))
        self._loop.call_soon(started.set)
        self._loop.run_forever()
        for task in asyncio.all_tasks(self._loop):
            task.cancel()
        self._loop.run_until_complete(asyncio.sleep(0.05))
        self._loop.close()

    async def _listen(self, serve: Callable[[asyncio.StreamReader, asyncio.StreamWriter], Awaitable[None]]) -> int:
        server = await asyncio.start_server(serve, "127.0.0.1", 0)
        port = server.sockets[0].getsockname()[1]
        with contextlib.suppress(OSError):  # no IPv6 on this machine
            await asyncio.start_server(serve, "::1", port)
        return port

    async def _catch(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.strays.append(b"somebody connected")
        self.strays.append(await reader.read(1000))
        writer.close()

    async def _converse(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with contextlib.suppress(OSError, asyncio.IncompleteReadError, asyncio.CancelledError):
            then: Then | None = Then.KEEP
            while then is Then.KEEP and await reader.readexactly(4) == b"GET ":  # no TLS here
                then = await self._respond((await reader.readuntil(b"\r\n\r\n")).decode("latin-1"), writer)
        writer.close()

    async def _respond(self, request: str, writer: asyncio.StreamWriter) -> Then | None:
        path = request.split(" ")[0]
        fields = dict(line.split(": ", 1) for line in request.split("\r\n")[1:] if ": " in line)
        site = fields["Host"].partition(".localhost")[0]
        self.asked.append((site, path))
        site_turn = sum(asked_site == site for asked_site, _ in self.asked)
        ask = Ask(site, path, self.asked.count((site, path)), site_turn, self.port, self.canary)
        async for piece in self._behaviour(ask)(ask):
            if piece is Then.RESET:
                linger_no_time = struct.pack("ii", 1, 0)
                writer.get_extra_info("socket").setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, linger_no_time)
                writer.transport.abort()
                return None
            if isinstance(piece, Then):
                return piece
            writer.write(piece)
            await writer.drain()
        return None

    def _behaviour(self, ask: Ask) -> Behaviour:
        """Of the path, else of the whole site ("*"); by default good pages, and no files about the site."""
        pages = self.sites[ask.site].pages if ask.site in self.sites else {}
        path = ask.path.partition("?")[0]
        if path in pages or "*" in pages:
            return pages.get(path) or pages["*"]
        if path == "/":
            return sends(answer(page("/bad", "/after")), Then.KEEP)
        if path == "/after":
            return sends(answer(page()), Then.KEEP)
        return sends(answer("no such page", "404 Not Found"), Then.KEEP)
