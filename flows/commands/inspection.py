"""The commands that look into a store, and the one that takes pages out of it: their arguments, and who does them.

What does them is imported where it is needed: most runs of the command line need none of it.
"""

import argparse
import json
from collections.abc import Callable
from pathlib import Path
from typing import Protocol

from flows import runs
from flows.display import Display
from flows.models import existing_store
from flows.names import find_run, newer_run
from flows.options import A_RUN, count, with_json, with_run, with_store
from pipeline.config import BadInput
from pipeline.corpus import PACKED
from pipeline.engine.store import Store


class Declare(Protocol):
    """Adds a command of a name: what does it, what it does in words, and an example."""

    def __call__(self, name: str, function: Callable[..., int], summary: str, example: str) -> argparse.ArgumentParser:
        """Add it."""


def declare(command: Declare) -> None:
    """Add the commands."""
    traced = with_store(command("trace", _trace, "say where a token or page came from", "gptmill trace --token 1000"))
    traced.add_argument("what", nargs="?", metavar="URL", help="a page's URL, or a document's id")
    traced.add_argument("--token", type=count, metavar="N", help="the document of this token of the split, from 0")
    traced.add_argument("--split", choices=("train", "val"), default="train", help="the token's split (default train)")
    traced.add_argument("--text", metavar="TEXT", help="the documents that hold this text, and its tokens")
    traced.add_argument("--limit", type=count, default=5, metavar="N", help="documents shown of --text (default 5)")
    with_run(traced)
    with_json(traced)

    example = "gptmill takedown https://www.example.org/page --reason 'its author asked'"
    down = with_store(command("takedown", _takedown, "withhold a page or a host from every corpus", example))
    down.add_argument("what", nargs="?", metavar="WHAT", help="a URL, host or document's id; none: list all takedowns")
    down.add_argument("--reason", metavar="TEXT", help="why; it is kept in the list")
    down.add_argument("--keep-copies", action="store_true", help="leave the same content at other addresses alone")
    down.add_argument("--near", action="store_true", help="near duplicates too, as deduplication found them")
    down.add_argument("--purge", action="store_true", help="also remove it from the snapshots, for good")
    down.add_argument("--undo", action="store_true", help="lift it; WHAT may be the takedown's number")
    down.add_argument("--dry-run", action="store_true", help="only say what it would reach")
    with_json(down)

    seen = with_store(
        command("corpus", _corpus, "look through documents and rejects", "gptmill corpus --stage select --sample 1")
    )
    where = ("scrape", "extract", "select", "deduplicate", "tokenize", "pack")
    seen.add_argument("--stage", choices=where, help="what this stage dropped; pack: what is in the corpus")
    seen.add_argument("--reason", metavar="REASON", help="dropped for this; quality stands for quality:… too")
    seen.add_argument("--host", metavar="HOST", help="of this host")
    seen.add_argument("--language", metavar="CODE", help="labelled as in this language")
    seen.add_argument("--limit", type=count, metavar="N", help="rows shown (default 10) or written (default all)")
    seen.add_argument("--sample", type=count, metavar="SEED", help="rows drawn at random; same seed, same rows")
    seen.add_argument("--parquet", type=Path, metavar="FILE", help="write them to this file")
    with_run(seen)
    with_json(seen)

    differing = with_store(
        command("diff", _diff, "say how two runs, or two snapshots, differ", "gptmill diff web/0000 web/0001")
    )
    differing.add_argument("before", metavar="BEFORE", help=f"a snapshot (SOURCE/NUMBER), or {A_RUN}")
    differing.add_argument("after", metavar="AFTER", help="the same, of what came later")
    with_json(differing)

    listed = with_store(command("runs", _runs, "list the runs, and name those to keep", "gptmill runs --limit 5"))
    listed.add_argument("--limit", type=count, default=20, metavar="N", help="newest runs shown (default 20)")
    listed.add_argument("--name", nargs=2, metavar=("RUN", "NAME"), help="name a run: gc then keeps what it made")
    listed.add_argument("--forget", metavar="NAME", help="take a name back")
    with_json(listed, "one JSON array, an object a run")


def _asked(store: Store, options: argparse.Namespace, display: Display, *stages: str) -> runs.Run:
    """The run that is looked into: where none is named, the latest; a newer one with another corpus is told of."""
    run = find_run(store, options.run, *stages)
    newer = newer_run(store, run) if options.run is None else None
    if newer is not None:
        display.note(f"This is the latest run; {newer.id}, which is newer, has another corpus: --run {newer.id}.")
    return run


def _trace(options: argparse.Namespace, display: Display) -> int:
    from flows.commands.trace import NOT_FOUND, trace

    if sum(value is not None for value in (options.what, options.token, options.text)) != 1:
        raise BadInput("trace takes one of a URL (or a document's id), --token N and --text TEXT.")
    store = existing_store(options.store)
    needed = ("extract",) if options.token is None else ("extract", PACKED)
    return 0 if trace(store, _asked(store, options, display, *needed), options) else NOT_FOUND


def _takedown(options: argparse.Namespace, display: Display) -> int:
    from flows.commands.takedown import takedown

    takedown(existing_store(options.store), options, display)
    return 0


def _corpus(options: argparse.Namespace, display: Display) -> int:
    from flows.commands.corpus import corpus

    store = existing_store(options.store)
    corpus(store, _asked(store, options, display, "extract"), options, display)
    return 0


def _diff(options: argparse.Namespace, _display: Display) -> int:
    from flows.comparison.diff import diff

    diff(existing_store(options.store), options)
    return 0


def _runs(options: argparse.Namespace, _display: Display) -> int:
    store = existing_store(options.store)
    if options.forget is not None:
        runs.forget_name(store, options.forget)
    if options.name is not None:
        run, name = options.name
        runs.give_name(store, find_run(store, run), name)
    found = [runs.as_json(store, run) for run in runs.runs(store)[: options.limit]]
    print(json.dumps(found, indent=1) if options.json else "\n".join(map(runs.line, found)))  # noqa: T201
    return 0
