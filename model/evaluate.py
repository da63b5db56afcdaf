"""Evaluation: the stage that says what a checkpoint is worth, in figures that can be compared across tokenizers.

Every token of the validation split is scored once, in float32, end-of-text included. Bits per byte divides by the
bytes that the tokens stand for, counted by the tokenizer, never by way of a string. Beside it stand what no learning
reaches (entropy of single bytes and tokens) and what `xz -9` makes of the same bytes.
"""

import json
import lzma
import math
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from model.config import EvaluateConfig, TrainingError
from model.data import Ints, scoring_windows, told
from model.generate import generate, load
from model.gpt import GPT
from model.hardware import choose_device, use_threads
from model.score import Floats, token_losses
from pipeline.shards import TokenShards, end_of_text, load_encoding, token_bytes

if TYPE_CHECKING:
    import tiktoken

XZ_PRESET = 9
"""The strongest preset of `xz`, without its extreme flag."""

INTERVAL = (2.5, 97.5)
"""Percentiles of the bootstrap: a 95 % interval."""

Progress = Callable[[int, int, str], None]


def _silent(_done: int, _total: int, _text: str) -> None:
    """Show nothing."""


def evaluate(
    *,
    out: Path,
    config: EvaluateConfig,
    checkpoint: Path,
    shards: list[Path],
    tokenizer: Path,
    sets: Sequence[Path] = (),
    progress: Progress = _silent,
) -> dict[str, Any]:
    """Score a checkpoint on the validation split and on each set, let it write samples, and save `evaluation.json`.

    Losses are in nats, lengths in tokens and bytes. Raises `TrainingError` where there is nothing to score, or where
    a checkpoint or set cannot be read.
    """
    use_threads(config.threads)
    encoding, model = load_encoding(tokenizer), load(checkpoint).to(choose_device(config.device))
    if encoding.n_vocab != model.config.vocab_size:
        raise TrainingError(
            f"{checkpoint} has {model.config.vocab_size:,} ids and the tokenizer in {tokenizer} {encoding.n_vocab:,}:"
            " evaluate with the tokenizer that the model was trained with."
        )
    val = TokenShards.open(shards, "val", encoding.n_vocab)
    if not len(val):
        raise TrainingError("The validation split is empty: add documents, or hold more of them out in [pack].")
    judge = Judge(model, encoding, config, progress)
    ids = val.window(0, len(val))
    index = val.index()
    result: dict[str, Any] = {"validation": judge.validation(ids, index["length"].to_numpy()), "sets": {}}
    for path in sets:
        result["sets"][path.name] = judge.evaluation_set(path)
    result["samples"] = []
    for prompt in ["", *config.prompts]:
        for turn in range(config.samples):
            progress(len(result["samples"]), config.samples * (1 + len(config.prompts)), "samples")
            result["samples"].append(judge.sample(prompt, config.seed + turn))
    result["parameters"] = model.parameter_count()
    (out / "evaluation.json").write_text(
        json.dumps(result, indent=2, sort_keys=True, ensure_ascii=False) + "\n", "utf-8"
    )
    return {
        "rows": len(ids),
        "val_loss": result["validation"]["val_loss"],
        "bits_per_byte": result["validation"]["bits_per_byte"],
        "xz_bits_per_byte": result["validation"]["xz_bits_per_byte"],
        "samples": len(result["samples"]),
    }


