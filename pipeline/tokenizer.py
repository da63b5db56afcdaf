"""The tokenizer: a vocabulary trained on the corpus, or one that is given, as files that `load_encoding` reads.

A byte-level BPE of our own, GPT-2's, SentencePiece's, or plain bytes; `pipeline/vocabulary/` has a file for each. With
every kind the ids of a text stand for exactly its bytes, and no text encodes to `<|endoftext|>`.

The same documents give the same bytes, whatever the threads, the hash seed, or the order of the parts.
"""

import json
import re
from collections.abc import Iterable, Iterator
from itertools import pairwise
from pathlib import Path
from typing import Any, Literal, Self

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc
from pydantic import Field, field_validator, model_validator

from pipeline.config import BadInput, Config, execution
from pipeline.documents import read_ledger, read_table
from pipeline.shards import (
    RANKS_FILE,
    SENTENCEPIECE,
    SENTENCEPIECE_FILE,
    TOKENIZER_FILE,
    Encoding,
    load_encoding,
    token_bytes,
    write_ranks,
)
from pipeline.vocabulary import END_OF_TEXT, bpe, sentencepiece
from pipeline.vocabulary.bpe import GPT2_PATTERN, N_BYTES
from pipeline.vocabulary.gpt2 import gpt2_ranks

LONGEST_WHITESPACE = 25_000
"""Characters of whitespace in a row that are encoded at once; longer runs are cut. In such a run the pattern steps back
from its end, and tiktoken 0.14 fails between 100,000 and 1,000,000. Llama 3's tokenizer cuts at the same length."""

_LONG_WHITESPACE = re.compile(rf"(?<!\s)\s{{{LONGEST_WHITESPACE + 1},}}")

PATTERN_PROBE = "It's a mill, 1832!\r\n\t x_y\u00e9 \u77e5\u8b58 "
"""Text with borders of every kind, on which a pattern shows whether it matches without taking anything."""

MEASURED_BYTES = 2_000_000
"""How much text the reported bytes a token are measured on, at most."""

BATCH_TEXTS = 1_000


class TokenizerConfig(Config):
    """Which vocabulary the corpus is written in."""

    kind: Literal["bpe", "gpt2", "sentencepiece", "bytes"] = "bpe"
    """`bpe` trains a byte-level BPE on the corpus, `sentencepiece` trains with SentencePiece, or takes `model`; `gpt2`
    takes GPT-2's 50,257 tokens, `bytes` the 256 bytes, and they read no other field."""

    vocab_size: int = Field(4_096, ge=257, le=1_000_000)
    """Most tokens that training makes, the 256 bytes and `<|endoftext|>` among them; a small corpus may give fewer."""

    algorithm: Literal["bpe", "unigram"] = "bpe"
    """How `sentencepiece` finds its pieces; `unigram` takes many times as long."""

    model: str = execution("")
    """A SentencePiece .model file to take instead of training; its content is what counts."""

    pattern: str = Field(GPT2_PATTERN, min_length=1)
    """Regular expression that splits text before merging: no token crosses a border. It must match all of any text."""

    train_snapshots: int = Field(1, ge=1)
    """How many snapshots, from the first, the vocabulary is trained on; later ones do not change it."""

    max_train_bytes: int = Field(1_000_000_000, ge=1)
    """Most bytes of text to train on; of a larger corpus a sample of whole documents, the same one each time."""

    @field_validator("pattern")
    @classmethod
    def _takes_text(cls, pattern: str) -> str:
        """Tiktoken aborts where a match is empty. It brings `regex`, which reads the same patterns."""
        import regex

        try:
            matches = list(regex.finditer(pattern, PATTERN_PROBE)) + list(regex.finditer(pattern, ""))
        except regex.error:  # said by the stage, in the words of the program that will run it
            return pattern
        if not all(match.group() for match in matches):
            raise ValueError("every match must take at least one character")
        return pattern

    @model_validator(mode="after")
    def _model_has_its_kind(self) -> Self:
        if self.model and self.kind != SENTENCEPIECE:
            raise ValueError(f'model is a SentencePiece file: it needs kind = "{SENTENCEPIECE}"')
        return self


def tokenizer(
    *, out: Path, config: TokenizerConfig, documents: list[Path], language: list[Path], model: Path | None = None
) -> dict[str, Any]:
    """Load or train the vocabulary and write the files that `load_encoding` reads, `tokenizer.json` among them.

    Trains on the documents whose language is wanted, each ledger part beside its document part, unless a SentencePiece
    `model` is given. `<|endoftext|>` is the last id. Raises `BadInput` where no document is wanted or where the pattern
    or the model is unusable.
    """
    trains = config.kind in ("bpe", SENTENCEPIECE) and model is None
    most = config.max_train_bytes if trains else MEASURED_BYTES
    chosen, n_bytes = choose(documents, language, most, first_parts=not trains)
    corpus = texts(documents, chosen)
    match config.kind:
        case "bpe":
            ranks = bpe.ranks_of(bpe.train(corpus, config.vocab_size, config.pattern))
            _write_bpe(out, f"bpe-{len(ranks) + 1}", config.pattern, ranks)
        case "gpt2":
            _write_bpe(out, "gpt2", GPT2_PATTERN, gpt2_ranks())
        case "bytes":
            _write_bpe(out, "bytes", GPT2_PATTERN, {bytes([byte]): byte for byte in range(N_BYTES)})
        case "sentencepiece":
            if model is None:
                _write_sentencepiece(out, sentencepiece.train(corpus, config.vocab_size, config.algorithm))
            else:
                _write_sentencepiece(out, sentencepiece.given(model))
    encoding = _loaded(out)
    return {
        "rows": encoding.n_vocab,
        "trained_bytes": n_bytes if trains else 0,
        "bytes_per_token": _bytes_per_token(encoding, texts(documents, chosen)),
    }


