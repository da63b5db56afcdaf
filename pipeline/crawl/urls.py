"""Canonical URLs: one spelling for each page.

Two spellings that RFC 3986 section 6.2.2 and 6.2.3 call equivalent become the same string, and a canonical URL is its
own canonical form. What may change the page (order of query parameters, a trailing slash, `www.`) is left alone.
"""

import ipaddress
import re
from urllib.parse import quote, unquote, urljoin, urlsplit

DEFAULT_PORTS = {"http": 80, "https": 443}

MAX_URL_LENGTH = 2048
"""Longer ones are spider traps more often than pages; 2,048 is what sitemaps.org allows."""

_UNRESERVED = frozenset("ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-._~")
_PATH_SAFE = "/!$&'()*+,;=:@%"
_QUERY_SAFE = _PATH_SAFE + "?"
_ESCAPE = re.compile(r"%([0-9A-Fa-f]{2})")
_STRAY_PERCENT = re.compile(r"%(?![0-9A-Fa-f]{2})")
_HOST = re.compile(r"(?!-)[a-z0-9_-]{1,63}(\.[a-z0-9_-]{1,63})*")
_CONTROLS = "".join(map(chr, range(33)))


def canonical_url(url: str, base: str | None = None) -> str | None:
    """The canonical form of `url`, resolved against `base`; None where it is no http(s) URL that can be asked for."""
    # As browsers do (WHATWG URL, 4.4): controls and blanks around it go, tabs and newlines inside it too.
    url = url.strip(_CONTROLS).translate({9: None, 10: None, 13: None})
    try:
        if base is not None:
            url = urljoin(base, url)
        parts = urlsplit(url)
        port = parts.port
        host = _canonical_host(parts.hostname or "")
    except ValueError:
        return None
    scheme = parts.scheme.lower()
    if scheme not in DEFAULT_PORTS or not host or parts.username is not None:
        return None
    netloc = host if port in (None, DEFAULT_PORTS[scheme]) else f"{host}:{port}"
    path = _without_dots(_canonical_escapes(parts.path.replace("\\", "/"), _PATH_SAFE))
    query = _canonical_escapes(parts.query, _QUERY_SAFE)
    canonical = f"{scheme}://{netloc}{path}" + (f"?{query}" if query else "")
    return canonical if len(canonical) <= MAX_URL_LENGTH else None


def netloc_of(url: str) -> str:
    """Host of a canonical URL, with its port where it is not the scheme's own."""
    return urlsplit(url).netloc


def host_of(url: str) -> str:
    """Host of a canonical URL, without port."""
    return urlsplit(url).hostname or ""


def is_loopback(host: str) -> bool:
    """Whether `host` names this machine: localhost and below (RFC 6761), or a loopback address."""
    host = host.strip("[]")
    if host == "localhost" or host.endswith(".localhost"):
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


def _canonical_host(host: str) -> str | None:
    host = unquote(host).rstrip(".").lower()
    if ":" in host:
        return f"[{ipaddress.IPv6Address(host).compressed}]"
    if not host.isascii():
        host = host.encode("idna").decode("ascii")  # UnicodeError is a ValueError
    return host if len(host) <= 253 and _HOST.fullmatch(host) else None


def _canonical_escapes(text: str, safe: str) -> str:
    """Upper-case escapes, none where it is not needed, and one wherever it is."""
    text = _STRAY_PERCENT.sub("%25", text)
    text = _ESCAPE.sub(_canonical_escape, text)
    return quote(text, safe=safe + "~", errors="replace")


def _canonical_escape(match: re.Match[str]) -> str:
    character = chr(int(match[1], 16))
    return character if character in _UNRESERVED else f"%{match[1].upper()}"


def _without_dots(path: str) -> str:
    """`path` without dot segments (RFC 3986, 5.2.4), starting with a slash."""
    kept: list[str] = []
    segments = path.split("/")[1:] or [""]
    for segment in segments:
        if segment == "..":
            kept = kept[:-1]
        elif segment != ".":
            kept.append(segment)
    if segments[-1] in (".", ".."):
        kept.append("")
    return "/" + "/".join(kept)
