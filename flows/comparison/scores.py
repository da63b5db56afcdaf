"""Two runs side by side: how their losses fell, and what their evaluations say, with what a difference is worth."""

import math
from collections.abc import Iterator, Mapping
from typing import Any

from flows import logs
from flows.commands.evaluate import Figure, figures, shown
from flows.comparison.layout import UNKNOWN, Row, Section
from pipeline.charts import Point, loss_curves, short, ticks
from pipeline.corpus import PACKED, Corpus
from pipeline.documents import read_table
from pipeline.engine.store import Artifact, read_object
from pipeline.shards import index_path
from pipeline.summary import is_number

SCORES = "What they score"
EVALUATE = "evaluate"

ENOUGH = 20
"""Texts or items: with fewer, those drawn anew vary too little for their interval to be believed."""

OTHER_STRIDE = "another stride"

OTHER_VOCABULARIES = "The vocabularies differ: losses a token do not compare."

MARKS = 6
"""Places on the axis of tokens at which losses are told."""

READING = (
    "95 % intervals, each of one run by itself, from items drawn anew. Where two overlap the difference may be chance, "
    "or too small for so few items; a paired difference, of the same texts, says more."
)


def curves(a: Corpus, b: Corpus) -> Section:
    """The losses at the same numbers of tokens, and drawn on the same axes."""
    trainings = [_losses(corpus.artifacts.get("pretrain")) for corpus in (a, b)]
    end = max((x for train, _ in trainings for x, _ in train), default=0.0)
    if not end:
        return Section("Training", [], "Neither was trained.")
    marks = ticks(0, end, MARKS)
    width = marks[1] - marks[0]
    rows = [
        Row(f"after {short(mark)} tokens", _both(_mean(train, mark - width, mark) for train, _ in trainings))
        for mark in marks[1:]
    ]
    last = _both(val[-1][1] if val else None for _, val in trainings)
    rows.append(Row("last held-out loss", last))
    note = f"Nats a token: means of the training loss over the {short(width)} tokens before."
    tokenizers = [corpus.artifacts["tokenizer"] for corpus in (a, b) if "pretrain" in corpus.artifacts]
    if len({tokenizer.digest for tokenizer in tokenizers}) > 1:
        return Section("Training", rows, f"{note} {OTHER_VOCABULARIES}")
    return Section("Training", rows, note, loss_curves(dict(zip("ab", trainings, strict=True))))


def _losses(checkpoint: Artifact | None) -> tuple[list[Point], list[Point]]:
    """Training and validation loss over tokens, as a training's metrics have them."""
    lines = [] if checkpoint is None else logs.read(checkpoint.path / "report" / "metrics.jsonl")
    tokens_at = {line["step"]: float(line["tokens"]) for line in lines if "tokens" in line}
    train, val = (
        [(tokens_at.get(line["step"], 0.0), line[name]) for line in lines if is_number(line.get(name))]
        for name in ("loss", "val_loss")
    )
    return train, val


def _mean(points: list[Point], after: float, to: float) -> float | None:
    """The mean loss of a stretch of tokens; None where the training ended within it."""
    if not points or points[-1][0] < to:
        return None
    values = [y for x, y in points if after < x <= to]
    return sum(values) / len(values) if values else None


def scores(a: Corpus, b: Corpus) -> Section:
    """The figures of both evaluations, with what can be said of their difference."""
    evaluations = [corpus.artifacts[EVALUATE] for corpus in (a, b) if EVALUATE in corpus.artifacts]
    if len(evaluations) < 2:
        return Section(SCORES, [], "Not both were evaluated.")
    found = [read_object(each.path / "evaluation.json") for each in evaluations]
    strides = {each.manifest["key_document"]["config"]["stride"] for each in evaluations}
    same_text, same_stride = _held_out_ids(a) == _held_out_ids(b), len(strides) == 1
    rows = [
        *_held_out(*found, same_text=same_text, same_stride=same_stride),
        *_sets(*found, same_stride=same_stride),
    ]
    return Section(SCORES, rows, READING)