def _write_bpe(out: Path, name: str, pattern: str, ranks: dict[bytes, int]) -> None:
    special = {END_OF_TEXT: len(ranks)}
    write_ranks(ranks, out / RANKS_FILE)
    _write_facts(out, {"name": name, "pattern": pattern, "special_tokens": special, "vocab_size": len(ranks) + 1})


def _write_sentencepiece(out: Path, pieces: bytes) -> None:
    (out / SENTENCEPIECE_FILE).write_bytes(pieces)
    size = sentencepiece.SentencePieceEncoding(SENTENCEPIECE, pieces).n_vocab
    _write_facts(out, {"kind": SENTENCEPIECE, "name": f"{SENTENCEPIECE}-{size}", "vocab_size": size})


def _write_facts(out: Path, facts: dict[str, Any]) -> None:
    (out / TOKENIZER_FILE).write_text(json.dumps(facts, indent=2, sort_keys=True) + "\n", encoding="utf-8")


def choose(
    documents: list[Path], language: list[Path], max_bytes: int, *, first_parts: bool = False
) -> tuple[list[npt.NDArray[np.int64]], int]:
    """The rows of each part to learn from, and their bytes of text: all that are wanted, or a sample of `max_bytes`.

    The sample is what comes first by `doc_id`, a hash: random in content, the same each time, in whole documents (at
    least one). It is drawn from all parts, or from the `first_parts` that hold so much, and no other is then read.
    Raises `BadInput` where no document with text is in a wanted language.
    """
    tables: list[pa.Table] = []
    found = 0
    for number, (part, ledger) in enumerate(zip(documents, language, strict=True)):
        table = read_table(part / "documents.arrow", ["doc_id", "text"])
        wanted = read_ledger(ledger / "language.arrow", table["doc_id"], ["wanted"])["wanted"]
        sizes = pc.cast(pc.binary_length(table["text"]), pa.int64())
        rows = pa.table({"doc_id": table["doc_id"], "size": sizes, "part": np.full(len(table), number)})
        rows = rows.append_column("row", pa.array(np.arange(len(table))))
        tables.append(rows.filter(pc.and_(wanted, pc.greater(sizes, 0))))
        found += pc.sum(tables[-1]["size"]).as_py() or 0
        if first_parts and found >= max_bytes:
            break
    rows = pa.concat_tables(tables) if tables else None
    if not rows:
        raise BadInput(
            "No document is in a wanted language, so there is no text to make a tokenizer from: "
            "look at language.wanted and at what extract rejected."
        )
    if found > max_bytes:
        rows = rows.sort_by("doc_id")
        fitting = int(np.searchsorted(np.cumsum(rows["size"].to_numpy()), max_bytes, side="right"))
        rows = rows.slice(0, max(1, fitting))
    parts, numbers = rows["part"].to_numpy(), rows["row"].to_numpy()
    return [np.sort(numbers[parts == part]) for part in range(len(documents))], pc.sum(rows["size"]).as_py()


def texts(documents: list[Path], chosen: list[npt.NDArray[np.int64]]) -> Iterator[str]:
    """The texts of the chosen rows of each part, cut by `in_pieces`; a batch of rows is in memory at a time."""
    for part, rows in zip(documents, chosen, strict=True):
        if not len(rows):
            continue
        column = read_table(part / "documents.arrow", ["text"])["text"]
        for first in range(0, len(rows), BATCH_TEXTS):
            for text in column.take(pa.array(rows[first : first + BATCH_TEXTS])).to_pylist():
                yield from in_pieces(text)


def in_pieces(text: str) -> list[str]:
    """The text, in pieces that joined give it again, none with a longer run of whitespace than `LONGEST_WHITESPACE`."""
    if len(text) <= LONGEST_WHITESPACE:
        return [text]
    cuts = [0]
    for run in _LONG_WHITESPACE.finditer(text):
        cuts.extend(range(run.start() + LONGEST_WHITESPACE, run.end(), LONGEST_WHITESPACE))
    return [text[start:end] for start, end in pairwise([*cuts, len(text)])]


def _loaded(folder: Path) -> Encoding:
    try:
        return load_encoding(folder)
    except ValueError as error:
        raise BadInput(f"tokenizer.pattern is no regular expression that tiktoken reads: {error}.") from error


def _bytes_per_token(encoding: Encoding, pieces: Iterable[str]) -> float:
    """Measured on the first `MEASURED_BYTES`; raises `BadInput` where the pattern leaves text out."""
    lengths = token_bytes(encoding)
    n_bytes = n_tokens = 0
    for piece in pieces:
        ids = encoding.encode_to_numpy(piece, disallowed_special=())
        size = len(piece.encode())
        if lengths[ids].sum() != size:
            raise BadInput(
                f"tokenizer.pattern leaves out part of the text {piece[:40]!r}: it must match all of any text."
            )
        n_bytes += size
        n_tokens += len(ids)
        if n_bytes > MEASURED_BYTES:
            break
    return round(n_bytes / n_tokens, 4)
