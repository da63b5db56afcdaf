"""Two models side by side: their shapes and trainings, what they score on the same texts, and what they write."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

import numpy as np
import numpy.typing as npt

from flows import logs
from flows.commands.evaluate import figures, scores, shown
from flows.comparison.layout import UNKNOWN, Row, Sample, Section, Written
from flows.comparison.scores import ENOUGH, OTHER_VOCABULARIES
from flows.display import Bar
from flows.models import Model, judge_of
from pipeline.shards import RANKS_FILE, SENTENCEPIECE_FILE, TOKENIZER_FILE

if TYPE_CHECKING:
    from model.evaluate import Judge
    from model.generation.sampling import Sampling

RESAMPLES = 1000
"""Bootstrap resamples of the texts that both models score, as an evaluation takes by default."""

Bits = npt.NDArray[np.float64]


@dataclass(frozen=True)
class Turn:
    """One way to go on from each prompt."""

    name: str
    sampling: "Sampling"
    seed: int


class Asked(NamedTuple):
    """What both models do: go on from each prompt in each turn, and score files and single texts."""

    prompts: Sequence[str]
    turns: Sequence[Turn]
    max_tokens: int
    files: Sequence[Path] = ()
    texts: Sequence[str] = ()


def compare_models(models: Sequence[Model], asked: Asked, bar: Bar) -> tuple[Section, list[Row], list[Sample]]:
    """Load one model after the other: facts about both, the paired scores of `asked.texts`, and what they write.

    Raises `TrainingError` where a model or file cannot be used.
    """
    from model.config import EvaluateConfig
    from model.evaluation.sets import read_sets

    config, contents = EvaluateConfig(), read_sets(asked.files, {})
    facts: list[dict[str, str]] = []
    bits: list[Bits] = []
    written: list[dict[tuple[str, Turn], Written]] = []
    for chosen in models:
        judge = judge_of(chosen, config, bar)
        scored = {f"{each.what} of {each.of}": shown(each.value) for each in figures(scores(judge, contents))}
        facts.append(_shape(judge) | _training(chosen.folder) | scored)
        bits.append(_bits(judge, asked.texts, "texts that both hold out"))
        written.append({})
        for turn in asked.turns:
            for first in range(0, len(asked.prompts), config.batch_size):
                bar(len(written[-1]), len(asked.prompts) * len(asked.turns), f"texts of {chosen.name}")
                some = asked.prompts[first : first + config.batch_size]
                ends = _write(judge, some, turn, asked.max_tokens)
                written[-1] |= {(prompt, turn): end for prompt, end in zip(some, ends, strict=True)}
    rows = [Row(what, (facts[0][what], facts[1][what])) for what in facts[0]]
    samples = [
        Sample(prompt, turn.name, (written[0][prompt, turn], written[1][prompt, turn]))
        for prompt in asked.prompts
        for turn in asked.turns
    ]
    losses = [row for row in rows if "loss" in row.what and UNKNOWN not in row.values]
    differ = losses and _vocabulary(models[0].tokenizer) != _vocabulary(models[1].tokenizer)
    return Section("The models", rows, OTHER_VOCABULARIES if differ else ""), _paired(bits, asked.texts), samples


def _vocabulary(tokenizer: Path) -> list[bytes | None]:
    """The files that a vocabulary of ours lies in, byte for byte."""
    paths = [tokenizer / name for name in (TOKENIZER_FILE, RANKS_FILE, SENTENCEPIECE_FILE)]
    return [path.read_bytes() if path.is_file() else None for path in paths]


def _bits(judge: "Judge", texts: Sequence[str], what: str) -> Bits:
    """Bits that each text costs a model: float64[texts]."""
    from model.training.hardware import reproducible

    encoded = [np.array(judge.encoding.encode_ordinary(text), dtype=np.int64) for text in texts]
    with reproducible(judge.model.embedding.weight.device):
        return np.asarray(judge.costs(encoded, what) if encoded else [], dtype=np.float64) / math.log(2)


def _paired(bits: Sequence[Bits], texts: Sequence[str]) -> list[Row]:
    """The bits per byte of texts that both scored, and the interval of their difference: the same texts drawn anew."""
    if len(texts) < 2:  # one text drawn anew is itself
        return []
    from model.evaluation.bootstrap import interval

    sizes = np.array([len(text.encode()) for text in texts], dtype=np.float64)
    a, b = (float(each.sum() / sizes.sum()) for each in bits)
    low, high = interval(bits[1] - bits[0], sizes, RESAMPLES, seed=0)
    worth = "within chance" if low <= 0 <= high else "more than chance"
    worth = worth if len(texts) >= ENOUGH else "too few texts to judge"
    told = f"{b - a:+.4f} ({low:+.4f} to {high:+.4f}), {worth}"
    return [Row(f"bits per byte of {len(texts):,} texts that both hold out", (shown(a), shown(b)), told)]


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
    return next((line["val_loss"] for line in reversed(logs.read(metrics)) if line.get("final")), None)


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
