"""`gptmill doctor`: find what killed runs left in a store, and mend it.

What is mended is what would go on saying something untrue. Locks need no mending: the kernel frees them with their
holder. Nor does half a crawl or half a training, on which the next run goes on.
"""

import argparse
import os
import shutil
import signal
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from uuid import UUID

from flows import logs, server
from flows.display import Display
from flows.models import existing_store
from flows.options import with_store
from pipeline import purge
from pipeline.config import BadInput
from pipeline.engine import locks
from pipeline.engine.store import Store
from pipeline.engine.upkeep import size_of
from pipeline.takedowns import takedowns

HALF_WRITTEN = ".*." + 8 * "[0-9a-f]"
"""What `write_atomically` calls a file until it is whole."""
WRITTEN_IN = ("refs/*/", "refs/*/state/", "snapshots/*/*/", "artifacts/*/*/", "shards/*/*/")
WRITTEN_IN_ROOT = ("store.json", "hashes.json", "accepted.jsonl", "tombstones.jsonl")
"""Of a store's own folder, which may be one that a person keeps other things in."""
SERVER = b"prefect.server.api.server"
"""Stands in the command line of a Prefect server."""

Row = dict[str, Any]


def arguments(parser: argparse.ArgumentParser) -> None:
    """Declare them."""
    with_store(parser)
    parser.add_argument("--dry-run", action="store_true", help="only say what would be mended")


def run(options: argparse.Namespace, display: Display) -> int:
    """Mend the store, or say what is to be mended. BadInput while a run uses it."""
    store = existing_store(options.store)
    dry_run: bool = options.dry_run
    with locks.owning_store(store.root):
        told = [
            *_left_servers(store.root, dry_run),
            *_killed_runs(store, dry_run),
            *_half_written(store, dry_run),
            *_half_purged(store, dry_run),
        ]
        for line in told:
            print(line)  # noqa: T201  (the command's result)
        for folder in _work(store, goes_on=True):
            display.note(f"{store.relative(folder)}: {size_of(folder):,} bytes, on which the next run goes on.")
    display.note(f"{len(told)} {'thing' if len(told) == 1 else 'things'} {'to mend' if dry_run else 'mended'}.")
    return 0


def _left_servers(root: Path, dry_run: bool) -> Iterator[str]:
    """Prefect's servers of runs that are gone; where the kernel ends a child with its parent, there are none."""
    homes = [root / "prefect"] if _schedule_goes_on(root) else [root / "prefect", root / "schedule"]
    for process in Path("/proc").glob("[0-9]*"):
        try:
            left = (process / "cwd").readlink() in homes and SERVER in (process / "cmdline").read_bytes()
        except OSError:  # gone, or not ours
            continue
        if left:
            if not dry_run:
                os.kill(int(process.name), signal.SIGKILL)
            yield f"Prefect server, process {process.name}: its run is gone; {_done('ended', dry_run)}."


def _schedule_goes_on(root: Path) -> bool:
    lock = root / "locks" / "schedule.lock"
    try:
        if lock.exists():
            with locks.held_or_refused(lock, "It goes on."):
                pass
    except BadInput:
        return True
    return False


def _killed_runs(store: Store, dry_run: bool) -> Iterator[str]:
    """Runs whose log has no end although no run is at work, and what Prefect's servers believe of them."""
    killed: dict[Path, Row | None] = {}
    for log in sorted((store.root / "runs").glob("*.jsonl")):
        rows = logs.read(log)
        if not any(row["event"] == "end" for row in rows):
            killed[log] = next((row for row in rows if row["event"] == "flow" and "id" in row), None)
    by_server: dict[str | None, list[UUID]] = {}
    for flow in killed.values():
        if flow is not None:
            by_server.setdefault(flow["server"], []).append(UUID(flow["id"]))
    silent = set() if dry_run else {url for url, runs in by_server.items() if not _mark_crashed(store, url, runs)}
    for log, flow in killed.items():
        if not dry_run:
            logs.append(log, {"event": "end", "at": round(time.time(), 3), "status": "killed"})
        unheard = flow is not None and flow["server"] in silent
        but = f" {flow['server']} does not answer, and may still say that it runs." if flow and unheard else ""
        yield f"Run {log.stem} was killed; {_done('marked so', dry_run)}.{but}"


def _mark_crashed(store: Store, url: str | None, runs: list[UUID]) -> bool:
    """Have the server, or the store's embedded one, say that these runs crashed; False where it does not answer."""
    if url is None:
        configured = os.environ.pop("PREFECT_API_URL", None)
        try:
            with server.at_hand(store.root, lambda *_: None):
                _crash(os.environ["PREFECT_API_URL"], runs)
        finally:
            if configured is not None:
                os.environ["PREFECT_API_URL"] = configured
        return True
    import httpx

    try:
        _crash(url, runs)
    except httpx.HTTPError:
        return False
    return True


def _crash(url: str, runs: list[UUID]) -> None:
    from prefect.client.orchestration import get_client
    from prefect.settings import PREFECT_API_URL, temporary_settings
    from prefect.states import Crashed

    from flows.schedule.deployment import end, state_of

    with temporary_settings({PREFECT_API_URL: url}), get_client(sync_client=True) as client:
        for run in runs:
            state = state_of(client, run)
            if state is not None and not state.is_final():
                end(client, run, Crashed(message="It was killed. The next run goes on there."))


def _half_written(store: Store, dry_run: bool) -> Iterator[str]:
    patterns = [place + HALF_WRITTEN for place in WRITTEN_IN]
    patterns += [HALF_WRITTEN.replace("*", name, 1) for name in WRITTEN_IN_ROOT]
    for path in (path for pattern in patterns for path in sorted(store.root.glob(pattern))):
        if path.is_file():
            if not dry_run:
                path.unlink()
            yield f"{store.relative(path)} is half-written; {_done('deleted', dry_run)}."
    for folder in _work(store, goes_on=False):
        if not dry_run:
            shutil.rmtree(folder)
        yield f"{store.relative(folder)} is half-done and would be begun anew; {_done('deleted', dry_run)}."


def _work(store: Store, *, goes_on: bool) -> list[Path]:
    """Folders of stages that were stopped in their middle: those that the next run goes on with, or the others."""
    folders = sorted((store.root / "work").glob("*"))
    return [folder for folder in folders if folder.name.startswith(purge.GOES_ON) == goes_on]


def _half_purged(store: Store, dry_run: bool) -> Iterator[str]:
    if any((store.root / "snapshots").glob(f"*/{purge.ASIDE}*")):
        if not dry_run:
            purge.commit(store)
        yield f"A purge was killed; its snapshots {_done('brought to their end', dry_run)}."
    for row in takedowns(store.tombstones):
        if row.get("purge") and "purged" not in row and "undo" not in row:
            yield f"Takedown {row['takedown']} is not purged everywhere: run gptmill takedown again, with --purge."


def _done(what: str, dry_run: bool) -> str:
    return f"would be {what}" if dry_run else what
