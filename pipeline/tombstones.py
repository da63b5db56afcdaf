"""Tombstones: what must not be in any corpus, by canonical URL, by host, and by the content that stood there.

One JSON object a line with at least one of `url`, `host`, `payload_digest` (sha256 of the fetched body, hex) and
`text_hash` (hash of the normalised text, hex). The first two name what is taken down; the digests find its copies at
other addresses. The rows of one takedown share its number, `takedown`; a line `{"undo": N}` lifts them all. Lines are
only ever added; other fields, such as `reason`, are for people.
"""

import json
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from pipeline.config import BadInput
from pipeline.documents import read_table
from pipeline.versions import URLS_FILE

NAMES = ("url", "host", "payload_digest", "text_hash")
ABOUT = ("takedown", "undo", "purged")
"""Fields that hold the number of a takedown: that a line belongs to it, lifts it, or says that it reached snapshots."""

_HOST = r"^[A-Za-z][A-Za-z0-9+.-]*://(?:[^/?#@]*@)?(?P<host>\[[^\]]*\]|[^:/?#]*)"  # RFC 3986, 3.2


class Tombstones(NamedTuple):
    """The distinct values of each name, sorted."""

    url: list[str]
    host: list[str]
    payload_digest: list[str]
    text_hash: list[str]


NONE = Tombstones([], [], [], [])


def read_tombstones(path: Path) -> Tombstones:
    """The tombstones in force; raises `BadInput` for a line that says nothing or is no JSON object."""
    values: dict[str, set[str]] = {name: set() for name in NAMES}
    rows = read_rows(path)
    lifted = {row["undo"] for row in rows if "undo" in row}
    for row in rows:
        if row.get("takedown") in lifted:
            continue
        for name in NAMES:
            if row.get(name) is not None:
                values[name].add(row[name] if name == "url" else row[name].lower())
    return Tombstones(*(sorted(values[name]) for name in NAMES))


def read_rows(path: Path) -> list[dict[str, Any]]:
    """The lines of a list of tombstones, each checked; raises `BadInput` for one that says nothing or is no object."""
    try:
        lines = path.read_text(encoding="utf-8").split("\n")
    except FileNotFoundError as error:
        raise BadInput(f"There is no list of tombstones at {path}: make one, or configure none.") from error
    rows = []
    for number, line in enumerate(lines, 1):
        if not line.strip():
            continue
        try:
            row = json.loads(line)
        except ValueError as error:
            raise BadInput(f"{path}, line {number} is not JSON: mend it, for a takedown is never skipped.") from error
        if not _says_something(row):
            raise BadInput(f"{path}, line {number} must name a {', '.join(NAMES[:-1])} or {NAMES[-1]}, each a string.")
        rows.append(row)
    return rows


def _says_something(row: Any) -> bool:
    """Whether a line names what is taken down, or tells of a takedown by its number that it was lifted or purged."""
    if not isinstance(row, dict):
        return False
    named = [row[name] for name in NAMES if row.get(name) is not None]
    told = "undo" in row or "purged" in row
    numbered = all(type(row[name]) is int for name in ABOUT if name in row)
    return numbered and told != bool(named) and all(isinstance(value, str) and value for value in named)


def purged_names(path: Path) -> dict[str, list[str]]:
    """The URLs and hosts, by `url` and `host`, of the takedowns in force that remove what they name for good.

    Hosts are without the brackets of an IPv6 address.
    """
    rows = read_rows(path) if path.is_file() else []
    lifted = {row["undo"] for row in rows if "undo" in row}
    purged = [row for row in rows if row.get("purge") is True and row.get("takedown") not in lifted]
    found = {name: {row[name] for row in purged if row.get(name)} for name in ("url", "host")}
    return {"url": sorted(found["url"]), "host": sorted(host.lower().strip("[]") for host in found["host"])}


def hosts(urls: pa.ChunkedArray) -> pa.ChunkedArray:
    """The host of each URL, in lower case; empty where it has none."""
    found = pc.struct_field(pc.extract_regex(urls, _HOST), "host")
    return pc.utf8_lower(pc.fill_null(found, ""))


def taken_down(urls: pa.ChunkedArray, tombstones: Tombstones) -> NDArray[np.bool_]:
    """Which URLs a tombstone names, by themselves or by their host: bool[rows]."""
    by_url = pc.is_in(urls, pa.array(tombstones.url, pa.string())).to_numpy()
    return np.asarray(by_url | pc.is_in(hosts(urls), pa.array(tombstones.host, pa.string())).to_numpy())


def copies(snapshot: Path, urls: pa.ChunkedArray, texts: pa.ChunkedArray, tombstones: Tombstones) -> NDArray[np.bool_]:
    """Which documents of a snapshot have the payload or the normalised text that a tombstone names: bool[rows]."""
    found = np.zeros(len(urls), np.bool_)
    if tombstones.payload_digest:
        index = read_table(snapshot / URLS_FILE, ["url", "payload_digest"])
        digests = index["payload_digest"].take(pc.index_in(urls, index["url"].combine_chunks()))
        found |= pc.is_in(pc.utf8_lower(digests), pa.array(tombstones.payload_digest)).to_numpy()
    if tombstones.text_hash:
        from pipeline.shingle_kernels import normalised_texts, text_batches
        from pipeline.signatures import hash_texts

        batches = [normalised_texts(batch) for batch in text_batches(texts)]
        hashes = [hashed.hex() for batch in batches for hashed in hash_texts(batch.data, batch.offsets)]
        found |= np.isin(np.array(hashes, "U32"), tombstones.text_hash)
    return found
