"""Evaluation: the stage that says what a checkpoint is worth, in figures that can be compared across tokenizers.

Every token of the validation split is scored once, in float32, end-of-text included. Bits per byte divides by the
bytes that the tokens stand for, counted by the tokenizer, never by way of a string. Beside it stand what no learning
reaches (entropy of single bytes and tokens), what counting reaches (a 5-gram model of our own training tokens), and
what `xz -9` makes of the same bytes.
"""

import hashlib
import json
import lzma
import math
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from torch import Tensor

from model.config import EvaluateConfig, TrainingError
from model.evaluation.bootstrap import interval
from model.evaluation.domains import by_host
from model.evaluation.memorisation import memorisation
from model.evaluation.ngram import NGram, spread
from model.evaluation.sets import read_sets
from model.evaluation.task_files import Task
from model.evaluation.tasks import evaluate_task
from model.generation.generate import generate_batch, load
from model.generation.sampling import Sampling
from model.generation.writing import stopping, stream_text
from model.gpt import GPT
from model.training.data import Ints, scoring_texts, scoring_windows, told
from model.training.hardware import choose_device, reproducible, use_threads
from model.training.score import Floats, token_losses
from pipeline.shards import Encoding, TokenShards, end_of_text, load_encoding, token_bytes

XZ_PRESET = 9
"""The strongest preset of `xz`, without its extreme flag."""

MOST_HOSTS = 20
"""Hosts that the loss is told for; what all others have is one more row."""

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
    contents = read_sets(sets, config.tasks)
    encoding, model = load_encoding(tokenizer), load(checkpoint).to(choose_device(config.device))
    if encoding.n_vocab != model.config.vocab_size:
        raise TrainingError(
            f"{checkpoint} has {model.config.vocab_size:,} ids and the tokenizer in {tokenizer} {encoding.n_vocab:,}:"
            " evaluate with the tokenizer that the model was trained with."
        )
    train, val = (TokenShards.open(shards, split, encoding.n_vocab) for split in ("train", "val"))
    if not len(val):
        raise TrainingError("The validation split is empty: add documents, or hold more of them out in [pack].")
    judge = Judge(model, encoding, config, progress)
    with reproducible(model.embedding.weight.device):
        scored = judge.sets(contents)
        for path in sets:  # which items they were, for whoever compares two evaluations
            kind = "tasks" if isinstance(contents[path.name], Task) else "sets"
            scored[kind][path.name]["sha256"] = hashlib.sha256(path.read_bytes()).hexdigest()
        result = {
            **judge.held_out(train, val),
            **scored,
            "memorisation": judge.memorised(train, val),
            "samples": judge.samples(),
            "parameters": model.parameter_count(),
        }
    (out / "evaluation.json").write_text(
        json.dumps(result, indent=2, sort_keys=True, ensure_ascii=False) + "\n", "utf-8"
    )
    return _stats(result)


def _stats(result: Mapping[str, Any]) -> dict[str, Any]:
    """What of an evaluation is worth a line in a log."""
    validation = result["validation"]
    shown = ("val_loss", "bits_per_byte", "ngram_bits_per_byte", "xz_bits_per_byte")
    return {
        "rows": validation["tokens"],
        **{name: validation[name] for name in shown if name in validation},
        "samples": len(result["samples"]),
        "tasks": {
            name: {key: task[key] for key in ("items", "acc", "chance")} for name, task in result["tasks"].items()
        },
    }


