"""robots.txt: what a site asks crawlers to leave alone (RFC 9309), and what it says of training on its pages.

Where the RFC is silent, this reads a file as Google's open-source parser does, because site owners try their files
against that one: a missing colon, common misspellings of field names, `index.html` for its folder, lines cut at a
length. Nothing in a file is an error: what cannot be understood is skipped.
"""

import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from urllib.parse import quote

MAX_ROBOTS_BYTES = 500 * 1024
"""As much of a file is read as RFC 9309, 2.5, asks for; a line that is cut by this limit is not read."""

MAX_LINE_BYTES = 2083 * 8 - 1
"""The rest of a longer line is dropped, as in Google's parser: 2,083 was the longest URL that a browser took."""

ANY_AGENT = "*"

_AGENT_FIELDS = (b"user-agent", b"useragent", b"user agent")
_DISALLOW_FIELDS = (b"disallow", b"dissallow", b"dissalow", b"disalow", b"diasllow", b"disallaw")
_ALLOW_FIELDS = (b"allow",)
_SITEMAP_FIELDS = (b"sitemap", b"site-map")
_USAGE_FIELDS = (b"content-usage", b"content-signal")

_LINE_END = re.compile(rb"\r\n|\r|\n")
_BLANK_FOR_COLON = re.compile(rb"([^\s:]+)[ \t]+(\S+)")
_TOKEN = re.compile(r"[A-Za-z_-]*")
_SEVERAL_WORDS = re.compile(r"[A-Za-z_-]+(?: +[A-Za-z_-]+)+")
_DELAY = re.compile(r"[0-9]{0,9}(?:\.[0-9]{1,9})?")

_ESCAPE = re.compile("%([0-9A-Fa-f]{2})")
_STRAY_PERCENT = re.compile("%(?![0-9A-Fa-f]{2})")
_DELIMITERS = "/?&=+"
_UNESCAPED = ":@!'(),;[]"
_LITERAL = frozenset("ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-._~" + _UNESCAPED)
_PLAIN = re.compile(r"[A-Za-z0-9\-._~/?&=+:@!'(),;\[\]]*")


@dataclass(frozen=True)
class PathPattern:
    """A pattern for path and query: `*` stands for anything, `$` at the end for the end (RFC 9309, 2.2.3)."""

    pieces: tuple[str, ...]
    """What stands between the stars, in the spelling of `comparable`."""

    anchored: bool
    length: int
    """Octets of the pattern: of two that match, the longer one is the more specific."""

    @classmethod
    def parse(cls, text: str) -> "PathPattern":
        """The pattern that `text` writes; bytes that were no UTF-8 are surrogate escapes in it."""
        anchored = text.endswith("$")
        pieces = [comparable(piece, "surrogateescape") for piece in text.removesuffix("$").split("*")]
        in_query = False
        for place, piece in enumerate(pieces):
            pieces[place] = piece.replace("%2F", "/") if in_query else _with_query_slashes(piece)
            in_query = in_query or "?" in piece
        length = sum(map(len, pieces)) + len(pieces) - 1 + anchored
        # Of a run of stars one is enough, and the ends of the list must stay: they say what is at the ends.
        middle = [piece for piece in pieces[1:-1] if piece]
        return cls((pieces[0], *middle, *pieces[1:][-1:]), anchored, length)

    def matches(self, path: str) -> bool:
        """Whether the pattern matches `path`, from `paths_to_match`. Takes time linear in both: no backtracking."""
        if not path.startswith(self.pieces[0]):
            return False
        first, *others = self.pieces
        if not others:
            return not self.anchored or path == first
        last = others.pop() if self.anchored else ""
        position = len(first)
        for piece in others:
            # The leftmost place is as good as any: it leaves the most for the pieces that follow.
            position = path.find(piece, position)
            if position < 0:
                return False
            position += len(piece)
        return path.endswith(last) and len(path) - len(last) >= position


