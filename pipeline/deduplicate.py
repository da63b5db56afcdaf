"""Which of the selected documents are kept: exact and near duplicates go, for a match that was itself kept.

The selected documents have a total order: how old the URL is in its source (the first snapshot with a document there),
then the canonical URL, then the source's place in the corpus. `pipeline/lsh.py` applies the rule in that order, so the
answer depends neither on how documents are cut into parts nor on who computed what when, and documents at URLs that a
later snapshot adds change no earlier decision. Nothing is remembered from run to run: when an original leaves, its
copies come back.
"""

from collections import OrderedDict
from collections.abc import Callable
from pathlib import Path
from typing import Annotated, Any, Literal, NamedTuple

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray
from pydantic import Field

from pipeline.config import BadInput, Config, execution
from pipeline.documents import DOC_ID, read_table, write_table
from pipeline.lsh import Decisions, Similarity, band_hashes, decide, leaders, shared_buckets
from pipeline.signatures import SHINGLE_WORDS, SIGNATURES_FILE
from pipeline.tombstones import hosts
from pipeline.versions import first_ordinals, part_places

DEDUPLICATE_FILE = "deduplicate.arrow"

LEDGER = pa.schema([("doc_id", DOC_ID), ("keep", pa.bool_()), ("duplicate_of", DOC_ID), ("similarity", pa.float32())])
"""`duplicate_of` and `similarity` are null but for duplicates; rows that were not selected have `keep` false."""

LARGEST_CLUSTERS = 10
MAX_WARNINGS = 20

Progress = Callable[[int, int, str], None]


class DeduplicateConfig(Config):
    """When two documents are the same."""

    threshold: Annotated[float, Field(gt=0, le=1)] = 0.8
    """Jaccard similarity of two documents' shingles from which the later one is a duplicate."""
    bands: Annotated[int, Field(ge=1, le=256)] = 16
    """Bands of a signature; documents with one band in common are compared. A pair of similarity s is compared with
    probability 1 - (1 - s^rows)^bands: 0.95 at 0.8, 0.06 at 0.5 for 16 bands of 8 rows."""
    rows: Annotated[int, Field(ge=1, le=256)] = 8
    """Values in a band; bands x rows is at most `signatures.num_perm`."""
    verify: Literal["text", "signature"] = "text"
    """Whence the similarity of compared documents: exactly from their texts, or estimated from their signatures."""
    cache_mib: int = execution(256, ge=1)
    """Memory for shingles of documents that were compared and may be again, in MiB."""


class Selected(NamedTuple):
    """The selected documents in the rule's order: column i of each array is document i."""

    part: NDArray[np.int32]
    row: NDArray[np.int64]
    url: pa.ChunkedArray
    text_hash: NDArray[np.uint64]  # [documents, 2]
    empty: NDArray[np.bool_]
    bands: NDArray[np.uint64]  # [documents, bands]


def deduplicate(
    *,
    out: Path,
    config: DeduplicateConfig,
    documents: list[Path],
    signatures: list[Path],
    select: list[Path],
    snapshots: list[Path],
    progress: Progress = lambda _done, _total, _unit: None,
) -> dict[str, Any]:
    """Write `part-*/deduplicate.arrow` for every part: doc_id, keep, duplicate_of, similarity.

    Raises `BadInput` where the signatures are too short for the bands, or the parts are not those of the snapshots.
    """
    selected = _selected(config, documents, signatures, select, snapshots)
    leader = leaders(selected.text_hash, selected.empty)
    eligible = (leader == np.arange(len(leader))) & ~selected.empty
    buckets, bucket_count = shared_buckets(selected.bands, eligible)
    if config.verify == "text":
        similarity = _text_similarity(config, documents, signatures, selected)
    else:
        similarity = _signature_similarity(signatures, selected)
    decisions = decide(
        leader,
        buckets,
        bucket_count,
        similarity,
        config.threshold,
        lambda done, all_: progress(done, all_, "documents"),
    )
    _write(out, documents, selected, decisions)
    return _stats(documents, selected, leader, decisions, bucket_count)


