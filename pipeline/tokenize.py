"""Tokens: each document part encoded once, blind to policy.

Every document in a wanted language is encoded, whatever `select` will say of it, so that a changed cut-off copies other
spans and encodes nothing anew. The ids of a document stand for exactly the bytes of its text, personal data replaced:
nothing is normalised, nothing left out, and no text, not even a literal `<|endoftext|>`, ever gives a special id. The
document itself never changes, and nothing after this refers to places in its text.
"""

from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from pipeline.config import BadInput, Config
from pipeline.documents import DOC_ID, read_ledger, read_table, write_table
from pipeline.pii import KINDS, PiiConfig, replace_pii
from pipeline.shards import Encoding, dtype_for, kept_encoding, kept_token_bytes
from pipeline.tokenizer import in_pieces

SPANS = pa.schema([("doc_id", DOC_ID), ("start", pa.int64()), ("length", pa.int32()), ("n_bytes", pa.int32())])
"""Ledger: where the document's ids stand in `tokens.bin`, and the bytes of text they stand for; none where unwanted."""

PII = pa.schema([("doc_id", DOC_ID), *((kind, pa.int32()) for kind in KINDS)])
"""Ledger: how many places of each kind of personal data were replaced in what was encoded of the document."""

BATCH_TEXTS = 256


class TokenizeConfig(Config):
    """What of a document is encoded."""

    c4_lines: bool = False
    """Encode only the lines that C4's rules keep (`c4_spans` of the quality ledger); otherwise the whole text."""
    pii: PiiConfig = PiiConfig()
    """What stands in place of personal data; it is looked for in what is encoded alone."""


def tokenize(
    *, out: Path, config: TokenizeConfig, documents: Path, language: Path, tokenizer: Path, quality: Path | None = None
) -> dict[str, Any]:
    """Encode one document part into `tokens.bin`, flat ids, beside the ledgers `spans.arrow` and `pii.arrow`.

    Stats: rows, documents with ids, tokens, bytes of text encoded, and pii, what was replaced by kind.
    The part's quality ledger is wanted only where `config.c4_lines` asks for it.
    Raises `BadInput` where the tokenizer's pattern leaves out part of a text.
    """
    encoding, sizes = kept_encoding(tokenizer), kept_token_bytes(tokenizer)
    dtype = dtype_for(encoding.n_vocab)
    table = read_table(documents / "documents.arrow", ["doc_id", "url", "text"])
    wanted = read_ledger(language / "language.arrow", table["doc_id"], ["wanted"])["wanted"].to_numpy()
    spans = None
    if config.c4_lines:
        assert quality is not None, "c4_lines needs the quality ledger"
        spans = read_ledger(quality / "c4_spans.arrow", table["doc_id"], ["spans"])["spans"]
    lengths, n_bytes = np.zeros(len(table), np.int64), np.zeros(len(table), np.int64)
    replaced = {kind: np.zeros(len(table), np.int32) for kind in KINDS}
    rows = np.flatnonzero(wanted)
    with (out / "tokens.bin").open("wb") as file:
        for first in range(0, len(rows), BATCH_TEXTS):
            batch = rows[first : first + BATCH_TEXTS]
            texts = table["text"].take(pa.array(batch)).to_pylist()
            if spans is not None:
                kept = spans.take(pa.array(batch)).to_pylist()
                texts = [kept_lines(text, lines) for text, lines in zip(texts, kept, strict=True)]
            for row, original in zip(batch, texts, strict=True):
                text, counts = replace_pii(original, config.pii)
                for kind, count in counts.items():
                    replaced[kind][row] = count
                ids = encode(encoding, text)
                n_bytes[row] = len(text.encode())
                if sizes[ids].sum() != n_bytes[row]:
                    raise BadInput(f"tokenizer.pattern leaves out part of {table['url'][row]}: it must match all text.")
                lengths[row] = len(ids)
                file.write(ids.astype(dtype).data)
    starts = np.cumsum(lengths) - lengths
    write_table(pa.table([table["doc_id"], starts, lengths, n_bytes], SPANS), out / "spans.arrow")
    write_table(pa.table([table["doc_id"], *replaced.values()], PII), out / "pii.arrow")
    return {
        "rows": len(table),
        "documents": int(np.count_nonzero(lengths)),
        "tokens": int(lengths.sum()),
        "bytes": int(n_bytes.sum()),
        "pii": {kind: int(counts.sum()) for kind, counts in replaced.items()},
    }


def encode(encoding: Encoding, text: str) -> npt.NDArray[np.uint32]:
    """The ids of a text, every part of it taken as ordinary text; long runs of whitespace are encoded in pieces."""
    pieces = [encoding.encode_to_numpy(piece, disallowed_special=()) for piece in in_pieces(text)]
    return pieces[0] if len(pieces) == 1 else np.concatenate(pieces)


def kept_lines(text: str, spans: list[dict[str, int]]) -> str:
    """What these spans of a text's UTF-8 bytes cover, end to end: they hold the line breaks themselves."""
    utf8 = text.encode()
    return b"".join(utf8[span["start"] : span["end"]] for span in spans).decode()
