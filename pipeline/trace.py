"""Where a token came from, and what became of a page: every decision on it, read from the ledgers of one run.

Everything is found again in the artifacts themselves; nothing is kept for it.
"""

import unicodedata
from bisect import bisect_right
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from pipeline.config import BadInput
from pipeline.corpus import LEDGER_FILES, PACKED, Corpus
from pipeline.crawl.seal import INDEX
from pipeline.crawl.urls import canonical_url
from pipeline.documents import read_table
from pipeline.shards import SPLITS, Encoding, Split, dtype_for, ids_path, index_path, load_encoding, read_ids
from pipeline.tokenize import PII

Row = dict[str, Any]

CONTEXT_TOKENS = 32
"""Tokens shown before and after the one asked for, within its document."""

NAMED_COPIES = 20
"""Documents dropped for a kept one that are named; all are counted."""


class Place(NamedTuple):
    """A document: its part and its row in it."""

    part: int
    row: int


def places_of_url(corpus: Corpus, url: str) -> list[Place]:
    """The documents, one a version, at this URL as it is given or in its canonical form."""
    spellings = pa.array(sorted({url, canonical_url(url) or url}), pa.string())
    found = []
    for part in range(len(corpus)):
        urls = corpus.documents(part, ["url"])["url"]
        found += [Place(part, row) for row in _rows(pc.is_in(urls, spellings))]
    return found


def place_of_id(corpus: Corpus, doc_id: bytes) -> Place | None:
    """The document of that id."""
    wanted = pa.scalar(doc_id, pa.binary(16))
    for part in range(len(corpus)):
        row = pc.index(corpus.documents(part, ["doc_id"])["doc_id"], wanted).as_py()
        if row >= 0:
            return Place(part, row)
    return None


def place_of_token(corpus: Corpus, split: Split, token: int) -> tuple[Place, Row]:
    """The document that holds a token of a split's stream, and the token itself with its neighbours.

    Raises `BadInput` outside the stream.
    """
    borders = corpus.borders(split)
    if not 0 <= token < borders[-1]:
        raise BadInput(f"There is no token {token:,} in {split}, which has {borders[-1]:,}: they count from 0.")
    part = bisect_right(borders, token) - 1
    folder, offset = corpus.folder(PACKED, part), token - borders[part]
    index = read_table(index_path(folder, split))
    document = int(np.searchsorted(index["start"].to_numpy(), offset, side="right")) - 1
    start, length = index["start"][document].as_py(), index["length"][document].as_py()
    ids = read_ids(ids_path(folder, split), dtype_for(corpus.vocab_size()))
    encoding = load_encoding(corpus.artifacts["tokenizer"].path)
    before = ids[max(start, offset - CONTEXT_TOKENS) : offset].tolist()
    after = ids[offset + 1 : min(start + length, offset + 1 + CONTEXT_TOKENS)].tolist()
    row = pc.index(corpus.documents(part, ["doc_id"])["doc_id"], index["doc_id"][document]).as_py()
    return Place(part, row), {
        "split": split,
        "token": token,
        "id": int(ids[offset]),
        "text": encoding.decode([int(ids[offset])]),
        "token_of_document": offset - start,
        "before": encoding.decode(before),
        "after": encoding.decode(after),
    }


def places_of_text(corpus: Corpus, text: str, limit: int) -> tuple[list[tuple[Place, list[Row]]], int]:
    """The first `limit` documents that hold a text, each with where its tokens stand; and how many there are in all.

    Looked for as it stands in documents; where none has it, in what was packed, which differs from them by the
    placeholders of personal data.
    """
    text = unicodedata.normalize("NFC", text)
    if not text.strip():
        raise BadInput("--text needs some text to look for.")
    holders = list(_in_documents(corpus, text)) or list(_in_packed(corpus, text))
    return [(place, _tokens_of_text(corpus, place, text)) for place in holders[:limit]], len(holders)


def _in_documents(corpus: Corpus, text: str) -> Iterator[Place]:
    for part in range(len(corpus)):
        texts = corpus.documents(part, ["text"])["text"]
        yield from (Place(part, row) for row in _rows(pc.match_substring(texts, text)))


