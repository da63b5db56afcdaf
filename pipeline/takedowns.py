"""Taking pages down: what a takedown names, what else has the same content, and the list that only grows.

A takedown names URLs or a host, so that no edit of a page brings it back, and the digests of what stood there in any
version, so that copies at other addresses go too. It withholds; only `pipeline/purge.py` removes.
"""

import json
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from pipeline.corpus import LEDGER_FILES, Corpus
from pipeline.crawl.seal import INDEX
from pipeline.documents import read_table
from pipeline.engine import locks
from pipeline.engine.lineage import lineage
from pipeline.engine.store import Store, write_atomically
from pipeline.shards import SPLITS, index_path
from pipeline.tombstones import NAMES, Tombstones, copies, hosts, read_rows, taken_down

Row = dict[str, Any]


class Shard(NamedTuple):
    """A part of documents in a store, and the folder of the snapshot that it was made from."""

    folder: Path
    snapshot: Path


class Document(NamedTuple):
    """A document that a takedown reaches: `copy` where not its own URL or host is named."""

    doc_id: bytes
    url: str
    snapshot: Path
    copy: bool


def document_shards(store: Store) -> list[Shard]:
    """Every part of documents that an artifact in the store refers to, once for each snapshot with just these pages."""
    found: set[Shard] = set()
    for manifest in store.manifests("extract"):
        for part in store.from_manifest(manifest).parts:
            if (part.folder / "documents.arrow").is_file():
                found.add(Shard(part.folder, store.root / "snapshots" / part.snapshot))
    return sorted(found)


def redirect_targets(store: Store, urls: list[str]) -> set[str]:
    """Where these URLs led when they were crawled."""
    asked = pa.array(urls, pa.string())
    found: set[str] = set()
    for index in sorted((store.root / "snapshots").glob(f"*/[0-9]*/{INDEX}")):
        table = read_table(index, ["url", "requested_url"])
        found |= set(table["url"].filter(pc.is_in(table["requested_url"], asked)).to_pylist())
    return found


def with_digests(store: Store, named: Tombstones) -> Tombstones:
    """What is named by URL or host, and the payload and text digests of all its versions in the store."""
    payloads: set[str] = set()
    for index in sorted((store.root / "snapshots").glob(f"*/[0-9]*/{INDEX}")):
        table = read_table(index, ["url", "payload_digest"])
        table = table.filter(pa.array(taken_down(table["url"], named)))
        payloads |= {digest.lower() for digest in table["payload_digest"].drop_null().to_pylist()}
    texts: set[str] = set()
    for shard in document_shards(store):
        texts |= set(_text_hashes(shard, named))
    return named._replace(payload_digest=sorted(payloads), text_hash=sorted(texts))


def _text_hashes(shard: Shard, named: Tombstones) -> Iterator[str]:
    """The hashes of the normalised texts of what is named; none of texts without a word, which are all alike."""
    from pipeline.shingle_kernels import normalised_texts, text_batches
    from pipeline.signatures import hash_texts

    rows = np.flatnonzero(taken_down(read_table(shard.folder / "documents.arrow", ["url"])["url"], named))
    if len(rows):
        texts = read_table(shard.folder / "documents.arrow", ["text"])["text"].take(pa.array(rows))
        for batch in map(normalised_texts, text_batches(texts)):
            hashes = hash_texts(batch.data, batch.offsets)
            yield from (hashes[row].hex() for row in np.flatnonzero(np.diff(batch.offsets)))


def reached(shards: list[Shard], stones: Tombstones) -> dict[Path, list[Document]]:
    """The documents in these shards that tombstones name, and their copies, by the shard's folder."""
    found: dict[Path, list[Document]] = {}
    for shard in shards:
        named, copied = _masks(shard, stones)
        rows = np.flatnonzero(named | copied)
        if len(rows):
            table = read_table(shard.folder / "documents.arrow", ["doc_id", "url"]).take(pa.array(rows))
            columns = (*(column.to_pylist() for column in table.columns), rows.tolist())
            found.setdefault(shard.folder, []).extend(
                Document(doc_id, url, shard.snapshot, not named[row]) for doc_id, url, row in zip(*columns, strict=True)
            )
    return found


