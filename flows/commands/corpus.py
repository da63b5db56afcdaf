"""`gptmill corpus`: documents and rejects with what became of them, counted by reason, shown, and as Parquet."""

import argparse
import json
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import pyarrow as pa
from rich.console import Console
from rich.table import Table
from rich.text import Text

from flows import stages
from flows.display import Display, printable
from flows.runs import Run, corpus_of
from pipeline.browse import Seen, Wanted, look
from pipeline.config import BadInput
from pipeline.corpus import FATES, PACKED, Corpus
from pipeline.engine.store import Store

Row = dict[str, Any]

LIMIT = 10
"""Rows shown where nobody says how many."""

EXCERPT_CHARACTERS = 320

ORDER = [stage.name for stage in stages.ALL]


def corpus(store: Store, run: Run, options: argparse.Namespace, display: Display) -> None:
    """Print the counts and some rows of a run, and write them where that is asked for."""
    seen_by_run = corpus_of(store, run)
    wanted = Wanted(options.stage, options.reason, options.host, options.language)
    limit = LIMIT if options.limit is None else options.limit
    seen = look(seen_by_run.everything(), wanted, limit, options.sample)
    if options.parquet is not None:
        some = options.limit is not None or options.sample is not None
        written = _write(seen_by_run, wanted, seen if some else None, options.parquet)
        display.note(f"{written:,} rows written to {options.parquet}.")
    elif options.json:
        counts = [
            {"stage": key[0], "reason": key[1], "rows": n, "tokens": seen.tokens[key]} for key, n in _sorted(seen)
        ]
        told = {"run": run.id, "counts": counts, "rows": [_plain(row) for row in seen.shown]}
        print(json.dumps(told, indent=1))  # noqa: T201  (the command's result)
    else:
        console = Console(highlight=False, soft_wrap=True, markup=False)
        console.print(Text(f"in the run {run.id}", "dim"))
        _print(seen, console)


def _sorted(seen: Seen) -> list[tuple[tuple[str | None, str | None], int]]:
    """The counts by stage, the greatest first."""
    return sorted(seen.rows.items(), key=lambda item: (ORDER.index(item[0][0] or "report"), -item[1], item[0][1] or ""))


def _print(seen: Seen, console: Console) -> None:
    table = Table(box=None, header_style="dim", pad_edge=False)
    for name, justify in (("stage", "left"), ("reason", "left"), ("rows", "right"), ("tokens", "right")):
        table.add_column(name, justify=justify)  # type: ignore[arg-type]
    for (stage, reason), rows in _sorted(seen):
        told = reason or ("in the corpus" if stage == PACKED else "not decided")
        table.add_row(stage or "-", Text(printable(told)), f"{rows:,}", f"{seen.tokens[stage, reason]:,}")
    console.print(table if seen.rows else Text("Nothing matches."))
    for row in seen.shown:
        facts = [
            row["stage"],
            row["reason"],
            row["detail"],
            row["language"],
            row["tokens"] and f"{row['tokens']:,} tokens",
        ]
        console.print()
        console.print(Text(printable(row["url"] or "(no URL)"), "bold"))
        console.print(Text(printable("  " + " · ".join(fact for fact in facts if fact)), "dim"))
        if row["text"]:
            ending = "…" if len(row["text"]) > EXCERPT_CHARACTERS else ""
            console.print(Text("  " + printable(row["text"][:EXCERPT_CHARACTERS]) + ending))


def _plain(row: Row) -> Row:
    """A row as JSON can hold it."""
    return {name: value.hex() if isinstance(value, bytes) else value for name, value in row.items()}


def _write(seen_by_run: Corpus, wanted: Wanted, some: Seen | None, path: Path) -> int:
    """Write `some` rows, or all that are wanted, as Parquet; how many."""
    from pyarrow import parquet

    tables: Iterable[pa.Table] = (wanted.rows(each) for each in seen_by_run.everything())
    if some is not None:
        tables = [pa.Table.from_pylist(some.shown, FATES)]
    aside = path.with_name(f".{path.name}.part")
    rows = 0
    try:
        with parquet.ParquetWriter(aside, FATES, compression="zstd") as writer:
            for table in tables:
                writer.write_table(table)
                rows += len(table)
        aside.replace(path)
    except OSError as error:
        raise BadInput(f"{path} cannot be written: {error.strerror or error}. Give another --parquet FILE.") from error
    finally:
        aside.unlink(missing_ok=True)
    return rows
