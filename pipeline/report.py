"""The report: one HTML file that shows what became of every URL, what was learned from it, and where it all came from.

The page needs nothing but itself: no script, no font, no picture from elsewhere, and a policy in its head that says so.
Everything in it is read from the manifests and files it is given; what a run did not measure is left out.
"""

import json
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa

from pipeline.charts import loss_curve, sparkline
from pipeline.config import Config
from pipeline.counts import CountsDisagree, FunnelRow, Manifests, check_counts, funnel
from pipeline.dedup.differences import marked
from pipeline.documents import read_table
from pipeline.report_evaluation import evaluation_facts
from pipeline.shards import SPLITS, index_path
from pipeline.summary import (
    SHORT_HASH,
    as_count,
    as_duration,
    as_number,
    as_percent,
    as_size,
    as_words,
    flat,
    is_number,
    summary,
)

__all__ = ["CountsDisagree", "FunnelRow", "ReportConfig", "check_counts", "funnel", "report", "summary"]

TEMPLATE = Path(__file__).with_name("report.html.jinja")
GROUPS_SHOWN = 9
CLUSTERS_SHOWN = 10
HOSTS_SHOWN = 20


class ReportConfig(Config):
    """How the report is headed."""

    title: str = "gptmill"
    """Heading of the page."""


def report(
    out: Path, config: ReportConfig, *, manifests: Manifests, folders: Mapping[str, Path | list[Path]]
) -> dict[str, int]:
    """Write `report.html` from the stages' manifests and the folders of `pretrain`, `evaluate` and `pack` (its parts).

    Stages that are not there are left out. Raises `CountsDisagree` where the counts of the stages do not add up.
    """
    from jinja2 import Environment

    environment = Environment(autoescape=True, trim_blocks=True, lstrip_blocks=True)
    environment.filters.update(
        count=as_count, counts=as_number, number=as_number, duration=as_duration, size=as_size, percent=as_percent
    )
    page = environment.from_string(TEMPLATE.read_text(encoding="utf-8")).render(
        title=config.title, **_facts(manifests, folders)
    )
    # Samples and titles may hold what no file can: half of a surrogate pair.
    (out / "report.html").write_bytes(page.encode("utf-8", "replace"))
    return {"rows": len(manifests)}


def _facts(manifests: Manifests, folders: Mapping[str, Path | list[Path]]) -> dict[str, Any]:
    """What the template shows, by name."""
    stats = {stage: manifest["stats"] for stage, manifest in manifests.items()}
    select = stats.get("select", {})
    metrics = _json_lines(folders.get("pretrain"), "report/metrics.jsonl")
    started = [manifest["run"]["started"] for manifest in manifests.values() if manifest["run"].get("started")]
    return {
        "finished": max(started, default=""),
        **evaluation_facts(_json(folders.get("evaluate"), "evaluation.json")),
        "funnel": _waterfall(funnel(manifests)),
        "pack": stats.get("pack", {}),
        "pii": stats.get("tokenize", {}).get("pii", {}),
        "contaminated": select.get("contaminated", {}),
        "tokenizer": stats.get("tokenizer", {}),
        "crawl": _crawl(stats.get("scrape", {})),
        "groups": [
            (title, _shares(select[field], select.get(total, len(select[field])), select["rows"], select["kept"]))
            for title, field, total in (
                ("Documents by language", "languages", ""),
                ("Documents by host", "hosts", "host_count"),
            )
            if select.get(field)
        ],
        "lengths": _lengths(folders.get("pack")),
        "clusters": _clusters(stats.get("deduplicate", {}).get("largest_clusters", [])[:CLUSTERS_SHOWN]),
        "warnings": [f"{stage}: {text}" for stage, facts in stats.items() for text in facts.get("warnings", ())],
        "pretrain": stats.get("pretrain", {}),
        "training": _training(metrics),
        "stages": _stages(manifests),
        "settings": {
            stage: flat(manifest["key_document"]["config"])
            for stage, manifest in manifests.items()
            if manifest.get("key_document", {}).get("config")
        },
    }


def _waterfall(rows: list[FunnelRow]) -> list[dict[str, Any]]:
    """Each step with its share of the first, and its losses as bars that begin where what remains ends."""
    whole = max((row.count for row in rows), default=0) or 1
    shown = []
    for row in rows:
        edge = row.count - sum(row.lost.values())
        losses = []
        for reason, count in sorted(row.lost.items(), key=lambda item: item[1]):
            losses.append({"reason": as_words(reason), "count": count, "from": edge / whole, "share": count / whole})
            edge += count
        shown.append({"row": row, "share": row.count / whole, "losses": losses[::-1]})
    return shown


def _crawl(scrape: Mapping[str, Any]) -> dict[str, Any]:
    """What became of the URLs of each host: those with most URLs, what is left over, and all together."""
    hosts = scrape.get("hosts", {})
    ranked = sorted(hosts.items(), key=lambda item: (-item[1]["urls"], item[0]))[:HOSTS_SHOWN]
    more = scrape.get("host_count", len(hosts)) - len(ranked)
    return {
        "rows": [(name or "given files", host) for name, host in ranked],
        "more": max(more, 0),
        "all": {name: scrape.get(name) for name in ("urls", "pages", "bytes", "outcomes", "statuses")},
        "unreached": scrape.get("unreached", 0),
    }


