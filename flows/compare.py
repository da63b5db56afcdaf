"""`gptmill compare A B`: two models side by side, in figures and in what they write."""

import argparse
import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from rich.console import Console
from rich.table import Table
from rich.text import Text

from flows import options as kinds
from flows.display import Bar, Display
from flows.evaluate import figures, judge_of, scores, shown
from flows.models import Model, model_named
from pipeline.config import BadInput
from pipeline.engine.store import write_atomically

if TYPE_CHECKING:
    from model.evaluate import Judge
    from model.generation.sampling import Sampling

TEMPLATE = Path(__file__).with_name("compare.html.jinja")

UNKNOWN = "–"


@dataclass(frozen=True)
class Turn:
    """One way to go on from each prompt."""

    name: str
    sampling: "Sampling"
    seed: int


@dataclass(frozen=True)
class Written:
    """What a model wrote after a prompt, and whether it ended by itself."""

    text: str
    ended: bool


@dataclass(frozen=True)
class Row:
    """One fact about both models."""

    what: str
    values: tuple[str, str]

    @property
    def differs(self) -> bool:
        """Whether it tells them apart."""
        return self.values[0] != self.values[1]


@dataclass(frozen=True)
class Sample:
    """What both wrote after a prompt; `how` is the name of the turn."""

    prompt: str
    how: str
    texts: tuple[Written, Written]


@dataclass(frozen=True)
class Comparison:
    """All that a comparison shows."""

    names: tuple[str, str]
    rows: list[Row]
    samples: list[Sample]


def arguments(added: argparse.ArgumentParser) -> None:
    """Declare what the command takes."""
    kinds.with_store(added)
    which = "a checkpoint or Hugging Face folder, a config, a run, or latest"
    added.add_argument("a", metavar="A", help=which)
    added.add_argument("b", metavar="B", help="the same, of the other model")
    added.add_argument("--prompt", action="append", default=[], metavar="TEXT", help="to go on from; may be repeated")
    prompts = "more of them: a line each, or the prompts of a .jsonl"
    added.add_argument("--prompts", type=Path, metavar="FILE", help=prompts)
    added.add_argument("--text", action="append", default=[], type=Path, metavar="FILE", help="score this text or set")
    added.add_argument("--samples", type=kinds.count, default=1, metavar="N", help="beside the greedy text (default 1)")
    added.add_argument("--temperature", type=kinds.above_zero, default=0.8, help="of the samples (default 0.8)")
    added.add_argument("--top-p", type=kinds.share, default=0.95, help="sample within this probability (default 0.95)")
    added.add_argument("--seed", type=kinds.seed, default=0, help="of the first sample (default 0)")
    added.add_argument("--max-tokens", type=kinds.positive, default=80, help="longest text (default 80)")
    added.add_argument("--html", type=Path, metavar="FILE", help="also write a page")


def run(options: argparse.Namespace, display: Display) -> int:
    """Print the comparison, and write it as a page if that is asked for."""
    models = [model_named(name, options.store) for name in (options.a, options.b)]
    prompts = [*options.prompt, *(_read_prompts(options.prompts) if options.prompts else [])] or [""]
    from model.config import TrainingError
    from model.generation.sampling import Sampling

    sampling = Sampling(temperature=options.temperature, top_p=options.top_p)
    turns = [Turn("greedy", Sampling(temperature=0.0), 0)]
    turns += [Turn(f"seed {seed}", sampling, seed) for seed in range(options.seed, options.seed + options.samples)]
    try:
        with display.stage("compare") as bar:
            found = compare(models, prompts, turns, options.text, options.max_tokens, bar)
    except TrainingError as error:
        raise BadInput(str(error)) from error
    for table in tables(found):
        Console(highlight=False).print(table)
    if options.html:
        write_atomically(options.html.absolute(), page(found))
        display.note(f"The page is {options.html}.")
    return 0


def compare(
    models: Sequence[Model],
    prompts: Sequence[str],
    turns: Sequence[Turn],
    texts: Sequence[Path],
    max_tokens: int,
    bar: Bar,
) -> Comparison:
    """Load one model after the other, score it on `texts` and let it go on from each prompt in each turn.

    Raises `TrainingError` where a model or text cannot be used.
    """
    from model.config import EvaluateConfig
    from model.evaluation.sets import read_sets

    config, contents = EvaluateConfig(), read_sets(texts, {})
    facts: list[dict[str, str]] = []
    written: list[dict[tuple[str, Turn], Written]] = []
    for chosen in models:
        judge = judge_of(chosen, config, bar)
        scored = {f"{each.what} of {each.of}": shown(each.value) for each in figures(scores(judge, contents))}
        facts.append(_shape(judge) | _training(chosen.folder) | scored)
        written.append({})
        for turn in turns:
            for first in range(0, len(prompts), config.batch_size):
                bar(len(written[-1]), len(prompts) * len(turns), f"texts of {chosen.name}")
                some = prompts[first : first + config.batch_size]
                ends = _write(judge, some, turn, max_tokens)
                written[-1] |= {(prompt, turn): end for prompt, end in zip(some, ends, strict=True)}
    return Comparison(
        names=(models[0].name, models[1].name),
        rows=[Row(what, (facts[0][what], facts[1][what])) for what in facts[0]],
        samples=[
            Sample(prompt, turn.name, (written[0][prompt, turn], written[1][prompt, turn]))
            for prompt in prompts
            for turn in turns
        ],
    )


