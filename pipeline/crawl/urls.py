"""Canonical URLs: one spelling for each page.

Two spellings that RFC 3986 (6.2.2, 6.2.3) or the WHATWG URL standard call equivalent become the same string. Beyond
these, query parameters are sorted by name, and those that say who came from where are dropped: crawlers meet one page
under many such spellings. What may change the page (a trailing slash, `www.`, the order of repeated parameters) is left
alone. A canonical URL is its own canonical form.
"""

import ipaddress
import re
from urllib.parse import quote, unquote, urlsplit

import idna

DEFAULT_PORTS = {"http": 80, "https": 443}

MAX_URL_LENGTH = 2048
"""Longer ones are spider traps more often than pages; 2,048 is what sitemaps.org allows."""

TRACKING_PARAMETERS = frozenset(
    {
        # Clicks on advertisements: Google, Microsoft, Meta, Yandex, X, TikTok, LinkedIn, Pinterest, Snapchat, Impact.
        *("gclid", "gclsrc", "dclid", "gbraid", "wbraid", "gad_source", "gad_campaignid", "srsltid", "msclkid"),
        *("fbclid", "yclid", "ysclid", "twclid", "ttclid", "li_fat_id", "epik", "sccid", "irclickid"),
        # Visitors of a site, and shares: Google Analytics, Piwik, Instagram.
        *("_ga", "_gl", "pk_campaign", "pk_kwd", "pk_keyword", "pk_source", "pk_medium", "pk_content", "pk_cid"),
        *("igsh", "igshid"),
        # Readers of newsletters: Mailchimp, HubSpot, Marketo, Omeda, Vero, Klaviyo.
        *("mc_cid", "mc_eid", "_hsenc", "_hsmi", "__hssc", "__hstc", "__hsfp", "hsctatracking"),
        *("mkt_tok", "oly_anon_id", "oly_enc_id", "vero_id", "_kx"),
        # Sessions: PHP, Java, ColdFusion.
        *("phpsessid", "jsessionid", "cfid", "cftoken"),
    }
)
"""Query parameters, in lower case, that never choose what a page shows, only whose visit is counted.

Each visitor, campaign or session has its own value, so a site whose links carry them has endless URLs for each page.
Only names that one product has for itself are here: `ref`, `source` or `sid` may mean anything.
"""

TRACKING_PREFIXES = ("utm_", "mtm_", "hsa_", "aspsessionid")
"""Families of the same: Google Analytics, Matomo, HubSpot's advertisements, sessions of classic ASP."""

_MAX_HOST_LENGTH = 253
_BLANKS = "".join(map(chr, range(33)))
_BREAKS = re.compile("[\t\n\r]")
_SCHEME = re.compile(r"[A-Za-z][A-Za-z0-9+.-]*")
_UNRESERVED = frozenset("ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-._~")
_PATH_SAFE = "/!$&'()*+,;=:@"
_QUERY_SAFE = "/!$&()*+,;=:@?"  # without the apostrophe, which browsers escape in a query
_PLAIN = re.compile(r"[A-Za-z0-9\-._~/!$&()*+,;=:@]*")
_SURROGATES = re.compile("[\ud800-\udfff]")
_ESCAPE = re.compile(r"%([0-9A-Fa-f]{2})")
_STRAY_PERCENT = re.compile(r"%(?![0-9A-Fa-f]{2})")
_PATH_SESSION = re.compile(r";(?:jsessionid|phpsessid)=[^;/]*", re.IGNORECASE)
_HOST = re.compile(r"(?!-)[a-z0-9_-]{1,63}(\.[a-z0-9_-]{1,63})*")
_PORT = re.compile(r"[0-9]{1,5}")
_NUMBER = re.compile(r"0x[0-9a-f]*|[0-9]+")