def _masks(shard: Shard, stones: Tombstones) -> tuple[NDArray[np.bool_], NDArray[np.bool_]]:
    """Which rows of a shard's documents are named, and which are copies of what is."""
    urls = read_table(shard.folder / "documents.arrow", ["url"])["url"]
    named = taken_down(urls, stones)
    if not (shard.snapshot / INDEX).is_file():
        stones = stones._replace(payload_digest=[])
    if not (stones.payload_digest or stones.text_hash):
        return named, np.zeros_like(named)
    texts = read_table(shard.folder / "documents.arrow", ["text"])["text"]
    return named, copies(shard.snapshot, urls, texts, stones)


def urls_of_id(shards: list[Shard], doc_id: bytes) -> list[str]:
    """The URL of the document with that id, as a list of it alone; an empty one where no shard has it."""
    wanted = pa.scalar(doc_id, pa.binary(16))
    found: set[str] = set()
    for shard in shards:
        table = read_table(shard.folder / "documents.arrow", ["doc_id", "url"])
        found |= set(table["url"].filter(pc.equal(table["doc_id"], wanted)).to_pylist())
    return sorted(found)


def near_copies(store: Store, doc_ids: set[bytes]) -> list[Row]:
    """Documents that deduplication found to match these, and that no digest finds; with these gone, one comes back.

    Each with its URL and the greatest similarity found, by all results of deduplication that the store still has.
    """
    found: dict[str, float] = {}
    for manifest in store.manifests("deduplicate"):
        made_from = lineage(store, manifest)
        if "extract" in made_from:
            for url, similarity in _kin(Corpus(made_from, ()), doc_ids):
                found[url] = max(found.get(url, 0.0), similarity)
    return [{"url": url, "similarity": found[url]} for url in sorted(found)]


def _kin(corpus: Corpus, doc_ids: set[bytes]) -> Iterator[tuple[str, float]]:
    """URL and similarity of the other documents that have an original in common with these, originals included."""
    known = pa.array(sorted(doc_ids), pa.binary(16))
    ledgers = [
        read_table(corpus.folder("deduplicate", part) / LEDGER_FILES["deduplicate"]) for part in range(len(corpus))
    ]
    originals: set[bytes] = set()
    for ledger in ledgers:
        originals |= set(ledger["duplicate_of"].filter(pc.is_in(ledger["doc_id"], known)).drop_null().to_pylist())
    kin = pa.array(sorted(doc_ids | originals), pa.binary(16))
    for part, ledger in enumerate(ledgers):
        near = pc.or_(pc.is_in(ledger["duplicate_of"], kin), pc.is_in(ledger["doc_id"], kin))
        rows = np.flatnonzero(pc.and_(near, pc.invert(pc.is_in(ledger["doc_id"], known))).to_numpy())
        if len(rows):
            urls = corpus.documents(part, ["url"])["url"]
            for row in rows.tolist():
                yield urls[row].as_py(), ledger["similarity"][row].as_py() or 1.0


def trained_on(store: Store, documents: dict[Path, list[Document]]) -> list[Row]:
    """The checkpoints in the store with such documents among their shards: key, and documents and tokens by split.

    `shards` is false where a checkpoint's shards are no longer there, so that nobody can tell. `from` is the key of the
    checkpoint that trained on them where only one did from whose weights this one was trained further.
    """
    found: list[Row] = []
    starts: dict[str, str | None] = {}
    for manifest in store.manifests("pretrain"):
        starts[manifest["key"]] = manifest["inputs"].get("start", {}).get("key")
        made_from = lineage(store, manifest)
        if "pack" not in made_from or "extract" not in made_from:  # a purge took them
            found.append({"key": manifest["key"], "shards": False})
            continue
        counts: dict[str, dict[str, int]] = {split: {"documents": 0, "tokens": 0} for split in SPLITS}
        for packed, extracted in zip(made_from["pack"].parts, made_from["extract"].parts, strict=True):
            ids = pa.array({document.doc_id for document in documents.get(extracted.folder, ())}, pa.binary(16))
            for split in SPLITS if len(ids) else ():
                index = read_table(index_path(packed.folder, split), ["doc_id", "length"])
                lengths = index["length"].filter(pc.is_in(index["doc_id"], ids))
                counts[split]["documents"] += len(lengths)
                counts[split]["tokens"] += int(lengths.to_numpy().sum())
        if any(count["documents"] for count in counts.values()):
            found.append({"key": manifest["key"], "shards": True, **counts})
    further = _trained_further(starts, {row["key"]: row for row in found if row["shards"]})
    known = {row["key"] for row in further}
    return [row for row in found if row["key"] not in known] + further


