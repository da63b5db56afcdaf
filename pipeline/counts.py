"""The funnel from URLs to packed documents, and the proof that nothing is lost without a reason.

What goes into a stage comes out of it or is counted under a reason. A run whose counts do not add up fails.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from pipeline.config import StageFailed

STORED = "stored"
"""The outcome of a URL whose page stands in the snapshot."""

LEDGERS = ("language", "quality", "signatures", "contamination", "select", "deduplicate", "tokenize")
"""Stages that write a row for every document."""

NO_TEXT = "no text to encode"
"""Why a kept document is not packed: nothing of it was left to encode."""

Manifests = Mapping[str, Mapping[str, Any]]


class CountsDisagree(StageFailed):
    """What stages counted does not add up; the message is one sentence."""


@dataclass(frozen=True)
class FunnelRow:
    """A step of the funnel: how many there are, and how many of these the next step no longer has, by reason."""

    name: str
    stage: str
    count: int
    lost: dict[str, int] = field(default_factory=dict)


def check_counts(manifests: Manifests) -> None:
    """Compare the counts of all stages that are there; raises `CountsDisagree` at the first that errs."""
    stats = {stage: manifest["stats"] for stage, manifest in manifests.items()}
    documents = stats.get("extract", {}).get("rows")
    if scrape := stats.get("scrape"):
        outcomes = by_reason(scrape["outcomes"])
        _expect("scrape", "URLs with an outcome", sum(outcomes.values()), scrape["urls"])
        _expect("scrape", "stored pages", outcomes.get(STORED, 0), scrape["rows"])
        if extract := stats.get("extract"):
            seen = extract["rows"] + sum(by_reason(extract["rejected"]).values())
            _expect("extract", "documents and rejects", seen, outcomes.get(STORED, 0))
    for stage in LEDGERS:
        if stage in stats and documents is not None:
            _expect(stage, "rows", stats[stage]["rows"], documents)
    if select := stats.get("select"):
        decided = select["kept"] + sum(by_reason(select["reasons"]).values())
        _expect("select", "documents kept or dropped for a reason", decided, select["rows"])
        if deduplicate := stats.get("deduplicate"):
            decided = deduplicate["kept"] + sum(by_reason(deduplicate["duplicates"]).values())
            _expect("deduplicate", "documents kept or found duplicate", decided, select["kept"])
    if pack := stats.get("pack"):
        _expect("pack", "documents in both splits", sum(pack["documents"].values()), pack["rows"])
        kept = stats.get("deduplicate", {}).get("kept", pack["rows"])
        if pack["rows"] > kept:
            _expect("pack", "documents", pack["rows"], kept)


def _expect(stage: str, what: str, found: int, expected: int) -> None:
    if found != expected:
        raise CountsDisagree(f"The counts do not add up at {stage}: {found:,} {what}, but {expected:,} expected.")


def by_reason(counts: int | Mapping[str, int]) -> dict[str, int]:
    """Counts by reason, the largest first, none of zero; a bare number is one nameless reason."""
    named = {"": counts} if isinstance(counts, int) else counts
    return dict(sorted(((reason, n) for reason, n in named.items() if n), key=lambda item: (-item[1], item[0])))


def funnel(manifests: Manifests) -> list[FunnelRow]:
    """The steps from URLs met to documents packed, as far as there are stages; raises `CountsDisagree`."""
    check_counts(manifests)
    rows = []
    stats = {stage: manifest["stats"] for stage, manifest in manifests.items()}
    if scrape := stats.get("scrape"):
        outcomes = by_reason(scrape["outcomes"])
        stored = outcomes.pop(STORED, 0)
        rows.append(FunnelRow("URLs met", "scrape", scrape["urls"], outcomes))
        rows.append(
            FunnelRow("Pages stored", "extract", stored, by_reason(stats.get("extract", {}).get("rejected", {})))
        )
    if extract := stats.get("extract"):
        rows.append(
            FunnelRow("Documents", "select", extract["rows"], by_reason(stats.get("select", {}).get("reasons", {})))
        )
    if select := stats.get("select"):
        duplicates = by_reason(stats.get("deduplicate", {}).get("duplicates", {}))
        named = {f"{kind} duplicate".strip(): n for kind, n in duplicates.items()}
        rows.append(FunnelRow("Selected", "deduplicate", select["kept"], named))
    if deduplicate := stats.get("deduplicate"):
        packed = stats.get("pack", deduplicate | {"rows": deduplicate["kept"]})["rows"]
        rows.append(
            FunnelRow("Unique", "pack", deduplicate["kept"], by_reason({NO_TEXT: deduplicate["kept"] - packed}))
        )
    if pack := stats.get("pack"):
        rows.append(FunnelRow("Packed", "", pack["rows"]))
    return rows