def _selected(
    config: DeduplicateConfig, documents: list[Path], signatures: list[Path], select: list[Path], snapshots: list[Path]
) -> Selected:
    places = part_places(snapshots, len(documents))
    urls = [read_table(part / "documents.arrow", ["url"])["url"] for part in documents]
    ages = first_ordinals(places, urls)
    parts, rows, age, chosen_urls = [], [], [], []
    text_hashes, empty, bands = [], [], []
    for part in range(len(documents)):
        keep = np.flatnonzero(read_table(select[part] / "select.arrow", ["keep"])["keep"].to_numpy())
        ledger = read_table(signatures[part] / SIGNATURES_FILE)
        parts.append(np.full(len(keep), part, np.int32))
        rows.append(keep)
        age.append(ages[part][keep])
        chosen_urls.append(urls[part].take(pa.array(keep)))
        empty.append(ledger["shingles"].to_numpy()[keep] == 0)
        text_hashes.append(_hash_columns(ledger["text_hash"])[keep])
        bands.append(band_hashes(_signature_rows(ledger, config)[keep], config.bands, config.rows))
    table = pa.table(
        {
            "age": np.concatenate([np.zeros(0, np.int32), *age]),
            "url": _chain(chosen_urls),
            "source": np.concatenate([np.zeros(0, np.int32), *_of_parts(rows, [place.source for place in places])]),
            "place": np.arange(sum(map(len, rows))),
        }
    )
    ascending = [(name, "ascending") for name in ("age", "url", "source", "place")]
    order = pc.sort_indices(table, sort_keys=ascending).to_numpy()
    return Selected(
        np.concatenate([np.zeros(0, np.int32), *parts])[order],
        np.concatenate([np.zeros(0, np.int64), *rows])[order],
        table["url"].take(pa.array(order)),
        np.concatenate([np.zeros((0, 2), np.uint64), *text_hashes])[order],
        np.concatenate([np.zeros(0, np.bool_), *empty])[order],
        np.concatenate([np.zeros((0, config.bands), np.uint64), *bands])[order],
    )


def _of_parts(rows: list[NDArray[np.int64]], values: list[int]) -> list[NDArray[np.int32]]:
    return [np.full(len(chosen), value, np.int32) for chosen, value in zip(rows, values, strict=True)]


def _chain(columns: list[pa.ChunkedArray]) -> pa.ChunkedArray:
    return pa.chunked_array([chunk for column in columns for chunk in column.chunks], pa.string())


def _hash_columns(column: pa.ChunkedArray) -> NDArray[np.uint64]:
    """A column of 16-byte values as uint64[rows, 2]."""
    values = column.combine_chunks()
    if not len(values):
        return np.zeros((0, 2), np.uint64)
    return np.frombuffer(values.buffers()[1], "<u8").reshape(-1, 2)[values.offset : values.offset + len(values)]


def _signature_rows(ledger: pa.Table, config: DeduplicateConfig | None = None) -> NDArray[np.uint32]:
    """The signatures of a ledger as uint32[rows, num_perm], without a copy."""
    column = ledger["signature"].combine_chunks()
    num_perm = column.type.list_size
    if config and config.bands * config.rows > num_perm:
        raise BadInput(
            f"deduplicate.bands x deduplicate.rows is {config.bands} x {config.rows} = {config.bands * config.rows}, "
            f"but signatures have {num_perm} values: lower one of the two, or raise signatures.num_perm."
        )
    return column.flatten().to_numpy().reshape(-1, num_perm)


def _text_similarity(
    config: DeduplicateConfig, documents: list[Path], signatures: list[Path], selected: Selected
) -> Similarity:
    """Exact Jaccard similarity of two documents' sets of shingles, which are made when first asked for."""
    from pipeline.shingle_kernels import jaccard, ngram_set

    texts = [read_table(part / "documents.arrow", ["text"])["text"] for part in documents]
    words = {int(_metadata(part)[SHINGLE_WORDS.encode()]) for part in signatures}
    if len(words) > 1:
        raise BadInput(f"The signatures were made with shingles of {sorted(words)} words: make them all with the same.")
    budget = config.cache_mib << 20
    cache: OrderedDict[int, NDArray[np.uint64]] = OrderedDict()
    held = 0

    def shingles(document: int) -> NDArray[np.uint64]:
        nonlocal held
        if document in cache:
            cache.move_to_end(document)
            return cache[document]
        content = texts[selected.part[document]][int(selected.row[document])].as_buffer()
        found = ngram_set(np.frombuffer(content, np.uint8), min(words))
        cache[document] = found
        held += found.nbytes
        while held > budget and len(cache) > 1:
            held -= cache.popitem(last=False)[1].nbytes
        return found

    def similarity(document: int, earlier: int) -> float:
        left, right = shingles(document), shingles(earlier)
        bound = min(len(left), len(right)) / max(len(left), len(right))  # sets so unequal cannot be more alike
        return bound if bound < config.threshold else jaccard(left, right)

    return similarity


def _metadata(part: Path) -> dict[bytes, bytes]:
    return read_table(part / SIGNATURES_FILE, ["shingles"]).schema.metadata or {}


