"""What a page's owner says of its use: robots directives, preferences on training, reservations of text mining.

Read from response headers and meta elements, and from a site's `/.well-known/tdmrep.json`. This module only reads what
was said; what follows from it is for others to decide.

Sources: the robots directives as search engines document them; `noai` (DeviantArt, 2022) and `noml` (noml.info), which
mean the same here; `Content-Usage` (draft-ietf-aipref-attach, section 2) and `Content-Signal` (contentsignals.org); and
the TDM Reservation Protocol (W3C community group, final report of 10 May 2024).
"""

import dataclasses
import json
import re
from collections.abc import Iterable
from dataclasses import dataclass

from pipeline.crawl.robots import PathPattern, paths_to_match, product_token, training_preference

MAX_TDMREP_BYTES = 500 * 1024
"""A longer tdmrep.json counts as none. The same as for robots.txt: real ones hold a few lines."""

MAX_SAID_LENGTH = 1000
"""Of the text that is recorded with a page, in characters; whole pages have been found in a meta element."""

_VALUED_DIRECTIVES = frozenset({"unavailable_after", "max-snippet", "max-image-preview", "max-video-preview"})
_NO_AI = frozenset({"noai", "noml"})
_AGENT = re.compile(r"[A-Za-z][A-Za-z0-9_-]*|\*")
_RESERVATIONS = {"1": True, "0": False}


@dataclass(frozen=True)
class Permissions:
    """What a page's owner says of its use.

    `noimageai` speaks of images only and has no effect. Nor has `unavailable_after`, which is just recorded: obeying it
    would make the result depend on the clock.
    """

    noindex: bool = False
    nofollow: bool = False
    noai: bool = False

    tdm_reserved: bool | None = None
    """Whether mining the page is reserved; None where nothing is said."""

    said: str | None = None
    """The words themselves, as found: robots directives, then preferences in headers with their names."""

    def with_tdm_file(self, file: "TdmRep", url: str) -> "Permissions":
        """These, with what the site's `file` says of `url` where the page says nothing of mining.

        The header supersedes the file, and meta elements both (TDMRep, section Processing priority).
        """
        if self.tdm_reserved is not None:
            return self
        return dataclasses.replace(self, tdm_reserved=file.reserved(url))


@dataclass(frozen=True)
class TdmRep:
    """The rules of a site's tdmrep.json."""

    rules: tuple[tuple[PathPattern, bool | None], ...] = ()

    def reserved(self, url: str) -> bool | None:
        """Whether mining `url` is reserved; None where nothing is said.

        The first rule that matches decides (TDMRep, section TDM File on the Origin Server), and patterns match as in
        robots.txt, as the report asks.
        """
        paths = paths_to_match(url)
        return next((said for pattern, said in self.rules if any(map(pattern.matches, paths))), None)


def parse_tdmrep(body: bytes) -> TdmRep:
    """The rules in `body`, a JSON array of {location, tdm-reservation, tdm-policy}; none where it is anything else."""
    if len(body) > MAX_TDMREP_BYTES:
        return TdmRep()
    try:
        entries = json.loads(body)
    except (ValueError, RecursionError):
        return TdmRep()
    rules = []
    for entry in entries if isinstance(entries, list) else []:
        location = entry.get("location") if isinstance(entry, dict) else None
        if isinstance(location, str):
            well_formed = location.encode("utf-8", "replace").decode()
            rules.append((PathPattern.parse(well_formed), _reservation(entry.get("tdm-reservation"))))
    return TdmRep(tuple(rules))


def read_permissions(
    headers: Iterable[tuple[str, str]], metas: Iterable[tuple[str, str]], agent: str = "gptmill"
) -> Permissions:
    """What response `headers` and `metas`, the (name, content) of meta elements, say to `agent`."""
    fields: dict[str, list[str]] = {}
    for name, value in headers:
        fields.setdefault(name.lower(), []).append(value.strip())
    elements: dict[str, list[str]] = {}
    for name, content in metas:
        elements.setdefault(name.strip().lower(), []).append(content.strip())

    token = product_token(agent)
    tags = fields.get("x-robots-tag", [])
    robots = [content for name in dict.fromkeys(("robots", token or "robots")) for content in elements.get(name, [])]
    directives: set[str] = set()
    for text in tags:
        directives |= _directives(text, token)
    for text in robots:
        directives |= _directives(text, None)

    preferences = {name: ", ".join(fields[name]) for name in ("content-usage", "content-signal") if name in fields}
    refused = any(training_preference(value) is False for value in preferences.values())
    said = ", ".join([*tags, *robots, *(f"{name}: {value}" for name, value in preferences.items())])
    in_meta = _any_reservation(elements.get("tdm-reservation", []))
    return Permissions(
        noindex=not directives.isdisjoint({"noindex", "none"}),
        nofollow=not directives.isdisjoint({"nofollow", "none"}),
        noai=refused or not directives.isdisjoint(_NO_AI),
        tdm_reserved=_any_reservation(fields.get("tdm-reservation", [])) if in_meta is None else in_meta,
        said=said[:MAX_SAID_LENGTH] or None,
    )


def _directives(text: str, token: str | None) -> set[str]:
    """Directives in `text`, in lower case; where `token` is given, without those to agents that it does not name.

    An agent's name counts until the next one: several fields of a header may have been joined on the way.
    """
    found: set[str] = set()
    addressed = True
    for part in text.lower().split(","):
        name, colon, rest = part.partition(":")
        if colon and name.strip() not in _VALUED_DIRECTIVES and _AGENT.fullmatch(name.strip()):
            if token is not None:
                addressed = name.strip() in ("*", token)
            name, colon, _ = rest.partition(":")
        if addressed and not colon:
            found.update(name.split())
    return found


def _any_reservation(values: Iterable[str]) -> bool | None:
    """Of several the one that reserves."""
    said = {_reservation(value) for member in values for value in member.split(",")}
    return True if True in said else False if False in said else None


def _reservation(value: object) -> bool | None:
    """1 or 0 as a truth value; anything else is an error that says nothing (TDMRep, section tdm-reservation)."""
    if isinstance(value, bool) or not isinstance(value, int | str):
        return None
    return _RESERVATIONS.get(str(value).strip())