class Judge:
    """A model, its tokenizer, and how to score them."""

    def __init__(
        self, model: GPT, encoding: "tiktoken.Encoding", config: EvaluateConfig, progress: Progress = _silent
    ) -> None:
        self.model, self.encoding, self.config, self.progress = model, encoding, config, progress
        self.end = end_of_text(encoding)
        self.sizes = token_bytes(encoding)

    def losses(self, ids: Ints, what: str) -> Floats:
        """Nats of each of `ids`, tokens of `what`, read as if after an end-of-text."""
        context = self.model.config.context
        windows = scoring_windows(
            lambda start, count: ids[start : start + count],
            len(ids),
            self.end,
            context=context,
            stride=min(self.config.stride or context, context),
            batch_size=self.config.batch_size,
        )
        shown = told(windows, len(ids), lambda scored, length: self.progress(scored, length, f"tokens of {what}"))
        return token_losses(self.model, shown)

    def validation(self, ids: Ints, lengths: Ints) -> dict[str, Any]:
        """All figures of the validation split, whose documents have so many tokens each."""
        nats, sizes = self.losses(ids, "held-out text"), self.sizes[ids]
        text = b"".join(map(self.encoding.decode_single_token_bytes, ids[sizes > 0].tolist()))
        n_bytes, n_words = len(text), len(text.split())
        starts = np.cumsum(lengths) - lengths
        interval = bootstrap(
            np.add.reduceat(nats, starts), np.add.reduceat(sizes, starts), self.config.resamples, self.config.seed
        )
        return {
            "tokens": len(ids),
            "bytes": n_bytes,
            "words": n_words,
            "documents": len(lengths),
            "val_loss": float(nats.mean()),
            "token_perplexity": math.exp(nats.mean()),
            "word_perplexity": perplexity(float(nats.sum()), n_words),
            "bits_per_byte": bits(float(nats.sum())) / n_bytes,
            "bits_per_byte_interval": interval,
            "byte_unigram_bits_per_byte": entropy(np.frombuffer(text, np.uint8)),
            "token_unigram_bits_per_byte": entropy(ids) * len(ids) / n_bytes,
            "xz_bits_per_byte": 8 * len(lzma.compress(text, preset=XZ_PRESET)) / n_bytes,
        }

    def evaluation_set(self, path: Path) -> dict[str, Any]:
        """Bits per byte of a set's texts, each read alone after an end-of-text, which itself is not scored."""
        nats, n_bytes, n_tokens = 0.0, 0, 0
        texts = read_set(path)
        for text in texts:
            ids = np.array(self.encoding.encode_ordinary(text), dtype=np.int64)
            nats += float(self.losses(ids, path.name).sum())
            n_bytes += int(self.sizes[ids].sum())
            n_tokens += len(ids)
        if not n_bytes:
            raise TrainingError(f"{path} has no text to score: take it out of evaluate.sets.")
        return {"documents": len(texts), "tokens": n_tokens, "bytes": n_bytes, "bits_per_byte": bits(nats) / n_bytes}

    def sample(self, prompt: str, seed: int) -> dict[str, Any]:
        """A text that follows end-of-text and `prompt`."""
        config = self.config
        written = list(
            generate(
                self.model,
                [self.end, *self.encoding.encode_ordinary(prompt)],
                max_tokens=config.sample_tokens,
                temperature=config.temperature,
                top_k=config.top_k,
                top_p=config.top_p,
                seed=seed,
                stop_id=self.end,
            )
        )
        text = self.encoding.decode([token for token in written if self.sizes[token]])
        return {"prompt": prompt, "seed": seed, "text": text, "ended": len(written) < config.sample_tokens}


def read_set(path: Path) -> list[str]:
    """The texts of an evaluation set: the `text` field of each line of a .jsonl file, or a whole other file."""
    try:
        content = path.read_text(encoding="utf-8")
        if path.suffix != ".jsonl":
            return [content]
        texts = [json.loads(line)["text"] for line in content.splitlines() if line.strip()]
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise TrainingError(
            f"The evaluation set {path} cannot be read ({type(error).__name__}: {error}): it must be UTF-8, and each"
            ' line of a .jsonl file an object with a "text".'
        ) from error
    if not all(isinstance(text, str) for text in texts):
        raise TrainingError(f'The evaluation set {path} has a "text" that is no string.')
    return texts


def bits(nats: float) -> float:
    """Nats in bits."""
    return nats / math.log(2)


def perplexity(nats: float, count: int) -> float | None:
    """The perplexity of `count` things that cost `nats` together; None where it is too large for a number."""
    try:
        return math.exp(nats / count)
    except (OverflowError, ZeroDivisionError):
        return None


def entropy(symbols: npt.NDArray[Any]) -> float:
    """Bits a symbol of an ideal code for the symbols' own frequencies."""
    counts = np.unique(symbols, return_counts=True)[1]
    shares = counts / counts.sum()
    return float(-(shares * np.log2(shares)).sum())


def bootstrap(nats: Floats, sizes: Ints, resamples: int, seed: int) -> tuple[float, float]:
    """The 95 % interval of bits per byte when documents are drawn anew with replacement (percentile bootstrap)."""
    random = np.random.default_rng(seed)
    drawn = random.multinomial(len(nats), np.full(len(nats), 1 / len(nats)), size=resamples)
    ratios = bits(1.0) * (drawn @ nats) / np.maximum(1, drawn @ sizes)
    low, high = np.percentile(ratios, INTERVAL)
    return float(low), float(high)
