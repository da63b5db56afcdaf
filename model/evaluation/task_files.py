"""Benchmark items from local JSONL files, with the prompts that lm-evaluation-harness 0.4 gives them.

A file holds the published form of a benchmark (HellaSwag's `ctx_a`, PIQA's `goal`, WinoGrande's `sentence`, BLiMP's
`sentence_good`), or items made ready in the manner of llm-foundry (`query` and `choices`, `context_options`, `context`
and `continuation`). The fields of an item tell which; only LAMBADA's plain `text` must be named in the config, since a
text is otherwise read as a text.
"""

import json
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

from model.config import TaskName, TrainingError


class Item(NamedTuple):
    """What is asked of the model: the log-likelihood of each answer, the right one being `answers[gold]`.

    answers: (context, continuation), which together are text. lengths: characters of each answer, which `acc_norm`
    divides by.
    """

    answers: tuple[tuple[str, str], ...]
    gold: int
    lengths: tuple[int, ...]


class Task(NamedTuple):
    """A benchmark: its name, the metrics that lm-evaluation-harness reports for it, and its items."""

    name: TaskName
    metrics: tuple[str, ...]
    items: list[Item]


def read_task(path: Path, name: TaskName | None = None) -> Task | None:
    """The benchmark in a .jsonl file, called `name` or by what its first item has; None where it holds plain texts.

    Raises `TrainingError` where a line is no item of it.
    """
    if path.suffix != ".jsonl":
        return None
    items: list[Item] = []
    for number, line in enumerate(_lines(path), 1):
        if not line.strip():
            continue
        try:
            fields = json.loads(line)
            form = form_of(fields, name)
            if form is None:
                return None
            name = form.name
            items.append(_checked(form.item(fields)))
        except (ValueError, KeyError, TypeError, IndexError, AttributeError) as error:
            raise TrainingError(
                f"{path}, line {number}, is no item of {name or 'a benchmark'} ({type(error).__name__}: {error}): mend"
                " it, or say in evaluate.tasks what the file is."
            ) from error
    if name is None:
        return None
    if not items:
        raise TrainingError(f"{path} has no item of {name}: take it out of evaluate.sets.")
    return Task(name, METRICS.get(name, ("acc", "acc_norm")), items)


def _lines(path: Path) -> list[str]:
    try:
        return path.read_text(encoding="utf-8").split("\n")
    except (OSError, UnicodeDecodeError) as error:
        raise TrainingError(f"The evaluation set {path} cannot be read ({error}): it must be UTF-8.") from error


class Form(NamedTuple):
    """One way to write an item: of which benchmark, with which fields, and what they ask."""

    name: TaskName
    fields: frozenset[str]
    item: Callable[[dict[str, Any]], Item]


def form_of(fields: Any, name: TaskName | None = None) -> Form | None:
    """The form of an item with these fields: the first that fits, of the benchmark called `name` if one is named.

    None where no name is given and none fits. Raises `ValueError` where the fields are not those of the named one.
    """
    if not isinstance(fields, dict):
        raise TypeError("it is no object")
    allowed = FORMS if name is None else [form for form in (*FORMS, *NAMED_FORMS) if form.name == name]
    form = next((form for form in allowed if form.fields <= fields.keys()), None)
    if form is None and name is not None:
        raise ValueError("it lacks fields")
    return form


def _checked(item: Item) -> Item:
    if not all(isinstance(text, str) for answer in item.answers for text in answer):
        raise TypeError("a text is no string")
    if not 0 <= item.gold < len(item.answers):
        raise ValueError(f"of {len(item.answers)} answers number {item.gold} cannot be the right one")
    return item


def _choices(context: str, choices: list[str], gold: int) -> Item:
    return Item(tuple((context, f" {choice}") for choice in choices), gold, tuple(map(len, choices)))


def _hellaswag(fields: dict[str, Any]) -> Item:
    query = f"{fields['activity_label']}: {fields['ctx_a']} {fields['ctx_b'].capitalize()}"
    return _choices(_wikihow(query), [_wikihow(ending) for ending in fields["endings"]], int(fields["label"]))


