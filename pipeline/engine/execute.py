"""Run one stage: lock its key, look again, work, publish. Whoever comes second finds the result and uses it."""

import platform
import shutil
import socket
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

from pipeline.config import BadInput, StageFailed, StageStopped
from pipeline.engine import locks
from pipeline.engine.executor import ShardTask, Workers
from pipeline.engine.hashes import Files
from pipeline.engine.keys import content_digest
from pipeline.engine.resolve import Input, Request, Resolution, resolve, shard_keys
from pipeline.engine.store import FORMAT, Artifact, Part, Store, describe_files, digest_of, merge_stats

Progress = Callable[[int, int, str], None]
"""Called with (done, total, a few words such as "pages" or "loss 2.31")."""

OnPart = Callable[[int, Part], None]
AHEAD = "ahead"
"""What the folder is called, before the part's key, in which a part is made ahead of its stage's turn."""


def execute(
    store: Store,
    request: Request,
    workers: Workers,
    progress: Progress,
    *,
    force: bool = False,
    on_wait: Callable[[], None] | None = None,
    on_part: OnPart = lambda _index, _part: None,
) -> tuple[Artifact, Resolution]:
    """The artifact of a request, made if it is not there. Also tells how it was found: `cached`, or `run` and why.

    `on_part` is called with the number and the place of each part of a map stage as soon as it is there.
    """
    name, key = request.stage.name, request.key()
    with locks.held(store.root / "locks" / f"{name}-{key}.lock", on_wait=on_wait):
        found = resolve(store, request, force=force)
        if found.artifact is not None:
            return found.artifact, found
        start = time.time()
        if request.stage.kind == "map":
            manifest = _map(store, request, workers, progress, force, on_part)
        else:
            manifest = _whole(store, request, found, progress, force)
        manifest["run"] = {
            **manifest["run"],
            "started": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(start)),
            "wall_seconds": round(time.time() - start, 3),
            "host": socket.gethostname(),
            "machine": platform.machine(),
            "python": platform.python_version(),
            "jobs": workers.jobs,
        }
        _publish(store, request, found.key, manifest)
    artifact = store.load(name, key)
    assert artifact is not None
    return artifact, found


def begin_part(store: Store, request: Request, workers: Workers, index: int) -> None:
    """Have one part of a map stage made ahead of the stage's turn, unless it is there. `execute` finds it then.

    `request` has the inputs of that part alone. Work lies apart from the stage's own, which another run may be at.
    """
    stage, [key] = request.stage, shard_keys(request)
    if store.sound_shard(stage.name, key) is None:
        task = _task(store, request, 0, key, store.work_folder(AHEAD, key))
        workers.begin(replace(task, part=index))


def _map(
    store: Store, request: Request, workers: Workers, progress: Progress, force: bool, on_part: OnPart
) -> dict[str, Any]:
    """Make the parts that are not there and describe all of them. Equal parts share one shard folder."""
    stage = request.stage
    keys = shard_keys(request)
    work = store.work_folder(stage.name, request.key())
    manifests: dict[str, dict[str, Any]] = {}
    tasks: dict[str, ShardTask] = {}
    for i, key in enumerate(keys):
        sound = None if force or workers.has_begun(stage.name, key) else store.sound_shard(stage.name, key)
        if sound is not None:
            manifests[key] = sound
        elif key not in tasks:
            tasks[key] = replace(_task(store, request, i, key, work), replace=force)
    done, rows = len(keys) - len(tasks), 0
    places: dict[str, list[int]] = {}
    for i, key in enumerate(keys):
        places.setdefault(key, []).append(i)

    def tell(key: str) -> None:
        for i in places[key]:
            on_part(i, _part(store, request, i, key, manifests[key]))

    for key in manifests:
        tell(key)
    progress(done, len(keys), "parts")
    for task, manifest in workers.map(list(tasks.values()), brief=stage.brief):
        manifests[task.key] = manifest
        tell(task.key)
        done, rows = done + 1, rows + manifest["rows"]
        progress(done, len(keys), f"parts · {rows:,} rows")
    files, parts = {}, []
    for i, key in enumerate(keys):
        part = _part(store, request, i, key, manifests[key])
        at = store.relative(part.folder)
        for name, facts in manifests[key]["files"].items():
            files[f"part-{i:05d}/{name}"] = {**facts, "at": f"{at}/{name}"}
        parts.append({"at": at, "digest": part.digest, "snapshot": part.snapshot, "source": part.source})
        shutil.rmtree(store.root / "work" / f"{AHEAD}-{key}", ignore_errors=True)
    made = [manifests[key]["run"] for key in tasks]
    return {
        "files": files,
        "parts": parts,
        "stats": merge_stats(manifests[key]["stats"] for key in keys),
        "rows": sum(manifests[key]["rows"] for key in keys),
        "run": {"parts_made": len(made), **merge_stats(made)},
    }