def with_paired(sections: list[Section], rows: list[Row]) -> list[Section]:
    """The sections with the paired scores of both models added to the scores."""
    return [
        Section(each.title, [*each.rows, *rows], each.note, each.drawing) if each.title == SCORES else each
        for each in sections
    ]


def _held_out_ids(corpus: Corpus) -> set[bytes]:
    """The documents that a run holds out, in whichever order and parts they lie."""
    indexes = (read_table(index_path(part.folder, "val"), ["doc_id"]) for part in corpus.artifacts[PACKED].parts)
    return {doc_id for index in indexes for doc_id in index["doc_id"].to_pylist()}


def _held_out(a: Mapping[str, Any], b: Mapping[str, Any], *, same_text: bool, same_stride: bool) -> Iterator[Row]:
    """Bits per byte of what each run holds out, and of the same text by what needs no learning."""
    both = [each["validation"] for each in (a, b)]
    measured = [figures({"sets": {"held out": each}, "tasks": {}})[0] for each in both]
    same_text = same_text and both[0]["bytes"] == both[1]["bytes"]  # personal data may be replaced by other words
    unlike = "other texts" if not same_text else "" if same_stride else OTHER_STRIDE
    yield Row("bits per byte, held out", _values(measured), unlike or _verdict(measured))
    for name, key in (("the same by a 5-gram", "ngram_bits_per_byte"), ("the same by xz -9", "xz_bits_per_byte")):
        yield Row(name, _both(each.get(key) for each in both))


def _sets(a: Mapping[str, Any], b: Mapping[str, Any], *, same_stride: bool) -> Iterator[Row]:
    """The figures of each set and benchmark that both were measured on."""
    both = [{(each.of, each.what): each for each in figures(found)} for found in (a, b)]
    for name in both[0]:
        if name in both[1]:
            of, what = name
            measured = [each[name] for each in both]
            scored = [{**found["sets"], **found["tasks"]}[of] for found in (a, b)]
            unlike = _unlike(*scored, same_stride=same_stride)
            yield Row(f"{what} of {of}", _values(measured), unlike or _verdict(measured))


def _unlike(a: Mapping[str, Any], b: Mapping[str, Any], *, same_stride: bool) -> str:
    """Why what two evaluations say of a set or benchmark does not compare; nothing where it does."""
    if a.get("task") != b.get("task"):
        return "another task"
    digests = {each.get("sha256") for each in (a, b)}
    if None in digests:  # an evaluation from before they were told
        return "perhaps other items"
    if len(digests) > 1:
        return "other items"
    return "" if same_stride or "task" in a else OTHER_STRIDE  # the items of a benchmark are scored whole


def _verdict(measured: list[Figure]) -> str:
    """The difference, and whether the intervals leave room for chance; not said of too few texts or items."""
    first, second = measured
    if first.value is None or second.value is None:
        return ""
    told = f"{second.value - first.value:+.4f}"
    if min(each.items or 0 for each in measured) < ENOUGH:
        return f"{told}, too few to judge"
    # A bound of a perplexity is None where it is beyond numbers.
    bounds = [[math.inf if bound is None else bound for bound in each.interval or ()] for each in measured]
    apart = max(map(min, bounds)) > min(map(max, bounds))
    return f"{told}, intervals {'apart' if apart else 'overlap'}"


def _values(measured: list[Figure]) -> tuple[str, str]:
    first, second = (
        shown(each.value)
        + ("" if each.interval is None else f" ({shown(each.interval[0])} to {shown(each.interval[1])})")
        for each in measured
    )
    return first, second


def _both(values: Any) -> tuple[str, str]:
    first, second = (UNKNOWN if value is None else shown(value) for value in values)
    return first, second
