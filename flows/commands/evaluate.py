"""`gptmill evaluate`: what any model is worth on given texts and benchmarks, be it ours or Hugging Face's."""

import argparse
import json
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from pydantic import ValidationError
from rich.console import Console
from rich.table import Table

from flows import options as kinds
from flows.display import Display
from flows.models import judge_of, model_named
from pipeline.config import BadInput

if TYPE_CHECKING:
    from model.evaluate import Judge


class Figure(NamedTuple):
    """One number for one set: its 95 % interval, what guessing scores where that is known, and of how many items."""

    of: str
    what: str
    value: float | None
    interval: tuple[float | None, float | None] | None = None
    chance: float | None = None
    items: int | None = None


def arguments(added: argparse.ArgumentParser) -> None:
    """Declare what the command takes."""
    kinds.with_store(added)
    added.add_argument("model", metavar="MODEL", help="a checkpoint or Hugging Face folder, a config, a run, or latest")
    sets = "a .txt file, or a .jsonl of texts or benchmark items"
    added.add_argument("files", nargs="+", type=Path, metavar="FILE", help=sets)
    added.add_argument(
        "--task", action="append", default=[], metavar="NAME=TASK", help="what the items of NAME.jsonl are"
    )
    added.add_argument(
        "--stride", type=kinds.count, default=0, metavar="N", help="tokens scored a window (default: all)"
    )
    added.add_argument(
        "--batch-size", type=kinds.positive, default=16, metavar="N", help="windows at once (default 16)"
    )
    kinds.with_json(added)


def run(options: argparse.Namespace, display: Display) -> int:
    """Print every figure of a model."""
    chosen = model_named(options.model, options.store)
    from model.config import EvaluateConfig, TrainingError
    from model.evaluation.sets import read_sets

    tasks = dict(_task(text) for text in options.task)
    try:
        config = EvaluateConfig.model_validate(
            {"tasks": tasks, "stride": options.stride, "batch_size": options.batch_size}
        )
    except ValidationError as error:
        raise BadInput(f"--task: {error.errors()[0]['msg']}.") from error
    try:
        contents = read_sets(options.files, config.tasks)
        with display.stage("evaluate") as bar:
            judge = judge_of(chosen, config, bar)
            found = scores(judge, contents)
    except TrainingError as error:
        raise BadInput(str(error)) from error
    if options.json:
        facts = {"model": chosen.name, "parameters": judge.model.parameter_count(), **found}
        print(json.dumps(facts, indent=1, sort_keys=True, ensure_ascii=False))  # noqa: T201
    else:
        Console(highlight=False, markup=False).print(_table(figures(found)))
    return 0


def scores(judge: "Judge", contents: Mapping[str, Any]) -> dict[str, Any]:
    """What `Judge.sets` gives, with float32 products."""
    from model.training.hardware import reproducible

    with reproducible(judge.model.embedding.weight.device):
        return judge.sets(contents)


def figures(found: Mapping[str, Any]) -> list[Figure]:
    """The figures of all sets, one after another; without an interval of one text or item: drawn anew it is itself."""
    rows = [
        Figure(
            name,
            "bits per byte",
            texts["bits_per_byte"],
            texts["bits_per_byte_interval"] if texts["documents"] > 1 else None,
            items=texts["documents"],
        )
        for name, texts in found["sets"].items()
    ]
    for name, task in found["tasks"].items():
        for metric in ("acc", "acc_norm", "perplexity"):
            if metric in task:
                chance = task["chance"] if metric == "acc" else None
                interval = task[f"{metric}_interval"] if task["items"] > 1 else None
                rows.append(Figure(name, metric, task[metric], interval, chance, task["items"]))
    return rows


def shown(value: float | None) -> str:
    """A figure for people."""
    return "–" if value is None else f"{value:.4f}"


def _table(rows: list[Figure]) -> Table:
    table = Table(box=None, pad_edge=False)
    for heading in ("set", "figure"):
        table.add_column(heading, overflow="fold")
    for heading in ("value", "95 % interval", "chance"):
        table.add_column(heading, justify="right", no_wrap=True)
    for row in rows:
        interval = "" if row.interval is None else f"{shown(row.interval[0])} … {shown(row.interval[1])}"
        table.add_row(row.of, row.what, shown(row.value), interval, "" if row.chance is None else shown(row.chance))
    return table


def _task(text: str) -> tuple[str, str]:
    name, equals, task = text.partition("=")
    if not equals:
        raise BadInput(f"--task {text} is not of the form NAME=TASK, for example --task lambada_test=lambada.")
    return name, task
