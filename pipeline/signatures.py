"""The signatures ledger: for each document a hash of its normalised text and a MinHash signature of its shingles.

Blind to policy and to every other document; `pipeline/deduplicate.py` decides with it. Signatures are bit-identical to
datasketch 2.0's scheme `affine32` over the low 32 bits of our shingle hashes, so its `MinHashLSH` can load them.
"""

import hashlib
from itertools import pairwise
from pathlib import Path
from typing import Annotated, Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray
from pydantic import Field

from pipeline.config import Config
from pipeline.documents import DOC_ID, read_table, write_table
from pipeline.shingles import permutations

SIGNATURES_FILE = "signatures.arrow"
TEXT_HASH = pa.binary(16)
SHINGLE_WORDS = "shingle_words"
"""The key in the ledger's schema metadata that tells how many words a shingle has."""


class SignaturesConfig(Config):
    """What a signature is made of."""

    num_perm: Annotated[int, Field(ge=2, le=1024)] = 128
    """Values in a signature (permutations); the standard error of a similarity is at most 0.5 / sqrt(num_perm)."""
    shingle_words: Annotated[int, Field(ge=1, le=64)] = 5
    """Consecutive words in a shingle."""
    seed: Annotated[int, Field(ge=0, lt=2**32)] = 1
    """Seed of the permutations, as datasketch takes it."""


def signatures(*, out: Path, config: SignaturesConfig, documents: Path) -> dict[str, Any]:
    """Write `signatures.arrow` for the part `documents`: doc_id, text_hash, shingles, signature.

    `text_hash` is 16 bytes, the same for texts whose normalised texts are the same; `shingles` counts shingles with
    repeats; `signature` is a list of `num_perm` uint32. A text with fewer than `shingle_words` words is one shingle;
    one without words has none and a signature of maxima, which says nothing and matches nothing.
    """
    from pipeline.shingle_kernels import sign, text_batches

    table = read_table(documents / "documents.arrow", ["doc_id", "text"])
    a, b = permutations(config.num_perm, config.seed)
    text_hashes: list[bytes] = []
    counts, values = [np.zeros(0, np.int32)], [np.zeros((0, config.num_perm), np.uint32)]
    for texts in text_batches(table["text"]):
        normalised, shingles, batch = sign(texts, config.shingle_words, a, b)
        text_hashes += hash_texts(normalised.data, normalised.offsets)
        counts.append(shingles)
        values.append(batch)
    shingles = np.concatenate(counts)
    flat = pa.array(np.concatenate(values).reshape(-1))
    ledger = pa.table(
        {
            "doc_id": table["doc_id"].cast(DOC_ID),
            "text_hash": pa.array(text_hashes, TEXT_HASH),
            "shingles": pa.array(shingles),
            "signature": pa.FixedSizeListArray.from_arrays(flat, config.num_perm),
        }
    )
    # Whoever verifies a similarity from the texts must cut them into the same shingles.
    ledger = ledger.replace_schema_metadata({SHINGLE_WORDS: str(config.shingle_words)})
    write_table(ledger, out / SIGNATURES_FILE)
    return {"rows": len(ledger), "shingles": int(shingles.sum(dtype=np.int64)), "empty": int((shingles == 0).sum())}


def hash_texts(data: NDArray[np.uint8], offsets: NDArray[np.int64]) -> list[bytes]:
    """The 16-byte hashes of normalised texts that stand one after the other in `data`."""
    return [
        hashlib.blake2b(data.data[start:stop], digest_size=16).digest() for start, stop in pairwise(offsets.tolist())
    ]
