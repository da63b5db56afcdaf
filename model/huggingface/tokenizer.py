"""Our tokenizer as the files that `AutoTokenizer` opens, and such files as our tokenizer.

Both are byte-level BPEs. Hugging Face keeps a list of merges, each of one pair of tokens; tiktoken keeps ranks and
joins whichever neighbours make a token, the lowest rank first. They give the same ids for every text if each token,
merged from its bytes with lower ranks alone, comes down to exactly the pair that the list has for it. For when
tiktoken joins two neighbours, no merge has crossed the borders of what they make: inside, merging went as it goes on
those bytes alone, so the two are that pair. `merges_of` finds the pairs and refuses ranks of which this is not true.

Special tokens are another matter. In our pipeline no text ever encodes to one; a Hugging Face tokenizer by default
turns the letters `<|endoftext|>` in a text into the id that ends documents. What is exported says
`split_special_tokens`, so that such letters are text there too; who wants the id writes `split_special_tokens=False`.
"""

import json
from pathlib import Path
from typing import Any

from model.config import TrainingError
from pipeline.shards import (
    END_OF_TEXT,
    RANKS_FILE,
    SENTENCEPIECE,
    TOKENIZER_FILE,
    Encoding,
    ShardError,
    load_encoding,
    write_ranks,
)

HF_FILE, HF_SETTINGS = "tokenizer.json", "tokenizer_config.json"

BYTE_LEVEL_PATTERN = r"'s|'t|'re|'ve|'m|'ll|'d| ?\p{L}+| ?\p{N}+| ?[^\s\p{L}\p{N}]+|\s+(?!\S)|\s+"
"""How the `ByteLevel` of `tokenizers` splits text where no pattern is given: GPT-2's pattern (its encoder.py)."""

N_BYTES = 256


def _byte_alphabet() -> list[str]:
    """The character that stands for each byte in a vocabulary file (`bytes_to_unicode` of GPT-2's encoder.py)."""
    shown = {byte for byte in range(N_BYTES) if chr(byte).isprintable() and byte != ord(" ")}
    hidden = iter(range(N_BYTES, 2 * N_BYTES))
    return [chr(byte) if byte in shown else chr(next(hidden)) for byte in range(N_BYTES)]


CHARACTER_OF = _byte_alphabet()
BYTE_OF = {character: byte for byte, character in enumerate(CHARACTER_OF)}


def merges_of(ranks: dict[bytes, int]) -> list[tuple[bytes, bytes]]:
    """The pair that makes each token of more than a byte, by rank; raises `TrainingError` where a token has none."""
    longer = sorted((rank, token) for token, rank in ranks.items() if len(token) > 1)
    return [_pair(token, rank, ranks) for rank, token in longer]


def _pair(token: bytes, rank: int, ranks: dict[bytes, int]) -> tuple[bytes, bytes]:
    """What a token's bytes come down to when all merges below its rank are made, leftmost of the lowest first."""
    parts = [token[place : place + 1] for place in range(len(token))]
    while len(parts) > 2:
        joined = [parts[place] + parts[place + 1] for place in range(len(parts) - 1)]
        lowest = min(range(len(joined)), key=lambda place: ranks.get(joined[place], rank))
        if ranks.get(joined[lowest], rank) >= rank:
            raise TrainingError(f"No merges make the token {token!r}: its tokenizer is no byte-level BPE.")
        parts[lowest : lowest + 2] = [joined[lowest]]
    return parts[0], parts[1]


def export_tokenizer(tokenizer: Path, out: Path, context: int) -> None:
    """Write our tokenizer in the folder `tokenizer` as `tokenizer.json` and `tokenizer_config.json` in `out`.

    `context` is the longest input of the model, in tokens. Raises `TrainingError` where there is none to export.
    """
    try:
        encoding = load_encoding(tokenizer)
    except ShardError as error:
        raise TrainingError(str(error)) from error
    facts = json.loads((tokenizer / TOKENIZER_FILE).read_bytes())
    if facts.get("kind") == SENTENCEPIECE:
        raise TrainingError(
            f"The tokenizer in {tokenizer} is a SentencePiece vocabulary, which no merges of bytes can stand for: only"
            " byte-level BPEs are exported."
        )
    special = {encoding.encode_single_token(token): token for token in encoding.special_tokens_set}
    ranks = ranks_in(encoding)
    # Special tokens stand in the vocabulary too, as GPT-2's do: that gives them their ids wherever those lie.
    vocabulary = {_written(token): rank for token, rank in ranks.items()} | {special[rank]: rank for rank in special}
    byte_level = {"type": "ByteLevel", "add_prefix_space": False, "trim_offsets": True, "use_regex": False}
    split = {"type": "Split", "pattern": {"Regex": facts["pattern"]}, "behavior": "Isolated", "invert": False}
    flags = {"single_word": False, "lstrip": False, "rstrip": False, "normalized": False, "special": True}
    _write(
        out / HF_FILE,
        {
            "version": "1.0",
            "truncation": None,
            "padding": None,
            "added_tokens": [{"id": rank, "content": special[rank], **flags} for rank in sorted(special)],
            "normalizer": None,
            "pre_tokenizer": {"type": "Sequence", "pretokenizers": [split, byte_level]},
            "post_processor": None,
            "decoder": byte_level,
            "model": {
                "type": "BPE",
                "dropout": None,
                "unk_token": None,
                "continuing_subword_prefix": None,
                "end_of_word_suffix": None,
                "fuse_unk": False,
                "byte_fallback": False,
                "ignore_merges": False,
                "vocab": vocabulary,
                "merges": [[_written(left), _written(right)] for left, right in merges_of(ranks)],
            },
        },
    )
    _write(
        out / HF_SETTINGS,
        {
            "tokenizer_class": "PreTrainedTokenizerFast",
            "bos_token": END_OF_TEXT,
            "eos_token": END_OF_TEXT,
            "model_max_length": context,
            "clean_up_tokenization_spaces": False,  # older versions would drop spaces before commas
            "split_special_tokens": True,
        },
    )


