"""`gptmill diff`: what two runs, or two snapshots of a source, do not have in common."""

import argparse
import json
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.text import Text

from flows import stages
from flows.comparison.scores import scores
from flows.display import printable
from flows.names import find_run, snapshot_folder
from flows.runs import Run, artifacts, corpus_of, has, runs, snapshots_of
from pipeline import diff as comparing
from pipeline.config import BadInput
from pipeline.corpus import PACKED, Corpus
from pipeline.engine.resolve import differences
from pipeline.engine.store import Store, read_object

Row = dict[str, Any]

NAMED_HOSTS = 8
"""Domains named in a line; `--json` has all."""

SECTIONS = {"select": "policy"}
"""The sections of the config that are not called as their stage is."""


def diff(store: Store, options: argparse.Namespace) -> None:
    """Print the difference of two runs or two snapshots."""
    names = (options.before, options.after)
    folders = [folder for name in names if (folder := snapshot_folder(store, name)) is not None]
    if len(folders) == len(names):
        old, new = folders
        seen_by = _run_that_saw(store, old, new)
        what = "pages" if seen_by is None else "documents"
        told = {"what": what, **comparing.snapshots(old, new, seen_by)}
        pair = _evaluated(store, old, new)
    elif folders:
        run = next(name for name in names if snapshot_folder(store, name) is None)
        find_run(store, run)
        raise BadInput(f"{run} means a run, and the other name a snapshot: diff takes two runs or two snapshots.")
    else:
        before, after = (find_run(store, name, "extract", PACKED) for name in names)
        told = {"what": "documents", **comparing.corpora(corpus_of(store, before), corpus_of(store, after))}
        pair = before, after
    told = {"names": list(names), **told, **_of_runs(store, pair)}
    if options.json:
        print(json.dumps(told, indent=1))  # noqa: T201  (the command's result)
        return
    console = Console(highlight=False, soft_wrap=True, markup=False)
    for line in _lines(told):
        console.print(Text(printable(line)))


def _run_that_saw(store: Store, *folders: Path) -> Corpus | None:
    """The corpus of the newest run that tokenized both snapshots; None where there is none."""
    for run in runs(store):
        if set(folders) <= set(snapshots_of(store, run)) and has(store, run, ("extract", "tokenize")):
            return corpus_of(store, run)
    return None


def _evaluated(store: Store, before: Path, after: Path) -> tuple[Run, Run] | None:
    """The newest evaluated runs for which these were the last snapshots of their sources, the earlier run with the
    settings of the later where there is one; None where one of them has none.
    """
    earlier, later = list(_ended_at(store, before)), next(_ended_at(store, after), None)
    if not earlier or later is None:
        return None
    wanted = _configs(store, later)
    return next((run for run in earlier if _configs(store, run) == wanted), earlier[0]), later


def _ended_at(store: Store, snapshot: Path) -> Iterator[Run]:
    for run in runs(store):
        seen = [folder for folder in snapshots_of(store, run) if folder.parent == snapshot.parent]
        if seen and max(seen) == snapshot and has(store, run, ("extract", PACKED, "evaluate")):
            yield run


def _configs(store: Store, run: Run) -> Row:
    return {stage: made.manifest["key_document"]["config"] for stage, made in artifacts(store, run).items()}


def _of_runs(store: Store, pair: tuple[Run, Run] | None) -> Row:
    """How the settings and evaluations of two runs differ: all figures that moved, and the scores for people."""
    if pair is None:
        return {"runs": None, "settings": [], "figures": [], "scores": []}
    corpora = [corpus_of(store, run) for run in pair]
    return {
        "runs": [run.id for run in pair],
        "settings": list(dict.fromkeys(_settings(*corpora))),
        "figures": comparing.figures(*map(_evaluation, corpora)),
        "scores": [
            {"name": row.what, "before": row.values[0], "after": row.values[1], "worth": row.verdict}
            for row in scores(*corpora).rows
        ],
    }


def _evaluation(corpus: Corpus) -> Row:
    artifact = corpus.artifacts.get("evaluate")
    return {} if artifact is None else read_object(artifact.path / "evaluation.json")


def _settings(before: Corpus, after: Corpus) -> Iterator[str]:
    """How the settings, code and tools of the two runs differ, stage by stage."""
    for stage in stages.ALL:
        old, new = before.artifacts.get(stage.name), after.artifacts.get(stage.name)
        if old is not None and new is not None:
            documents = [{**each.manifest["key_document"], "inputs": {}} for each in (old, new)]
            yield from differences(documents[0], documents[1], SECTIONS.get(stage.name, stage.name))
            first, second = (training_start(each.manifest) for each in (old, new))
            if first != second:
                yield f"training starts from {first} → {second}"


def training_start(manifest: Mapping[str, Any]) -> str:
    """What a training started from; "nothing" for any other stage."""
    start = manifest["inputs"].get("start")
    return "nothing" if start is None else f"the checkpoint {start['key'][:12]}"


def _lines(told: Row) -> Iterator[str]:
    what = told["what"]
    yield " → ".join(told["names"])
    for name in ("before", "after", "gained", "lost", "changed", "unchanged"):
        yield f"  {name:<10} {told[name]['documents']:>12,} {what}{_tokens(told[name])}"
    for name, sign in (("gained", "+"), ("lost", "-")):
        named = told[f"hosts_{name}"]
        more = f" and {len(named) - NAMED_HOSTS:,} more" if len(named) > NAMED_HOSTS else ""
        if named:
            yield f"  domains {name}: {len(named):,} ({', '.join(named[:NAMED_HOSTS])}{more})"
        for reason, count in told[f"{name}_because"].items():
            yield f"  {sign}{count:,} {'were' if name == 'gained' else 'now'} {reason}"
    for row in told["hosts_moved"][:NAMED_HOSTS]:
        yield f"  {row['host'] or '(no host)'}: {row['before']:,} → {row['after']:,} {what}"
    if told["runs"] is None:
        yield "  no run that was evaluated and is still there ended at each of them: no scores"
        return
    if told["runs"] != told["names"]:
        yield f"  of the runs {' → '.join(told['runs'])}:"
    for setting in told["settings"]:
        yield f"  {setting}"
    for row in told["scores"]:
        worth = f", {row['worth']}" if row["worth"] else ""
        yield f"  {row['name']}: {row['before']} → {row['after']}{worth}"


def _tokens(size: Row) -> str:
    return "" if size["tokens"] is None else f" {size['tokens']:>16,} tokens"