def _signature_similarity(signatures: list[Path], selected: Selected) -> Similarity:
    """The share of equal values in two documents' signatures, an unbiased estimate of their Jaccard similarity."""
    values = [_signature_rows(read_table(part / SIGNATURES_FILE, ["signature"])) for part in signatures]

    def similarity(document: int, earlier: int) -> float:
        left, right = (values[selected.part[i]][selected.row[i]] for i in (document, earlier))
        return float(np.mean(left == right))

    return similarity


def _doc_ids(documents: list[Path], selected: Selected) -> pa.ChunkedArray:
    """The ids of the selected documents in order."""
    columns = [read_table(part / "documents.arrow", ["doc_id"])["doc_id"] for part in documents]
    starts = np.cumsum([0, *map(len, columns)])
    everyone = pa.chunked_array([chunk for column in columns for chunk in column.chunks], DOC_ID)
    return everyone.take(pa.array(starts[selected.part] + selected.row))


def _write(out: Path, documents: list[Path], selected: Selected, decisions: Decisions) -> None:
    ids = _doc_ids(documents, selected)
    by_part = np.argsort(selected.part, kind="stable")
    borders = np.searchsorted(selected.part[by_part], np.arange(len(documents) + 1))
    for index, part in enumerate(documents):
        table = read_table(part / "documents.arrow", ["doc_id"])
        chosen = by_part[borders[index] : borders[index + 1]]
        keep = np.zeros(len(table), np.bool_)
        original = np.full(len(table), -1, np.int64)
        similarity = np.zeros(len(table), np.float32)
        keep[selected.row[chosen]] = decisions.original[chosen] < 0
        original[selected.row[chosen]] = decisions.original[chosen]
        similarity[selected.row[chosen]] = decisions.similarity[chosen]
        duplicate_of = ids.take(pa.array(original, mask=original < 0))
        columns = [table["doc_id"], pa.array(keep), duplicate_of, pa.array(similarity, mask=original < 0)]
        folder = out / f"part-{index:05d}"
        folder.mkdir()
        write_table(pa.table(columns, LEDGER), folder / DEDUPLICATE_FILE)


def _stats(
    documents: list[Path], selected: Selected, leader: NDArray[np.int64], decisions: Decisions, buckets: int
) -> dict[str, Any]:
    original = decisions.original
    lost = original >= 0
    exact = int((lost & (leader[original] == leader)).sum())
    return {
        "rows": sum(len(read_table(part / "documents.arrow", ["doc_id"])) for part in documents),
        "selected": len(original),
        "kept": int((~lost).sum()),
        "duplicates": {"exact": exact, "near": int(lost.sum()) - exact},
        "comparisons": decisions.comparisons,
        "buckets": buckets,
        "largest_clusters": _largest_clusters(documents, selected, original),
        "warnings": _warnings(documents, selected, lost),
    }


def _largest_clusters(documents: list[Path], selected: Selected, original: NDArray[np.int64]) -> list[dict[str, Any]]:
    """The kept documents with the most duplicates, each with its first duplicate as an example."""
    duplicates = np.flatnonzero(original >= 0)
    kept, first, counts = np.unique(original[duplicates], return_index=True, return_counts=True)
    largest = np.lexsort((kept, -counts))[:LARGEST_CLUSTERS]
    ids = _doc_ids(documents, selected)
    return [
        {
            "doc_id": ids[int(kept[at])].as_py().hex(),
            "url": selected.url[int(kept[at])].as_py(),
            "size": int(counts[at]) + 1,
            "example": selected.url[int(duplicates[first[at]])].as_py(),
        }
        for at in largest
    ]


def _warnings(documents: list[Path], selected: Selected, lost: NDArray[np.bool_]) -> list[str]:
    """One sentence for each source and host that loses more than half, those that lose most first."""
    columns = [read_table(part / "documents.arrow", ["source"])["source"] for part in documents]
    starts = np.cumsum([0, *map(len, columns)])
    sources = _chain(columns).take(pa.array(starts[selected.part] + selected.row))
    found = []
    for kind, names in (("source", pc.fill_null(sources, "(unnamed)")), ("host", hosts(selected.url))):
        groups = pa.table({"name": names, "lost": pa.array(lost)}).group_by("name")
        counted = groups.aggregate([("lost", "sum"), ("lost", "count")])
        for name, gone, rows in zip(*(counted[c].to_pylist() for c in ("name", "lost_sum", "lost_count")), strict=True):
            if 2 * gone > rows:
                found.append((-gone, kind, name, f"{kind} {name} loses {gone} of {rows} documents as duplicates"))
    sentences = [sentence for *_, sentence in sorted(found)]
    more = len(sentences) - MAX_WARNINGS
    return sentences if more <= 0 else [*sentences[:MAX_WARNINGS], f"{more} more hosts or sources lose more than half"]
