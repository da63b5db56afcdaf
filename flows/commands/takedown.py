"""`gptmill takedown`: withhold a page, or a host, from every corpus; list what was; lift it; remove it for good."""

import argparse
import json
import sqlite3
from contextlib import closing
from pathlib import Path
from typing import Any

from flows import refs
from flows.commands.trace import is_doc_id
from flows.display import Display, printable
from flows.runs import Run, runs
from flows.server import configured
from pipeline import held_out
from pipeline.config import BadInput
from pipeline.crawl.urls import canonical_url
from pipeline.engine import locks
from pipeline.engine.store import Store
from pipeline.purge import commit, forget, purge_snapshots
from pipeline.takedowns import (
    Document,
    document_shards,
    near_copies,
    now,
    reached,
    record,
    redirect_targets,
    takedowns,
    tell,
    trained_on,
    urls_of_id,
    with_digests,
)
from pipeline.tombstones import NONE, Tombstones

Row = dict[str, Any]

NAMED_DOCUMENTS = 10
"""Documents, and checkpoints, that are named; `--json` has all."""

BUSY_SECONDS = 60.0
"""A schedule's server may be writing."""

FORGOTTEN = json.dumps("What this report showed was purged.")


def takedown(store: Store, options: argparse.Namespace, display: Display) -> None:
    """Do what is asked for and print it."""
    if options.what is None:
        result = {"takedowns": takedowns(store.tombstones)}
        lines = [_list_line(row) for row in result["takedowns"]] or ["Nothing was ever taken down."]
    elif options.undo:
        result = _undo(store, options)
        lines = [f"{_title(row)} is lifted: {_what_comes_back(row)}." for row in result["lifted"]]
    else:
        result = _take_down(store, options, display)
        lines = _lines(result)
    print(json.dumps(result, indent=1) if options.json else "\n".join(lines))  # noqa: T201  (the command's result)


def _take_down(store: Store, options: argparse.Namespace, display: Display) -> Row:
    if not (options.reason or "").strip():
        raise BadInput("takedown needs a --reason: it stands in the list for whoever asks later.")
    purging = options.purge and not options.dry_run
    with locks.owning_store(store.root) if purging else locks.using_store(store.root):
        commit(store)
        named = _named(store, options.what)
        stones, by_shard, near = _reach(store, named, options)
        documents = list(dict.fromkeys(document for found in by_shard.values() for document in found))
        checkpoints = _with_runs(trained_on(store, by_shard), runs(store))
        result = {
            "takedown": None,
            "url": stones.url,
            "host": stones.host,
            "reason": options.reason,
            "documents": [_document(document) for document in documents],
            "near_copies": near,
            "checkpoints": checkpoints,
            "purged": None,
        }
        if options.dry_run:
            return result
        trained = [row["key"] for row in checkpoints if row["shards"]]
        facts = {"at": now(), "reason": options.reason, "checkpoints": trained}
        number = record(store, stones, {**facts, **({"purge": True} if purging else {})})
        purged = _purge(store, number, stones, documents, display) if purging else None
    return {**result, "takedown": number, "purged": purged}


def _reach(
    store: Store, named: Tombstones, options: argparse.Namespace
) -> tuple[Tombstones, dict[Path, list[Document]], list[Row]]:
    """The tombstones, the documents that they reach by shard, and the near copies that they do not."""
    shards = document_shards(store)
    stones = named if options.keep_copies else with_digests(store, named)
    documents = reached(shards, stones)
    near = near_copies(store, {document.doc_id for found in documents.values() for document in found})
    if not (options.near and near):
        return stones, documents, near
    named = named._replace(url=sorted({*named.url, *(row["url"] for row in near)}))
    stones = named if options.keep_copies else with_digests(store, named)
    return stones, reached(shards, stones), []


def _named(store: Store, what: str) -> Tombstones:
    """The URL or host that is meant; BadInput where it is neither."""
    if is_doc_id(what):
        urls = urls_of_id(document_shards(store), bytes.fromhex(what))
        if not urls:
            raise BadInput(f"No document in {store.root} has the id {what}: give its URL or its host.")
        return NONE._replace(url=urls)
    if "://" in what:
        asked = {what, canonical_url(what) or what}
        return NONE._replace(url=sorted(asked | redirect_targets(store, sorted(asked))))
    url = canonical_url(f"http://{what}/")
    host = (url or "").removeprefix("http://").removesuffix("/")
    if not host or "/" in what or (":" in host and not host.startswith("[")):
        raise BadInput(f"{what} is no URL, host or document's id: write http://…, or a host without port.")
    return NONE._replace(host=[host])


def _purge(store: Store, number: int, stones: Tombstones, documents: list[Document], display: Display) -> Row:
    """Take the records out of the snapshots, and delete what was made from them."""
    snapshots = purge_snapshots(store, number, stones, documents)
    for path in refs.validation_paths(store):  # while the documents can still be found again, should this be killed
        held_out.forget(path, stones, {document.url for document in documents})
    deleted = forget(store, {document.doc_id for document in documents})
    commit(store)
    _forget_reports(store)
    tell(store, {"purged": number, "at": now(), "snapshots": snapshots})
    if any((store.root / "work").glob("scrape-*")):
        display.note("A crawl was stopped in its middle and may hold such pages: let it end, then purge again.")
    if configured() is not None:
        display.note("The reports of deduplicate on your Prefect server show excerpts: delete those artifacts there.")
    return {"snapshots": snapshots, "deleted": [store.relative(folder) for folder in deleted]}


