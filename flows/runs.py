"""The runs of a store: what each did, and the names that people give them.

A run's log says which artifact each of its stages gave, made or found. A name keeps that list beside the config's
latest artifacts; what it names is kept by `gc`.
"""

import json
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from flows import logs
from flows.refs import LATEST, configs, promoted
from pipeline.config import BadInput
from pipeline.corpus import Corpus
from pipeline.engine import locks
from pipeline.engine.store import Artifact, Store, merge_stats, read_manifest, read_object, write_atomically

Row = dict[str, Any]


@dataclass(frozen=True)
class Run:
    """One run: `stages` holds what its log says of each stage that it did or found done, in their order.

    `started` is in seconds since the epoch; `seconds` is None and `status` "unended" where the log has no end: the run
    goes on, or was killed. `promotion` is what its log says of the decision on its model, where there was one.
    """

    id: str
    config: str
    started: float
    status: str
    seconds: float | None
    arguments: tuple[str, ...]
    stages: dict[str, Row] = field(repr=False)
    names: tuple[str, ...] = ()
    promotion: Row | None = field(default=None, repr=False)
    settings: Row = field(default_factory=dict, repr=False)
    """Every setting that the run had; empty in logs that do not tell."""

    @property
    def ran(self) -> list[str]:
        """The stages that did work."""
        return [stage for stage, row in self.stages.items() if row["status"] == "run"]


def runs(store: Store) -> list[Run]:
    """All runs that left a log, newest first."""
    named: dict[str, list[str]] = {}
    for path, reference in _names(store):
        named.setdefault(reference["run"], []).append(path.stem)
    found = [_read(path, named) for path in (store.root / "runs").glob("*.jsonl")]
    return sorted((run for run in found if run is not None), key=lambda run: (run.started, run.id), reverse=True)


def artifacts(store: Store, run: Run) -> dict[str, Artifact]:
    """The artifacts of a run that are still in the store, by stage; snapshots are not among them."""
    loaded = {stage: store.load(stage, row["key"]) for stage, row in run.stages.items()}
    return {stage: artifact for stage, artifact in loaded.items() if artifact is not None}


def corpus_of(store: Store, run: Run) -> Corpus:
    """The corpus that a run made or found, as far as it got."""
    return Corpus(artifacts(store, run), snapshots_of(store, run))


def snapshots_of(store: Store, run: Run) -> tuple[Path, ...]:
    """The folders of the snapshots that a run saw, in the order of the corpus: as its log has them, or else its pages.

    Nothing where neither tells.
    """
    names = run.stages.get("scrape", {}).get("snapshots")
    if names is None:
        extract = store.load("extract", run.stages["extract"]["key"]) if "extract" in run.stages else None
        names = dict.fromkeys(f"snapshots/{part.snapshot}" for part in extract.parts) if extract else ()
    return tuple(store.root / name for name in names)


def manifests(store: Store, run: Run) -> dict[str, Row]:
    """What each stage of a run told, in the order of the run; for the crawl, what its snapshots told, together.

    Stages whose artifact is no longer in the store are left out.
    """
    found = artifacts(store, run)
    told = {stage: found[stage].manifest for stage in run.stages if stage in found}
    seals = [read_manifest(folder) for folder in corpus_of(store, run).snapshots] if "extract" in found else []
    sealed = [seal for seal in seals if seal is not None]
    if not sealed or len(sealed) < len(seals):
        return told
    stats = merge_stats(seal["stats"] for seal in sealed)
    tools = {tool: version for seal in sealed for tool, version in seal["tools"].items()}
    rows = sum(seal["rows"] for seal in sealed)
    return {"scrape": {"rows": rows, "stats": stats, "tools": tools, "snapshots": sealed}, **told}


def refuse_name(store: Store, name: str) -> None:
    """BadInput where a run cannot be given this name."""
    if not name or name == LATEST or not all(c.isalnum() or c in "-_." for c in name) or name.startswith("."):
        raise BadInput(f"{name!r} cannot name a run: take letters, digits, - _ and ., but not {LATEST!r}.")
    if name in configs(store):
        raise BadInput(f"{name} is the name of a config: take another for the run.")
    taken = {path.stem: reference["run"] for path, reference in _names(store)}
    if name in taken:
        raise BadInput(f"{name} is the name of the run {taken[name]}: gptmill runs --forget {name} frees it.")