def _task(store: Store, request: Request, index: int, key: str, work: Path) -> ShardTask:
    """What is to be done for one part of a map stage."""
    stage, arguments = request.stage, _arguments(request, index)
    folders = [arguments[name] for name in stage.parts if name in arguments]
    size = sum(file.stat().st_size for folder in folders for file in folder.iterdir())
    return ShardTask(stage.name, key, index, stage.function, arguments, store.root, work, input_bytes=size)


def _part(store: Store, request: Request, index: int, key: str, manifest: dict[str, Any]) -> Part:
    """A part of a map stage's artifact: where it lies, and whence it comes."""
    source = request.partitioned(request.stage.parts[0])[index]
    return Part(store.shard_folder(request.stage.name, key), manifest["digest"], source.snapshot, source.source)


def _whole(store: Store, request: Request, found: Resolution, progress: Progress, force: bool) -> dict[str, Any]:
    """Call the stage once, in a stable work folder, and describe what it wrote."""
    stage = request.stage
    work = store.work_folder(stage.name, found.key)
    if force:
        shutil.rmtree(work)
    out, state = work / "out", work / "state"
    shutil.rmtree(out, ignore_errors=True)
    out.mkdir(parents=True)
    arguments = _arguments(request, None)
    if "progress" in stage.extras:
        arguments["progress"] = progress
    if "work" in stage.extras:
        state.mkdir(exist_ok=True)
        arguments["work"] = state
    start, cpu_start = time.perf_counter(), time.process_time()
    try:
        stats = stage.load()(out=out, **arguments)
    except (BadInput, StageFailed, OSError):
        raise
    except Exception as error:
        # model/ cannot import our exceptions; its own is one sentence for the user already.
        kinds = {kind.__name__ for kind in type(error).__mro__}
        told = "TrainingError" in kinds
        failed = StageStopped if "TrainingStopped" in kinds else StageFailed
        raise failed(str(error) if told else f"{stage.name} failed: {type(error).__name__}: {error}") from error
    run = {"seconds": time.perf_counter() - start, "cpu_seconds": time.process_time() - cpu_start}
    described = describe_files(out)
    at = store.relative(store.artifact_folder(stage.name, found.key))
    by_part: dict[str, list[tuple[str, int, str]]] = {}
    for name, facts in described.items():
        if name.startswith("part-"):
            part, _, rest = name.partition("/")
            by_part.setdefault(part, []).append((rest, facts["size"], facts["sha256"]))
    sources = request.partitioned(stage.parts[0]) if by_part else ()
    parts = [
        {
            "at": f"{at}/{part}",
            "digest": content_digest(by_part[part]),
            "snapshot": source.snapshot,
            "source": source.source,
        }
        for part, source in zip(sorted(by_part), sources, strict=bool(by_part))
    ]
    files = {name: {**facts, "at": f"{at}/{name}"} for name, facts in described.items()}
    return {"files": files, "parts": parts, "stats": stats, "rows": stats["rows"], "run": run}


def _publish(store: Store, request: Request, key: str, made: dict[str, Any]) -> None:
    """Put the artifact in its place. A map's artifact is only a manifest that refers to its shards."""
    name = request.stage.name
    manifest = {
        "format": FORMAT,
        "stage": name,
        "key": key,
        "key_document": request.document(),
        "implementation": request.implementation,
        "digest": digest_of(made["files"]),
        "inputs": {
            input_name: value.reference() if isinstance(value, Artifact) else _file_reference(value)
            for input_name, value in request.inputs.items()
        },
        "tools": request.tools,
        **made,
    }
    folder = store.artifact_folder(name, key)
    work = store.work_folder(name, key)
    out = work / "out"
    if request.stage.kind == "map":
        out.mkdir(exist_ok=True)
    store.publish(out, folder, manifest, replace=True)
    shutil.rmtree(work)


def _file_reference(files: Files) -> dict[str, Any]:
    return {"files": [str(path) for path in files.paths], "digest": files.digest}


def _arguments(request: Request, part: int | None) -> dict[str, Any]:
    """Keyword arguments of the stage's function, for one part of a map stage or for a whole stage."""
    stage = request.stage
    arguments: dict[str, Any] = {"config": request.config}
    if "manifests" in stage.extras:
        artifacts = {name: value for name, value in request.inputs.items() if isinstance(value, Artifact)}
        return {
            **arguments,
            "manifests": {name: artifact.manifest for name, artifact in artifacts.items()},
            "folders": {name: _whole_argument(artifact) for name, artifact in artifacts.items()},
        }
    for name, value in request.inputs.items():
        if name in stage.parts:
            folders = [each.folder for each in request.partitioned(name)]
            arguments[name] = folders if part is None else folders[part]
        else:
            arguments[name] = _whole_argument(value)
    if part is not None and "source" in stage.extras:
        arguments["source"] = request.partitioned(stage.parts[0])[part].source
    return arguments


def _whole_argument(value: Input) -> Any:
    if isinstance(value, Files):
        return (value.paths[0] if value.paths else None) if value.single else list(value.paths)
    if value.folders:
        return list(value.folders)
    return [part.folder for part in value.parts] if value.parts else value.path