@dataclass(eq=False)
class _Group:
    """Rules that some agents share. Agents refer to groups, so that a file takes memory linear in its size."""

    access: list[tuple[PathPattern, bool]] = field(default_factory=list)
    training: dict[bytes, list[tuple[PathPattern, bool]]] = field(default_factory=dict)
    delay: float | None = None

    @classmethod
    def merged(cls, groups: Iterable["_Group"]) -> "_Group":
        """All rules of `groups`, in the order in which they decide."""
        whole = cls()
        for group in groups:
            whole.access.extend(group.access)
            for name, rules in group.training.items():
                whole.training.setdefault(name, []).extend(rules)
            if group.delay is not None:
                whole.delay = max(group.delay, whole.delay or 0.0)
        whole.access.sort(key=lambda rule: (-rule[0].length, not rule[1]))
        for rules in whole.training.values():
            rules.sort(key=lambda rule: (-rule[0].length, rule[1]))
        return whole


class Robots:
    """The rules of one robots.txt. An empty file allows everything."""

    def __init__(self, groups: dict[str, dict[_Group, None]], sitemaps: Iterable[str]) -> None:
        self._groups = groups
        self._merged: dict[str, _Group] = {}
        self.sitemaps = tuple(sitemaps)
        """As written: neither resolved nor checked."""

    def allows(self, url: str, agent: str) -> bool:
        """Whether `agent`, a user agent such as `gptmill/0.1 (+mail)` or a product token, may fetch `url`.

        The longest matching rule decides; of two as long, the one that allows (RFC 9309, 2.2.2).
        """
        paths = paths_to_match(url)
        if paths[0] == "/robots.txt":
            return True
        return _first_match(self._group(agent).access, paths) is not False

    def crawl_delay(self, agent: str) -> float | None:
        """Seconds between requests that the site asks of `agent`; None where it asks nothing. No part of RFC 9309."""
        return self._group(agent).delay

    def refuses_training(self, url: str, agent: str) -> bool:
        """Whether `url` must not be trained on, by `Content-Usage` or `Content-Signal` (see `training_preference`).

        As draft-ietf-aipref-attach, 3.1, says: the group is chosen as for access; the longest path that matches
        decides, and among equal ones the refusal. A rule that does not speak of training leaves that to the others.
        """
        paths = paths_to_match(url)
        return any(_first_match(rules, paths) is False for rules in self._group(agent).training.values())

    def _group(self, agent: str) -> _Group:
        token = product_token(agent)
        token = token if token in self._groups else ANY_AGENT
        if token not in self._merged:
            self._merged[token] = _Group.merged(self._groups.get(token, ()))
        return self._merged[token]


def parse_robots(body: bytes) -> Robots:
    """The rules in `body`, whatever bytes these are."""
    groups: dict[str, dict[_Group, None]] = {}
    sitemaps: list[str] = []
    # Only rules for access end a group's list of agents (RFC 9309, 2.2.1); a delay or preference is for those that
    # are named right above it.
    shared, own = _Group(), _Group()
    after_rule = after_field = True
    for name, value in _fields(body):
        if name.startswith(_AGENT_FIELDS):
            shared = _Group() if after_rule else shared
            own = _Group() if after_field else own
            after_rule = after_field = False
            _refer(groups, value, shared, own)
        elif name.startswith(_DISALLOW_FIELDS) or name.startswith(_ALLOW_FIELDS):
            after_rule = after_field = True
            _add_access(shared, value, allowed=name.startswith(_ALLOW_FIELDS))
        elif name.startswith(_SITEMAP_FIELDS):
            sitemaps.append(value)
        elif name == b"crawl-delay":
            after_field = True
            _add_delay(own, value)
        elif name in _USAGE_FIELDS:
            after_field = True
            _add_training(own, name, value)
    return Robots(groups, filter(None, sitemaps))


def product_token(agent: str) -> str:
    """What groups for `agent` are named by, in lower case: a user agent's first product, of letters, `_` and `-`.

    A name of several bare words is no product token (RFC 9309, 2.2.1), so no group can name it.
    """
    return "" if _SEVERAL_WORDS.fullmatch(agent) else _token(agent.strip())


def training_preference(value: str) -> bool | None:
    """Whether a `Content-Usage` or `Content-Signal` field allows training; None where it does not say.

    `train-ai=n` is draft-ietf-aipref-vocab (`train-genai` in its earlier versions), `ai-train=no` contentsignals.org.
    Parameters are ignored, the last value of a name counts, and a refusal counts more than a permission.
    """
    said: dict[str, bool | None] = {}
    for member in value.lower().split(","):
        name, _, preference = member.partition(";")[0].partition("=")
        if name.strip() in ("train-ai", "train-genai", "ai-train"):
            said[name.strip()] = {"y": True, "yes": True, "n": False, "no": False}.get(preference.strip())
    preferences = [preference for preference in said.values() if preference is not None]
    return all(preferences) if preferences else None


