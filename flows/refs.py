"""What a store keeps by name of each config: the promoted artifacts, the newest ones, and how its last refresh began.

    refs/<config>/latest.json              what `latest` means: the promoted artifacts, and the run that they are of
    refs/<config>/state/newest.json        the newest artifact of each stage, promoted or not: what plan compares with
    refs/<config>/state/refresh.json       what the last refresh began from, and whether it has ended
    refs/<config>/state/promotions.jsonl   every decision on a model, oldest first
    refs/<config>/state/validation.arrow   the fixed validation set

`gc` keeps whatever the `stages` of one of the JSON files name. Where an older gptmill left only a `latest.json`, it is
the newest as well.
"""

import json
import secrets
import time
from pathlib import Path
from typing import Any

from flows import logs
from pipeline.engine import locks
from pipeline.engine.store import MANIFEST, Artifact, Store, flush, read_object, write_atomically

LATEST = "latest"
"""The name that every config's promoted artifacts have; no run can be called so."""

Row = dict[str, Any]

References = dict[str, dict[str, str]]
"""{stage: {key, digest}}."""


def newest(store: Store, config: str) -> References:
    """The newest artifact of each stage of a config."""
    path = _newest_path(store, config)
    found: References = (read_object(path) if path.is_file() else promoted(store, config)).get("stages", {})
    return found


def remember(store: Store, config: str, artifact: Artifact) -> None:
    """Make an artifact the newest of its stage."""
    reference = _reference(artifact)
    with _held(store, config):
        known = newest(store, config)
        if known.get(artifact.stage) != reference:
            known[artifact.stage] = reference
            _write(_newest_path(store, config), {"stages": known})


def promoted(store: Store, config: str) -> Row:
    """What `latest` means: `stages`, and from this version on `run`, `at` and `model_at`; empty where nothing is."""
    return read_object(store.root / "refs" / config / f"{LATEST}.json")


def promote(store: Store, config: str, artifacts: References, run: str) -> None:
    """Make these artifacts the promoted ones of their stages, as those of a run; a new model leaves none of others."""
    with _held(store, config):
        known = promoted(store, config)
        before: References = known.get("stages", {})
        same_model = artifacts.get("pretrain", before.get("pretrain")) == before.get("pretrain")
        stages = {**before, **artifacts} if same_model else artifacts
        if stages != before:
            now = round(time.time(), 3)
            model_at = {"model_at": known["model_at"]} if "model_at" in known else {}
            told = {"stages": stages, "run": run, "at": now, **(model_at if same_model else {"model_at": now})}
            _write(store.root / "refs" / config / f"{LATEST}.json", told)


def last_promoted(store: Store) -> tuple[str, Row] | None:
    """What `latest` means of all configs: the name and promoted artifacts of the one whose model was promoted last.

    Where none has a model, whatever was promoted last; None where nothing was.
    """
    found = {name: promoted(store, name) for name in sorted(configs(store))}
    return max(found.items(), key=lambda item: _promoted_at(store, *item), default=None)


def _promoted_at(store: Store, config: str, known: Row) -> tuple[bool, float]:
    """Whether there is a promoted model of a config, and when it, or else what there is, was promoted."""
    manifest = store.artifact_folder("pretrain", known.get("stages", {}).get("pretrain", {}).get("key", "-")) / MANIFEST
    has_model = manifest.is_file()
    if not has_model:
        manifest = store.root / "refs" / config / f"{LATEST}.json"
    # An older gptmill did not tell when.
    return has_model, known.get("model_at" if has_model else "at", manifest.stat().st_mtime)


def configs(store: Store) -> set[str]:
    """The names of the configs that have results."""
    return {path.parent.name for path in (store.root / "refs").glob(f"*/{LATEST}.json")}


def references(artifacts: dict[str, Artifact]) -> References:
    """What stands for the artifacts of a run."""
    return {stage: _reference(artifact) for stage, artifact in artifacts.items()}


def last_refresh(store: Store, config: str) -> Row:
    """How the last refresh of a config began; empty where there was none.

    `stages`: the model that was promoted then. `start`: what training on another corpus than that model's starts from;
    with `any_corpus` on that one too. `crawls`: the number of the snapshot that each source should have by the end of
    the refresh. `open`: whether that end is still to come. `id`: which refresh it is.
    """
    return read_object(state_folder(store, config) / "refresh.json")


def begin_refresh(store: Store, config: str, facts: Row) -> Row:
    """Note how a refresh begins, and return that; the one before it, whether or not it ended, is forgotten."""
    with _held(store, config):
        return _write_refresh(store, config, {"id": secrets.token_hex(8), "open": True, **facts})


def change_refresh(store: Store, config: str, facts: Row) -> Row:
    """Note other facts of the last refresh, and return how it begins now; what it has still to do stays."""
    with _held(store, config):
        nothing_to_do = {"open": False, "crawls": {}}
        return _write_refresh(store, config, {**nothing_to_do, **last_refresh(store, config), **facts})


def end_refresh(store: Store, config: str, refresh: str | None) -> None:
    """Note that the refresh of that id is over: what it began from goes on counting, nothing more is to be done.

    Nothing changes where another one has begun since.
    """
    with _held(store, config):
        begun = last_refresh(store, config)
        if begun.get("open") and begun.get("id") == refresh:
            _write_refresh(store, config, {**begun, "open": False, "crawls": {}})


def decisions(store: Store, config: str) -> list[Row]:
    """Every decision on a model of a config, oldest first."""
    return logs.read(state_folder(store, config) / "promotions.jsonl")


def decide(store: Store, config: str, decision: Row) -> None:
    """Add a decision."""
    path = state_folder(store, config) / "promotions.jsonl"
    path.parent.mkdir(parents=True, exist_ok=True)
    with _held(store, config):
        logs.append(path, {"at": round(time.time(), 3), **decision})
    flush(path)


def validation_path(store: Store, config: str) -> Path:
    """Where the fixed validation set of a config lies."""
    return state_folder(store, config) / "validation.arrow"


def validation_paths(store: Store) -> list[Path]:
    """The fixed validation sets of all configs."""
    return sorted((store.root / "refs").glob("*/state/validation.arrow"))


def state_folder(store: Store, config: str) -> Path:
    """Where what is no name of anybody's lies."""
    return store.root / "refs" / config / "state"


def _newest_path(store: Store, config: str) -> Path:
    return state_folder(store, config) / "newest.json"


def _write_refresh(store: Store, config: str, begun: Row) -> Row:
    told = {**begun, "at": round(time.time(), 3)}
    _write(state_folder(store, config) / "refresh.json", told)
    return told


def _reference(artifact: Artifact) -> dict[str, str]:
    return {"key": artifact.key, "digest": artifact.digest}


def _held(store: Store, config: str) -> Any:
    return locks.held(store.root / "locks" / f"refs-{config}.lock")


def _write(path: Path, value: Row) -> None:
    write_atomically(path, json.dumps(value, indent=1, sort_keys=True))
