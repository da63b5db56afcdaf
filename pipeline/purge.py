"""Purging: records taken out of sealed snapshots for good, and everything that was made from them.

The one thing that rewrites a snapshot. The hole is recorded: the page's row stays, with the outcome `purged` and
nothing of its content, and the manifest says when and for which takedown. A purge is prepared beside each snapshot and
put in place file by file, the manifest last; a killed one is finished by whoever comes next.
"""

import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.ipc as ipc
from numpy.typing import NDArray

from pipeline.crawl.seal import HOST_COUNTS, HOSTS, INDEX, PAGES, REVISITS
from pipeline.crawl.spool import REVISIT, STORED
from pipeline.crawl.urls import netloc_of
from pipeline.crawl.warc import read_member
from pipeline.documents import read_table, write_table
from pipeline.engine import locks
from pipeline.engine.keys import file_sha256
from pipeline.engine.store import MANIFEST, SEAL, Store, digest_of, flush, read_manifest, seal_of, write_atomically
from pipeline.takedowns import Document, now
from pipeline.tombstones import Tombstones, taken_down
from pipeline.versions import PURGED

Row = dict[str, Any]

ASIDE = ".purge-"
"""Begins the name of the folder beside a snapshot where its new files wait; nothing else begins with it."""

GOES_ON = ("scrape-", "pretrain-")
"""Begin the names of the work folders whose stages go on where they were stopped; what others left is made again."""

KEPT_COLUMNS = ("url", "requested_url", "status", "fetched_at", "stored_at", "depth")
"""What a purged page's row of the url index still says, beside its outcome."""


def purge_snapshots(store: Store, number: int, stones: Tombstones, documents: list[Document]) -> list[Row]:
    """Prepare every snapshot that holds what is named, or one of these documents, without it; `commit` puts it there.

    Returns for each the snapshot and the number of its records that go.
    """
    by_snapshot: dict[Path, set[str]] = {}
    for document in documents:
        by_snapshot.setdefault(document.snapshot, set()).add(document.url)
    told = []
    for folder in sorted((store.root / "snapshots").glob("*/[0-9]*")):
        index = read_table(folder / INDEX, ["url", "payload_digest", "offset"])
        urls = pa.array(sorted(by_snapshot.get(folder, ())), pa.string())
        same_payload = pc.is_in(pc.utf8_lower(index["payload_digest"]), pa.array(stones.payload_digest, pa.string()))
        doomed = taken_down(index["url"], stones) | pc.is_in(index["url"], urls).to_numpy() | same_payload.to_numpy()
        doomed &= index["offset"].is_valid().to_numpy()
        if doomed.any():
            _prepare(folder, doomed, number)
            told.append({"snapshot": store.relative(folder), "records": int(doomed.sum())})
    return told


def commit(store: Store) -> None:
    """Put in place every snapshot that was prepared to its end, and forget those that were not."""
    prepared = f"*/{ASIDE}*"
    if not any((store.root / "snapshots").glob(prepared)):
        return
    with locks.held(store.root / "locks" / "purge.lock"):
        asides = sorted((store.root / "snapshots").glob(prepared))
        for aside in asides:
            if read_manifest(aside) is not None:
                _put_in_place(aside, _final(aside))
        for aside in asides:
            _tell_child(_final(aside))
            shutil.rmtree(aside, ignore_errors=True)


def _put_in_place(aside: Path, folder: Path) -> None:
    """Move the new files of a snapshot to where they belong, the manifest last."""
    for path in sorted(path for path in aside.rglob("*") if path.is_file() and path.name != MANIFEST):
        path.replace(folder / path.relative_to(aside))
    (aside / MANIFEST).replace(folder / MANIFEST)
    flush(folder)


def _final(aside: Path) -> Path:
    """The snapshot whose new files wait in a folder."""
    return aside.with_name(aside.name.removeprefix(ASIDE))


def _tell_child(folder: Path) -> None:
    """The snapshot after this one names it by its digest."""
    child = folder.with_name(f"{int(folder.name) + 1:04d}")
    mine, its = read_manifest(folder), read_manifest(child)
    if mine is not None and its is not None and its["parent"] != mine["digest"]:
        _write_manifest(child, {**its, "parent": mine["digest"]})


