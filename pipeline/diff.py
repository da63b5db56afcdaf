"""What two corpora, or two snapshots of the web, do not have in common: pages, documents, tokens, domains, figures.

A page is held as 44 bytes, its URL as a hash, and files are read a part or a batch at a time: millions of pages fit in
little memory.
"""

import hashlib
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from pipeline.corpus import PACKED, Corpus
from pipeline.crawl.seal import INDEX
from pipeline.crawl.spool import REVISIT, STORED
from pipeline.documents import read_batches
from pipeline.shards import SPLITS, index_path
from pipeline.tombstones import hosts

Row = dict[str, Any]

PAGE = np.dtype([("url", "S16"), ("content", "S16"), ("host", np.int32), ("tokens", np.int64)])
"""What stands at a URL, which is known by its hash. `content` differs where what stands there does; `host` is a number;
`tokens` may be `NOT_COUNTED`."""

Pages = NDArray[np.void]
"""PAGE[pages], sorted by URL, each URL once."""

Hashes = NDArray[np.bytes_]
"""S16[rows]"""

Rows = NDArray[np.int64]

HostNumbers = dict[str, int]
"""The hosts met so far, numbered from 0."""

NOT_COUNTED = -1

LARGEST_CHANGES = 20
"""Domains whose change is told; all are counted."""

NOT_MET = "not met"
"""What a snapshot says of a URL of which it has no row."""


def corpora(before: Corpus, after: Corpus) -> Row:
    """The difference of what two runs packed, and why documents came and went, by the fates in the other run."""
    numbers: HostNumbers = {}
    counts, gained, lost = _difference(_packed(before, numbers), _packed(after, numbers), numbers)
    return {**counts, "lost_because": _reasons(lost, _fates(after)), "gained_because": _reasons(gained, _fates(before))}


def snapshots(before: Path, after: Path, counted: Corpus | None) -> Row:
    """The difference of the pages that two snapshots hold or found unchanged.

    Documents and tokens are counted by a run that saw both, where there is one: those of a URL's newest document in the
    snapshot or before it.
    """
    numbers: HostNumbers = {}
    old, new = (_pages(folder, numbers) for folder in (before, after))
    if counted is not None:
        old, new = _as_of(counted, before, old), _as_of(counted, after, new)
    counts, _, lost = _difference(old, new, numbers)
    outcomes = (batch.columns for batch in read_batches(after / INDEX, ["url", "outcome"]))
    return {**counts, "lost_because": _reasons(lost, outcomes), "gained_because": {}}


def figures(before: Mapping[str, Any], after: Mapping[str, Any]) -> list[Row]:
    """The figures that two evaluations have in common and that moved: name, before, after."""
    old, new = dict(_numbers(before)), dict(_numbers(after))
    return [
        {"name": name, "before": old[name], "after": new[name]}
        for name in old
        if name in new and old[name] != new[name]
    ]


def _difference(before: Pages, after: Pages, numbers: HostNumbers) -> tuple[Row, Hashes, Hashes]:
    """Counts of what was gained, lost, changed and kept; the URLs gained; the URLs lost."""
    new, old = _places(after["url"], before["url"])
    differs = before["content"][old] != after["content"][new]
    gained, lost = np.delete(np.arange(len(after)), new), np.delete(np.arange(len(before)), old)
    tokens = after["tokens"]
    counts = {
        "before": _size(before["tokens"]),
        "after": _size(tokens),
        "gained": _size(tokens[gained]),
        "lost": _size(before["tokens"][lost]),
        "changed": _size(tokens[new[differs]]),
        "unchanged": _size(tokens[new[~differs]]),
        **_of_hosts(before, after, numbers),
    }
    return counts, after["url"][gained], before["url"][lost]


def _size(tokens: NDArray[np.int64]) -> Row:
    """How many documents have these counts of tokens, and their sum."""
    return {"documents": len(tokens), "tokens": None if NOT_COUNTED in tokens else int(tokens.sum())}


def _of_hosts(before: Pages, after: Pages, numbers: HostNumbers) -> Row:
    """The hosts gained and lost, and those whose documents became more or fewer, largest change first."""
    old, new = (np.bincount(pages["host"], minlength=len(numbers)).tolist() for pages in (before, after))
    moved = [
        {"host": host, "before": old[number], "after": new[number]}
        for host, number in numbers.items()
        if old[number] != new[number]
    ]
    moved.sort(key=lambda row: (-abs(row["after"] - row["before"]), row["host"]))
    return {
        "hosts_gained": sorted(row["host"] for row in moved if not row["before"]),
        "hosts_lost": sorted(row["host"] for row in moved if not row["after"]),
        "hosts_moved": moved[:LARGEST_CHANGES],
    }


