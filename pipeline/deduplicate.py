"""Which of the selected documents are kept: exact and near duplicates go, for a match that was itself kept.

The selected documents have a total order (`pipeline/dedup/order.py`): how old the URL is in its source, then the
canonical URL, then the source's place in the corpus. A document is kept unless an *earlier kept* one matches it: the
same normalised text, or a band of the signature in common and a verified similarity at or above the threshold. So the
answer depends neither on how documents are cut into parts nor on who computed what when, and documents at URLs that a
later snapshot adds change no earlier decision. Nothing is remembered from run to run: when an original leaves, its
copies come back. `pipeline/dedup/reference.py` states the rule in plain Python.
"""

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal, NamedTuple

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray
from pydantic import Field

from pipeline.config import BadInput, Config, execution
from pipeline.documents import DOC_ID, write_table
from pipeline.signatures import SHINGLE_WORDS, SIGNATURES_FILE

if TYPE_CHECKING:
    from pipeline.dedup.order import Selected

DEDUPLICATE_FILE = "deduplicate.arrow"

LEDGER = pa.schema([("doc_id", DOC_ID), ("keep", pa.bool_()), ("duplicate_of", DOC_ID), ("similarity", pa.float32())])
"""`duplicate_of` and `similarity` are null but for duplicates; rows that were not selected have `keep` false."""

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
    memory_mib: int = execution(512, ge=1)
    """Memory in MiB for hashes of bands and then for what is compared; where it is short, signatures and texts are
    read more often. Beside it a selected document takes about 100 bytes with its URL, and 12 a band that it shares."""


class Decisions(NamedTuple):
    """By rank: `original[i]` is the rank of the first match, -1 where document i is kept; `similarity[i]` is theirs."""

    original: NDArray[np.int32]
    similarity: NDArray[np.float32]


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
    from pipeline.dedup.buckets import first_of_each, shared_buckets, signature_rows
    from pipeline.dedup.matches import find_matches, shingle_loader, signature_loader
    from pipeline.dedup.order import rule_order
    from pipeline.dedup.stats import largest_clusters, warnings

    selected = rule_order(documents, select, snapshots)
    text_hashes, shingles, words = _text_hashes(signatures, selected)
    everyone = np.arange(len(selected), dtype=np.int32)
    leader = np.where(shingles == 0, everyone, first_of_each(text_hashes))
    del text_hashes
    memory = config.memory_mib << 20
    # Only the first document of each text is compared: its exact copies share its matches and its fate.
    eligible = (leader == everyone) & (shingles > 0)
    buckets = shared_buckets(signatures, selected, eligible, config.bands, config.rows, memory)
    exact = config.verify == "text"
    if exact:
        sizes = shingles[buckets.ranks].astype(np.int64)
        load = shingle_loader(documents, selected, buckets.ranks, sizes, words)
    else:
        num_perm = max((signature_rows(part).shape[1] for part in signatures), default=0)
        sizes = np.full(len(buckets.ranks), num_perm)
        load = signature_loader(signatures, selected, buckets.ranks, num_perm)
    matches = find_matches(
        buckets,
        sizes,
        load,
        exact,
        config.threshold,
        memory,
        lambda done, all_: progress(done, all_, "documents"),
    )
    decisions = _with_copies(leader, buckets.ranks, matches.original, matches.similarity)
    rows = _write(out, documents, selected, decisions)
    lost = decisions.original >= 0
    exactly = int((lost & (leader[decisions.original] == leader)).sum())
    return {
        "rows": rows,
        "selected": len(selected),
        "kept": int((~lost).sum()),
        "duplicates": {"exact": exactly, "near": int(lost.sum()) - exactly},
        "comparisons": matches.comparisons,
        "buckets": len(buckets.sizes),
        "largest_bucket": int(buckets.sizes.max(initial=0)),
        "most_kept_in_a_bucket": matches.fullest,
        "largest_clusters": largest_clusters(documents, selected, decisions.original, decisions.similarity),
        "warnings": warnings(documents, selected, lost),
    }