def _wikihow(text: str) -> str:
    """A text of HellaSwag without the marks that WikiHow's pages left in it."""
    text = text.strip().replace(" [title]", ". ")
    return re.sub(r"\[.*?\]", "", text).replace("  ", " ")


def _question(text: str) -> str:
    return f"Question: {text}\nAnswer:"


def _piqa(fields: dict[str, Any]) -> Item:
    return _choices(_question(fields["goal"]), [fields["sol1"], fields["sol2"]], int(fields["label"]))


def _arc(fields: dict[str, Any]) -> Item:
    """ARC as the Hugging Face hub has it (`choices` are lists of texts and labels) or as published (a `stem`)."""
    question = fields["question"]
    if isinstance(question, dict):
        listed, question = question["choices"], question["stem"]
        texts, labels = ([choice[name] for choice in listed] for name in ("text", "label"))
    else:
        texts, labels = fields["choices"]["text"], fields["choices"]["label"]
    return _choices(_question(question), texts, labels.index(fields["answerKey"]))


def _ready(fields: dict[str, Any]) -> Item:
    """An item with its query made ready; one that asks a question is answered where lm-evaluation-harness answers."""
    query = fields["query"]
    context = query.removesuffix("\n") + "\nAnswer:" if query.startswith("Question: ") else query
    return _choices(context, fields["choices"], int(fields["gold"]))


def _winogrande(fields: dict[str, Any]) -> Item:
    before, gap, after = fields["sentence"].partition("_")
    if not gap or not after.strip():
        raise ValueError("a WinoGrande sentence needs a _ with something after it")
    options = [before + fields["option1"], before + fields["option2"]]
    return _partial(options, after.strip(), int(fields["answer"]) - 1)


def _partial(contexts: list[str], continuation: str, gold: int) -> Item:
    """Scored by partial evaluation (Trinh and Le 2018): the same words after each of the contexts."""
    return Item(tuple((context, f" {continuation}") for context in contexts), gold, tuple(map(len, contexts)))


def _last_word(fields: dict[str, Any]) -> Item:
    context, _, word = fields["text"].rpartition(" ")
    return _choices(context, [word], 0)


def _blimp(fields: dict[str, Any]) -> Item:
    """A minimal pair, each sentence alone and, as lm-evaluation-harness has it, after a space."""
    return _choices("", [fields["sentence_good"], fields["sentence_bad"]], 0)


FORMS = [
    Form("hellaswag", frozenset({"activity_label", "ctx_a", "ctx_b", "endings", "label"}), _hellaswag),
    Form("piqa", frozenset({"goal", "sol1", "sol2", "label"}), _piqa),
    Form("arc", frozenset({"question", "answerKey"}), _arc),
    Form("winogrande", frozenset({"sentence", "option1", "option2", "answer"}), _winogrande),
    Form(
        "winogrande",
        frozenset({"context_options", "continuation", "gold"}),
        lambda fields: _partial(fields["context_options"], fields["continuation"], int(fields["gold"])),
    ),
    Form("multiple_choice", frozenset({"query", "choices", "gold"}), _ready),
    Form(
        "lambada",
        frozenset({"context", "continuation"}),
        lambda fields: _choices(fields["context"], [fields["continuation"]], 0),
    ),
    Form("blimp", frozenset({"sentence_good", "sentence_bad"}), _blimp),
]
"""The forms that are recognised, the first that fits."""

NAMED_FORMS = [
    Form("lambada", frozenset({"text"}), _last_word),
    Form("hellaswag", frozenset({"query", "choices", "gold"}), _ready),
    Form("piqa", frozenset({"query", "choices", "gold"}), _ready),
    Form("arc", frozenset({"query", "choices", "gold"}), _ready),
]
"""Forms that are taken only for a benchmark named in the config."""

METRICS: dict[TaskName, tuple[str, ...]] = {"winogrande": ("acc",), "blimp": ("acc",), "lambada": ("acc", "perplexity")}
"""What lm-evaluation-harness reports where it is not accuracy and normalised accuracy."""
