"""`gptmill compare A B`: two runs, or two models, side by side in the terminal and as a page."""

import argparse
import json
from pathlib import Path
from typing import NamedTuple

from rich.console import Console

from flows import options as kinds
from flows.comparison.layout import Comparison, Row, Sample, Section, as_json, page, tables
from flows.comparison.models import Asked, Turn, compare_models
from flows.comparison.runs import compare_runs, held_out_texts
from flows.comparison.scores import with_paired
from flows.display import Display
from flows.models import Model, existing_store, model_named
from flows.names import find_run
from flows.refs import LATEST, configs
from flows.runs import Run
from pipeline.config import BadInput
from pipeline.corpus import PACKED
from pipeline.engine.store import Store, write_atomically

SCORED_TEXTS = 100
"""Documents held out by both runs that both models score, unless --held-out says otherwise."""


class Side(NamedTuple):
    """What a name means: a run, the model that it trained, or both; a folder is a model alone."""

    name: str
    model: Model | None
    run: Run | None


def arguments(added: argparse.ArgumentParser) -> None:
    """Declare what the command takes."""
    kinds.with_store(added)
    added.add_argument("a", metavar="A", help=f"{kinds.A_RUN}; or a model's folder, ours or Hugging Face's")
    added.add_argument("b", metavar="B", help="the same; of two runs, corpora, curves and scores are compared too")
    added.add_argument("--prompt", action="append", default=[], metavar="TEXT", help="to go on from; may be repeated")
    prompts = "more of them: a line each, or the prompts of a .jsonl"
    added.add_argument("--prompts", type=Path, metavar="FILE", help=prompts)
    added.add_argument("--text", action="append", default=[], type=Path, metavar="FILE", help="score this text or set")
    scored = f"of two runs, documents that both hold out, for both models to score (default {SCORED_TEXTS})"
    added.add_argument("--held-out", type=kinds.count, default=SCORED_TEXTS, metavar="N", help=scored)
    added.add_argument("--samples", type=kinds.count, default=1, metavar="N", help="beside the greedy text (default 1)")
    added.add_argument("--temperature", type=kinds.above_zero, default=0.8, help="of the samples (default 0.8)")
    added.add_argument("--top-p", type=kinds.share, default=0.95, help="sample within this probability (default 0.95)")
    added.add_argument("--seed", type=kinds.seed, default=0, help="of the first sample (default 0)")
    added.add_argument("--max-tokens", type=kinds.positive, default=80, help="longest text (default 80)")
    added.add_argument("--html", type=Path, metavar="FILE", help="also write a page")
    kinds.with_json(added)


def run(options: argparse.Namespace, display: Display) -> int:
    """Print the comparison, and write it as a page if that is asked for."""
    a, b = (_side(name, options.store) for name in (options.a, options.b))
    sections, texts = [], []
    if a.run is not None and b.run is not None:
        store = existing_store(options.store)
        sections = compare_runs(store, a.run, b.run)
        texts = held_out_texts(store, a.run, b.run, options.held_out) if a.model and b.model else []
    samples: list[Sample] = []
    if a.model is not None and b.model is not None:
        prompts = [*options.prompt, *(_read_prompts(options.prompts) if options.prompts else [])] or [""]
        asked = Asked(prompts, _turns(options), options.max_tokens, options.text, texts)
        models, paired, samples = _of_models((a.model, b.model), asked, display)
        sections = [*with_paired(sections, paired), models]
    else:
        without = a.name if a.model is None else b.name
        if not sections:
            raise BadInput(f"{without} is a run without a model, and the other is no run: there is nothing to compare.")
        display.note(f"{without} has no model that is still there: models and what they write are left out.")
    found = Comparison((a.name, b.name), sections, samples)
    if options.json:
        print(json.dumps(as_json(found), indent=1))  # noqa: T201  (the command's result)
    else:
        console = Console(highlight=False, markup=False)
        for table in tables(found):
            console.print(table)
    if options.html:
        write_atomically(options.html.absolute(), page(found))
        display.note(f"The page is {options.html}.")
    return 0


def _side(name: str, root: Path) -> Side:
    if Path(name).is_dir() or not Store(root).exists():
        model = model_named(name, root)
        return Side(model.name, model, None)
    store = existing_store(root)
    if name == LATEST or name in configs(store):
        return _latest_side(store, name)
    try:
        find_run(store, name)
    except BadInput as error:
        raise BadInput(f"{name} is no folder and no config with results. {error}") from error
    found = find_run(store, name, "extract", PACKED)
    return Side(name, _model(found.id, root, name), found)


def _latest_side(store: Store, name: str) -> Side:
    """The promoted model of a config, or of all, and the run of that config that gave it.

    A model can be the work of several configs: those that differ only in how it is evaluated train but once.
    """
    model = _model(name, store.root)
    try:
        found = find_run(store, name, "extract", PACKED)
    except BadInput:
        if model is None:
            raise
        return Side(model.name, model, None)
    if model is None:
        return Side(name, None, found)
    gave_it = found.stages.get("pretrain", {}).get("key") == model.folder.name
    return Side(model.name, model, found if gave_it else None)


def _model(name: str, root: Path, called: str = "") -> Model | None:
    """The model of a run or config; None where it trained none, or where that is no longer there."""
    try:
        found = model_named(name, root)
    except BadInput:
        return None
    return found._replace(name=called or found.name)


def _turns(options: argparse.Namespace) -> list[Turn]:
    """The greedy text, and samples from each seed."""
    from model.generation.sampling import Sampling

    sampling = Sampling(temperature=options.temperature, top_p=options.top_p)
    seeds = range(options.seed, options.seed + options.samples)
    return [Turn("greedy", Sampling(temperature=0.0), 0), *(Turn(f"seed {seed}", sampling, seed) for seed in seeds)]


def _of_models(models: tuple[Model, Model], asked: Asked, display: Display) -> tuple[Section, list[Row], list[Sample]]:
    from model.config import TrainingError

    try:
        with display.stage("compare") as bar:
            return compare_models(models, asked, bar)
    except TrainingError as error:
        raise BadInput(str(error)) from error


def _read_prompts(path: Path) -> list[str]:
    """The lines of a file that are not blank, or the `prompt` of each line of a .jsonl."""
    try:
        lines = [line for line in path.read_text(encoding="utf-8").split("\n") if line.strip()]
        prompts = [json.loads(line)["prompt"] for line in lines] if path.suffix == ".jsonl" else lines
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise BadInput(f"The prompts in {path} cannot be read ({type(error).__name__}: {error}).") from error
    if not all(isinstance(prompt, str) for prompt in prompts):
        raise BadInput(f'{path} has a "prompt" that is no string.')
    return prompts