def canonical_url(url: str, base: str | None = None) -> str | None:
    """The canonical form of `url`, resolved against `base`; None where it is no http(s) URL that can be asked for.

    A URL with a user or password is none: these are for one visitor, and not to be stored.
    """
    split = _split(url, base)
    if split is None:
        return None
    scheme, authority, path, query = split
    netloc = _canonical_netloc(authority, scheme)
    if netloc is None:
        return None
    path = _canonical_path(path)
    query = _canonical_query(query) if query else ""
    canonical = f"{scheme}://{netloc}{path}?{query}" if query else f"{scheme}://{netloc}{path}"
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
        address = ipaddress.ip_address(host)
    except ValueError:
        return False
    mapped = getattr(address, "ipv4_mapped", None)
    return (mapped or address).is_loopback


def _split(url: str, base: str | None) -> tuple[str, str, str, str] | None:
    """Scheme, authority, path and query, resolved as browsers do (WHATWG URL, 4.4, for the special schemes)."""
    url = _BREAKS.sub("", url.strip(_BLANKS)).partition("#")[0]
    before, mark, query = url.partition("?")
    before = before.replace("\\", "/")
    scheme, colon, rest = before.partition(":")
    if colon and _SCHEME.fullmatch(scheme):
        scheme = scheme.lower()
        if scheme not in DEFAULT_PORTS:
            return None
        if base is None or rest.startswith("//") or not base.startswith(scheme + ":"):
            authority, slash, path = rest.lstrip("/").partition("/")
            return scheme, authority, slash + path, query
        before = rest
    resolved_base = None if base is None else canonical_url(base)
    if resolved_base is None:
        return None
    scheme, _, base_rest = resolved_base.partition("://")
    if before.startswith("//"):
        authority, slash, path = before.lstrip("/").partition("/")
        return scheme, authority, slash + path, query
    base_rest, _, base_query = base_rest.partition("?")
    authority, _, base_path = base_rest.partition("/")
    if before.startswith("/"):
        return scheme, authority, before, query
    if before:
        return scheme, authority, "/" + base_path[: base_path.rfind("/") + 1] + before, query
    return scheme, authority, "/" + base_path, query if mark else base_query


def _canonical_netloc(authority: str, scheme: str) -> str | None:
    userinfo, _, place = authority.rpartition("@")
    if userinfo.strip(":"):
        return None
    host, port = place, ""
    if not place.endswith("]"):
        name, colon, number = place.rpartition(":")
        if colon:
            host, port = name, number.lstrip("0") or number[:1]
    if port and (not _PORT.fullmatch(port) or int(port) > 65535):
        return None
    try:
        canonical = _canonical_host(host)
    except ValueError:
        return None
    if canonical is None or not port or int(port) == DEFAULT_PORTS[scheme]:
        return canonical
    return f"{canonical}:{port}"


def _canonical_host(host: str) -> str | None:
    """A DNS name in ASCII and lower case, or an address; None or ValueError for what is neither."""
    if host.startswith("["):
        return _canonical_ipv6(host)
    host = host.lower()
    if "%" in host:
        host = unquote(host, errors="strict").lower()
    if not host.isascii():
        host = _ascii_host(host)
    host = host.removesuffix(".")
    if len(host) > _MAX_HOST_LENGTH or not _HOST.fullmatch(host):
        return None
    if "xn--" in host:
        _require_punycode(host)
    if _NUMBER.fullmatch(host, host.rfind(".") + 1):
        return _canonical_ipv4(host)
    return host


def _ascii_host(host: str) -> str:
    """`host` with its labels as A-labels (UTS 46, non-transitional); ValueError where it has none."""
    if len(host) > _MAX_HOST_LENGTH:
        raise ValueError(f"{host[:40]}…: longer than a host name can be")
    mapped = idna.uts46_remap(host, std3_rules=False, transitional=False)
    return ".".join(label if label.isascii() else _a_label(label) for label in mapped.split("."))


