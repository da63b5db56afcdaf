"""Where text comes from: crawls and given files, as the configuration names them.

A source is what identifies it: seeds, scope and limits of a crawl; settings and contents of given files. How politely,
from where and with whose help it is fetched is not part of it.
"""

import hashlib
import json
from glob import glob, has_magic
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import AfterValidator, Discriminator, Field, Tag, model_validator

from pipeline.config import BadInput, Config, execution, identity
from pipeline.crawl.scope import WILDCARD, Scope, checked_pattern
from pipeline.crawl.urls import canonical_url, host_of, is_loopback, netloc_of

MIB = 1024 * 1024

Pattern = Annotated[str, AfterValidator(checked_pattern)]
Name = Annotated[str, Field(pattern=r"^[a-z0-9][a-z0-9_-]*$", max_length=64)]


class CrawlSource(Config):
    """A crawl from seeds, within hosts and limits."""

    kind: Literal["crawl"] = "crawl"
    """What this source is: a crawl."""
    name: Name
    """Name of the source: lower-case letters, digits, - and _."""
    seeds: list[str] = Field([])
    """URLs that the crawl starts from."""
    seeds_file: Path | None = execution(None)
    """A text file with more seeds, one a line; lines that start with # are left out."""
    hosts: list[str] = Field([])
    """Hosts that may be visited, with :port where it is not the usual one; by default those of the seeds.
    "*.example.org" is example.org and all below it."""
    paths: list[str] = Field([])
    """Beginnings of the paths that may be visited, such as /docs/; by default all. Seeds are always visited."""
    include: list[Pattern] = Field([])
    """Regular expressions; where there are any, one must match somewhere in a URL for it to be visited."""
    exclude: list[Pattern] = Field([])
    """Regular expressions; a URL in which one matches is not visited."""
    sitemaps: bool = Field(True)
    """Read the sitemaps that robots.txt names, where they lie on the hosts of the crawl."""
    ignore_signals: list[Literal["noindex", "noai", "tdm"]] = Field([])
    """Signals against use that are recorded but not obeyed: for sites of your own, or where you have a licence."""
    private_hosts: list[str] = Field([])
    """Hosts that may lie at a private address, such as a server in the local network; a port does not matter."""
    max_pages: int = Field(10_000, ge=1)
    """Pages stored at most; which ones does not depend on timing."""
    max_depth: int = Field(16, ge=0)
    """Links followed from a seed at most."""
    max_body_bytes: int = Field(10 * MIB, ge=1)
    """Bytes of one decoded page at most; a larger one is not stored."""
    max_bytes: int = Field(10 * 1024 * MIB, ge=1)
    """Bytes of all stored pages at which the crawl ends; it may pass it by eight pages."""
    max_minutes: float | None = Field(None, gt=0)
    """Minutes after which the crawl ends with what it has, those before it was killed included; by default no end."""
    delay_s: float = execution(1.0, ge=0)
    """Seconds between two requests to a host; a longer Crawl-delay in its robots.txt is honoured."""
    autothrottle: bool = execution(True)
    """Wait longer between requests to a host that answers slowly."""
    max_wait_s: float = execution(120.0, ge=0)
    """Seconds of Retry-After that are waited for; a host that asks for more is left alone."""
    concurrency_per_host: int = execution(2, ge=1, le=64)
    """Requests to one host at a time."""
    timeout_s: float = execution(30.0, gt=0)
    """Seconds until an answer must be complete."""
    contact: str | None = execution(None)
    """E-mail address or URL by which a site's owner can reach you; part of the user agent."""
    serve: list[str] = execution([])
    """Folders served on this machine during the crawl, a subfolder a host; "pydoc" is Python's documentation."""

    @model_validator(mode="after")
    def _has_seeds(self) -> "CrawlSource":
        if not self.seeds and self.seeds_file is None:
            raise ValueError(f"source {self.name!r} needs seeds or a seeds_file to start from")
        return self


class FileSource(Config):
    """Given files: WARC, WET, text, JSONL or Parquet."""

    kind: Literal["files"] = "files"
    """What this source is: given files."""
    name: Name
    """Name of the source: lower-case letters, digits, - and _."""
    paths: list[str] = execution(..., min_length=1)
    """Files or glob patterns, relative to the working directory; ** goes into subfolders."""
    format: Literal["auto", "warc", "wet", "text", "jsonl", "parquet"] = "auto"
    """Format of the files; auto goes by their names."""
    text_field: str = "text"
    """Field of a JSONL or Parquet row that holds the text."""
    url_field: str = "url"
    """Field of a JSONL or Parquet row that holds the URL, where it has one."""


def _kind_of(source: Any) -> str:
    if isinstance(source, dict):
        return str(source.get("kind", "files" if "paths" in source else "crawl"))
    return str(getattr(source, "kind", "crawl"))


Source = Annotated[
    Annotated[CrawlSource, Tag("crawl")] | Annotated[FileSource, Tag("files")],
    Discriminator(
        _kind_of,
        custom_error_type="source_kind",
        custom_error_message='kind must be "crawl" or "files"',
    ),
]


