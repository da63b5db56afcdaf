"""Looking after a store: check that its files are what they were, and delete what nothing needs."""

import shutil
from pathlib import Path
from typing import Any

from pipeline.engine import locks
from pipeline.engine.store import CORRUPT_SUFFIX, Damage, Store, read_manifest, read_object


def verify(store: Store, *, full: bool) -> tuple[list[str], int]:
    """One line for each file that is missing or has another size; `full` also hashes, and puts bad bytes aside.

    A bad file of an artifact gets the suffix ".corrupt", so that plan names it and run rebuilds it. Snapshots are
    only told of: nothing can rebuild them. Also tells how many files were looked at.
    """
    problems: list[str] = []
    checked: set[Path] = set()
    for folder in _manifest_folders(store):
        manifest = read_manifest(folder)
        if manifest is None:
            problems.append(f"{store.relative(folder)}: manifest missing or unreadable")
            continue
        # What a shard's own manifest told already, the artifacts that refer to it need not tell again.
        places = {
            name: store.root / facts["at"] if "at" in facts else folder / name
            for name, facts in manifest["files"].items()
        }
        unchecked = {name: facts for name, facts in manifest["files"].items() if places[name] not in checked}
        checked |= set(places.values())
        for damage in store.damage(folder, {**manifest, "files": unchecked}, full=full):
            line = _line(store, damage)
            if folder.parent.parent.name == "snapshots":
                line += " (a snapshot: restore it from a copy)"
            elif full and damage.file.is_file():
                damage.file.rename(damage.file.with_name(damage.file.name + CORRUPT_SUFFIX))
                line += " (put aside)"
            problems.append(line)
    return problems, len(checked)


def _line(store: Store, damage: Damage) -> str:
    return f"{store.relative(damage.file)}: {damage.problem}"


def _manifest_folders(store: Store) -> list[Path]:
    # Shards come before the artifacts that refer to them, so that a bad file is told of once, where it lies.
    kinds = ("snapshots/*/[0-9]*", "shards/*/*", "artifacts/*/*")
    return [folder for kind in kinds for folder in sorted(store.root.glob(kind)) if folder.is_dir()]


def collect(store: Store, *, dry_run: bool) -> list[tuple[Path, int]]:
    """Delete what nothing that a config keeps by name descends from, and left-over work; tell what and how big.

    Snapshots are never deleted. Raises BadInput while a run uses the store.
    """
    with locks.owning_store(store.root):
        keep = _reachable(store)
        garbage: list[tuple[Path, int]] = []
        for kind in ("artifacts", "shards"):
            for folder in sorted((store.root / kind).glob("*/*")):
                if folder not in keep:
                    garbage.append((folder, size_of(folder)))
        for folder in [*sorted((store.root / "aside").glob("*/*")), *sorted((store.root / "work").glob("*"))]:
            garbage.append((folder, size_of(folder)))
        if not dry_run:
            for folder, _ in garbage:
                shutil.rmtree(folder)
        return garbage


def _reachable(store: Store) -> set[Path]:
    """Folders of the artifacts that refs name, of their inputs, and of the shards they refer to."""
    todo: list[tuple[str, str]] = []
    for path in (store.root / "refs").rglob("*.json"):
        todo += [(stage, reference["key"]) for stage, reference in read_object(path).get("stages", {}).items()]
    keep: set[Path] = set()
    while todo:
        stage, key = todo.pop()
        folder = store.artifact_folder(stage, key)
        manifest: dict[str, Any] | None = read_manifest(folder)
        if manifest is None or folder in keep:
            continue
        keep.add(folder)
        keep |= {store.root / part["at"] for part in manifest["parts"]}
        todo += [(value["stage"], value["key"]) for value in manifest["inputs"].values() if "key" in value]
    return keep


def size_of(folder: Path) -> int:
    """Bytes of all files in a folder."""
    return sum(path.stat().st_size for path in folder.rglob("*") if path.is_file())
