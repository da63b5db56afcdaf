"""SentencePiece vocabularies (Kudo and Richardson 2018), trained on the corpus or taken from a .model file.

SentencePiece would normalise text, drop spaces, and put one in front. Here it does none of that: ids stand for exactly
the bytes of a text. Its mark for a space, U+2581, is a letter too; where a text has that letter it is written in bytes,
which every vocabulary here has for characters it lacks. So the mark is always a space, and no bytes are lost.
"""

import io
import re
from collections.abc import Collection, Iterable, Sequence
from pathlib import Path

import numpy as np
import numpy.typing as npt

from pipeline.config import BadInput
from pipeline.vocabulary import END_OF_TEXT

SPACE_MARK = "\u2581"
"""What stands for a space in a piece."""

_RESERVED = re.compile("[\u2581\u2585]")
"""The space mark, and the character for which training would leave out the whole text."""

THREADS = 8
"""Of training, whatever the machine has: sums of numbers depend on how they are shared out, and the model names it."""

LONGEST_TEXT = 1 << 30
"""Bytes of a text beyond which training would leave it out."""

AS_IT_IS = b"\x1a\x12\x0a\x08identity\x12\x00\x18\x00\x20\x00\x28\x01"
"""A `normalizer_spec` (field 3 of `ModelProto`, sentencepiece_model.proto) that changes nothing: the identity by name,
no `precompiled_charsmap`, no `add_dummy_prefix`, no `remove_extra_whitespaces`, but `escape_whitespaces`. At the end of
a model it overrides what stands there, since fields that come twice are merged, the last value winning."""


def train(texts: Iterable[str], vocab_size: int, algorithm: str) -> bytes:
    """Train at most `vocab_size` - 1 pieces, the 256 bytes and an unused one for the unknown among them.

    Raises `BadInput` where the characters of the texts are too many for that.
    """
    import sentencepiece

    model = io.BytesIO()
    # Sorted, so that the order of documents makes no difference.
    parts = sorted(part for text in texts for part in _RESERVED.split(text) if part)
    try:
        sentencepiece.SentencePieceTrainer.train(
            sentence_iterator=iter(parts),
            model_writer=model,
            vocab_size=vocab_size - 1,
            hard_vocab_limit=False,
            model_type=algorithm,
            byte_fallback=True,
            normalization_rule_name="identity",
            add_dummy_prefix=False,
            remove_extra_whitespaces=False,
            unk_id=0,
            bos_id=-1,
            eos_id=-1,
            pad_id=-1,
            max_sentence_length=LONGEST_TEXT,
            num_threads=THREADS,
            minloglevel=2,
        )
    except RuntimeError as error:
        raise BadInput(
            f"SentencePiece cannot make {vocab_size:,} tokens of this text ({_last_line(error)}): change"
            " tokenizer.vocab_size."
        ) from error
    return model.getvalue()


def given(path: Path) -> bytes:
    """The vocabulary in a .model file, made to leave text as it is.

    Raises `BadInput` where it is no SentencePiece model or has no token for each byte.
    """
    try:
        model = path.read_bytes() + AS_IT_IS
        SentencePieceEncoding(path.stem, model)
    except OSError as error:
        raise BadInput(f"tokenizer.model, {path}, cannot be read: {error.strerror}.") from error
    except ValueError as error:
        raise BadInput(f"tokenizer.model, {path}, cannot be the vocabulary: {error}.") from error
    return model


class SentencePieceEncoding:
    """A SentencePiece model behind the interface of `pipeline.shards.Encoding`; `<|endoftext|>` is one id more.

    Raises `ValueError` where `model` is none, or where it has no token for each byte.
    """

    def __init__(self, name: str, model: bytes) -> None:
        import sentencepiece

        self.name = name
        try:
            self._processor = sentencepiece.SentencePieceProcessor(model_proto=model)
        except RuntimeError as error:
            raise ValueError("it is no SentencePiece model") from error
        size = self._processor.vocab_size()
        pieces = [self._processor.id_to_piece(token) for token in range(size)]
        self._special = {
            piece: token
            for token, piece in enumerate(pieces)
            if self._processor.is_control(token) or self._processor.is_unknown(token)
        }
        self._special.setdefault(END_OF_TEXT, size)
        self.special_tokens_set = set(self._special)
        self.n_vocab = max(size, self._special[END_OF_TEXT] + 1)
        self._bytes = [piece.replace(SPACE_MARK, " ").encode() for piece in [*pieces, END_OF_TEXT]]
        of_byte = {int(piece[3:5], 16): token for token, piece in enumerate(pieces) if self._processor.is_byte(token)}
        if len(of_byte) != 1 << 8:
            raise ValueError("it has no token for each byte (byte_fallback), so some text would be lost")
        for byte, token in of_byte.items():
            self._bytes[token] = bytes([byte])
        self._mark = [of_byte[byte] for byte in SPACE_MARK.encode()]

    def encode_ordinary(self, text: str) -> list[int]:
        """The ids of a text, every part of it taken as ordinary text; half pairs of surrogates become U+FFFD."""
        try:
            first, *rest = [self._processor.encode(part) for part in text.split(SPACE_MARK)]
        except RuntimeError:  # what is no Unicode text; tiktoken replaces it likewise
            return self.encode_ordinary(text.encode("utf-16", "surrogatepass").decode("utf-16", "replace"))
        ids: list[int] = first
        for part in rest:
            ids += self._mark + part
        return ids

    def encode_to_numpy(self, text: str, *, disallowed_special: Collection[str] = ()) -> npt.NDArray[np.uint32]:  # noqa: ARG002
        """The ids of a text as an array; no text is ever taken for a special token."""
        return np.array(self.encode_ordinary(text), np.uint32)

    def encode_single_token(self, token: str, /) -> int:
        """The id of a special token, by name; KeyError where it is none."""
        return self._special[token]

    def decode_single_token_bytes(self, token: int, /) -> bytes:
        """The bytes that an id stands for; of a special token, its name."""
        return self._bytes[token]

    def decode(self, tokens: Sequence[int]) -> str:
        """The text of ids; bytes that are no UTF-8 become U+FFFD."""
        return b"".join(map(self._bytes.__getitem__, tokens)).decode("utf-8", "replace")


def _last_line(error: Exception) -> str:
    return str(error).strip().splitlines()[-1].rpartition("]")[2].strip() or "there is no text"