class Judge:
    """A model, its tokenizer, and how to score them."""

    def __init__(self, model: GPT, encoding: Encoding, config: EvaluateConfig, progress: Progress = _silent) -> None:
        self.model, self.encoding, self.config, self.progress = model, encoding, config, progress
        self.context = model.config.context
        self.stride = min(config.stride or self.context, self.context)
        self.end = end_of_text(encoding)
        self.sizes = token_bytes(encoding)

    def logits(self, ids: Tensor) -> Tensor:
        """Logits (B, T, V) of ids (B, T), each row read as one document."""
        found: Tensor = self.model(ids.to(self.model.embedding.weight.device))
        return found

    def losses(self, ids: Ints, what: str, starts: Ints | None = None) -> Floats:
        """Nats of each of `ids`, tokens of `what`, read as if after an end-of-text; documents begin at `starts`."""
        windows = scoring_windows(
            lambda start, count: ids[start : start + count],
            len(ids),
            self.end,
            context=self.context,
            stride=self.stride,
            batch_size=self.config.batch_size,
            starts=starts if self.model.config.within_documents else None,
        )
        return token_losses(self.model, told(windows, len(ids), self._tell(f"tokens of {what}")))

    def held_out(self, train: TokenShards, val: TokenShards) -> dict[str, Any]:
        """`validation`: all figures of the validation split; `hosts`: its loss by host."""
        ids, index = val.window(0, len(val)), val.index()
        starts = index["start"].to_numpy()
        nats, sizes = self.losses(ids, "held-out text", starts), self.sizes[ids]
        documents = [self._bytes(some) for some in np.split(ids, starts[1:])]
        text = b"".join(documents)
        n_bytes, n_words = len(text), sum(len(document.split()) for document in documents)
        validation = {
            "tokens": len(ids),
            "bytes": n_bytes,
            "words": n_words,
            "documents": len(starts),
            "val_loss": float(nats.mean()),
            "token_perplexity": perplexity(float(nats.sum()), len(ids)),
            "word_perplexity": perplexity(float(nats.sum()), n_words),
            **self._bits_per_byte(np.add.reduceat(nats, starts), np.add.reduceat(sizes, starts)),
            "byte_unigram_bits_per_byte": entropy(np.frombuffer(text, np.uint8)),
            "token_unigram_bits_per_byte": entropy(ids) * len(ids) / n_bytes,
            "xz_bits_per_byte": 8 * len(lzma.compress(text, preset=XZ_PRESET)) / n_bytes,
        }
        if counted := min(self.config.ngram_tokens, len(train)):
            self.progress(0, 1, "5-gram model")
            ngram = NGram.fit(spread(train, counted), self.encoding.n_vocab)
            validation |= {
                "ngram_bits_per_byte": bits(float(ngram.nats(ids, self.end).sum())) / n_bytes,
                "ngram_tokens": counted,
            }
        return {"validation": validation, "hosts": by_host(nats, sizes, index, MOST_HOSTS)}

    def _bytes(self, ids: Ints) -> bytes:
        """What tokens stand for; end-of-text, and whatever else has no length, stands for nothing."""
        written = ids[self.sizes[ids] > 0].tolist()
        return b"".join(map(self.encoding.decode_single_token_bytes, written))

    def sets(self, contents: Mapping[str, Task | list[str]]) -> dict[str, dict[str, Any]]:
        """`tasks`: scores by the name of a set of items; `sets`: bits per byte by the name of a set of texts."""
        found: dict[str, dict[str, Any]] = {"tasks": {}, "sets": {}}
        for name, content in contents.items():
            if isinstance(content, Task):
                found["tasks"][name] = self.task(content, name)
            else:
                found["sets"][name] = self.texts(content, name)
        return found

    def task(self, task: Task, name: str) -> dict[str, Any]:
        """The scores of a benchmark."""
        return evaluate_task(
            task,
            self.logits,
            self.encoding,
            context=self.context,
            batch_size=self.config.batch_size,
            resamples=self.config.resamples,
            seed=self.config.seed,
            tell=self._tell(f"answers of {name}"),
        )

    def texts(self, texts: Sequence[str], name: str) -> dict[str, Any]:
        """Bits per byte of texts, each read alone after an end-of-text, which itself is not scored."""
        encoded = [np.array(self.encoding.encode_ordinary(text), dtype=np.int64) for text in texts]
        nats = self.costs(encoded, name)
        sizes = np.array([self.sizes[ids].sum() for ids in encoded])
        return {
            "documents": len(texts),
            "tokens": sum(map(len, encoded)),
            "bytes": int(sizes.sum()),
            **self._bits_per_byte(nats, sizes),
        }

    def costs(self, texts: Sequence[Ints], name: str) -> Floats:
        """Nats of each text, read alone after an end-of-text.

        The longest come first: rows are of like length, and what is too large fails at once.
        """
        order = sorted(range(len(texts)), key=lambda number: -len(texts[number]))
        batches = scoring_texts(
            [texts[number] for number in order],
            self.end,
            context=self.context,
            stride=self.stride,
            batch_size=self.config.batch_size,
        )
        lengths = [len(texts[number]) for number in order]
        nats = token_losses(self.model, told(batches, sum(lengths), self._tell(f"tokens of {name}")))
        found = np.empty(len(texts))
        found[order] = [part.sum() for part in np.split(nats, np.cumsum(lengths)[:-1])]
        return found

    def memorised(self, train: TokenShards, val: TokenShards) -> dict[str, Any]:
        """How much of `train` is given back word for word and, as a control, of `val`; or why it was `skipped`."""
        if not self.config.memorisation_samples:
            return {}
        try:
            return {
                name: memorisation(
                    self.logits,
                    shards,
                    prompt=self.config.memorisation_prompt,
                    continuation=self.config.memorisation_continuation,
                    samples=self.config.memorisation_samples,
                    context=self.context,
                    batch_size=self.config.batch_size,
                    resamples=self.config.resamples,
                    seed=self.config.seed,
                    tell=self._tell("texts looked for in memory"),
                )
                for name, shards in (("train", train), ("val", val))
            }
        except TrainingError as error:
            return {"skipped": str(error)}

    def samples(self) -> list[dict[str, Any]]:
        """What is written from nothing, and after each prompt."""
        prompts = ["", *self.config.prompts] if self.config.samples else []
        found = []
        for number, prompt in enumerate(prompts):
            self.progress(number, len(prompts), "samples")
            found += self.samples_after(prompt)
        return found

    def samples_after(self, prompt: str) -> list[dict[str, Any]]:
        """The texts that follow end-of-text and `prompt`, each what `gptmill generate` gives for the same seed."""
        config = self.config
        steps = list(
            generate_batch(
                self.model,
                [[self.end, *self.encoding.encode_ordinary(prompt)]] * config.samples,
                max_tokens=config.sample_tokens,
                sampling=Sampling(temperature=config.temperature, top_k=config.top_k, top_p=config.top_p),
                seed=config.seed,
                stop_id=self.end,
                ended=stopping(self.encoding, config.stop),
            )
        )
        found = []
        for row in range(config.samples):
            written = [token for token in (step[row] for step in steps) if token is not None]
            text = "".join(stream_text(self.encoding, written, config.stop))
            ended = len(written) < config.sample_tokens
            found.append({"prompt": prompt, "seed": config.seed + row, "text": text, "ended": ended})
        return found

    def _bits_per_byte(self, nats: Floats, sizes: Ints) -> dict[str, Any]:
        """Bits per byte of texts that cost so many nats and have so many bytes, and what it might be for others."""
        values = nats / math.log(2)
        return {
            "bits_per_byte": float(values.sum() / sizes.sum()),
            "bits_per_byte_interval": interval(
                values, sizes.astype(np.float64), self.config.resamples, self.config.seed
            ),
        }

    def _tell(self, what: str) -> Callable[[int, int], None]:
        return lambda done, total: self.progress(done, total, what)


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
