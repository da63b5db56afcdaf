"""What deduplication tells of itself: the largest clusters with their texts, and who loses more than half."""

from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from pipeline.dedup.order import Selected, mapped
from pipeline.dedup.urls import starts_anew
from pipeline.pii import PiiConfig, find_pii
from pipeline.shingle_kernels import texts_of
from pipeline.tombstones import hosts

LARGEST_CLUSTERS = 10
MAX_WARNINGS = 20
EXCERPT_CHARACTERS = 400
"""What is shown of a text."""
CHARACTERS_BEFORE = 80
"""What is shown of it before the first difference."""
CHARACTERS_SEEN_AROUND = 100
"""What is looked at beyond both ends of an excerpt; personal data is seldom longer."""
PLACEHOLDERS = PiiConfig()


def largest_clusters(
    documents: list[Path], selected: Selected, original: NDArray[np.int32], similarity: NDArray[np.float32]
) -> list[dict[str, Any]]:
    """The kept documents with the most duplicates, each with its first duplicate as an example, given by rank.

    `kept_text` and `removed_text` are excerpts of the two from shortly before their first difference.
    """
    counts = np.bincount(original[original >= 0], minlength=len(original))
    kept = np.flatnonzero(counts)
    kept = kept[np.argsort(-counts[kept], kind="stable")[:LARGEST_CLUSTERS]]
    first = np.array([np.argmax(original == rank) for rank in kept], np.int64)
    columns = {
        (name, which): selected.take(documents, "documents.arrow", name, ranks)
        for name in ("doc_id", "url", "text")
        for which, ranks in (("kept", kept), ("first", first))
    }
    found = []
    for place, rank in enumerate(kept.tolist()):
        texts = excerpts(columns["text", "kept"][place], columns["text", "first"][place])
        found.append(
            {
                "doc_id": columns["doc_id", "kept"][place].hex(),
                "url": columns["url", "kept"][place],
                "size": int(counts[rank]) + 1,
                "example": columns["url", "first"][place],
                "similarity": float(similarity[first[place]]),
                "kept_text": texts[0],
                "removed_text": texts[1],
            }
        )
    return found


def excerpts(left: str, right: str) -> tuple[str, str]:
    """Both texts from shortly before their first difference, cut to `EXCERPT_CHARACTERS`; the same part of equals.

    Personal data is replaced: excerpts go into manifests and reports.
    """
    same, end = 0, min(len(left), len(right))
    while same < end:
        middle = (same + end + 1) // 2
        if left[same:middle] == right[same:middle]:
            same = middle
        else:
            end = middle - 1
    start = 0 if left == right else max(same - CHARACTERS_BEFORE, 0)
    return _excerpt(left, start), _excerpt(right, start)


def _excerpt(text: str, start: int) -> str:
    end = min(start + EXCERPT_CHARACTERS, len(text))
    ends = "…" if start else "", "…" if end < len(text) else ""
    # What an edge cuts through is recognised only from beyond it, and is left out whole.
    seen = max(start - CHARACTERS_SEEN_AROUND, 0)
    pieces: list[str] = []
    for found in find_pii(text[seen : end + CHARACTERS_SEEN_AROUND]):
        first, last = seen + found.start, seen + found.end
        if last <= start or first >= end:
            continue
        if first < start:
            start = min(last, end)
        elif last > end:
            end = first
        else:
            pieces += (text[start:first], getattr(PLACEHOLDERS, found.kind))
            start = last
    return ends[0] + "".join(pieces) + text[start:end] + ends[1]


def warnings(documents: list[Path], selected: Selected, lost: NDArray[np.bool_]) -> list[str]:
    """One sentence for each source and host that loses more than half of its selected documents, worst first.

    `lost` tells by rank who is a duplicate.
    """
    ranks = selected.ranks()
    counts: dict[tuple[str, str], list[int]] = {}
    for part, folder in enumerate(documents):
        here = slice(selected.starts[part], selected.starts[part + 1])
        rows = selected.rows[here]
        if not len(rows):
            continue
        table = mapped(folder / "documents.arrow", ["url", "source"])
        gone = lost[ranks[here]]
        sources = pc.fill_null(table["source"], "(unnamed)").take(pa.array(rows))
        grouped = (
            pa.table({"name": sources, "lost": gone}).group_by("name").aggregate([("lost", "sum"), ("lost", "count")])
        )
        for name, *added in zip(*(grouped[c].to_pylist() for c in ("name", "lost_sum", "lost_count")), strict=True):
            _add(counts, ("source", name), *added)
        urls = table["url"].take(pa.array(rows))
        # Neighbours are mostly of one host, whose name then is worked out once.
        heads = np.flatnonzero(starts_anew(*texts_of(urls)))
        names = hosts(urls.take(pa.array(heads))).to_pylist()
        losses = np.add.reduceat(gone, heads, dtype=np.int64)
        for name, *added in zip(names, losses.tolist(), np.diff(heads, append=len(rows)).tolist(), strict=True):
            _add(counts, ("host", name), *added)
    worst = sorted((-gone, *who, rows) for who, (gone, rows) in counts.items() if 2 * gone > rows)
    sentences = [
        f"{kind} {name or '(none)'} loses {-gone} of {rows} documents as duplicates" for gone, kind, name, rows in worst
    ]
    more = len(sentences) - MAX_WARNINGS
    return sentences if more <= 0 else [*sentences[:MAX_WARNINGS], f"{more} more hosts or sources lose more than half"]


def _add(counts: dict[tuple[str, str], list[int]], who: tuple[str, str], gone: int, rows: int) -> None:
    held = counts.setdefault(who, [0, 0])
    held[0] += gone
    held[1] += rows
