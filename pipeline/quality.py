"""What the published quality filters measure of each document: a ledger of scores, without any decision.

Every rule of Gopher (quality and repetition), C4 and FineWeb is one column, computed as datatrove's filters compute it,
so that their published cut-offs apply. Cut-offs are policy and live with `select`; changing one never runs this stage.
C4's line rules give a second ledger, the byte spans of the text that C4 keeps: laid end to end, they are that text.
"""

from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa

from pipeline.config import Config
from pipeline.documents import DOC_ID, read_table, write_table

STOP_WORDS = ("the", "be", "to", "of", "and", "that", "have", "with")
"""English words of which a document must hold some (Gopher, A1.1)."""
BULLETS = ("-", "•")
TOP_N_GRAMS = (2, 3, 4)
REPEATED_N_GRAMS = (5, 6, 7, 8, 9, 10)
"""n-grams whose repetition Gopher measures (table A1)."""
CHARACTERS_OF_SHORT_LINE = 30
"""A line of at most so many characters is short (FineWeb)."""
MAX_C4_WORD = 1000
MIN_C4_WORDS = 3
"""C4 drops a line with a longer word, or with fewer words (c4_utils.py)."""
POLICY_PHRASES = (
    "terms of use", "privacy policy", "cookie policy", "uses cookies", "use of cookies", "use cookies",
)  # fmt: skip
"""C4 drops a line with one of these."""

GOPHER_QUALITY = (
    "gopher_words",  # words that are more than punctuation
    "gopher_word_length",  # their mean length in characters
    "gopher_hashes",  # "#" a word
    "gopher_ellipses",  # "..." and "…" a word
    "gopher_bullet_lines",  # share of lines that start with a bullet
    "gopher_ellipsis_lines",  # share of lines that end with an ellipsis
    "gopher_alphabetic_words",  # share of words with a letter
    "gopher_stop_words",  # how many of STOP_WORDS occur
)
GOPHER_REPETITION = (
    "gopher_duplicate_lines",  # share of lines that occurred before
    "gopher_duplicate_line_characters",  # share of characters in them
    "gopher_duplicate_paragraphs",
    "gopher_duplicate_paragraph_characters",
    *(f"gopher_top_{n}_gram" for n in TOP_N_GRAMS),  # share of characters in the most frequent n-gram
    *(f"gopher_duplicate_{n}_grams" for n in REPEATED_N_GRAMS),  # share of characters in n-grams that occurred before
)
C4 = (
    "c4_sentences",  # sentences in kept lines
    "c4_lorem_ipsum",  # in a line that passed the rules before
    "c4_curly_bracket",  # likewise
    "c4_lines",
    "c4_lines_kept",
    "c4_lines_long_word",  # lines dropped, each counted under the first rule that drops it
    "c4_lines_no_terminal_mark",
    "c4_lines_few_words",
    "c4_lines_javascript",
    "c4_lines_policy",
)
FINEWEB = (
    "fineweb_terminal_lines",  # share of lines that end with a terminal mark
    "fineweb_short_lines",  # share of lines of at most CHARACTERS_OF_SHORT_LINE
    "fineweb_duplicate_line_characters",  # share of characters in lines that occurred before
    "fineweb_newlines",  # newlines a word
)
SCORES = GOPHER_QUALITY + GOPHER_REPETITION + C4 + FINEWEB

FLAGS = frozenset({"c4_lorem_ipsum", "c4_curly_bracket"})
COUNTS = frozenset({"gopher_words", "gopher_stop_words", *C4}) - FLAGS

SPANS = pa.list_(pa.struct([("start", pa.int32()), ("end", pa.int32())]))
QUALITY = pa.schema(
    [
        ("doc_id", DOC_ID),
        *((name, pa.bool_() if name in FLAGS else pa.int32() if name in COUNTS else pa.float64()) for name in SCORES),
    ]
)
"""Ratios are float64, so that a score equal to a published cut-off compares equal to it."""
C4_SPANS = pa.schema([("doc_id", DOC_ID), ("spans", SPANS)])


class QualityConfig(Config):
    """Quality scores have no settings: the rules are as published, their cut-offs stand in `[policy]`."""


def quality(*, out: Path, config: QualityConfig, documents: Path) -> dict[str, Any]:  # noqa: ARG001
    """Write `quality.arrow` and `c4_spans.arrow`, ledgers of the part folder `documents`.

    Stats: rows, words (as Gopher counts them), c4_lines, c4_lines_kept, bytes and c4_bytes_kept.
    """
    from pipeline.quality_kernels import score

    table = read_table(documents / "documents.arrow", ["doc_id", "text"])
    data, offsets = text_buffers(table["text"])
    scores, spans, counts = score(data, offsets)
    columns = [pa.array(scores[:, place].astype(_numpy_type(name))) for place, name in enumerate(SCORES)]
    write_table(pa.table([table["doc_id"], *columns], schema=QUALITY), out / "quality.arrow")
    structs = pa.StructArray.from_arrays([pa.array(spans[:, 0]), pa.array(spans[:, 1])], fields=list(SPANS.value_type))
    bounds = pa.array(np.concatenate([[0], np.cumsum(counts)]).astype(np.int32))
    kept = pa.ListArray.from_arrays(bounds, structs, type=SPANS)
    write_table(pa.table([table["doc_id"], kept], schema=C4_SPANS), out / "c4_spans.arrow")
    total = {name: int(scores[:, SCORES.index(name)].sum()) for name in ("gopher_words", "c4_lines", "c4_lines_kept")}
    return {
        "rows": table.num_rows,
        "words": total["gopher_words"],
        "c4_lines": total["c4_lines"],
        "c4_lines_kept": total["c4_lines_kept"],
        "bytes": int(offsets[-1] - offsets[0]),
        "c4_bytes_kept": int((spans[:, 1] - spans[:, 0]).sum()),
    }


def text_buffers(column: pa.ChunkedArray) -> tuple[np.ndarray, np.ndarray]:
    """The UTF-8 bytes of a string column without nulls and the int64 offsets of its rows in them, without a copy."""
    array = column.combine_chunks()
    if isinstance(array, pa.ChunkedArray):
        array = pa.concat_arrays(array.chunks) if array.num_chunks else pa.array([], pa.string())
    _, offsets, data = array.buffers()
    if len(array) == 0 or data is None:
        return np.zeros(0, np.uint8), np.zeros(len(array) + 1, np.int64)
    starts = np.frombuffer(offsets, np.int32, len(array) + 1, 4 * array.offset).astype(np.int64)
    return np.frombuffer(data, np.uint8), starts


def _numpy_type(name: str) -> type:
    return np.bool_ if name in FLAGS else np.int32 if name in COUNTS else np.float64
