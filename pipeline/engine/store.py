"""The store: a folder where every artifact lies under a name computed from what made it.

    snapshots/<source>/<seq>/   a sealed crawl; never rewritten
    artifacts/<stage>/<key>/    manifest.json and, for stages that are no map, the files
    shards/<stage>/<key>/       one part's output of a map stage
    work/<stage>-<key>/         where a stage works; stable, so that a killed run resumes
    aside/                      damaged folders that were replaced
    locks/  refs/  runs/  tombstones.jsonl  accepted.jsonl

An artifact appears whole or not at all: it is written aside, flushed to disk, its manifest last, and renamed.
Paths inside manifests are relative to the store, so a store can be moved.
"""

import errno
import hashlib
import json
import os
import secrets
import shutil
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from pipeline.config import BadInput
from pipeline.engine.keys import content_digest, file_sha256

FORMAT = 1
"""Of a store, its manifests and its keys. Whoever raises it tells `Store` what becomes of a store of the one before."""
MANIFEST = "manifest.json"
SEAL = "seal"
"""Where a manifest holds the sha256 of the rest of it."""
CORRUPT_SUFFIX = ".corrupt"
REPORT_FOLDER = "report/"
"""Files under this folder of an artifact (timings, metrics, plots) are listed but are no part of its digest."""


@dataclass(frozen=True)
class Part:
    """One shard's worth of an artifact: a folder with files of fixed names. `snapshot` is "<source>/<seq>"."""

    folder: Path
    digest: str
    snapshot: str = ""
    source: str = ""


@dataclass(frozen=True)
class Artifact:
    """An immutable result. `digest` names its content, `key` what made it; `folders` are the snapshots of a scrape."""

    stage: str
    key: str
    digest: str
    path: Path
    parts: tuple[Part, ...] = ()
    folders: tuple[Path, ...] = ()
    manifest: dict[str, Any] = field(default_factory=dict, repr=False, compare=False)
    first_snapshots: int | None = None

    def of_first_snapshots(self, count: int) -> "Artifact":
        """The parts that come from the first `count` snapshots of each source, with a digest of just those."""
        kept = [p for p in self.parts if p.snapshot and int(p.snapshot.rpartition("/")[2]) < count]
        digest = content_digest((f"{i}", 0, part.digest) for i, part in enumerate(kept))
        return replace(self, parts=tuple(kept), digest=digest, first_snapshots=count)

    def reference(self) -> dict[str, Any]:
        """What stands for the artifact in JSON: enough for `Store.load` to find it again."""
        reference: dict[str, Any] = {"stage": self.stage, "key": self.key, "digest": self.digest}
        return reference if self.first_snapshots is None else {**reference, "snapshots": self.first_snapshots}


@dataclass(frozen=True)
class Damage:
    """One file that is not what its manifest says: `part` is the first component of its name in the artifact."""

    file: Path
    name: str
    problem: str

    def __str__(self) -> str:
        part = self.name.split("/")[0] if self.name.startswith("part-") else self.name
        return f"{part} {self.problem}"