def ranks_in(encoding: Encoding) -> dict[bytes, int]:
    """The rank of each token of an encoding that is no special one."""
    special = {encoding.encode_single_token(token) for token in encoding.special_tokens_set}
    return {encoding.decode_single_token_bytes(rank): rank for rank in range(encoding.n_vocab) if rank not in special}


def import_tokenizer(folder: Path, out: Path) -> None:
    """Write the byte-level BPE of a Hugging Face folder as our tokenizer, in another folder.

    Raises `TrainingError` where it is of another kind, or where it holds what ours cannot do.
    """
    path = folder / HF_FILE
    try:
        found = json.loads(path.read_bytes())
        _refuse_other_kinds(path, found)
        special = {token["content"]: int(token["id"]) for token in found["added_tokens"]}
        ranks = {_bytes(token): int(rank) for token, rank in found["model"]["vocab"].items() if token not in special}
        pairs = [_pair_of(merge) for merge in found["model"]["merges"]]
    except OSError as error:
        raise TrainingError(f"{path} cannot be read ({error.strerror}): give a folder that has one.") from error
    except (ValueError, LookupError, TypeError, AttributeError) as error:
        raise TrainingError(f"{path} is no byte-level BPE ({type(error).__name__}: {error}).") from error
    if sum(len(token) == 1 for token in ranks) != N_BYTES or pairs != merges_of(ranks):
        raise TrainingError(f"{path} has merges that tiktoken would not make: only GPT-2's kind of BPE is loaded.")
    if END_OF_TEXT not in special:
        raise TrainingError(f"{path} has no special token {END_OF_TEXT}, which follows every document: add it.")
    vocab_size = len(ranks) + len(special)
    if sorted([*ranks.values(), *special.values()]) != list(range(vocab_size)):
        raise TrainingError(f"{path} does not have one token for each of its {vocab_size:,} ids.")
    pattern = _pattern(found["pre_tokenizer"])
    write_ranks(ranks, out / RANKS_FILE)
    facts = {"name": folder.resolve().name, "pattern": pattern, "special_tokens": special, "vocab_size": vocab_size}
    _write(out / TOKENIZER_FILE, facts)


def _refuse_other_kinds(path: Path, found: dict[str, Any]) -> None:
    """TrainingError where text would be changed, or encoded otherwise than by splitting and merging bytes."""
    model = found["model"]
    post = (found.get("post_processor") or {}).get("type", "ByteLevel")
    reasons = {
        f"its model is {model.get('type')}, not BPE": model.get("type") != "BPE",
        "it has a normalizer": found.get("normalizer") is not None,
        f"its post_processor is {post}": post != "ByteLevel",
        "its pre_tokenizer does not split by one pattern into bytes": _pattern(found.get("pre_tokenizer")) is None,
        "it drops merges at random (dropout)": bool(model.get("dropout")),
        "it falls back to bytes (byte_fallback)": bool(model.get("byte_fallback")),
        "it marks where words begin or end": bool(
            model.get("continuing_subword_prefix") or model.get("end_of_word_suffix")
        ),
        "it has added tokens that are not special": not all(token["special"] for token in found["added_tokens"]),
    }
    for reason, holds in reasons.items():
        if holds:
            raise TrainingError(f"{path} cannot be loaded, since {reason}: only GPT-2's kind of BPE is.")


def _pattern(pre_tokenizer: Any) -> str | None:
    """The regular expression that cuts text before merging; None where something else does."""
    match pre_tokenizer:
        case {"type": "ByteLevel", "add_prefix_space": False, **rest} if rest.get("use_regex", True):
            return BYTE_LEVEL_PATTERN
        case {
            "type": "Sequence",
            "pretokenizers": [
                {"type": "Split", "pattern": {"Regex": str(pattern)}, "behavior": "Isolated", "invert": False},
                {"type": "ByteLevel", "add_prefix_space": False, "use_regex": False},
            ],
        }:
            return pattern
    return None


def _pair_of(merge: str | list[str]) -> tuple[bytes, bytes]:
    """A merge as `tokenizers` writes it now (two strings) or did (one with a space between)."""
    left, right = merge.split(" ") if isinstance(merge, str) else merge
    return _bytes(left), _bytes(right)


def _written(token: bytes) -> str:
    return "".join(CHARACTER_OF[byte] for byte in token)


def _bytes(token: str) -> bytes:
    return bytes(BYTE_OF[character] for character in token)


def _write(path: Path, value: Any) -> None:
    path.write_text(json.dumps(value, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")
