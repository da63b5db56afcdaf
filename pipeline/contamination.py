"""The contamination ledger: how much of an evaluation item each document gives away.

An item is a line of a `.jsonl` file or a paragraph of a `.txt` file. Each string in it is a *passage* of its own
(question, context, every choice): a document that holds one whole counts as holding the item, however many wrong
choices it lacks. A document's overlap with a passage is the share of the passage's word n-grams that it contains
anywhere; the ledger names the worst-hit item of every set that it meets. The n-grams are hashed as shingles are, so
case, spacing and punctuation make no difference.
"""

import json
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, NamedTuple
from unicodedata import normalize

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray
from pydantic import Field

from pipeline.config import BadInput, Config
from pipeline.documents import DOC_ID, read_table, write_table
from pipeline.kept import kept
from pipeline.shingles import ALONE, CLASSES

if TYPE_CHECKING:
    from pipeline.passage_kernels import PassageIndex
    from pipeline.shingle_kernels import Hashes

CONTAMINATION_FILE = "contamination.arrow"

KEPT_SETS = 32
"""Indexed sets that a process keeps; a run with more indexes them for each part."""

HIT = pa.struct([("set", pa.string()), ("item", pa.int32()), ("id", pa.string()), ("overlap", pa.float32())])
"""The item of a set that a document overlaps most with, the first of equals; see `LEDGER`."""

LEDGER = pa.schema([("doc_id", DOC_ID), *((name, HIT.field(name).type) for name in ("overlap", "set", "item", "id"))])
LEDGER = LEDGER.append(pa.field("hits", pa.list_(HIT)))
"""`overlap` in [0, 1]; `set` is the stem of the set's file name, `item` counts its lines or paragraphs from 0, and `id`
is what the item calls itself by a field `id`, if it does; all three null without overlap. These are of the worst of
`hits`, which has one for each set that the document overlaps with, in the order of the sets."""


class ContaminationConfig(Config):
    """What counts as a piece of an evaluation set."""

    ngram_words: Annotated[int, Field(ge=2, le=64)] = 13
    """Consecutive words in an n-gram (13 at most in GPT-3, arXiv:2005.14165, appendix C)."""
    min_words: Annotated[int, Field(ge=1, le=64)] = 8
    """Words under which a passage says too little to be looked for (8 in GPT-3, same place); up to `ngram_words` it is
    one n-gram of all its words. Two Chinese or Japanese characters count as one word here."""


class Passage(NamedTuple):
    """One string of an evaluation item."""

    set_name: str
    item: int
    id: str | None
    text: str


class IndexedSet(NamedTuple):
    """An evaluation set: its passages, and the index and places of those looked for with n-grams of each length."""

    passages: list[Passage]
    by_length: list[tuple[int, "PassageIndex", NDArray[np.int64]]]


class Hits(NamedTuple):
    """For each document its greatest overlap with a set (float32, 0 to 1) and the passage it is with, or -1."""

    overlaps: NDArray[np.float32]
    places: NDArray[np.int64]
    passages: list[Passage]


def contamination(*, out: Path, config: ContaminationConfig, documents: Path, sets: list[Path]) -> dict[str, Any]:
    """Write `contamination.arrow` for the part `documents`: doc_id, overlap, set, item, id, hits.

    Stats: rows, with_overlap, and sets, the documents that overlap with each set by name. Raises `BadInput` where a set
    is neither `.jsonl` nor `.txt` or holds a line that is no JSON, or where two have one name.
    """
    names = Counter(path.stem for path in sets)
    if twice := [name for name, count in names.items() if count > 1]:
        raise BadInput(f"evaluate.sets names two sets {twice[0]}, which no ledger could tell apart: rename one.")
    table = read_table(documents / "documents.arrow", ["doc_id", *(["text"] if sets else [])])
    indexed = [_indexed(path, read_set(path), config) for path in sets]
    by_set = _worst_hits(table["text"], indexed) if sets else []
    rows = [_row([hit for found in by_set if (hit := _hit(found, row))]) for row in range(len(table))]
    columns = [pa.array([row[name] for row in rows], LEDGER.field(name).type) for name in LEDGER.names[1:]]
    write_table(pa.table([table["doc_id"].combine_chunks().cast(DOC_ID), *columns], LEDGER), out / CONTAMINATION_FILE)
    return {
        "rows": len(table),
        "with_overlap": sum(row["set"] is not None for row in rows),
        "sets": {path.stem: int((found.places >= 0).sum()) for path, found in zip(sets, by_set, strict=True)},
    }


def _hit(found: Hits, row: int) -> dict[str, Any] | None:
    """What a row of `HIT` says of the document in this row, if it overlaps with the set."""
    place = int(found.places[row])
    if place < 0:
        return None
    passage = found.passages[place]
    return {"set": passage.set_name, "item": passage.item, "id": passage.id, "overlap": found.overlaps[row]}


