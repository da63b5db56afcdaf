"""What the published quality filters measure of each document in a wanted language, without any decision.

Every rule of Gopher (quality and repetition), C4 and FineWeb is one column, computed as datatrove's filters compute it,
so that their published cut-offs apply. Cut-offs are policy and live with `select`; changing one never runs this stage.
C4's line rules give a second ledger, the byte spans of the text that C4 keeps: laid end to end, they are that text.
Documents in other languages have rows of nulls: `select` drops them before it asks any rule.
"""

from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa

from pipeline.config import Config
from pipeline.documents import DOC_ID, read_ledger, read_table, write_table
from pipeline.quality_rules import COUNTS, FLAGS, SCORES

SPANS = pa.list_(pa.struct([("start", pa.int32()), ("end", pa.int32())]))
QUALITY = pa.schema(
    [
        ("doc_id", DOC_ID),
        *((name, pa.bool_() if name in FLAGS else pa.int32() if name in COUNTS else pa.float64()) for name in SCORES),
    ]
)
"""A row has all scores or none. Ratios are float64: a score equal to a published cut-off compares equal to it."""
C4_SPANS = pa.schema([("doc_id", DOC_ID), ("spans", SPANS)])


class QualityConfig(Config):
    """Quality scores have no settings: the rules are as published, their cut-offs stand in `[policy]`."""


def quality(*, out: Path, config: QualityConfig, documents: Path, language: Path) -> dict[str, Any]:  # noqa: ARG001
    """Write `quality.arrow` and `c4_spans.arrow`, ledgers of the part folder `documents`: null where not scored.

    Stats: rows and, of those scored alone, scored, words (as Gopher counts them), c4_lines, c4_lines_kept, bytes and
    c4_bytes_kept.
    """
    from pipeline.quality_kernels import score

    table = read_table(documents / "documents.arrow", ["doc_id", "text"])
    wanted = read_ledger(language / "language.arrow", table["doc_id"], ["wanted"])["wanted"]
    data, offsets = text_buffers(table["text"].filter(wanted))
    scores, spans, counts = score(data, offsets)
    columns = [pa.array(scores[:, place].astype(_numpy_type(name))) for place, name in enumerate(SCORES)]
    structs = pa.StructArray.from_arrays([pa.array(spans[:, 0]), pa.array(spans[:, 1])], fields=list(SPANS.value_type))
    bounds = pa.array(np.concatenate([[0], np.cumsum(counts)]).astype(np.int32))
    kept = pa.ListArray.from_arrays(bounds, structs, type=SPANS)
    scored = wanted.to_numpy()
    places = pa.array(np.cumsum(scored) - 1, mask=~scored)  # a null place gives a null
    for name, found, schema in (("quality.arrow", columns, QUALITY), ("c4_spans.arrow", [kept], C4_SPANS)):
        rows = [column.take(places) for column in found]
        write_table(pa.table([table["doc_id"], *rows], schema=schema), out / name)
    total = {name: int(scores[:, SCORES.index(name)].sum()) for name in ("gopher_words", "c4_lines", "c4_lines_kept")}
    return {
        "rows": table.num_rows,
        "scored": len(scores),
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
