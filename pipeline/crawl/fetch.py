"""One request and its answer, bounded in every direction.

Private addresses are reached only for hosts that the configuration names (`addresses`). Redirects are not followed
here: they are answers like any other.
"""

import asyncio
import os
import ssl
import time
import zlib
from collections.abc import Collection, Mapping
from dataclasses import dataclass, field, replace
from urllib.request import getproxies, proxy_bypass

import aiohttp
from yarl import URL

from pipeline.crawl.addresses import Permit, Resolver, may_be_public, permits, public_socket
from pipeline.crawl.unpack import Unpacker
from pipeline.crawl.urls import host_of, is_loopback

MAX_HEADER_BYTES = 32 * 1024
"""Of one header line; servers take 8 KiB as a rule, browsers 256 KiB in all."""

MAX_HEADERS = 128
"""Lines of headers in an answer."""

MAX_RATIO = 200
"""A body that unpacks to more than so many times its size is a bomb: text reaches 5 to 20, gzip can do 1,032."""

RATIO_FREE_BYTES = 1024 * 1024
"""Unpacked bytes under which the ratio is not looked at."""

DRAINED_BYTES = 64 * 1024
"""A body that is not wanted is read up to here, which is cheaper than a new connection."""

DRAIN_S = 1.0
"""Seconds that reading such a body may take."""

MAX_DETAIL_CHARACTERS = 200

_CHUNK = 64 * 1024
_ACCEPT = "text/html,application/xhtml+xml,text/plain;q=0.9,*/*;q=0.1"
_ENCODINGS = frozenset({"gzip", "x-gzip", "deflate"})
_DNS_CACHE_S = 600
_KEPT_S = 4.0  # servers keep an idle connection for 5 s and more; asking over one that they just closed fails


@dataclass(frozen=True)
class Answer:
    """What a server said: `body` has its Content-Encoding undone and is empty where it was not wanted.

    `refused` is the outcome for a body that was not read to its end (`not_html`, `too_large`), `detail` why.
    """

    status: int
    reason: str
    headers: list[tuple[str, str]]
    body: bytes = b""
    refused: str | None = None
    detail: str | None = None
    seconds: float = field(default=0.0, compare=False)

    def header(self, name: str) -> str | None:
        """All values of a header, joined; None where it is not there."""
        return ", ".join(value.strip() for key, value in self.headers if key.lower() == name.lower()) or None

    @property
    def media_type(self) -> str | None:
        """The media type of Content-Type, in lower case; None where nothing is said."""
        return (self.header("Content-Type") or "").split(";")[0].split(",")[0].strip().lower() or None


class Failure(Exception):
    """No answer, or none that makes sense; `outcome` is a word of the url index, the message says why.

    `unreachable` where the host could not be spoken to at all, so that its other pages would fare no better.
    """

    def __init__(self, outcome: str, detail: str, *, unreachable: bool = False) -> None:
        super().__init__(detail)
        self.outcome = outcome
        self.unreachable = unreachable