def _row(hits: list[dict[str, Any]]) -> dict[str, Any]:
    """The ledger's row of a document with these hits."""
    nothing = {"overlap": 0.0, "set": None, "item": None, "id": None}
    return {**max(hits, key=lambda hit: hit["overlap"], default=nothing), "hits": hits}


def read_set(path: Path) -> str:
    """The content of the file of one evaluation set."""
    try:
        return path.read_text(encoding="utf-8")
    except UnicodeDecodeError as error:
        raise BadInput(f"{path} is not UTF-8 (byte {error.start}): convert it, or leave it out of the sets.") from error


def read_passages(path: Path, content: str) -> Iterator[Passage]:
    """The passages of the evaluation set at `path`, in order."""
    if path.suffix == ".txt":
        paragraphs = [part for part in content.split("\n\n") if part.strip()]
        yield from (Passage(path.stem, item, None, _sound(text)) for item, text in enumerate(paragraphs))
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
        name = fields.get("id") if isinstance(fields, dict) else None
        name = str(name) if isinstance(name, (str, int)) and not isinstance(name, bool) else None
        if isinstance(fields, dict) and isinstance(fields.get("text"), str):
            fields = fields["text"]
        yield from (Passage(path.stem, item, name and _sound(name), text) for text in _strings(fields))


def _strings(value: Any) -> Iterator[str]:
    if isinstance(value, str):
        yield _sound(value)
    elif isinstance(value, dict):
        for inner in value.values():
            yield from _strings(inner)
    elif isinstance(value, list):
        for inner in value:
            yield from _strings(inner)


def _sound(text: str) -> str:
    """The text as documents have it: composed (NFC), and without the half pairs that JSON may escape."""
    return normalize("NFC", text.encode("utf-8", "replace").decode())


def _says_enough(text: str, n_words: int, config: ContaminationConfig) -> bool:
    """Whether a passage has `min_words` words, where a character that is a word by itself counts half."""
    if not config.min_words <= n_words < 2 * config.min_words:
        return n_words >= config.min_words
    alone = int((CLASSES[np.frombuffer(text.encode("utf-32-le"), np.uint32)] == ALONE).sum())
    return n_words - alone / 2 >= config.min_words


def _worst_hits(column: pa.ChunkedArray, sets: list[IndexedSet]) -> list[Hits]:
    """For each set the overlap of each text with its passages, and the first passage that it is with."""
    from pipeline.shingle_kernels import text_batches, word_hashes

    found: list[list[tuple[NDArray[np.float64], NDArray[np.int64]]]] = [[] for _ in sets]
    for texts in text_batches(column):
        words = word_hashes(texts)
        for number, indexed in enumerate(sets):
            found[number].append(_worst_of(words, indexed.by_length))
    nothing = (np.zeros(0), np.zeros(0, np.int64))
    hits = []
    for indexed, batches in zip(sets, found, strict=True):
        shares, places = (np.concatenate(column) for column in zip(nothing, *batches, strict=True))
        hits.append(Hits(shares.astype(np.float32), places, indexed.passages))
    return hits


@kept(KEPT_SETS)
def _indexed(path: Path, content: str, config: ContaminationConfig) -> IndexedSet:
    """The evaluation set at `path`, kept for the next part: to index it takes longer than to look through a part."""
    from pipeline.passage_kernels import PassageIndex
    from pipeline.shingle_kernels import ngrams, text_batches, word_hashes

    passages = list(read_passages(path, content))
    by_length: dict[int, list[int]] = {}
    grams: dict[int, NDArray[np.uint64]] = {}
    place = 0
    for texts in text_batches(pa.chunked_array([pa.array([passage.text for passage in passages], pa.string())])):
        words = word_hashes(texts)
        hashes = ngrams(words, config.ngram_words)
        for row, count in enumerate(np.diff(words.ends).tolist()):
            if _says_enough(passages[place].text, count, config):
                grams[place] = np.unique(hashes.values[hashes.ends[row] : hashes.ends[row + 1]])
                by_length.setdefault(min(count, config.ngram_words), []).append(place)
            place += 1
    indexes = [
        (n, PassageIndex([grams[place] for place in places]), np.array(places))
        for n, places in sorted(by_length.items())
    ]
    return IndexedSet(passages, indexes)


def _worst_of(
    words: "Hashes", by_length: list[tuple[int, "PassageIndex", NDArray[np.int64]]]
) -> tuple[NDArray[np.float64], NDArray[np.int64]]:
    """For each text the greatest overlap (0 to 1) and the first passage that it is with (-1 without overlap)."""
    from pipeline.shingle_kernels import ngrams

    best, which = np.zeros(len(words.ends) - 1), np.full(len(words.ends) - 1, -1)
    for n, index, places in by_length:
        found, local = index.overlaps(ngrams(words, n))
        passage = places[local]
        better = (found > best) | ((found == best) & (found > 0) & (passage < which))
        best, which = np.where(better, found, best), np.where(better, passage, which)
    return best, which