def _shares(groups: Mapping[str, Mapping[str, int]], n_groups: int, rows: int, kept: int) -> list[dict[str, Any]]:
    """Documents and those selected in the largest groups, as shares of the largest; without a bar, what is left over.

    There are `n_groups` groups of `rows` documents in all, of which `kept` were selected.
    """
    shown = sorted(groups.items(), key=lambda item: (-item[1]["rows"], item[0]))[:GROUPS_SHOWN]
    most = max((group["rows"] for _, group in shown), default=1)
    bars = [
        {"name": name or "none", **group, "share": group["rows"] / most, "kept_share": group["kept"] / most}
        for name, group in shown
    ]
    if n_groups > len(shown):
        rest_rows = rows - sum(group["rows"] for _, group in shown)
        rest_kept = kept - sum(group["kept"] for _, group in shown)
        bars.append({"name": f"{n_groups - len(shown):,} others", "rows": rest_rows, "kept": rest_kept})
    return bars


def _clusters(clusters: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Each cluster with its two texts in pieces, each piece with whether it differs from the other text."""
    shown = []
    for cluster in clusters:
        kept, removed = marked(cluster.get("kept_text", ""), cluster.get("removed_text", ""))
        shown.append({**cluster, "kept": kept, "removed": removed})
    return shown


def _lengths(parts: Path | list[Path] | None) -> dict[str, Any]:
    """Packed documents by number of tokens, in bins that double: count, tokens, and height relative to the fullest."""
    tables = [
        read_table(index_path(part, split), ["length"])
        for part in (parts if isinstance(parts, list) else [parts] if parts else [])
        for split in SPLITS
    ]
    lengths = pa.concat_tables(tables)["length"].to_numpy() - 1 if tables else np.empty(0, np.int64)
    if not len(lengths):
        return {}
    powers = np.floor(np.log2(lengths)).astype(np.int64)
    counts = np.bincount(powers)
    tokens = np.bincount(powers, weights=lengths)
    return {
        "bins": [
            {
                "from": 2**power,
                "to": 2 ** (power + 1) - 1,
                "count": int(counts[power]),
                "tokens": int(tokens[power]),
                "height": counts[power] / counts.max(),
            }
            for power in range(int(powers.min()), len(counts))
        ],
        "median": float(np.median(lengths)),
        "mean": float(lengths.mean()),
        "longest": int(lengths.max()),
    }


def _training(metrics: list[dict[str, Any]]) -> dict[str, Any]:
    """The curves of a training, and its median speed: the first step compiles, so the mean would mislead."""
    steps = [line for line in metrics if "loss" in line]
    if not steps:
        return {}
    tokens_at = {line["step"]: float(line.get("tokens", line["step"])) for line in steps}
    val = [(tokens_at.get(line["step"], 0.0), line["val_loss"]) for line in metrics if is_number(line.get("val_loss"))]

    def curve(name: str) -> list[tuple[float, float]]:
        return [(tokens_at[line["step"]], line[name]) for line in steps if is_number(line.get(name))]

    speeds = [speed for _, speed in curve("tokens_per_s")]
    last = curve("loss")
    return {
        "loss_curve": _safe(loss_curve(curve("loss"), val)),
        "small": [
            (
                "Learning rate",
                _safe(sparkline(curve("lr"), 0.0)),
                max((y for _, y in curve("lr")), default=None),
                "peak",
            ),
            (
                "Gradient norm",
                _safe(sparkline(curve("grad_norm"), 0.0)),
                _median(y for _, y in curve("grad_norm")),
                "median",
            ),
            ("Tokens per second", _safe(sparkline(curve("tokens_per_s"), 0.0)), _median(speeds), "median"),
        ],
        "steps": len(steps),
        "tokens": tokens_at[steps[-1]["step"]],
        "seconds": sum(line.get("seconds", 0.0) for line in steps),
        "speed": _median(speeds),
        "train_loss": last[-1][1] if last else None,
        "val_loss": val[-1][1] if val else None,
    }


def _stages(manifests: Manifests) -> list[dict[str, Any]]:
    """Each stage's time, names, inputs and tools."""
    rows = []
    for stage, manifest in manifests.items():
        run = manifest["run"]
        seconds = run.get("wall_seconds", run.get("seconds", 0.0))
        inputs = [
            (name, source.get("stage", "file"), source["digest"][:SHORT_HASH])
            for name, source in manifest.get("inputs", {}).items()
        ]
        rows.append(
            {
                "name": stage,
                "rows": manifest["rows"],
                "seconds": seconds,
                "rate": manifest["rows"] / seconds if seconds else None,
                "key": manifest["key"][:SHORT_HASH],
                "digest": manifest["digest"][:SHORT_HASH],
                "inputs": inputs,
                "tools": manifest.get("tools") or manifest.get("key_document", {}).get("tools", {}),
                "bytes": sum(facts["size"] for facts in manifest.get("files", {}).values()),
                "started": run.get("started", ""),
                "host": " · ".join(str(run[name]) for name in ("host", "machine", "python") if run.get(name)),
            }
        )
    slowest = max((row["seconds"] for row in rows), default=0.0) or 1.0
    return [{**row, "share": row["seconds"] / slowest} for row in rows]


def _json(folder: Path | list[Path] | None, name: str) -> dict[str, Any]:
    """The JSON object in a folder's file; empty where there is no folder."""
    if not isinstance(folder, Path):
        return {}
    read: dict[str, Any] = json.loads((folder / name).read_text(encoding="utf-8"))
    return read


def _json_lines(folder: Path | list[Path] | None, name: str) -> list[dict[str, Any]]:
    if not isinstance(folder, Path):
        return []
    return [json.loads(line) for line in (folder / name).read_text(encoding="utf-8").splitlines()]


def _safe(svg: str) -> Any:
    """Drawn by us from numbers alone, so the template need not escape it."""
    from markupsafe import Markup

    return Markup(svg)  # noqa: S704


def _median(values: Iterable[float]) -> float | None:
    found = list(values)
    return float(np.median(found)) if found else None