def _prepare(folder: Path, doomed: NDArray[np.bool_], number: int) -> None:
    """Write the files of a snapshot that change without these rows' records, and last the manifest."""
    aside = folder.with_name(ASIDE + folder.name)
    shutil.rmtree(aside, ignore_errors=True)
    aside.mkdir()
    index = read_table(folder / INDEX).combine_chunks()
    payload_bytes = np.zeros(len(index), np.int64)
    moved = index["offset"].fill_null(-1).to_numpy().copy()
    parts, lengths = index["part"].fill_null(-1).to_numpy(), index["length"].fill_null(0).to_numpy()
    for part in np.unique(parts[doomed]).tolist():
        name = REVISITS if part < 0 else f"part-{part:05d}/{PAGES}"
        rows = np.flatnonzero((parts == part) & (moved >= 0))
        rows = rows[np.argsort(moved[rows], kind="stable")]
        _copy_members(folder / name, aside / name, rows, moved, lengths, doomed, payload_bytes)
    _write_index(folder / INDEX, aside / INDEX, doomed, moved, number)
    outcomes = index["outcome"].filter(pa.array(doomed)).to_pylist()
    hosts = [netloc_of(url) for url in index["url"].filter(pa.array(doomed)).to_pylist()]
    losses = list(zip(hosts, outcomes, payload_bytes[doomed].tolist(), strict=True))
    table = _without(read_table(folder / HOST_COUNTS).to_pylist(), losses)
    write_table(pa.Table.from_pylist(table, HOSTS), aside / HOST_COUNTS)
    _write_purged_manifest(folder, aside, losses, number)


def _copy_members(
    source: Path,
    target: Path,
    rows: NDArray[np.int64],
    offsets: NDArray[np.int64],
    lengths: NDArray[np.int64],
    doomed: NDArray[np.bool_],
    payload_bytes: NDArray[np.int64],
) -> None:
    """Copy a record file without the doomed rows' members.

    `rows` are the file's, in its order. Sets the new `offsets` of those that stay and the `payload_bytes` of those
    that go.
    """
    target.parent.mkdir(exist_ok=True)
    with source.open("rb") as old, target.open("wb") as new:
        new.write(old.read(int(offsets[rows[0]])))  # the warcinfo record
        for row in rows.tolist():
            old.seek(int(offsets[row]))
            member = old.read(int(lengths[row]))
            if doomed[row]:
                payload_bytes[row] = _payload_size(member)
                offsets[row] = -1
            else:
                offsets[row] = new.tell()
                new.write(member)


def _payload_size(member: bytes) -> int:
    """Bytes of the payload of a record, as `bytes` counts them when a snapshot is sealed."""
    record = read_member(member) or b""
    head, _, block = record.partition(b"\r\n\r\n")
    if b"application/http" in head:
        block = block.partition(b"\r\n\r\n")[2]
    return max(len(block) - len(b"\r\n\r\n"), 0)


def _write_index(
    source: Path, target: Path, doomed: NDArray[np.bool_], offsets: NDArray[np.int64], number: int
) -> None:
    """Write the url index anew, batch by batch as it was."""
    done = 0
    with pa.memory_map(str(source)) as file:
        reader = ipc.open_file(file)
        with ipc.new_file(target, reader.schema) as writer:
            for place in range(reader.num_record_batches):
                batch = reader.get_batch(place)
                here = slice(done, done + len(batch))
                done += len(batch)
                gone = pa.array(doomed[here])
                told: Row = {"outcome": PURGED, "detail": f"takedown {number}", "links": []}
                columns = []
                for field in reader.schema:
                    old = batch[field.name]
                    if field.name == "offset":
                        old = pa.array(offsets[here], pa.int64(), mask=offsets[here] < 0)
                    elif field.name not in KEPT_COLUMNS:
                        old = pc.if_else(gone, pa.scalar(None, field.type), old)
                    if field.name in told:
                        old = pc.if_else(gone, pa.scalar(told[field.name], field.type), old)
                    columns.append(old)
                writer.write_batch(pa.RecordBatch.from_arrays(columns, schema=reader.schema))


def _without(hosts: list[Row], losses: list[tuple[str, str, int]]) -> list[Row]:
    """Rows of counts by host without what was lost; outcomes as pairs, as `hosts.arrow` has them."""
    by_host = {row["host"]: {**row, "outcomes": dict(row["outcomes"])} for row in hosts}
    for host, outcome, size in losses:
        if host in by_host:
            _lose(by_host[host], outcome, size)
    return [{**row, "outcomes": sorted(row["outcomes"].items())} for row in by_host.values()]


