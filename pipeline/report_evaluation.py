"""The report's part on what the model is worth: an evaluation as rows to show."""

from collections.abc import Mapping
from typing import Any

from pipeline.summary import as_number, as_percent, as_words, is_number

SAMPLES_SHOWN = 8

COMPARED = (
    ("this model", "bits_per_byte"),
    ("a 5-gram model", "ngram_bits_per_byte"),
    ("xz -9", "xz_bits_per_byte"),
    ("unigram tokens", "token_unigram_bits_per_byte"),
)
"""What the headline compares, by name and figure of the evaluation."""

MEASURES = {
    "bits_per_byte": ("Bits per byte", "of all held-out text, whatever the tokenizer"),
    "bits_per_byte_interval": ("95 % interval", "from documents drawn anew with replacement"),
    "ngram_bits_per_byte": ("Bits per byte, 5-gram", "what counting tokens of the training text reaches (Kneser-Ney)"),
    "ngram_tokens": ("Tokens counted for that", "of the training text, evenly spread"),
    "xz_bits_per_byte": ("Bits per byte, xz -9", "the same text, compressed"),
    "token_unigram_bits_per_byte": ("Bits per byte, unigram tokens", "knowing how often each token comes, and no more"),
    "byte_unigram_bits_per_byte": ("Bits per byte, unigram bytes", "knowing how often each byte comes, and no more"),
    "val_loss": ("Validation loss", "nats per token"),
    "token_perplexity": ("Perplexity per token", "e to the loss; not to be compared across tokenizers"),
    "word_perplexity": ("Perplexity per word", "the same loss shared among the words"),
    "documents": ("Documents scored", ""),
    "tokens": ("Tokens scored", "end-of-text included"),
    "bytes": ("Bytes scored", ""),
    "words": ("Words scored", ""),
}
"""How each figure of an evaluation is called, in the order shown; other figures follow under their own names."""

SCORES = ("acc", "acc_norm", "perplexity")

TEXTS = {"train": "training", "val": "held out"}


def evaluation_facts(evaluation: Mapping[str, Any]) -> dict[str, Any]:
    """What the template shows of an `evaluation.json`, by name; all of it empty where there was none."""
    figures = evaluation.get("validation", {})
    compared = [(name, figures[key]) for name, key in COMPARED if is_number(figures.get(key))]
    interval = figures.get("bits_per_byte_interval", [])
    hosts = evaluation.get("hosts", [])
    return {
        "figures": figures,
        "compared": compared,
        "most_bits": max([value for _, value in compared] + interval[1:], default=0),
        "measures": _measures(figures),
        "sets": evaluation.get("sets", {}),
        "tasks": [_task(name, task) for name, task in evaluation.get("tasks", {}).items()],
        "memory": _memory(evaluation.get("memorisation", {})),
        "hosts": hosts,
        "most_host_bits": max((host["bits_per_byte"] or 0 for host in hosts), default=0),
        "samples": evaluation.get("samples", [])[:SAMPLES_SHOWN],
    }


def _measures(figures: Mapping[str, Any]) -> list[tuple[str, str, str]]:
    """Rows of the table of figures: name, value, what it means."""
    names = [*(name for name in MEASURES if name in figures), *(name for name in figures if name not in MEASURES)]
    rows = []
    for name in names:
        value = figures[name]
        called, meaning = MEASURES.get(name, (as_words(name), ""))
        if is_number(value):
            rows.append((called, as_number(value), meaning))
        elif isinstance(value, list) and value and all(is_number(each) for each in value):
            rows.append((called, " to ".join(as_number(each) for each in value), meaning))
    return rows


def _task(name: str, task: Mapping[str, Any]) -> dict[str, Any]:
    """A benchmark with a row for each of its scores."""
    return {
        "name": name,
        "task": as_words(task["task"]),
        "n_items": task["items"],
        "answer_bits_per_byte": task["answer_bits_per_byte"],
        "scores": [_score(metric, task) for metric in SCORES if metric in task],
    }


def _score(metric: str, task: Mapping[str, Any]) -> dict[str, Any]:
    """A score in words; accuracies, which are shares, also as what a chart draws."""
    value, (low, high) = task[metric], task[f"{metric}_interval"]
    is_share = metric != "perplexity"
    written = as_percent if is_share else _as_perplexity
    return {
        "metric": metric,
        "value": written(value),
        "interval": f"{written(low)} to {written(high)}",
        "chance": as_percent(task["chance"]) if is_share else "",
        "uniform": written(task[f"uniform_{metric}"]),
        "drawn": {"at": value, "low": low, "high": high, "line": task["chance"]} if is_share else None,
    }


def _as_perplexity(value: float | None) -> str:
    return "beyond numbers" if value is None else as_number(value)


def _memory(memorisation: Mapping[str, Any]) -> dict[str, Any]:
    """Why nothing was `skipped`, or a row for each text in which memorised places were looked for."""
    found = {name: memorisation[name] for name in TEXTS if name in memorisation}
    if not found:
        return dict(memorisation)
    lengths = {length: next(iter(found.values()))[length] for length in ("prompt", "continuation")}
    return {**lengths, "rows": [_given_back(TEXTS[name], part) for name, part in found.items()]}


def _given_back(text: str, part: Mapping[str, Any]) -> dict[str, Any]:
    row = {"text": text, "samples": part["samples"]}
    if part["rate"] is None:
        return {**row, "rate": "no text is long enough", "interval": "", "drawn": None}
    low, high = part["interval"]
    return {
        **row,
        "rate": as_percent(part["rate"]),
        "interval": f"{as_percent(low)} to {as_percent(high)}",
        "drawn": {"at": part["rate"], "low": low, "high": high},
    }
