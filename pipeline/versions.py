"""Which snapshot speaks for a URL: what a source's later snapshots say of the documents in its earlier ones.

A source is crawled again and again; its snapshots, in order, tell a history of each URL. A 200 replaces every older
version, even where the new one is then filtered. 410, a permanent redirect, robots.txt and signals against indexing or
training withdraw a URL at once, 404 when two snapshots in a row say so. An error, a temporary redirect or a URL not
reached says nothing. What is withdrawn comes back with the next 200 or 304; a page found unchanged (`revisit`) leaves
the version that stands. The history is read from the url indexes alone, for all
URLs at a time.
"""

import hashlib
import json
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from pipeline.config import BadInput
from pipeline.documents import read_table

Codes = NDArray[np.int64]

URLS_FILE = "urls.arrow"

SAID = ["url", "status", "outcome"]
"""The columns of a url index from which the history is read."""

WITHDRAWING_STATUS = (301, 308, 410)
"""Moved for good (RFC 9110, 15.4.2 and 15.4.9) and gone (15.5.11)."""

WITHDRAWING_OUTCOMES = ("robots", "noindex", "no_ai", "tdm_reserved")
"""The site forbids fetching the page, or its use for training."""

LOOP = "redirect_loop"
"""A page that redirects to itself, for want of a cookie say, has not moved."""

PURGED = "purged"
"""The outcome of a page whose record was taken out of its snapshot."""

FRESH_OUTCOMES = ("stored", "not_html", "too_large", "too_complex", "empty", PURGED)
"""What a 200 can be that replaces the version before it; one that broke off says nothing."""

MISSES_TO_WITHDRAW = 2
"""Snapshots in a row that must say 404."""


class Place(NamedTuple):
    """Where a part of documents comes from: its snapshot's and its source's place in the corpus, and its age.

    `ordinal` counts the source's snapshots from 0, oldest first.
    """

    snapshot: int
    source: int
    ordinal: int


def snapshot_places(snapshots: list[Path]) -> list[Place]:
    """The place of each snapshot folder `<source>/<sequence>`, given in the order of the corpus."""
    sources: dict[str, int] = {}
    counts: dict[str, int] = {}
    places = []
    for index, folder in enumerate(snapshots):
        name = folder.absolute().parent.name
        counts[name] = counts.get(name, -1) + 1
        places.append(Place(index, sources.setdefault(name, len(sources)), counts[name]))
    return places


def part_places(snapshots: list[Path], parts: int) -> list[Place]:
    """The place of each of the `parts` document parts: those of the first snapshot in order, then of the second, …."""
    found = []
    for place, folder in zip(snapshot_places(snapshots), snapshots, strict=True):
        found += [place] * sum(1 for part in folder.glob("part-*") if part.is_dir())
    if len(found) != parts:
        raise BadInput(
            f"The {len(snapshots)} snapshots have {len(found)} parts but there are {parts} parts of documents: "
            "give all the snapshots that the documents come from, in the same order."
        )
    return found


class Standing(NamedTuple):
    """What became of a part's documents: bool[rows] each."""

    superseded: NDArray[np.bool_]
    gone: NDArray[np.bool_]


def standings(snapshots: list[Path], places: list[Place], urls: list[pa.ChunkedArray]) -> list[Standing]:
    """For each part, given its place and its documents' URLs, which documents are superseded and which withdrawn."""
    found = [Standing(np.zeros(len(column), np.bool_), np.zeros(len(column), np.bool_)) for column in urls]
    of_snapshots = snapshot_places(snapshots)
    for source in dict.fromkeys(place.source for place in of_snapshots):
        indexes = [place.snapshot for place in of_snapshots if place.source == source]
        if len(indexes) > 1:
            parts = [part for part, place in enumerate(places) if place.source == source]
            _judge([snapshots[index] for index in indexes], parts, places, urls, found)
    return found