def _lose(counts: Row, outcome: str, size: int) -> None:
    """Count one page as purged that was counted under another outcome."""
    outcomes = counts["outcomes"]
    outcomes[outcome] -= 1
    if not outcomes[outcome]:
        del outcomes[outcome]
    outcomes[PURGED] = outcomes.get(PURGED, 0) + 1
    counts["pages"] -= outcome in (STORED, REVISIT)
    counts["bytes"] -= size if outcome == STORED else 0


def _write_purged_manifest(folder: Path, aside: Path, losses: list[tuple[str, str, int]], number: int) -> None:
    manifest = read_manifest(folder)
    assert manifest is not None, "a snapshot without a manifest is refused before"
    changed = {path.relative_to(aside).as_posix(): path for path in aside.rglob("*") if path.is_file()}
    facts = {name: {"size": path.stat().st_size, "sha256": file_sha256(path)} for name, path in changed.items()}
    files = {**manifest["files"], **facts}
    stats = {**manifest["stats"], "outcomes": dict(manifest["stats"]["outcomes"])}
    stats["hosts"] = {name: {**row, "outcomes": dict(row["outcomes"])} for name, row in stats["hosts"].items()}
    for host, outcome, size in losses:
        for counts in (stats, *([stats["hosts"][host]] if host in stats["hosts"] else [])):
            _lose(counts, outcome, size)
    stats["rows"] -= sum(outcome == STORED for _, outcome, _ in losses)
    hole = {"takedown": number, "at": now(), "records": len(losses), "digest_before": manifest["digest"]}
    holes = [*manifest.get("holes", []), hole]
    told = {"files": files, "digest": digest_of(files), "stats": stats, "rows": stats["rows"], "holes": holes}
    for path in changed.values():
        flush(path)
    _write_manifest(aside, {**manifest, **told})


def _write_manifest(folder: Path, manifest: Row) -> None:
    text = json.dumps({**manifest, SEAL: seal_of(manifest)}, indent=1, sort_keys=True)
    write_atomically(folder / MANIFEST, text)


def forget(store: Store, documents: set[bytes]) -> list[Path]:
    """Delete every shard and artifact with a row of these documents, and what only refers to such; tell which.

    Checkpoints, tokenizers and evaluations hold no rows and stay; what was put aside or left half-done goes. What lies
    downstream goes first, so that a killed purge finds the rest again.
    """
    wanted = pa.array(sorted(documents), pa.binary(16))
    shards = {folder for folder in (store.root / "shards").glob("*/*") if _holds(folder, wanted)}
    gone: list[Path] = []
    for manifest in store.manifests():
        folder = store.artifact_folder(manifest["stage"], manifest["key"])
        if _holds(folder, wanted) or any(store.root / part["at"] in shards for part in manifest["parts"]):
            gone.append(folder)
    keys = {(folder.parent.name, folder.name) for folder in gone}
    for manifest in store.manifests("report"):  # it shows excerpts that the manifest of deduplicate holds
        if any((value.get("stage"), value.get("key")) in keys for value in manifest["inputs"].values()):
            gone.append(store.artifact_folder("report", manifest["key"]))
    extracted = {folder for folder in shards if folder.parent.name == "extract"}
    halves = [folder for folder in (store.root / "work").glob("*") if not folder.name.startswith(GOES_ON)]
    aside = sorted((store.root / "aside").glob("*"))
    order = [*gone[::-1], *sorted(shards - extracted), *sorted(extracted), *aside, *sorted(halves)]
    for folder in order:
        shutil.rmtree(folder, ignore_errors=True)
    return order


def _holds(folder: Path, doc_ids: pa.Array) -> bool:
    """Whether a folder has an Arrow file with a row of one of these documents, or one that cannot be read."""
    for path in sorted(folder.rglob("*.arrow*")):
        try:
            found = read_table(path, ["doc_id"])["doc_id"]
        except (ValueError, pa.ArrowInvalid):  # no ledger; or put aside as damaged
            if path.suffix != ".arrow":
                return True
            continue
        if pc.any(pc.is_in(found, doc_ids)).as_py():
            return True
    return False
