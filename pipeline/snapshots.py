"""Sealed snapshots of sources in a store: found, made, and offered to the stages as one artifact.

A source is known by a hash of what it asks for. Its snapshots are numbered from 0000 and never rewritten; the
corpus of a config is the explicit list of all sealed snapshots of its sources, in the config's order.
"""

import shutil
import time
from collections.abc import Callable
from itertools import starmap
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pipeline.config import BadInput, identity
from pipeline.engine.code import kept_units
from pipeline.engine.hashes import RememberedHashes
from pipeline.engine.keys import content_digest, fingerprint
from pipeline.engine.stage import Stage
from pipeline.engine.store import (
    FORMAT,
    Artifact,
    Part,
    Store,
    describe_files,
    digest_of,
    merge_stats,
    read_manifest,
)
from pipeline.scrape import scrape
from pipeline.sources import CrawlSource, FileSource, ScrapeConfig, given_files, source_id
from pipeline.tombstones import purged_names

if TYPE_CHECKING:
    from pipeline.crawl.given import Each

Source = CrawlSource | FileSource
Progress = Callable[[int, int, str], None]


def identify(source: Source, hashes: RememberedHashes) -> str:
    """The id of a source: what it asks for, and for given files their content."""
    given = {str(path): hashes.sha256(path) for path in given_files(source)}
    hashes.save()
    return source_id(source, given)


def sealed(store: Store, source: str) -> list[tuple[Path, dict[str, Any]]]:
    """Folder and manifest of each sealed snapshot of a source id, oldest first. BadInput where one is unreadable."""
    found = []
    for folder in sorted((store.root / "snapshots" / source).glob("[0-9]*")):
        manifest = read_manifest(folder)
        if manifest is None:
            raise BadInput(
                f"Snapshot {folder} is damaged: its manifest is missing or unreadable. "
                "A snapshot is never rebuilt: restore the file from a copy, or remove the folder and crawl again."
            )
        found.append((folder, manifest))
    return found


def newest_sequence(store: Store, source: str) -> int | None:
    """The number of a source's newest sealed snapshot; None where it has none."""
    known = sealed(store, source)
    return int(known[-1][0].name) if known else None


def last_seconds(store: Store, name: str) -> float | None:
    """What the newest snapshot of a source of that name took to make; None where there is none."""
    found = [read_manifest(folder) for folder in (store.root / "snapshots").glob("*/[0-9]*")]
    named = [manifest for manifest in found if manifest is not None and manifest["name"] == name]
    newest = max(named, key=lambda manifest: manifest["sealed_at"], default=None)
    return None if newest is None else float(newest["run"]["seconds"])


def as_artifact(store: Store, config: ScrapeConfig, hashes: RememberedHashes) -> Artifact:
    """All sealed snapshots of a config's sources as one artifact. BadInput where one is damaged.

    Its digest is of what the snapshots say, all together: one in which every page was found as it was alters nothing.
    """
    parts: list[Part] = []
    folders: list[Path] = []
    manifests: list[dict[str, Any]] = []
    said: list[tuple[str, str]] = []
    for source in config.sources:
        found = sealed(store, identify(source, hashes))
        for folder, manifest in found:
            refuse_damaged(store, folder, manifest)
            stored = _parts(folder, manifest, source.name)
            if stored:
                said.append((f"{stored[0].snapshot} {source.name}", manifest["digest"]))
            parts += stored
            folders.append(folder)
            manifests.append({**manifest, "folder": store.relative(folder)})
        beyond = _unstored(found, hashes)
        if beyond:
            said.append((f"{manifests[-1]['source']} {source.name}", beyond))
    digest = content_digest((f"{place:05d} {name}", 0, sha256) for place, (name, sha256) in enumerate(said))
    snapshots = [f"{place:05d} {m['source']}/{m['sequence']:04d} {m['name']}" for place, m in enumerate(manifests)]
    manifest = {
        "stage": "scrape",
        "key": fingerprint({"stage": "scrape", "snapshots": snapshots}),
        "digest": digest,
        "rows": sum(m["rows"] for m in manifests),
        "stats": merge_stats(m["stats"] for m in manifests),
        "key_document": {"config": identity(config), "code": {}, "tools": {}, "inputs": {}},
        "inputs": {},
        "files": {f"{m['folder']}/{name}": facts for m in manifests for name, facts in m["files"].items()},
        "snapshots": [
            {k: m[k] for k in ("source", "name", "sequence", "digest", "parent", "rows", "folder", "sealed_at")}
            for m in manifests
        ],
        "tools": {tool: version for m in manifests for tool, version in m["tools"].items()},
        "run": merge_stats({"seconds": m["run"]["seconds"], "cpu_seconds": 0.0} for m in manifests),
    }
    path = folders[0].parent if folders else store.root / "snapshots"
    return Artifact("scrape", manifest["key"], digest, path, tuple(parts), tuple(folders), manifest)