def paths_to_match(url: str) -> tuple[str, ...]:
    """Path and query of `url` as patterns are compared with them; two spellings where its query has escaped slashes."""
    url = url.partition("#")[0]
    _, has_scheme, rest = url.partition("://")
    rest = rest if has_scheme else url
    start = re.search("[/?]", rest)
    path = rest[start.start() :] if start else "/"
    path = comparable(path if path.startswith("/") else "/" + path, "replace")
    return tuple(dict.fromkeys((path, _with_query_slashes(path))))


def comparable(text: str, errors: str) -> str:
    """`text` with one spelling for what RFC 9309, 2.2.2, compares as equal.

    Escapes of characters that delimit nothing are undone, other characters than these and the delimiters escaped.
    """
    if _PLAIN.fullmatch(text):
        return text
    text = _STRAY_PERCENT.sub("%25", text)
    text = quote(text, safe=_DELIMITERS + _UNESCAPED + "%", errors=errors)
    return _ESCAPE.sub(_comparable_escape, text)


def _comparable_escape(match: re.Match[str]) -> str:
    character = chr(int(match[1], 16))
    return character if character in _LITERAL else f"%{match[1].upper()}"


def _with_query_slashes(text: str) -> str:
    """`text` with the slashes in its query unescaped: there they delimit nothing (the example in RFC 9309, 2.2.2)."""
    path, mark, query = text.partition("?")
    return path + mark + query.replace("%2F", "/")


def _first_match(rules: list[tuple[PathPattern, bool]], paths: tuple[str, ...]) -> bool | None:
    for pattern, verdict in rules:
        for path in paths:
            if pattern.matches(path):
                return verdict
    return None


def _fields(body: bytes) -> Iterator[tuple[bytes, str]]:
    """Lower-case name and value of each line that has both."""
    for mark in (b"\xef\xbb\xbf", b"\xef\xbb", b"\xef"):  # a byte order mark may come in part
        if body.startswith(mark):
            body = body[len(mark) :]
            break
    if len(body) > MAX_ROBOTS_BYTES:
        whole = 1 + max(body.rfind(b"\n", 0, MAX_ROBOTS_BYTES), body.rfind(b"\r", 0, MAX_ROBOTS_BYTES))
        body = body[: whole or MAX_ROBOTS_BYTES]
    for raw_line in _LINE_END.split(body):
        line = raw_line[:MAX_LINE_BYTES].partition(b"#")[0].strip()
        name, colon, value = line.partition(b":")
        if not colon or value.startswith(b"//"):  # the colon after http is not the one looked for
            pair = _BLANK_FOR_COLON.fullmatch(line)
            if pair:
                name, value = pair[1], pair[2]
            elif not colon:
                continue
        yield name.strip().lower(), value.strip().decode("utf-8", "surrogateescape")


def _refer(groups: dict[str, dict[_Group, None]], value: str, shared: _Group, own: _Group) -> None:
    """Make `shared` and `own` the rules of the agent that `value` names, if it names one."""
    is_any = value[:1] == ANY_AGENT and not value[1:2].strip()
    token = ANY_AGENT if is_any else _token(value)
    if token:
        groups.setdefault(token, {}).update({shared: None, own: None})


def _token(text: str) -> str:
    token = _TOKEN.match(text)
    return token[0].lower() if token else ""


def _add_access(group: _Group, value: str, *, allowed: bool) -> None:
    if not value:
        return
    group.access.append((PathPattern.parse(value), allowed))
    folder, slash, page = value.rpartition("/")
    if allowed and slash and page.startswith("index.htm"):
        group.access.append((PathPattern.parse(f"{folder}/$"), True))


def _add_delay(group: _Group, value: str) -> None:
    """Of several delays the longest counts."""
    number = _DELAY.match(value)
    if number and number[0]:
        group.delay = max(float(number[0]), group.delay or 0.0)


def _add_training(group: _Group, name: bytes, value: str) -> None:
    path = ""
    if value.startswith("/"):
        path, *preferences = value.split(maxsplit=1)
        value = "".join(preferences)
    preference = training_preference(value)
    if preference is not None:
        group.training.setdefault(name, []).append((PathPattern.parse(path), preference))