class Fetcher:
    """Asks for URLs over kept connections; `named` are hosts that may lie at a private address, `*.` below a domain."""

    def __init__(
        self, *, user_agent: str, timeout_s: float, named: Collection[str], proxies: Mapping[str, str] | None = None
    ) -> None:
        self._user_agent = user_agent
        self._timeout_s = timeout_s
        self._named = frozenset(named)
        self._named_domains = tuple(name.removeprefix("*") for name in named if name.startswith("*."))
        self._proxies = dict(proxies or {})
        self._environment_proxies = getproxies()
        self._session: aiohttp.ClientSession | None = None

    async def __aenter__(self) -> "Fetcher":
        connector = aiohttp.TCPConnector(
            limit=0,  # the crawl bounds itself
            resolver=Resolver(),
            ttl_dns_cache=_DNS_CACHE_S,
            keepalive_timeout=_KEPT_S,
            socket_factory=public_socket,
            ssl=_tls(),
        )
        self._session = aiohttp.ClientSession(
            connector=connector,
            headers={"User-Agent": self._user_agent, "Accept": _ACCEPT, "Accept-Encoding": "gzip, deflate"},
            cookie_jar=aiohttp.DummyCookieJar(),
            timeout=aiohttp.ClientTimeout(total=None),  # `fetch` has one of its own, over everything
            auto_decompress=False,
            max_line_size=MAX_HEADER_BYTES,
            max_field_size=MAX_HEADER_BYTES,
            max_headers=MAX_HEADERS,
        )
        self._session._retry_connection = False  # it would ask again at once, whatever delay the host is owed
        return self

    async def __aexit__(self, *_: object) -> None:
        if self._session is not None:
            await self._session.close()

    async def fetch(
        self,
        url: str,
        *,
        max_bytes: int,
        wanted: Collection[str] | None = None,
        headers: Mapping[str, str] | None = None,
        cut: bool = False,
        public_only: bool = False,
    ) -> Answer:
        """The answer to a GET of `url`; raises `Failure`.

        Only a 200's body is read, up to `max_bytes` decoded, and only of a `wanted` media type (of any where None). A
        longer one is refused, or ends there where `cut`. With `public_only`, no host may lie at a private address.
        """
        host = host_of(url)
        proxy = self._proxy(url, host)
        named = self._is_named(host) and not public_only
        if proxy is not None and host not in self._proxies and not (named or may_be_public(host)):
            raise Failure("private_address", f"{host} is a private address; name it in private_hosts to allow that")
        permit = Permit(host, proxy is not None or named)
        permits.set(permit)
        try:
            async with asyncio.timeout(self._timeout_s):
                return await self._ask(url, proxy, max_bytes, wanted, headers or {}, cut)
        except TimeoutError:
            raise Failure("timeout", f"no whole answer within {self._timeout_s:g} s") from None
        except Failure:
            raise
        except (aiohttp.ClientError, OSError, ValueError, zlib.error) as problem:
            if permit.refused is not None:
                raise Failure("private_address", permit.refused) from None
            raise _failure(problem) from None

    async def _ask(
        self,
        url: str,
        proxy: str | None,
        max_bytes: int,
        wanted: Collection[str] | None,
        headers: Mapping[str, str],
        cut: bool,
    ) -> Answer:
        assert self._session is not None
        start = time.monotonic()
        async with self._session.get(
            URL(url, encoded=True), allow_redirects=False, proxy=proxy, headers=headers
        ) as response:
            answer = Answer(
                response.status,
                response.reason or "",
                [(_text(name), _text(value)) for name, value in response.raw_headers],
                seconds=time.monotonic() - start,
            )
            body, refused, detail = b"", None, None
            if response.status != 200:
                await _drain(response)
            elif wanted is not None and (answer.media_type or next(iter(wanted))) not in wanted:
                refused, detail = "not_html", f"Content-Type {answer.media_type}"
                await _drain(response)
            else:
                if not cut and (response.content_length or 0) > max_bytes:
                    response.close()
                    return replace(answer, refused="too_large", detail=f"{response.content_length:,} bytes announced")
                body, detail = await _body(response, answer.header("Content-Encoding"), max_bytes)
                refused = "too_large" if detail and not cut else None
                body = body if refused is None else b""
            return replace(answer, body=body, refused=refused, detail=detail)

    def _proxy(self, url: str, host: str) -> str | None:
        """The proxy to ask, if any: of the hosts served here, else what the environment says."""
        if host in self._proxies:
            return self._proxies[host]
        found = self._environment_proxies.get(url.partition(":")[0])
        return None if found is None or is_loopback(host) or proxy_bypass(host) else found

    def _is_named(self, host: str) -> bool:
        return host in self._named or any(host.endswith(domain) for domain in self._named_domains)


