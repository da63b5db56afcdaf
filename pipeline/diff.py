"""What two corpora, or two snapshots of the web, do not have in common: pages, documents, tokens, domains, figures."""

from collections import Counter
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, NamedTuple

import pyarrow as pa
import pyarrow.compute as pc

from pipeline.corpus import Corpus
from pipeline.crawl.seal import INDEX
from pipeline.crawl.spool import REVISIT, STORED
from pipeline.documents import read_table
from pipeline.tombstones import hosts

Row = dict[str, Any]

LARGEST_CHANGES = 20
"""Domains whose change is told; all are counted."""

NOT_MET = "not met"
"""What a snapshot says of a URL of which it has no row."""


class Item(NamedTuple):
    """What stands at a URL: `content` differs where it does, `tokens` is None where nobody counted."""

    content: bytes | str | None
    tokens: int | None


def corpora(before: Corpus, after: Corpus) -> Row:
    """The difference of what two runs packed, and why documents came and went, by the fates in the other run."""
    told = _difference(_packed(before), _packed(after))
    return {
        **told["counts"],
        "lost_because": _reasons(after, told["lost"]),
        "gained_because": _reasons(before, told["gained"]),
    }


def snapshots(before: Path, after: Path, counted: Corpus | None) -> Row:
    """The difference of the pages that two snapshots hold or found unchanged.

    Documents and tokens are counted by a run that saw both, where there is one: those of a URL's newest document in the
    snapshot or before it.
    """
    pages = [_pages(folder) for folder in (before, after)]
    if counted is not None:
        pages = [_as_of(counted, folder, found) for folder, found in zip((before, after), pages, strict=True)]
    told = _difference(*pages)
    index = read_table(after / INDEX, ["url", "outcome"])
    outcomes = dict(zip(index["url"].to_pylist(), index["outcome"].to_pylist(), strict=True))
    lost = Counter(outcomes.get(url, NOT_MET) for url in told["lost"])
    return {**told["counts"], "lost_because": _ranked(lost), "gained_because": {}}


def figures(before: Mapping[str, Any], after: Mapping[str, Any]) -> list[Row]:
    """The figures that two evaluations have in common and that moved: name, before, after."""
    old, new = dict(_numbers(before)), dict(_numbers(after))
    return [
        {"name": name, "before": old[name], "after": new[name]}
        for name in old
        if name in new and old[name] != new[name]
    ]


def _difference(before: Mapping[str, Item], after: Mapping[str, Item]) -> Row:
    """Counts of what was gained, lost, changed and kept, and the URLs gained and lost."""
    gained, lost = after.keys() - before.keys(), before.keys() - after.keys()
    shared = before.keys() & after.keys()
    changed = {url for url in shared if before[url].content != after[url].content}
    old_hosts, new_hosts = _by_host(before), _by_host(after)
    moved: list[Row] = [
        {"host": host, "before": old_hosts.get(host, 0), "after": new_hosts.get(host, 0)}
        for host in old_hosts.keys() | new_hosts.keys()
        if old_hosts.get(host, 0) != new_hosts.get(host, 0)
    ]
    moved.sort(key=lambda row: (-abs(row["after"] - row["before"]), row["host"]))
    counts = {
        "before": _size(before, before.keys()),
        "after": _size(after, after.keys()),
        "gained": _size(after, gained),
        "lost": _size(before, lost),
        "changed": _size(after, changed),
        "unchanged": _size(after, shared - changed),
        "hosts_gained": sorted(new_hosts.keys() - old_hosts.keys()),
        "hosts_lost": sorted(old_hosts.keys() - new_hosts.keys()),
        "hosts_moved": moved[:LARGEST_CHANGES],
    }
    return {"counts": counts, "gained": gained, "lost": lost}


def _size(items: Mapping[str, Item], urls: Any) -> Row:
    """How many documents these are, and their tokens."""
    tokens = [items[url].tokens for url in urls]
    counted = [count for count in tokens if count is not None]
    return {"documents": len(tokens), "tokens": sum(counted) if counted or not tokens else None}


def _by_host(items: Mapping[str, Item]) -> Counter[str]:
    """Documents of each host."""
    return Counter(hosts(pa.chunked_array([pa.array(list(items), pa.string())])).to_pylist())


def _packed(corpus: Corpus) -> dict[str, Item]:
    """What a run packed, by URL."""
    found = {}
    for part in range(len(corpus)):
        table = corpus.packed(part).select(["url", "doc_id", "tokens"])
        found.update({url: Item(doc_id, tokens) for url, doc_id, tokens in _rows(table)})
    return found


def _reasons(corpus: Corpus, urls: set[str]) -> dict[str, int]:
    """Why these URLs are not in a corpus, most frequent first; of several documents at one URL the newest tells."""
    wanted = pa.array(sorted(urls), pa.string())
    told: dict[str, str] = {}
    for table in corpus.everything(texts=False):
        here = table.filter(pc.is_in(table["url"], wanted)).select(["url", "stage", "reason"])
        told.update({url: f"{stage}: {reason}" for url, stage, reason in _rows(here)})
    return _ranked(Counter(told.get(url, NOT_MET) for url in urls))


def _pages(folder: Path) -> dict[str, Item]:
    """The pages that a snapshot holds, or found as an earlier one holds them."""
    index = read_table(folder / INDEX, ["url", "outcome", "payload_digest"])
    index = index.filter(pc.is_in(index["outcome"], pa.array([STORED, REVISIT])))
    return {url: Item(digest, None) for url, digest in _rows(index.select(["url", "payload_digest"]))}


def _urls(folder: Path, outcome: str) -> list[str]:
    """The URLs that a snapshot met with this outcome."""
    index = read_table(folder / INDEX, ["url", "outcome"])
    urls: list[str] = index.filter(pc.equal(index["outcome"], outcome))["url"].to_pylist()
    return urls


def _as_of(corpus: Corpus, snapshot: Path, pages: dict[str, Item]) -> dict[str, Item]:
    """The pages whose newest version by then gave a document, each with its tokens."""
    found: dict[str, Item] = {}
    begun = ""
    for part in range(len(corpus)):
        source, _, sequence = corpus.snapshot_of(part).partition("/")
        if source == snapshot.parent.name and int(sequence) <= int(snapshot.name):  # parts come oldest first
            if sequence != begun:
                begun = sequence
                for url in _urls(snapshot.parent / sequence, STORED):  # what an older version gave is no longer there
                    found.pop(url, None)
            for url, tokens in _rows(corpus.fates(part, texts=False).select(["url", "tokens"])):
                if url in pages:
                    found[url] = Item(pages[url].content, tokens)
    return found


def _rows(table: pa.Table) -> Iterator[tuple[Any, ...]]:
    return zip(*(column.to_pylist() for column in table.columns), strict=True)


def _ranked(counts: Counter[str]) -> dict[str, int]:
    return dict(sorted(counts.items(), key=lambda item: (-item[1], item[0])))


def _numbers(values: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, float]]:
    """The numbers in nested objects, under dotted names; lists are left out."""
    for name, value in values.items():
        if isinstance(value, Mapping):
            yield from _numbers(value, f"{prefix}{name}.")
        elif isinstance(value, (int, float)) and not isinstance(value, bool):
            yield prefix + name, value
