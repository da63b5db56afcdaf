"""`gptmill diff`: what two runs, or two snapshots of a source, do not have in common."""

import argparse
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.text import Text

from flows import stages
from flows.display import printable
from flows.runs import Run, artifacts, corpus_of, find_run, runs
from pipeline import diff as comparing
from pipeline.config import BadInput
from pipeline.corpus import PACKED, Corpus
from pipeline.engine.resolve import differences
from pipeline.engine.store import Store, read_manifest, read_object

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
        before, after = folders
        seen_by = _run_that_saw(store, before, after)
        what = "pages" if seen_by is None else "documents"
        told = {"what": what, **comparing.snapshots(before, after, seen_by), "settings": [], "figures": []}
    elif folders:
        raise BadInput("diff takes two runs or two snapshots, not one of each.")
    else:
        told = {"what": "documents", **_of_runs(store, *(find_run(store, name, "extract", PACKED) for name in names))}
    told = {"names": list(names), **told}
    if options.json:
        print(json.dumps(told, indent=1))  # noqa: T201  (the command's result)
        return
    console = Console(highlight=False, soft_wrap=True, markup=False)
    for line in _lines(told):
        console.print(Text(printable(line)))


def snapshot_folder(store: Store, name: str) -> Path | None:
    """The snapshot called `<source>/<sequence>`, the source by its name or the beginning of its id; None if none is.

    BadInput where several are.
    """
    source, slash, sequence = name.rpartition("/")
    if not slash or not sequence.isdigit():
        return None
    found = []
    for folder in sorted((store.root / "snapshots").glob(f"*/{int(sequence):04d}")):
        manifest = read_manifest(folder)
        if folder.parent.name.startswith(source) or (manifest is not None and manifest["name"] == source):
            found.append(folder)
    if len(found) > 1:
        ids = ", ".join(folder.parent.name[:12] for folder in found)
        raise BadInput(f"{name} names several snapshots: write the source's id in place of its name ({ids}).")
    return found[0] if found else None


def _run_that_saw(store: Store, *folders: Path) -> Corpus | None:
    """The corpus of the newest run that tokenized both snapshots; None where there is none."""
    for run in runs(store):
        if {"extract", "tokenize"} <= artifacts(store, run).keys():
            corpus = corpus_of(store, run)
            if set(folders) <= set(corpus.snapshots):
                return corpus
    return None


def _of_runs(store: Store, before: Run, after: Run) -> Row:
    corpora = [corpus_of(store, run) for run in (before, after)]
    evaluations = [_evaluation(corpus) for corpus in corpora]
    return {
        **comparing.corpora(*corpora),
        "settings": list(_settings(*corpora)),
        "figures": comparing.figures(*evaluations),
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
    for setting in told["settings"]:
        yield f"  {setting}"
    for row in told["figures"]:
        yield f"  {row['name']}: {row['before']:.6g} → {row['after']:.6g}"


def _tokens(size: Row) -> str:
    return "" if size["tokens"] is None else f" {size['tokens']:>16,} tokens"
