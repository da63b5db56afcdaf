r"""What a model is fine-tuned on: prompts with their answers, or plain texts, one JSON object a line.

    {"prompt": "Q: 2 + 2?\nA:", "answer": " 4"}     the loss is on the answer and the end-of-text after it
    {"text": "Once upon a time"}                    the loss is on every token, as in pretraining

An example begins after an end-of-text, as a generation does. Prompt and answer are encoded apart, for that is how a
generation meets the prompt. Several examples share a row, but each stands alone: it is a document of its own.
"""

import hashlib
import json
from bisect import bisect_left, insort
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import NamedTuple

import numpy as np

from model.config import TrainingError
from model.cross_entropy import IGNORED
from model.training.data import Batch, Ints, epoch_key, permute
from pipeline.shards import Encoding, end_of_text


class Line(NamedTuple):
    """One line of a file: a prompt and its answer, or None and a text."""

    prompt: str | None
    answer: str


class Example(NamedTuple):
    """Ids of one document that fits a context, and for each the id that follows, `IGNORED` where it is not scored."""

    inputs: Ints
    targets: Ints


@dataclass(frozen=True)
class Encoded:
    """The examples of some lines, and what became of those that are longer than the context."""

    examples: list[Example]
    cut: int = 0
    """Prompts that lost their beginning."""
    dropped: int = 0
    """Lines whose answer alone does not fit."""


def read(path: Path) -> list[Line]:
    """The lines of a file but for blank ones; raises `TrainingError` naming the first that is none of the two kinds."""
    try:
        with path.open("rb") as file:  # str.splitlines would also split at U+2028, which JSON allows in a string
            lines = [_line(path, number, line) for number, line in enumerate(file, 1) if line.strip()]
    except OSError as error:
        raise TrainingError(f"{path} cannot be read ({error.strerror}): give a .jsonl file.") from error
    if not lines:
        raise TrainingError(f'{path} has no example: give lines such as {{"prompt": "…", "answer": "…"}}.')
    return lines


def _line(path: Path, number: int, line: bytes) -> Line:
    where = f"{path}, line {number}"
    try:
        found = json.loads(line)
    except (ValueError, RecursionError) as error:
        raise TrainingError(f"{where} is no JSON ({error}).") from error
    match found:
        case {"text": str(text)} if text and not {"prompt", "answer"} & found.keys():
            return Line(None, text)
        case {"prompt": str(prompt), "answer": str(answer)} if answer and "text" not in found:
            return Line(prompt, answer)
    raise TrainingError(
        f'{where} has neither a "prompt" and an "answer" nor a "text" alone, strings of which the last is not empty.'
    )


def split(lines: Iterable[Line], share: float) -> tuple[list[Line], list[Line]]:
    """The lines to train on, and about `share` of them that are held out, by a hash of their prompts or texts.

    So equal prompts are on the same side, and a line stays on its side whatever lines come and go.
    """
    sides: tuple[list[Line], list[Line]] = [], []
    for line in lines:
        text = line.answer if line.prompt is None else line.prompt
        digest = hashlib.blake2b(text.encode("utf-8", "surrogatepass"), digest_size=8).digest()
        sides[int.from_bytes(digest) < share * 2**64].append(line)
    return sides


def encode(lines: Iterable[Line], encoding: Encoding, context: int) -> Encoded:
    """The lines as examples of at most `context` inputs.

    A prompt that is too long loses its beginning. A line whose answer does not fit by itself is dropped. A text goes
    on in as many examples as it needs, side by side, every token of it scored once.
    """
    end, examples, cut, dropped = end_of_text(encoding), [], 0, 0
    for prompt, answer in lines:
        before = encoding.encode_ordinary(prompt or "")
        after = encoding.encode_ordinary(answer)
        ids = np.array([end, *before, *after, end], np.int64)
        inputs, targets = ids[:-1], ids[1:].copy()
        if prompt is None:
            pieces = range(0, len(inputs), context)
            examples += [Example(inputs[at : at + context], targets[at : at + context]) for at in pieces]
        elif len(after) + 1 > context:
            dropped += 1
        else:
            targets[: len(before)] = IGNORED
            cut += len(inputs) > context
            examples.append(Example(inputs[-context:], targets[-context:]))
    return Encoded(examples, cut, dropped)