def unstored(snapshots: list[Path]) -> str:
    """sha256 of what the snapshots of one source say beyond the pages that they store; empty where that is nothing.

    It names the URLs whose newest stored page is superseded by what was not stored, or withdrawn. With the snapshots
    that stored anything it settles what `standings` tells of any documents made from them.
    """
    indexes = [read_table(folder / URLS_FILE, [*SAID, "part"]) for folder in snapshots]
    codes, distinct = _codes([index["url"] for index in indexes])
    stored = [rows[index["part"].is_valid().to_numpy()] for rows, index in zip(codes, indexes, strict=True)]
    version, withdrawn = _history(indexes, codes, stored, len(distinct))
    newest = np.full(len(distinct), -1)
    for ordinal, rows in enumerate(stored):
        newest[rows] = ordinal
    superseded = version > newest
    told = pa.table({"url": distinct, "superseded": superseded, "withdrawn": withdrawn})
    told = told.filter(pa.array((newest >= 0) & (superseded | withdrawn))).sort_by("url")
    return hashlib.sha256(json.dumps(told.to_pydict()).encode()).hexdigest() if len(told) else ""


def _judge(
    snapshots: list[Path], parts: list[int], places: list[Place], urls: list[pa.ChunkedArray], found: list[Standing]
) -> None:
    """Set the standings of one source's parts by going through its snapshots, oldest first."""
    indexes = [read_table(folder / URLS_FILE, SAID) for folder in snapshots]
    codes, distinct = _codes([index["url"] for index in indexes] + [urls[part] for part in parts])
    codes_of = dict(zip(parts, codes[len(indexes) :], strict=True))
    none = np.zeros(0, np.int64)
    stored = [
        np.concatenate([none, *(codes_of[part] for part in parts if places[part].ordinal == ordinal)])
        for ordinal in range(len(indexes))
    ]
    version, withdrawn = _history(indexes, codes, stored, len(distinct))
    for part in parts:
        found[part].superseded[:] = version[codes_of[part]] > places[part].ordinal
        found[part].gone[:] = withdrawn[codes_of[part]]


def _history(
    indexes: list[pa.Table], codes: list[Codes], stored: list[Codes], size: int
) -> tuple[Codes, NDArray[np.bool_]]:
    """By the code of a URL, of which there are `size`: the last snapshot with a version of it, -1 where there is none,
    and whether it ends withdrawn.

    `codes` are those of the rows of the url indexes, oldest first, `stored` those of the documents of each snapshot.
    """
    version = np.full(size, -1)
    withdrawn = np.zeros(size, np.bool_)
    misses = np.zeros(size, np.int64)
    for ordinal, index in enumerate(indexes):
        rows = codes[ordinal]
        status = index["status"].fill_null(0).to_numpy()
        outcome = index["outcome"]
        forbidden = pc.is_in(outcome, pa.array(WITHDRAWING_OUTCOMES)).to_numpy()
        said = pc.is_in(outcome, pa.array(FRESH_OUTCOMES)).to_numpy()
        unchanged = pc.equal(outcome, "revisit").to_numpy()
        fresh = np.concatenate([rows[(status == 200) & said], stored[ordinal]])
        missing = rows[status == 404]
        missed = misses[missing] + 1
        misses[:] = 0
        misses[missing] = missed
        version[fresh] = ordinal
        withdrawn[fresh] = False
        withdrawn[rows[unchanged | ((status == 304) & ~forbidden)]] = False
        moved = np.isin(status, WITHDRAWING_STATUS) & ~pc.equal(outcome, LOOP).to_numpy()
        withdrawn[rows[forbidden | moved]] = True
        withdrawn[missing[missed >= MISSES_TO_WITHDRAW]] = True
    return version, withdrawn


def _codes(columns: list[pa.ChunkedArray]) -> tuple[list[Codes], pa.Array]:
    """Number the distinct strings of all columns: one array of numbers a column, and the strings."""
    chunks = [chunk for column in columns for chunk in column.cast(pa.large_string()).chunks]
    encoded = pa.chunked_array(chunks, pa.large_string()).combine_chunks().dictionary_encode()
    if isinstance(encoded, pa.ChunkedArray):
        encoded = encoded.combine_chunks()
    codes = encoded.indices.to_numpy(zero_copy_only=False).astype(np.int64)
    borders = np.cumsum([len(column) for column in columns])[:-1]
    return np.split(codes, borders), encoded.dictionary