def _packed(corpus: Corpus, numbers: HostNumbers) -> Pages:
    """What a run packed."""
    indexes = (index_path(part.folder, split) for part in corpus.artifacts[PACKED].parts for split in SPLITS)
    batches = (batch for path in indexes for batch in read_batches(path, ["url", "doc_id", "length"]))
    return _newest(
        _piece(batch["url"], batch["doc_id"].to_pylist(), batch["length"].to_numpy() - 1, numbers)  # less end-of-text
        for batch in batches
    )


def _pages(folder: Path, numbers: HostNumbers) -> Pages:
    """The pages that a snapshot holds, or found as an earlier one holds them."""
    batches = read_batches(folder / INDEX, ["url", "outcome", "payload_digest"])
    held = (batch.filter(pc.is_in(batch["outcome"], pa.array([STORED, REVISIT]))) for batch in batches)
    return _newest(_piece(batch["url"], _hashes(batch["payload_digest"]), NOT_COUNTED, numbers) for batch in held)


def _piece(urls: pa.Array, contents: Any, tokens: Any, numbers: HostNumbers) -> Pages:
    """Pages as they come, neither sorted nor distinct."""
    piece = np.empty(len(urls), PAGE)
    piece["url"], piece["content"], piece["tokens"] = _hashes(urls), contents, tokens
    named = hosts(urls).dictionary_encode()
    of_names = [numbers.setdefault(host, len(numbers)) for host in named.dictionary.to_pylist()]
    piece["host"] = np.array(of_names, np.int32)[named.indices]
    return piece


def _newest(pieces: Iterable[Pages]) -> Pages:
    """The pages in these pieces; of several at one URL the last."""
    pages = np.concatenate([np.empty(0, PAGE), *pieces])
    order = np.argsort(pages["url"], kind="stable")
    urls = pages["url"][order]
    return pages[order[np.append(urls[1:] != urls[:-1], True)[: len(urls)]]]


def _as_of(corpus: Corpus, snapshot: Path, pages: Pages) -> Pages:
    """The pages whose newest version by then gave a document, each with its tokens."""
    urls, tokens, found = pages["url"].copy(), pages["tokens"].copy(), np.zeros(len(pages), np.bool_)
    begun = ""
    for part in range(len(corpus)):
        source, _, sequence = corpus.snapshot_of(part).partition("/")
        if source == snapshot.parent.name and int(sequence) <= int(snapshot.name):  # parts come oldest first
            if sequence != begun:
                begun = sequence
                for batch in read_batches(snapshot.parent / sequence / INDEX, ["url", "outcome"]):
                    # What an older version gave is no longer there.
                    anew = batch["url"].filter(pc.equal(batch["outcome"], STORED))
                    found[_places(_hashes(anew), urls)[1]] = False
            documents = corpus.fates(part, texts=False)
            rows, places = _places(_hashes(documents["url"]), urls)
            found[places] = True
            tokens[places] = pc.fill_null(documents["tokens"], NOT_COUNTED).to_numpy()[rows]
    pages["tokens"] = tokens
    return pages[found]


def _fates(corpus: Corpus) -> Iterator[tuple[pa.ChunkedArray, pa.ChunkedArray]]:
    """Every URL that a run met, and what became of it."""
    for table in corpus.everything(texts=False):
        yield table["url"], pc.binary_join_element_wise(table["stage"], table["reason"], ": ", null_handling="replace")


def _reasons(urls: Hashes, told: Iterable[tuple[Any, Any]]) -> dict[str, int]:
    """What is told of these URLs, the most frequent first, given columns of URLs and reasons; the last told counts."""
    numbers = {NOT_MET: 0}
    found = np.zeros(len(urls), np.int32)
    for told_of, reasons in told if len(urls) else ():
        rows, places = _places(_hashes(told_of), urls)
        found[places] = [numbers.setdefault(reason, len(numbers)) for reason in reasons.take(rows).to_pylist()]
    counts = zip(numbers, np.bincount(found, minlength=len(numbers)).tolist(), strict=True)
    return dict(sorted((pair for pair in counts if pair[1]), key=lambda pair: (-pair[1], pair[0])))


def _places(urls: Hashes, known: Hashes) -> tuple[Rows, Rows]:
    """Which rows of `urls` are among the sorted `known` ones, and where each stands there."""
    places = np.searchsorted(known, urls)
    rows = np.flatnonzero(places < len(known))
    rows = rows[known[places[rows]] == urls[rows]]
    return rows, places[rows]


def _hashes(values: Any) -> Hashes:
    """The hash of each of an Arrow column of strings."""
    digests = (hashlib.blake2b(value.encode(), digest_size=16).digest() for value in values.to_pylist())
    return np.frombuffer(b"".join(digests), "S16")


def _numbers(values: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, float]]:
    """The numbers in nested objects, under dotted names; lists are left out."""
    for name, value in values.items():
        if isinstance(value, Mapping):
            yield from _numbers(value, f"{prefix}{name}.")
        elif isinstance(value, (int, float)) and not isinstance(value, bool):
            yield prefix + name, value