def _shape(judge: "Judge") -> dict[str, str]:
    config = judge.model.config
    heads = f"{config.heads} heads" + (f", {config.kv_heads} of keys and values" if config.kv_heads else "")
    return {
        "parameters": f"{judge.model.parameter_count():,}",
        "layers": f"{config.layers} of width {config.width}, {heads}",
        "context": f"{config.context:,} tokens",
        "vocabulary": f"{config.vocab_size:,} ids ({judge.encoding.name})",
        "parts": f"{config.positions} positions, {config.norm}, {config.mlp}",
        "attention": ", ".join(config.attention) + (", within documents" if config.within_documents else ""),
    }


def _training(folder: Path) -> dict[str, str]:
    """What a checkpoint says of the training that ended in it; nothing is known of a Hugging Face folder."""
    from model.folder import is_hugging_face
    from model.training import checkpoint
    from model.training.run import METRICS

    names = ("steps", "tokens seen", "optimizer", "training loss", "own held-out loss")
    if is_hugging_face(folder):
        return dict.fromkeys(names, UNKNOWN)
    state, settings = checkpoint.verify(folder), checkpoint.read_settings(folder)["training"]
    recent, loss = state.recent_losses, _final_loss(folder / "report" / METRICS)
    values = (
        f"{state.step:,}",
        f"{state.position * settings['context']:,}" if settings else UNKNOWN,
        f"{settings['optimizer']}, {settings['schedule']} from {settings['lr']:g}" if settings else UNKNOWN,
        f"{sum(recent) / len(recent):.4f} nats a token, mean of the last {len(recent)} steps" if recent else UNKNOWN,
        UNKNOWN if loss is None else f"{loss:.4f} nats a token",
    )
    return dict(zip(names, values, strict=True))


def _final_loss(metrics: Path) -> float | None:
    """The loss of the result on what was held out, as the training's own metrics have it."""
    if not metrics.is_file():
        return None
    lines = [json.loads(line) for line in metrics.read_text(encoding="utf-8").splitlines()]
    return next((line["val_loss"] for line in reversed(lines) if line.get("final")), None)


def _write(judge: "Judge", prompts: Sequence[str], turn: Turn, max_tokens: int) -> list[Written]:
    """What a model writes after each prompt: what `gptmill generate` gives for the same seed."""
    from model.generation.generate import generate_batch
    from model.generation.writing import stream_text

    steps = list(
        generate_batch(
            judge.model,
            [[judge.end, *judge.encoding.encode_ordinary(prompt)] for prompt in prompts],
            max_tokens=max_tokens,
            sampling=turn.sampling,
            seed=[turn.seed] * len(prompts),
            stop_id=judge.end,
        )
    )
    rows = [[step[row] for step in steps] for row in range(len(prompts))]
    texts = [[token for token in row if token is not None] for row in rows]
    return [Written("".join(stream_text(judge.encoding, ids)), len(ids) < max_tokens) for ids in texts]


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


def tables(found: Comparison) -> list[Table]:
    """The comparison for a terminal: the facts, and each prompt with what both wrote, in two columns."""
    facts = Table(box=None, pad_edge=False, expand=True)
    facts.add_column("", no_wrap=True, style="dim")
    for name in found.names:
        facts.add_column(Text(name), ratio=1, overflow="fold")
    for row in found.rows:
        style = "bold" if row.differs else ""
        facts.add_row(row.what, *(Text(value, style=style) for value in row.values))
    made = [facts]
    for sample in found.samples:
        title = Text.assemble((repr(sample.prompt) if sample.prompt else "from nothing", "bold"), f"  {sample.how}")
        table = Table(title=title, title_justify="left", title_style="", show_header=False, expand=True)
        for _ in found.names:
            table.add_column(ratio=1, overflow="fold")
        table.add_row(*(Text.assemble(each.text, ("∎" if each.ended else "…", "dim")) for each in sample.texts))
        made.append(table)
    return made


def page(found: Comparison) -> str:
    """The comparison as one self-contained HTML page."""
    from jinja2 import Environment, StrictUndefined

    environment = Environment(autoescape=True, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True)
    text = environment.from_string(TEMPLATE.read_text(encoding="utf-8")).render(found=found)
    return text.encode("utf-8", "replace").decode()  # a prompt may hold what no file can: half of a surrogate pair