class Store:
    """The folders of one store, which need not exist yet; a store of another format is refused.

    One without a marker is of the first format: a folder that snapshots or artifacts were copied into, say.
    """

    def __init__(self, root: Path) -> None:
        self.root = root.absolute()
        self._marker = self.root / "store.json"
        try:
            found = json.loads(self._marker.read_text())["format"] if self._marker.is_file() else FORMAT
        except (OSError, ValueError, KeyError, TypeError) as error:
            raise BadInput(f"{self._marker} cannot be read ({error}): restore it, or give another --store.") from error
        if found != FORMAT:
            age, advice = "older", "use the gptmill that made it"
            if isinstance(found, int) and found > FORMAT:
                age, advice = "newer", "update gptmill"
            raise BadInput(
                f"The store {root} has format {found}, {age} than the {FORMAT} that this gptmill reads and writes: "
                f"{advice}, or give another --store folder."
            )

    def exists(self) -> bool:
        """Whether there is anything yet."""
        return any(path.exists() for path in (self._marker, self.root / "snapshots", self.root / "artifacts"))

    def create(self) -> None:
        """Make the store's folder and marker if they are not there; BadInput where that cannot be done."""
        if self._marker.is_file():
            return
        try:
            write_atomically(self._marker, json.dumps({"format": FORMAT}))
        except OSError as error:
            reason = error.strerror or error
            raise BadInput(f"The store {self.root} cannot be made: {reason}. Give another --store folder.") from error

    def artifact_folder(self, stage: str, key: str) -> Path:
        """Where the artifact of that stage and key lies or would lie."""
        return self.root / "artifacts" / stage / key

    def shard_folder(self, stage: str, key: str) -> Path:
        """Where one part's output of a map stage lies or would lie."""
        return self.root / "shards" / stage / key

    def work_folder(self, stage: str, key: str) -> Path:
        """The stable folder where that stage works under that key; made if it is not there."""
        folder = self.root / "work" / f"{stage}-{key}"
        folder.mkdir(parents=True, exist_ok=True)
        return folder

    @property
    def tombstones(self) -> Path:
        """The takedown list; it need not exist."""
        return self.root / "tombstones.jsonl"

    def manifest(self, stage: str, key: str) -> dict[str, Any] | None:
        """The manifest of that artifact, or None where there is none that can be read."""
        return read_manifest(self.artifact_folder(stage, key))

    def load(self, stage: str, key: str) -> Artifact | None:
        """The artifact of that stage and key as its manifest tells it, whether or not its files are sound."""
        manifest = self.manifest(stage, key)
        return None if manifest is None else self.from_manifest(manifest)

    def from_manifest(self, manifest: dict[str, Any]) -> Artifact:
        """The artifact that a manifest of this store describes."""
        parts = tuple(
            Part(self.root / part["at"], part["digest"], part["snapshot"], part["source"]) for part in manifest["parts"]
        )
        path = self.artifact_folder(manifest["stage"], manifest["key"])
        return Artifact(manifest["stage"], manifest["key"], manifest["digest"], path, parts, (), manifest)

    def manifests(self, stage: str | None = None) -> Iterator[dict[str, Any]]:
        """All manifests in the store (of one stage), those written last first."""
        folders = (self.root / "artifacts").glob(f"{stage or '*'}/*/{MANIFEST}")
        for path in sorted(folders, key=lambda p: p.stat().st_mtime, reverse=True):
            manifest = read_manifest(path.parent)
            if manifest is not None:
                yield manifest

    def damage(self, folder: Path, manifest: dict[str, Any], *, full: bool = False) -> list[Damage]:
        """Files that are missing, have another size, or (`full`) other bytes than the manifest in `folder` says."""
        found = []
        for name, facts in manifest["files"].items():
            path = self.root / facts["at"] if "at" in facts else folder / name
            problem = file_problem(path, facts["size"], facts["sha256"] if full else None)
            if problem:
                found.append(Damage(path, name, problem))
        return found

    def sound_shard(self, stage: str, key: str) -> dict[str, Any] | None:
        """The manifest of a shard whose files are all there with their sizes, or None."""
        folder = self.shard_folder(stage, key)
        manifest = read_manifest(folder)
        return manifest if manifest is not None and not self.damage(folder, manifest) else None

    def put_aside(self, folder: Path) -> Path:
        """Move a damaged folder out of the way, to `aside/`, and tell where it went."""
        target = self.root / "aside" / folder.parent.name / folder.name
        number = 0
        while target.with_name(f"{folder.name}.{number}").exists():
            number += 1
        target = target.with_name(f"{folder.name}.{number}")
        target.parent.mkdir(parents=True, exist_ok=True)
        folder.rename(target)
        return target

    def publish(self, aside: Path, folder: Path, manifest: dict[str, Any], *, replace: bool = False) -> dict[str, Any]:
        """Give the files in `aside` their final name `folder`, manifest last; returns the manifest that is there then.

        A sound earlier result wins, unless it is to be replaced; a damaged one is put aside.
        """
        for path in sorted(aside.rglob("*")):
            if path.is_file():
                flush(path)
        write_atomically(aside / MANIFEST, json.dumps({**manifest, SEAL: seal_of(manifest)}, indent=1, sort_keys=True))
        folder.parent.mkdir(parents=True, exist_ok=True)
        if folder.exists():
            earlier = read_manifest(folder)
            if earlier is not None and not replace and not self.damage(folder, earlier):
                shutil.rmtree(aside)
                return earlier
            self.put_aside(folder)
        try:
            aside.rename(folder)
        except OSError as error:
            earlier = read_manifest(folder)
            if error.errno not in (errno.ENOTEMPTY, errno.EEXIST) or earlier is None:
                raise
            # Somebody else was first in the meantime, with the same bytes.
            shutil.rmtree(aside)
            return earlier
        flush(folder.parent)
        return manifest

    def relative(self, path: Path) -> str:
        """A path below the store as manifests write it."""
        return path.absolute().relative_to(self.root).as_posix()