def _in_packed(corpus: Corpus, text: str) -> Iterator[Place]:
    if PACKED not in corpus.artifacts:
        return
    encoding, dtype = load_encoding(corpus.artifacts["tokenizer"].path), dtype_for(corpus.vocab_size())
    wanted = text.encode()
    for part in range(len(corpus)):
        doc_ids = corpus.documents(part, ["doc_id"])["doc_id"]
        for split in SPLITS:
            folder = corpus.folder(PACKED, part)
            ids = read_ids(ids_path(folder, split), dtype)
            for row in read_table(index_path(folder, split), ["doc_id", "start", "length"]).to_pylist():
                if wanted in b"".join(_pieces(encoding, ids, row["start"], row["length"])):
                    yield Place(part, pc.index(doc_ids, pa.scalar(row["doc_id"], pa.binary(16))).as_py())


def _pieces(encoding: Encoding, ids: npt.NDArray[Any], start: int, length: int) -> list[bytes]:
    """The bytes of each token of a document, the end-of-text after it left out."""
    return [encoding.decode_single_token_bytes(token) for token in ids[start : start + length - 1].tolist()]


def _tokens_of_text(corpus: Corpus, place: Place, text: str) -> list[Row]:
    """The tokens that hold each occurrence of a text in a document, as ranges of its split's stream."""
    ranges = token_ranges(corpus, place)
    if not ranges:
        return []
    where, wanted = ranges[0], text.encode()
    encoding = load_encoding(corpus.artifacts["tokenizer"].path)
    ids = read_ids(ids_path(corpus.folder(PACKED, place.part), where["split"]), dtype_for(corpus.vocab_size()))
    pieces = _pieces(encoding, ids, where["start"], where["length"])
    utf8, ends = b"".join(pieces), np.cumsum([len(piece) for piece in pieces])
    found, at = [], utf8.find(wanted)
    while at >= 0:
        first = int(np.searchsorted(ends, at, side="right"))
        last = int(np.searchsorted(ends, at + len(wanted), side="left"))
        found.append({"split": where["split"], "token": where["token"] + first, "tokens": last - first + 1})
        at = utf8.find(wanted, at + len(wanted))
    return found


def token_ranges(corpus: Corpus, place: Place) -> list[Row]:
    """Where a document's ids stand: in the stream of its split, and in its shard's file; end-of-text included."""
    if PACKED not in corpus.artifacts:
        return []
    doc_id = corpus.documents(place.part, ["doc_id"])["doc_id"][place.row]
    folder = corpus.folder(PACKED, place.part)
    found = []
    for split in SPLITS:
        index = read_table(index_path(folder, split), ["doc_id", "start", "length"])
        for row in _rows(pc.equal(index["doc_id"], doc_id)):
            start, length = index["start"][row].as_py(), index["length"][row].as_py()
            begins = corpus.borders(split)[place.part] + start
            file = str(ids_path(folder, split))
            found.append({"split": split, "token": begins, "length": length, "file": file, "start": start})
    return found


def document(corpus: Corpus, place: Place) -> Row:
    """All that a run knows of a document, as plain JSON."""
    part, row = place
    table = corpus.documents(part, ["doc_id", "url", "source", "language_declared", "license", "title"])
    facts: Row = table.slice(row, 1).to_pylist()[0]
    fate = corpus.fates(part, texts=False).slice(row, 1).to_pylist()[0]
    snapshot = corpus.snapshot_folder(part)
    visit = None if snapshot is None else _visit(snapshot, facts["url"])
    return {
        **facts,
        "doc_id": facts["doc_id"].hex(),
        "snapshot": corpus.snapshot_of(part),
        "fetched_at": visit and (visit["stored_at"] or visit["fetched_at"]),
        "license": facts["license"] or (visit and visit["license"]),
        "stage": fate["stage"],
        "reason": fate["reason"],
        "ledgers": _ledgers(corpus, place),
        "copies": _copies(corpus, facts["doc_id"]),
        "tokens": token_ranges(corpus, place),
    }