@dataclass(frozen=True)
class Rows:
    """Examples in rows of `context` inputs, which training visits as it does windows: all of them once an epoch."""

    examples: Sequence[Example]
    context: int
    end: int
    """The id of end-of-text, which fills what is left of a row."""
    seed: int = 0
    """Chooses the order of the rows, another one in each epoch."""

    @cached_property
    def _rows(self) -> list[list[int]]:
        return pack([len(example.inputs) for example in self.examples], self.context)

    @cached_property
    def _scored(self) -> Ints:
        """How many targets each row scores."""
        scored = [np.count_nonzero(example.targets != IGNORED) for example in self.examples]
        return np.array([sum(scored[place] for place in row) for row in self._rows], np.int64)

    @property
    def count(self) -> int:
        """Rows in an epoch."""
        return len(self._rows)

    def batch(self, position: int, size: int) -> Batch:
        """The `size` rows after the first `position` ones."""
        return self._batch(self._visited(position, size))

    def scored(self, position: int, size: int) -> int:
        """How many targets `batch(position, size)` scores."""
        return int(self._scored[self._visited(position, size)].sum())

    def in_order(self, size: int, most: int = 0) -> tuple[Iterator[Batch], int]:
        """Batches of `size` rows, each row once or, with `most` > 0, so many spread evenly; and how many they score."""
        places = np.arange(self.count)
        if 0 < most < self.count:
            places = places[:most] * self.count // most
        batches = (self._batch(places[at : at + size]) for at in range(0, len(places), size))
        return batches, int(self._scored[places].sum())

    def _visited(self, position: int, size: int) -> Ints:
        epochs, places = np.divmod(np.arange(position, position + size), self.count)
        for epoch in np.unique(epochs):
            now = epochs == epoch
            places[now] = permute(places[now], self.count, epoch_key(self.seed, int(epoch)))
        return places

    def _batch(self, rows: Ints) -> Batch:
        inputs = np.full((len(rows), self.context), self.end, np.int64)
        targets = np.full_like(inputs, IGNORED)
        documents = np.zeros_like(inputs)
        for row, examples in enumerate(self._rows[place] for place in rows):
            at = 0
            for number, place in enumerate(examples):
                example = self.examples[place]
                stretch = slice(at, at + len(example.inputs))
                inputs[row, stretch], targets[row, stretch] = example
                documents[row, stretch] = number
                at = stretch.stop
            documents[row, at:] = len(examples)
        return Batch(inputs, targets, documents)


def pack(lengths: Sequence[int], size: int) -> list[list[int]]:
    """Which lengths share a row of `size`: the longest first, each where it leaves least room.

    Best-fit decreasing, which wastes next to nothing of long rows (Ding et al. 2024, https://arxiv.org/abs/2404.10830).
    """
    rows: list[list[int]] = []
    room: list[tuple[int, int]] = []  # (inputs left, row), rising
    for place in sorted(range(len(lengths)), key=lambda place: -lengths[place]):
        fitting = bisect_left(room, (lengths[place], 0))
        left, row = room.pop(fitting) if fitting < len(room) else (size, len(rows))
        if row == len(rows):
            rows.append([])
        rows[row].append(place)
        insort(room, (left - lengths[place], row))
    return rows


def digest_of(*parts: Sequence[Example]) -> "hashlib._Hash":
    """sha256 of every id and target, to go on with."""
    digest = hashlib.sha256()
    for examples in parts:
        digest.update(len(examples).to_bytes(8, "little"))
        for example in examples:
            digest.update(len(example.inputs).to_bytes(8, "little"))
            digest.update(example.inputs.tobytes() + example.targets.tobytes())
    return digest


def answer_bytes(examples: Sequence[Example], sizes: Ints) -> int:
    """Bytes of text that the scored targets stand for; `sizes` has the bytes of each id."""
    return sum(int(sizes[example.targets[example.targets != IGNORED]].sum()) for example in examples)