def _tls() -> ssl.SSLContext:
    context = ssl.create_default_context()
    # Some old servers never say that they are done; what a page must hold, Content-Length or chunks tell.
    context.options |= getattr(ssl, "OP_IGNORE_UNEXPECTED_EOF", 0)
    return context


async def _drain(response: aiohttp.ClientResponse) -> None:
    """Read a small body, so that the connection can be used again, or close it."""
    if (response.content_length or 0) > DRAINED_BYTES:
        response.close()
        return
    size = 0
    try:
        async with asyncio.timeout(DRAIN_S):
            async for chunk in response.content.iter_any():
                size += len(chunk)
                if size > DRAINED_BYTES:
                    break
            else:
                return
    except (aiohttp.ClientError, TimeoutError):
        pass  # the answer is known already
    response.close()


async def _body(response: aiohttp.ClientResponse, encoding: str | None, max_bytes: int) -> tuple[bytes, str | None]:
    """The decoded body, and why it was not read to its end."""
    if encoding is not None and encoding.lower() not in _ENCODINGS | {"identity"}:
        response.close()
        raise Failure("broken", f"Content-Encoding {encoding!r}, which was not asked for")
    unpack = Unpacker() if encoding is not None and encoding.lower() in _ENCODINGS else None
    parts: list[bytes] = []
    raw = size = 0
    async for chunk in response.content.iter_chunked(_CHUNK):
        raw += len(chunk)
        for part in [chunk] if unpack is None else unpack(chunk):
            size += len(part)
            bomb = unpack is not None and size > max(RATIO_FREE_BYTES, MAX_RATIO * raw)
            if bomb or size > max_bytes:
                response.close()
                parts.append(part[: max(0, max_bytes - size + len(part))])
                why = f"unpacks to over {MAX_RATIO} times its size" if bomb else f"more than {max_bytes:,} bytes"
                return b"".join(parts), why
            parts.append(part)
    if unpack is not None and not unpack.whole:
        raise Failure("broken", f"its {encoding} data is cut short")
    return b"".join(parts), None


def _text(header: bytes) -> str:
    """A header's name or value, which should be ASCII and is UTF-8 or Latin-1 in the wild."""
    try:
        return header.decode()
    except UnicodeDecodeError:
        return header.decode("latin-1")


def _failure(problem: Exception) -> Failure:
    """The failure that an exception stands for."""
    words = " ".join(str(problem).split())[:MAX_DETAIL_CHARACTERS] or type(problem).__name__
    if isinstance(problem, aiohttp.ClientConnectorCertificateError | aiohttp.ClientSSLError):
        return Failure("tls", words, unreachable=True)
    if isinstance(problem, aiohttp.ClientConnectorError):
        why = problem.os_error.strerror or str(problem.os_error)
        if isinstance(problem, aiohttp.ClientConnectorDNSError):
            return Failure("dns", f"{problem.host} has no address: {why}", unreachable=True)
        why = os.strerror(problem.os_error.errno) if problem.os_error.errno else why
        return Failure("connection", f"no connection to {problem.host}:{problem.port}: {why}", unreachable=True)
    if isinstance(problem, aiohttp.ClientResponseError):
        return Failure("bad_headers", problem.message.partition(":")[0][:MAX_DETAIL_CHARACTERS].strip() or words)
    if isinstance(problem, aiohttp.ClientPayloadError):
        cause = getattr(problem.__cause__, "message", "")
        return Failure("broken", " ".join(cause.split())[:MAX_DETAIL_CHARACTERS] or words)
    if isinstance(problem, zlib.error):
        return Failure("broken", f"its Content-Encoding is not what it says: {words}")
    if isinstance(problem, aiohttp.ServerDisconnectedError):
        return Failure("connection", "the server closed the connection before a whole answer")
    if isinstance(problem, aiohttp.ClientConnectionError | OSError):
        return Failure("connection", words)
    return Failure("error", f"{type(problem).__name__}: {words}")