def _trained_further(starts: dict[str, str | None], trained: dict[str, Row]) -> list[Row]:
    """Rows for the checkpoints of `starts`, by key what each started from, that descend from a `trained` one."""
    found = []
    for key in starts.keys() - trained.keys():
        start = starts[key]
        while start is not None and start not in trained:
            start = starts.get(start)
        if start is not None:
            found.append({**trained[start], "key": key, "from": start})
    return sorted(found, key=lambda row: str(row["key"]))


def takedowns(path: Path) -> list[Row]:
    """The list, a row a takedown in their order: what it names, when and why, and whether it was lifted or purged."""
    found: dict[Any, Row] = {}
    for place, row in enumerate(read_rows(path) if path.is_file() else []):
        for name in ("undo", "purged"):
            if row.get(name) in found:
                found[row[name]][name] = {key: value for key, value in row.items() if key != name}
        if any(row.get(name) is not None for name in NAMES):
            # A line without a number was written by hand: it stands for itself.
            number = row.get("takedown")
            added = found.setdefault(
                f"line {place}" if number is None else number,
                {"takedown": number, "at": None, "reason": None, "url": [], "host": [], "digests": 0},
            )
            added |= {name: row[name] for name in ("at", "reason", "purge", "checkpoints") if name in row}
            for name in ("url", "host"):
                added[name] += [row[name]] if row.get(name) else []
            added["digests"] += sum(row.get(name) is not None for name in ("payload_digest", "text_hash"))
    return list(found.values())


def naming(path: Path, urls: list[str]) -> list[Row]:
    """The takedowns in force that name one of these URLs or its host."""
    names = {"url": set(urls), "host": set(hosts(pa.chunked_array([pa.array(urls, pa.string())])).to_pylist())}
    return [
        row
        for row in takedowns(path)
        if "undo" not in row and any(names[name].intersection(row[name]) for name in ("url", "host"))
    ]


def record(store: Store, named: Tombstones, facts: Row) -> int:
    """Add a takedown to the list: a line for each name, which carry the facts, and one for each digest; its number."""
    with _list_held(store):
        earlier = takedowns(store.tombstones)
        number = max((row["takedown"] or 0 for row in earlier), default=0) + 1
        rows = [
            {"takedown": number, name: value, **facts} for name in ("url", "host") for value in getattr(named, name)
        ]
        rows += [{"takedown": number, name: value} for name in NAMES[2:] for value in getattr(named, name)]
        _append(store, rows)
    return number


def tell(store: Store, row: Row) -> None:
    """Add a line about an earlier takedown: that it is lifted, or was purged."""
    with _list_held(store):
        _append(store, [row])


def now() -> str:
    """The time as the list has it."""
    return time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime())


def _list_held(store: Store) -> Any:
    return locks.held(store.root / "locks" / "tombstones.lock")


def _append(store: Store, rows: list[Row]) -> None:
    """Add lines, all or none: the file is written anew beside itself, its old lines as they were."""
    old = store.tombstones.read_text(encoding="utf-8") if store.tombstones.is_file() else ""
    old += "\n" if old and not old.endswith("\n") else ""
    write_atomically(store.tombstones, old + "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows))