def _parts(folder: Path, manifest: dict[str, Any], source: str) -> list[Part]:
    """The parts of a snapshot. Each is known by its pages alone: its number may change while its content does not."""
    by_part: dict[str, list[tuple[str, int, str]]] = {}
    for name, facts in manifest["files"].items():
        if name.startswith("part-"):
            part, _, file = name.partition("/")
            by_part.setdefault(part, []).append((file, facts["size"], facts["sha256"]))
    snapshot = f"{folder.parent.name}/{folder.name}"
    return [Part(folder / part, content_digest(by_part[part]), snapshot, source) for part in sorted(by_part)]


def _unstored(found: list[tuple[Path, dict[str, Any]]], hashes: RememberedHashes) -> str:
    """What a source's snapshots say beyond the pages that they store, as `unstored` has it."""
    if len(found) < 2:
        return ""
    from pipeline.versions import unstored

    made_from = [
        fingerprint(kept_units(["pipeline.versions:unstored"])),
        *(manifest["digest"] for _, manifest in found),
    ]
    folders = [folder for folder, _ in found]
    told = hashes.remembered(f"snapshots of {found[0][1]['source']}", made_from, lambda: unstored(folders))
    hashes.save()
    return told


def refuse_damaged(store: Store, folder: Path, manifest: dict[str, Any], *, full: bool = False) -> None:
    """BadInput where a file of the snapshot is not as it was sealed."""
    damage = store.damage(folder, manifest, full=full)
    if damage:
        raise BadInput(
            f"Snapshot {manifest['name']} {folder.name} is damaged: {damage[0].file} {damage[0].problem}. "
            "A snapshot is never rebuilt: restore the file from a copy, or remove the folder and crawl again."
        )


def seal(
    store: Store,
    source: Source,
    stage: Stage,
    config: ScrapeConfig,
    source_key: str,
    progress: Progress,
    each: "Each" = starmap,
) -> Path:
    """Crawl (or read) a source into the next snapshot of its id. A killed one goes on from its work folder."""
    earlier = sealed(store, source_key)
    work = store.work_folder("scrape", f"{source_key}-{_next(earlier):04d}")
    aside = work / "snapshot"
    shutil.rmtree(aside, ignore_errors=True)
    aside.mkdir()
    state = work / "state"
    state.mkdir(exist_ok=True)
    start = time.perf_counter()
    folders = [folder for folder, _ in earlier]
    purged = purged_names(store.tombstones)
    stats = scrape(source, aside, state, config.segment_bytes, progress, folders, purged, each)
    folder = publish(store, source, stage, source_key, aside, stats, time.perf_counter() - start)
    shutil.rmtree(work)
    return folder


def publish(
    store: Store, source: Source, stage: Stage, source_key: str, aside: Path, stats: dict[str, Any], seconds: float
) -> Path:
    """Make what lies in `aside` the next snapshot of a source's id; `stats` are what `scrape` tells of it."""
    earlier = sealed(store, source_key)
    files = describe_files(aside)
    manifest = {
        "format": FORMAT,
        "stage": "scrape",
        "source": source_key,
        "name": source.name,
        "sequence": _next(earlier),
        "parent": earlier[-1][1]["digest"] if earlier else None,
        "digest": digest_of(files),
        "files": files,
        "rows": stats["rows"],
        "stats": stats,
        "tools": stage.tool_versions(),
        "code": stage.code(),
        "sealed_at": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()),
        "run": {"seconds": seconds},
    }
    folder = store.root / "snapshots" / source_key / f"{_next(earlier):04d}"
    store.publish(aside, folder, manifest)
    return folder


def _next(earlier: list[tuple[Path, dict[str, Any]]]) -> int:
    return int(earlier[-1][0].name) + 1 if earlier else 0