def _a_label(label: str) -> str:
    try:
        return idna.alabel(label).decode("ascii")
    except idna.InvalidCodepoint:
        # A symbol: none of IDNA 2008's letters, but UTS 46 lets it through, and some sites have one for a name.
        return "xn--" + label.encode("punycode").decode("ascii")


def _require_punycode(host: str) -> None:
    """ValueError where a label of `host` claims to be an A-label and encodes nothing."""
    for label in host.split("."):
        if label.startswith("xn--"):
            decoded = label[4:].encode("ascii").decode("punycode")
            if decoded.isascii() or decoded != idna.uts46_remap(decoded, std3_rules=False, transitional=False):
                raise ValueError(f"{label} is no A-label")


def _canonical_ipv4(host: str) -> str:
    """Four decimal numbers for every notation that the C library's inet_aton takes (WHATWG URL, 3.5).

    `127.1`, `0x7f.1`, `017700000001` and `2130706433` all reach 127.0.0.1, so they must be seen as it. ValueError for
    a host that ends in a number and is no address.
    """
    *heads, tail = (_ipv4_number(part) for part in host.split("."))
    if len(heads) > 3 or any(head > 255 for head in heads) or tail >= 256 ** (4 - len(heads)):
        raise ValueError(f"{host} is no IPv4 address")
    return str(ipaddress.IPv4Address(sum(head << (24 - 8 * place) for place, head in enumerate(heads)) + tail))


def _ipv4_number(part: str) -> int:
    if not _NUMBER.fullmatch(part):
        raise ValueError(f"{part} is no number")
    if part.startswith("0x"):
        return int(part[2:] or "0", 16)
    return int(part, 8 if part.startswith("0") else 10)


def _canonical_ipv6(host: str) -> str:
    """RFC 5952, but IPv4-mapped addresses in hexadecimal, as browsers write them."""
    if not host.endswith("]") or "%" in host:
        raise ValueError(f"{host} is no IPv6 address")
    address = ipaddress.IPv6Address(host[1:-1])
    if address.ipv4_mapped is not None:
        high, low = divmod(int(address.ipv4_mapped), 1 << 16)
        return f"[::ffff:{high:x}:{low:x}]"
    return f"[{address.compressed}]"


def _canonical_path(path: str) -> str:
    path = _canonical_escapes(path, _PATH_SAFE)
    if ";" in path:
        path = _PATH_SESSION.sub("", path)
    return _without_dots(path) if "/." in path else path or "/"


def _canonical_query(query: str) -> str:
    """Parameters in order of their names, without empty ones and trackers."""
    pieces = [
        (name, piece)
        for piece in _canonical_escapes(query, _QUERY_SAFE).split("&")
        if piece and not _is_tracking(name := piece.partition("=")[0])
    ]
    pieces.sort(key=lambda pair: pair[0])
    return "&".join(piece for _, piece in pieces)


def _is_tracking(name: str) -> bool:
    name = name.lower()
    return name in TRACKING_PARAMETERS or name.startswith(TRACKING_PREFIXES)


def _canonical_escapes(text: str, safe: str) -> str:
    """Upper-case escapes, none where it is not needed, and one wherever it is."""
    if _PLAIN.fullmatch(text):
        return text
    text = _STRAY_PERCENT.sub("%25", text)
    text = _ESCAPE.sub(_canonical_escape, text)
    return quote(_SURROGATES.sub("\ufffd", text), safe=safe + "~%")


def _canonical_escape(match: re.Match[str]) -> str:
    character = chr(int(match[1], 16))
    return character if character in _UNRESERVED else f"%{match[1].upper()}"


def _without_dots(path: str) -> str:
    """`path`, which starts with a slash, without dot segments (RFC 3986, 5.2.4)."""
    kept: list[str] = []
    segments = path.split("/")[1:]
    for segment in segments:
        if segment == "..":
            if kept:
                kept.pop()
        elif segment != ".":
            kept.append(segment)
    if segments[-1] in (".", ".."):
        kept.append("")
    return "/" + "/".join(kept)
