"""A byte-level BPE trained on the corpus, in the form that tiktoken runs.

What trains and what encodes are different programs (Hugging Face `tokenizers`, tiktoken), and the same ids must come
out of both. They look for merges differently: one by trained pair, in the order of training; the other by whether two
neighbours joined are a token, lowest rank first. They agree on every text because of this. What happens between two
borders that no merge has crossed depends on the bytes between them alone. So a trained token has exactly one pair that
makes it: when training joined it, the pair stood between such borders, and any other pair that were found in such a
place would have to be the same. Hence each merge makes a new token, its rank is its place in training, and no
neighbours that training did not join ever meet. `ranks_of` checks what follows from it, and tests try the rest.
"""

import json
from collections.abc import Iterable
from typing import TYPE_CHECKING

from pipeline.config import BadInput

if TYPE_CHECKING:
    import tokenizers

GPT2_PATTERN = r"'(?:[sdmt]|ll|ve|re)| ?\p{L}++| ?\p{N}++| ?[^\s\p{L}\p{N}]++|\s++$|\s+(?!\S)|\s"
"""How GPT-2 splits text before merging: contractions, words, numbers, signs, whitespace. The pattern of `encoder.py` in
openai/gpt-2, in the equivalent form with less backtracking that tiktoken uses (tiktoken_ext/openai_public.py)."""

N_BYTES = 256


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
    return {written_bytes(token): rank for token, rank in vocabulary.items()}


def written_bytes(token: str) -> bytes:
    """The bytes that a token's printable form stands for."""
    return bytes(BYTE_OF[character] for character in token)


def _byte_alphabet() -> dict[str, int]:
    """The byte that each character of GPT-2's printable form stands for (`bytes_to_unicode` of its encoder.py).

    Printable Latin-1 characters stand for themselves, those from U+0100 for the other bytes in order.
    """
    printable = [byte for byte in range(N_BYTES) if chr(byte).isprintable() and byte != ord(" ")]
    hidden = [byte for byte in range(N_BYTES) if byte not in printable]
    return {chr(byte): byte for byte in printable} | {chr(N_BYTES + place): byte for place, byte in enumerate(hidden)}


BYTE_OF = _byte_alphabet()