def give_name(store: Store, run: Run, name: str) -> None:
    """Name a run, so that it is found by it and its artifacts are kept.

    BadInput where the name is taken, or where something that the run gave is gone already.
    """
    with locks.using_store(store.root), locks.held(store.root / "locks" / f"refs-{run.config}.lock"):
        refuse_name(store, name)
        for stage in run.stages:
            if not is_there(store, run, stage):
                raise BadInput(f"What {stage} gave in the run {run.id} is no longer in the store: name a later run.")
        stages = {stage: {"key": row["key"], "digest": row["digest"]} for stage, row in run.stages.items()}
        text = json.dumps({"run": run.id, "stages": stages}, indent=1, sort_keys=True)
        write_atomically(store.root / "refs" / run.config / f"{name}.json", text)


def forget_name(store: Store, name: str) -> None:
    """Take a name back; BadInput where there is no such name."""
    paths = [path for path, _ in _names(store) if path.stem == name]
    if not paths:
        raise BadInput(f"No run is called {name}: gptmill runs lists the names.")
    for path in paths:
        path.unlink()


def as_json(store: Store, run: Run) -> Row:
    """The fields that scripts rely on."""
    return {
        "run": run.id,
        "names": list(run.names),
        "config": run.config,
        "started": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(run.started)),
        "seconds": run.seconds,
        "status": run.status,
        "ran": run.ran,
        "cached": [stage for stage, row in run.stages.items() if row["status"] == "cached"],
        "arguments": list(run.arguments),
        "promotion": run.promotion,
        "latest": promoted(store, run.config).get("run") == run.id,
    }


def line(row: Row) -> str:
    """A run for people, from what `as_json` says of it."""
    took = "" if row["seconds"] is None else f"{row['seconds']:,.0f} s"
    made = ", ".join(row["ran"]) if row["cached"] else f"all {len(row['ran'])} stages"
    told = f"{made or 'nothing'} ran" if row["ran"] or row["cached"] else "nothing done"
    called = [*row["names"], *([LATEST] if row["latest"] else [])]
    names = f"  [{', '.join(called)}]" if called else ""
    refused = ", not promoted" if row["promotion"] and not row["promotion"]["promoted"] else ""
    told = f"{told}{refused}{names}"
    return f"{row['run']:<24} {row['started']:<21} {row['config']:<14} {row['status']:<8} {took:>9}  {told}"


def _names(store: Store) -> list[tuple[Path, Row]]:
    """The file of each name, and what it says."""
    found = [(path, read_object(path)) for path in sorted((store.root / "refs").glob("*/*.json"))]
    return [(path, reference) for path, reference in found if path.stem != LATEST and "run" in reference]


def has(store: Store, run: Run, stages: tuple[str, ...]) -> bool:
    """Whether a run has all of these stages, and what they gave is still there."""
    return run.stages.keys() >= set(stages) and all(is_there(store, run, stage) for stage in stages)


def is_there(store: Store, run: Run, stage: str) -> bool:
    """Whether what a stage of a run gave is still there."""
    return stage == "scrape" or store.manifest(stage, run.stages[stage]["key"]) is not None


def _read(path: Path, named: dict[str, list[str]]) -> Run | None:
    """The run that a log tells of; None where it holds no start."""
    start: Row | None = None
    end: Row = {}
    promotion: Row | None = None
    stages: dict[str, Row] = {}
    for row in logs.read(path):
        if row["event"] == "start":
            start = row
        elif row["event"] == "stage":
            stages[row["stage"]] = row
        elif row["event"] == "promotion":
            promotion = row
        elif row["event"] == "end":
            end = row
    if start is None:
        return None
    arguments = tuple(start.get("arguments", ()))
    seconds, names = end.get("seconds"), tuple(named.get(path.stem, ()))
    return Run(
        path.stem,
        start["config"],
        start["at"],
        end.get("status", "unended"),
        seconds,
        arguments,
        stages,
        names,
        promotion,
        start.get("settings", {}),
    )
