"""The contamination ledger: how much of an evaluation item each document gives away.

An item is a line of a `.jsonl` file or a paragraph of a `.txt` file. Each string in it is a *passage* of its own
(question, context, every choice): a document that holds one whole counts as holding the item, however many wrong
choices it lacks. A document's overlap with a passage is the share of the passage's word n-grams that it contains
anywhere; the ledger names the worst-hit item. The n-grams are hashed as shingles are, so case, spacing and
punctuation make no difference.
"""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Annotated, Any, NamedTuple

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray
from pydantic import Field

from pipeline.config import BadInput, Config
from pipeline.documents import DOC_ID, read_table, write_table

CONTAMINATION_FILE = "contamination.arrow"

LEDGER = pa.schema([("doc_id", DOC_ID), ("overlap", pa.float32()), ("set", pa.string()), ("item", pa.int32())])
"""`overlap` in [0, 1]; `set` is the stem of the set's file name and `item` counts from 0; both null without overlap."""


class ContaminationConfig(Config):
    """What counts as a piece of an evaluation set."""

    ngram_words: Annotated[int, Field(ge=2, le=64)] = 13
    """Consecutive words in an n-gram (13 at most in GPT-3, arXiv:2005.14165, appendix C)."""
    min_words: Annotated[int, Field(ge=1, le=64)] = 8
    """Words under which a passage says too little to be looked for (8 in GPT-3, same place); up to `ngram_words` it is
    one n-gram of all its words."""


class Passage(NamedTuple):
    """One string of an evaluation item."""

    set_name: str
    item: int
    text: str


def contamination(*, out: Path, config: ContaminationConfig, documents: Path, sets: list[Path]) -> dict[str, Any]:
    """Write `contamination.arrow` for the part `documents`: doc_id, overlap, set, item.

    Raises `BadInput` where a set is neither `.jsonl` nor `.txt` or holds a line that is no JSON.
    """
    table = read_table(documents / "documents.arrow", ["doc_id", "text"])
    passages = [passage for path in sets for passage in read_passages(path)]
    overlaps, worst = _worst_hits(table["text"], passages, config)
    hit = [passages[place] if place >= 0 else None for place in worst.tolist()]
    columns = [
        table["doc_id"].combine_chunks().cast(DOC_ID),
        pa.array(overlaps),
        pa.array([passage and passage.set_name for passage in hit], pa.string()),
        pa.array([None if passage is None else passage.item for passage in hit], pa.int32()),
    ]
    write_table(pa.table(columns, LEDGER), out / CONTAMINATION_FILE)
    return {"rows": len(table), "with_overlap": int((worst >= 0).sum())}


def read_passages(path: Path) -> Iterator[Passage]:
    """The passages of one evaluation set in order."""
    try:
        content = path.read_text(encoding="utf-8")
    except UnicodeDecodeError as error:
        raise BadInput(f"{path} is not UTF-8 (byte {error.start}): convert it, or leave it out of the sets.") from error
    if path.suffix == ".txt":
        paragraphs = [part for part in content.split("\n\n") if part.strip()]
        yield from (Passage(path.stem, item, text) for item, text in enumerate(paragraphs))
        return
    if path.suffix != ".jsonl":
        raise BadInput(f"{path} is no evaluation set that can be read: name a .jsonl or a .txt file.")
    for item, line in enumerate(content.split("\n")):
        if not line.strip():
            continue
        try:
            fields = json.loads(line)
        except (ValueError, RecursionError) as error:
            raise BadInput(f"{path}, line {item + 1} is not JSON: mend it, or leave it out of the set.") from error
        if isinstance(fields, dict) and isinstance(fields.get("text"), str):
            fields = fields["text"]
        yield from (Passage(path.stem, item, text) for text in _strings(fields))


def _strings(value: Any) -> Iterator[str]:
    if isinstance(value, str):
        yield value.encode("utf-8", "replace").decode()  # JSON may escape half a surrogate pair
    elif isinstance(value, dict):
        for inner in value.values():
            yield from _strings(inner)
    elif isinstance(value, list):
        for inner in value:
            yield from _strings(inner)


def _worst_hits(
    column: pa.ChunkedArray, passages: list[Passage], config: ContaminationConfig
) -> tuple[NDArray[np.float32], NDArray[np.int64]]:
    """For each text its greatest overlap (0 to 1) and the first passage that it is with (-1 without overlap)."""
    from pipeline.passage_kernels import PassageIndex
    from pipeline.shingle_kernels import ngrams, text_batches, word_hashes

    by_length: dict[int, list[int]] = {}
    grams: dict[int, NDArray[np.uint64]] = {}
    looked_for = pa.chunked_array([pa.array([passage.text for passage in passages], pa.string())])
    place = 0
    for texts in text_batches(looked_for):
        words = word_hashes(texts)
        hashes = ngrams(words, config.ngram_words)
        for row, count in enumerate(np.diff(words.ends).tolist()):
            if count >= config.min_words:
                grams[place] = np.unique(hashes.values[hashes.ends[row] : hashes.ends[row + 1]])
                by_length.setdefault(min(count, config.ngram_words), []).append(place)
            place += 1
    indexes = {n: PassageIndex([grams[place] for place in places]) for n, places in sorted(by_length.items())}
    shares, worst = [np.zeros(0)], [np.zeros(0, np.int64)]
    for texts in text_batches(column):
        words = word_hashes(texts)
        best, which = np.zeros(len(texts.offsets) - 1), np.full(len(texts.offsets) - 1, -1)
        for n, index in indexes.items():
            found, local = index.overlaps(ngrams(words, n))
            passage = np.array(by_length[n])[local]
            better = (found > best) | ((found == best) & (found > 0) & (passage < which))
            best, which = np.where(better, found, best), np.where(better, passage, which)
        shares.append(best)
        worst.append(which)
    return np.concatenate(shares).astype(np.float32), np.concatenate(worst)
