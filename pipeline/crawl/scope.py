"""Scope: which URLs belong to a crawl."""

import re
from collections.abc import Iterable

from pipeline.crawl.urls import canonical_url

WILDCARD = "*."
"""Begins a host that stands for a domain and everything below it."""


class Scope:
    """Hosts, beginnings of paths, and regular expressions that a URL of the crawl matches.

    `hosts` are as `netloc_of` has them, or such with a wildcard before; with no host nothing is covered. Where `paths`
    or `include` are empty they exclude nothing. `include` and `exclude` are searched in the whole canonical URL.
    """

    def __init__(self, hosts: Iterable[str], paths: list[str], include: list[str], exclude: list[str]) -> None:
        hosts = list(hosts)
        self._hosts = frozenset(host for host in hosts if not host.startswith(WILDCARD))
        self._domains = frozenset(host.removeprefix(WILDCARD) for host in hosts if host.startswith(WILDCARD))
        self._paths = tuple(map(_canonical_beginning, paths))
        self._include = [re.compile(pattern) for pattern in include]
        self._exclude = [re.compile(pattern) for pattern in exclude]

    def covers(self, url: str) -> bool:
        """Whether the canonical `url` belongs to the crawl."""
        netloc, _, path = url.partition("://")[2].partition("/")
        if not self.covers_host(netloc):
            return False
        if self._paths and not f"/{path}".startswith(self._paths):
            return False
        if self._include and not any(pattern.search(url) for pattern in self._include):
            return False
        return not any(pattern.search(url) for pattern in self._exclude)

    def covers_host(self, netloc: str) -> bool:
        """Whether the host of a canonical URL, with its port, belongs to the crawl, whatever the path."""
        return netloc in self._hosts or self._in_domain(netloc)

    def _in_domain(self, netloc: str) -> bool:
        if not self._domains:
            return False
        while netloc not in self._domains:
            _, dot, netloc = netloc.partition(".")
            if not dot:
                return False
        return True


def checked_pattern(pattern: str) -> str:
    """`pattern` itself; ValueError where it is no regular expression."""
    try:
        re.compile(pattern)
    except (re.error, OverflowError, RecursionError) as problem:
        raise ValueError(f"{pattern!r} is no regular expression: {problem}") from None
    return pattern


def _canonical_beginning(path: str) -> str:
    """`path` in the spelling that canonical URLs have."""
    url = canonical_url("http://h/" + path.lstrip("/"))
    return path if url is None else url.removeprefix("http://h")