class ScrapeConfig(Config):
    """Where the text comes from."""

    sources: list[Source] = Field(min_length=1)
    """Crawls and given files; each becomes a snapshot."""
    segment_bytes: int = Field(32 * MIB, ge=1)
    """Bytes of payload in one part of a snapshot, about."""

    @model_validator(mode="after")
    def _names_differ(self) -> "ScrapeConfig":
        names = [source.name for source in self.sources]
        twice = sorted({name for name in names if names.count(name) > 1})
        if twice:
            raise ValueError(f"two sources are called {twice[0]!r}; every source needs a name of its own")
        return self


def given_files(source: CrawlSource | FileSource) -> list[Path]:
    """The files that a source names, sorted; none for a crawl. BadInput where a path matches nothing."""
    if isinstance(source, CrawlSource):
        return []
    files: set[Path] = set()
    for pattern in source.paths:
        names = glob(pattern, recursive=True) if has_magic(pattern) else [pattern]  # noqa: PTH207 (may be absolute)
        found = [path for path in map(Path, names) if path.is_file()]
        if not found:
            raise BadInput(f"source {source.name!r}: {pattern} matches no file.")
        files.update(found)
    return sorted(files)


def source_id(source: CrawlSource | FileSource, given_hashes: dict[str, str]) -> str:
    """Hex hash over what identifies `source`; `given_hashes` maps the path of each given file to its sha256.

    Of a given file, its content and its label count (the end of its path that tells it from the others), not its place.
    """
    facts = identity(source)
    if isinstance(source, CrawlSource):
        facts["seeds"] = seeds_of(source)
        facts["hosts"] = hosts_of(source)
    else:
        from pipeline.crawl.given import labels

        named = labels([Path(path) for path in given_hashes])
        facts["files"] = sorted((named[Path(path)], sha256) for path, sha256 in given_hashes.items())
    return hashlib.sha256(json.dumps(facts, sort_keys=True).encode()).hexdigest()


def seeds_of(source: CrawlSource) -> list[str]:
    """Canonical URLs that the crawl starts from, sorted; BadInput where one is no URL or a contact is missing."""
    given = list(source.seeds)
    if source.seeds_file is not None:
        try:
            lines = source.seeds_file.read_text(encoding="utf-8").splitlines()
        except (OSError, UnicodeDecodeError) as problem:
            raise BadInput(
                f"source {source.name!r}: the seeds file {source.seeds_file} cannot be read: {problem}."
            ) from None
        given += [line.strip() for line in lines if line.strip() and not line.lstrip().startswith("#")]
    if not given:
        raise BadInput(f"source {source.name!r}: the seeds file {source.seeds_file} names no URL.")
    seeds = set()
    for text in given:
        url = canonical_url(text)
        if url is None:
            raise BadInput(f"source {source.name!r}: the seed {text!r} is no http or https URL.")
        seeds.add(url)
        _require_contact(source, host_of(url))
    return sorted(seeds)


def _require_contact(source: CrawlSource, host: str) -> None:
    if source.contact is None and not is_loopback(host):
        raise BadInput(
            f"source {source.name!r}: to crawl {host}, set contact to an e-mail address or URL "
            "by which its owner can reach you."
        )


def hosts_of(source: CrawlSource) -> list[str]:
    """Hosts that the crawl may visit, sorted, with a port where it is not the usual one; BadInput where one is none."""
    if not source.hosts:
        return sorted(set(map(netloc_of, seeds_of(source))))
    hosts = set()
    for host in source.hosts:
        prefix = WILDCARD if host.startswith(WILDCARD) else ""
        url = canonical_url(f"http://{host.removeprefix(WILDCARD)}/")
        if url is None or url.count("/") > 3:
            raise BadInput(f"source {source.name!r}: {host!r} in hosts is no host name.")
        hosts.add(prefix + netloc_of(url))
        _require_contact(source, host_of(url))
    scope = Scope(sorted(hosts), [], [], [])
    outside = [seed for seed in seeds_of(source) if not scope.covers(seed)]
    if outside:
        raise BadInput(
            f"source {source.name!r}: the seed {outside[0]} is on none of its hosts, {', '.join(sorted(hosts))}: "
            f"add {netloc_of(outside[0])!r} to hosts."
        )
    return sorted(hosts)


def private_hosts_of(source: CrawlSource, seeds: list[str], hosts: list[str]) -> set[str]:
    """Hosts that may lie at a private address: those that the configuration names for it, and this machine by name."""
    private = {_host_name(source, "private_hosts", host) for host in source.private_hosts}
    ours = {host_of(seed) for seed in seeds} | {_host_name(source, "hosts", host) for host in hosts}
    return private | {host for host in ours if is_loopback(host.removeprefix(WILDCARD))}


def _host_name(source: CrawlSource, key: str, host: str) -> str:
    """A host of the configuration as canonical URLs have it, without its port; BadInput where it is none."""
    bare = host.removeprefix(WILDCARD)
    bracketed = f"[{bare}]" if bare.count(":") > 1 and not bare.startswith("[") else bare
    url = canonical_url(f"http://{bracketed}/")
    if url is None or url.count("/") > 3:
        raise BadInput(f"source {source.name!r}: {host!r} in {key} is no host name.")
    return (WILDCARD if host.startswith(WILDCARD) else "") + host_of(url)