def describe_files(folder: Path) -> dict[str, dict[str, Any]]:
    """{relative path: {size, sha256}} of the files below a folder, the manifest left out."""
    return {
        path.relative_to(folder).as_posix(): {"size": path.stat().st_size, "sha256": file_sha256(path)}
        for path in sorted(folder.rglob("*"))
        if path.is_file() and path.name != MANIFEST
    }


def digest_of(files: dict[str, dict[str, Any]]) -> str:
    """The content digest of described files; those under `report/` do not count."""
    return content_digest(
        (name, facts["size"], facts["sha256"]) for name, facts in files.items() if not name.startswith(REPORT_FOLDER)
    )


def file_problem(path: Path, size: int, sha256: str | None = None) -> str | None:
    """What is wrong with a file ("missing", "corrupt", …), or None. Its bytes are read if `sha256` is given."""
    try:
        found = path.stat().st_size
    except OSError:
        return "corrupt" if path.with_name(path.name + CORRUPT_SUFFIX).exists() else "missing"
    if found != size:
        return f"has {found:,} bytes in place of {size:,}"
    return "corrupt" if sha256 is not None and file_sha256(path) != sha256 else None


def seal_of(manifest: dict[str, Any]) -> str:
    """The sha256 of a manifest's content, by which a damaged one is known."""
    return hashlib.sha256(json.dumps(manifest, sort_keys=True).encode()).hexdigest()


def read_manifest(folder: Path) -> dict[str, Any] | None:
    """The manifest in a folder, or None where it is missing or not as it was written."""
    manifest = read_object(folder / MANIFEST)
    return manifest if manifest.pop(SEAL, None) == seal_of(manifest) else None


def read_object(path: Path) -> dict[str, Any]:
    """The JSON object in a file; an empty one where the file is missing or holds no object."""
    try:
        value = json.loads(path.read_bytes())
    except (OSError, ValueError):
        return {}
    return value if isinstance(value, dict) else {}


def write_atomically(path: Path, text: str) -> None:
    """Write a small file so that a reader sees the old one or the new one, never half of it."""
    with replacing(path) as aside:
        aside.write_text(text, encoding="utf-8")


@contextmanager
def replacing(path: Path) -> Iterator[Path]:
    """A path to write to, which takes the place of `path` at the end, whole and on disk."""
    path.parent.mkdir(parents=True, exist_ok=True)
    aside = path.with_name(f".{path.name}.{secrets.token_hex(4)}")
    try:
        yield aside
        flush(aside)
        aside.replace(path)
    finally:
        aside.unlink(missing_ok=True)


def caches() -> Path:
    """The folder in the user's cache for what is made once on a machine; it need not exist, nor be possible to make."""
    try:
        return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "gptmill"
    except RuntimeError:  # nobody's home
        return Path(os.devnull) / "gptmill"


def flush(path: Path) -> None:
    """Force a file or folder to disk."""
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def merge_stats(all_stats: Sequence[dict[str, Any]] | Iterable[dict[str, Any]]) -> dict[str, Any]:
    """Add up the stats of parts: numbers are summed, dicts merged, lists joined, other values must not differ."""
    total: dict[str, Any] = {}
    for stats in all_stats:
        for name, value in stats.items():
            if name not in total:
                total[name] = value
            elif isinstance(value, dict):
                total[name] = merge_stats([total[name], value])
            elif (isinstance(value, (int, float)) and not isinstance(value, bool)) or isinstance(value, list):
                total[name] = total[name] + value
    return total