def _forget_reports(store: Store) -> None:
    """Overwrite the excerpts that Prefect's servers of this store show of duplicates, on disk too."""
    for path in store.root.glob("*/prefect.db"):
        with closing(sqlite3.connect(path, timeout=BUSY_SECONDS, isolation_level=None)) as database:
            database.execute("pragma secure_delete = on")
            for table in ("artifact", "artifact_collection"):
                database.execute(f"update {table} set data = ? where key = 'deduplicate'", (FORGOTTEN,))  # noqa: S608
            shown = "event like 'prefect.artifact%' and resource like '%\"deduplicate\"%'"
            database.execute(f"update events set payload = '{{}}' where {shown}")  # noqa: S608  (our own words)
            database.execute("vacuum")
            database.execute("pragma wal_checkpoint(truncate)")


def _undo(store: Store, options: argparse.Namespace) -> Row:
    """Lift a takedown given by its number, or those in force that name the URL or host."""
    in_force = [row for row in takedowns(store.tombstones) if "undo" not in row and row["takedown"] is not None]
    if options.what.isdigit():
        lifted = [row for row in in_force if row["takedown"] == int(options.what)]
    else:
        named = _named(store, options.what)
        lifted = [row for row in in_force if {*named.url, *named.host} & {*row["url"], *row["host"]}]
    if not lifted:
        raise BadInput(f"No takedown in force is {options.what}, or names it: gptmill takedown lists them.")
    for row in lifted:
        tell(store, {"undo": row["takedown"], "at": now(), "reason": options.reason})
    return {"lifted": lifted}


def _document(document: Document) -> Row:
    return {
        "url": document.url,
        "doc_id": document.doc_id.hex(),
        "snapshot": f"{document.snapshot.parent.name}/{document.snapshot.name}",
        "copy": document.copy,
    }


def _with_runs(checkpoints: list[Row], known: list[Run]) -> list[Row]:
    """The checkpoints with the runs that made or used them: their names where they have some, else their ids."""
    return [
        {
            **checkpoint,
            "runs": [
                name
                for run in known
                if run.stages.get("pretrain", {}).get("key") == checkpoint["key"]
                for name in run.names or (run.id,)
            ],
        }
        for checkpoint in checkpoints
    ]


def _lines(result: Row) -> list[str]:
    number = result["takedown"]
    what = ", ".join([*result["url"][:NAMED_DOCUMENTS], *result["host"]])
    lines = [f"takedown {number}: {what}" if number else f"would take down: {what}"]
    copies = sum(document["copy"] for document in result["documents"])
    lines.append(f"  {len(result['documents']) - copies:,} documents named, {copies:,} copies of them elsewhere")
    for document in result["documents"][:NAMED_DOCUMENTS]:
        lines.append(f"    {document['url']}{' (a copy)' if document['copy'] else ''}")
    lines += _more(result["documents"])
    if result["near_copies"]:
        lines.append(f"  {len(result['near_copies']):,} near copies are no copies, and stay or come back (--near):")
        lines += [f"    {row['url']}" for row in result["near_copies"][:NAMED_DOCUMENTS]]
        lines += _more(result["near_copies"])
    lines += _checkpoint_lines(result["checkpoints"])
    if result["purged"]:
        records = sum(row["records"] for row in result["purged"]["snapshots"])
        holes, deleted = len(result["purged"]["snapshots"]), len(result["purged"]["deleted"])
        lines.append(f"  purged: {records:,} records of {holes:,} snapshots, {deleted:,} folders made from them")
    if number:
        lines.append(f"  gptmill run makes the corpus without it; gptmill takedown {number} --undo takes this back.")
    return [printable(line) for line in lines]


def _checkpoint_lines(checkpoints: list[Row]) -> list[str]:
    trained = [row for row in checkpoints if row["shards"]]
    lines = [f"  {len(trained):,} checkpoints trained on it{':' if trained else ''}"]
    for row in trained[:NAMED_DOCUMENTS]:
        told = ", ".join(f"{row[split]['tokens']:,} tokens of {split}" for split in ("train", "val"))
        told += f", in the checkpoint {row['from'][:12]} that it went on from" if "from" in row else ""
        lines.append(f"    {row['key'][:12]} ({', '.join(row['runs']) or 'of no run'}): {told}")
    lines += _more(trained)
    unknown = len(checkpoints) - len(trained)
    return lines + ([f"    of {unknown:,} more nobody can tell: their shards were purged"] if unknown else [])


def _more(rows: list[Row]) -> list[str]:
    more = len(rows) - NAMED_DOCUMENTS
    return [f"    and {more:,} more (--json has all)"] if more > 0 else []


def _title(row: Row) -> str:
    return f"takedown {row['takedown']} of {', '.join([*row['url'], *row['host']]) or 'digests'}"


def _what_comes_back(row: Row) -> str:
    return "its pages were purged and can only be fetched again" if "purged" in row else "the next run has it again"


def _list_line(row: Row) -> str:
    states = [name for name in ("undo", "purged") if name in row]
    told = {"undo": "lifted", "purged": "purged"}
    state = ", ".join(told[name] for name in states) or ("purge not finished" if row.get("purge") else "in force")
    number = row["takedown"] if row["takedown"] is not None else "-"
    names = ", ".join([*row["url"], *row["host"]]) or f"{row['digests']} digests"
    return printable(f"{number:>4}  {row['at'] or '':<20}  {state:<10}  {names}  {row['reason'] or ''}")