def _ledgers(corpus: Corpus, place: Place) -> Row:
    """The document's row of each ledger of the run."""
    found: Row = {}
    for stage, file in LEDGER_FILES.items():
        if stage in corpus.artifacts:
            row = read_table(corpus.folder(stage, place.part) / file).slice(place.row, 1).to_pylist()[0]
            found[stage] = {name: value for name, value in row.items() if name != "doc_id"}
    if "tokenize" in found:
        counts = read_table(corpus.folder("tokenize", place.part) / "pii.arrow").slice(place.row, 1).to_pylist()[0]
        found["tokenize"]["pii"] = {kind: counts[kind] for kind in PII.names[1:] if counts[kind]}
    if "select" in found:
        found["select"] |= _cut_off(corpus, found["select"]["reason"], found.get("quality", {}))
    if "deduplicate" in found:
        original = found["deduplicate"]["duplicate_of"]
        kept = None if original is None else place_of_id(corpus, original)
        url = None if kept is None else corpus.documents(kept.part, ["url"])["url"][kept.row].as_py()
        found["deduplicate"] |= {"duplicate_of": original and original.hex(), "duplicate_of_url": url}
    return found


def _cut_off(corpus: Corpus, reason: str | None, scores: Row) -> Row:
    """The score and the bounds behind a quality reason."""
    rule, _, column = (reason or "").partition(":")
    if rule != "quality":
        return {}
    policy = corpus.artifacts["select"].manifest["key_document"]["config"]
    bounds = {bound: policy[f"{bound}_{column}"] for bound in ("min", "max") if f"{bound}_{column}" in policy}
    return {"score": scores.get(column), **bounds}


def _copies(corpus: Corpus, doc_id: bytes) -> Row:
    """The documents that were dropped as duplicates of this one."""
    count, named = 0, list[Row]()
    if "deduplicate" in corpus.artifacts:
        wanted = pa.scalar(doc_id, pa.binary(16))
        for part in range(len(corpus)):
            ledger = read_table(corpus.folder("deduplicate", part) / LEDGER_FILES["deduplicate"])
            rows = _rows(pc.equal(ledger["duplicate_of"], wanted))
            count += len(rows)
            if rows and len(named) < NAMED_COPIES:
                urls = corpus.documents(part, ["url"])["url"]
                named += [{"url": urls[row].as_py(), "similarity": ledger["similarity"][row].as_py()} for row in rows]
    return {"count": count, "named": named[:NAMED_COPIES]}


def visits(corpus: Corpus, url: str) -> list[Row]:
    """What came of a URL in each snapshot of the run, oldest first, as the url indexes say; redirects from it too."""
    spellings = {url, canonical_url(url) or url}
    found = []
    for snapshot in corpus.snapshots:
        rows = [visit for spelling in sorted(spellings) if (visit := _visit(snapshot, spelling))]
        found += [{"snapshot": f"{snapshot.parent.name}/{snapshot.name}", **row} for row in rows]
    return found


def rejects(corpus: Corpus, url: str) -> list[Row]:
    """The pages at a URL that gave no document, and why."""
    spellings = pa.array(sorted({url, canonical_url(url) or url}), pa.string())
    found = []
    for part in range(len(corpus)):
        table = corpus.rejects(part).select(["url", "snapshot", "reason", "detail"])
        found += table.filter(pc.is_in(table["url"], spellings)).to_pylist()
    return found


_VISIT = ("url", "requested_url", "status", "outcome", "detail", "fetched_at", "stored_at", "robots", "tdm_reserved")
_VISIT_MORE = ("license", "payload_digest", "etag", "last_modified", "content_type", "part", "offset", "length")


def _visit(snapshot: Path, url: str) -> Row | None:
    """The row of a URL in a snapshot's index, times as ISO 8601; None where it was not met."""
    index = read_table(snapshot / INDEX, [*_VISIT, *_VISIT_MORE])
    row = pc.index(index["url"], url).as_py()
    if row < 0:
        return None
    found = index.select([*_VISIT, *_VISIT_MORE]).slice(row, 1).to_pylist()[0]
    times = {name: found[name] and found[name].isoformat() for name in ("fetched_at", "stored_at")}
    return {**found, **times}


def _rows(mask: Any) -> list[int]:
    return np.flatnonzero(pc.fill_null(mask, False).to_numpy(zero_copy_only=False)).tolist()