def _text_hashes(signatures: list[Path], selected: "Selected") -> tuple[NDArray[np.uint64], NDArray[np.int32], int]:
    """By rank the hashes of the normalised texts, uint64[2, documents], and the numbers of shingles; words of one."""
    hashes, shingles = np.empty((2, len(selected)), np.uint64), np.empty(len(selected), np.int32)
    from pipeline.dedup.order import mapped

    ranks = selected.ranks()
    words = set()
    for part, folder in enumerate(signatures):
        here = slice(selected.starts[part], selected.starts[part + 1])
        ledger = mapped(folder / SIGNATURES_FILE, ["text_hash", "shingles"])
        hashes[:, ranks[here]] = _pairs(ledger["text_hash"])[selected.rows[here]].T
        shingles[ranks[here]] = ledger["shingles"].to_numpy()[selected.rows[here]]
        words.add(int((ledger.schema.metadata or {})[SHINGLE_WORDS.encode()]))
    if len(words) > 1:
        raise BadInput(f"The signatures were made with shingles of {sorted(words)} words: make them all with the same.")
    return hashes, shingles, max(words, default=1)


def _pairs(column: pa.ChunkedArray) -> NDArray[np.uint64]:
    """A column of 16-byte values as uint64[rows, 2]."""
    from pipeline.dedup.order import whole

    values = whole(column)
    if not len(values):
        return np.zeros((0, 2), np.uint64)
    return np.frombuffer(values.buffers()[1], "<u8").reshape(-1, 2)[values.offset : values.offset + len(values)]


def _with_copies(
    leader: NDArray[np.int32], ranks: NDArray[np.int64], original: NDArray[np.int32], similarity: NDArray[np.float32]
) -> Decisions:
    """The decisions on all documents, from those on the ones in buckets, which have these ranks."""
    originals, similarities = np.full(len(leader), -1, np.int32), np.zeros(len(leader), np.float32)
    originals[ranks] = np.where(original < 0, -1, ranks[original]) if len(ranks) else -1
    similarities[ranks] = similarity
    copies = np.flatnonzero(leader != np.arange(len(leader)))
    first = leader[copies]
    lost = originals[first] >= 0
    originals[copies] = np.where(lost, originals[first], first)
    similarities[copies] = np.where(lost, similarities[first], np.float32(1))
    return Decisions(originals, similarities)


def _write(out: Path, documents: list[Path], selected: "Selected", decisions: Decisions) -> int:
    """Write the ledger of every part; the number of rows in all."""
    from pipeline.dedup.order import mapped

    ranks = selected.ranks()
    ids = np.empty((len(selected), 2), np.uint64)
    for part, folder in enumerate(documents):
        here = slice(selected.starts[part], selected.starts[part + 1])
        ids[ranks[here]] = _pairs(mapped(folder / "documents.arrow", ["doc_id"])["doc_id"])[selected.rows[here]]
    total = 0
    for part, source in enumerate(documents):
        here = slice(selected.starts[part], selected.starts[part + 1])
        rows, own_ids = selected.rows[here], mapped(source / "documents.arrow", ["doc_id"])["doc_id"]
        original, similarity = np.full(len(own_ids), -1, np.int64), np.zeros(len(own_ids), np.float32)
        original[rows], similarity[rows] = decisions.original[ranks[here]], decisions.similarity[ranks[here]]
        keep = np.zeros(len(own_ids), np.bool_)
        keep[rows] = original[rows] < 0
        lost = original >= 0
        names = pa.FixedSizeBinaryArray.from_buffers(DOC_ID, lost.sum(), [None, pa.py_buffer(ids[original[lost]])])
        duplicate_of = names.take(pa.array(np.cumsum(lost) - 1, mask=~lost))
        folder = out / f"part-{part:05d}"
        folder.mkdir()
        columns = [own_ids, pa.array(keep), duplicate_of, pa.array(similarity, mask=~lost)]
        write_table(pa.table(columns, LEDGER), folder / DEDUPLICATE_FILE)
        total += len(own_ids)
    return total
