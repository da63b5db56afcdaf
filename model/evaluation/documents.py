"""Bits per byte of documents as a training sees them: one after another, each followed by an end-of-text."""

import math
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

if TYPE_CHECKING:
    from model.evaluate import Judge


def documents_score(judge: "Judge", documents: Sequence[npt.NDArray[Any]], name: str) -> dict[str, Any]:
    """`bits_per_byte` of documents, given as ids without an end-of-text, and how many `documents` and `bytes` they are.

    End-of-text is scored too and stands for no byte, as in the evaluation of a validation split.
    """
    ids = np.concatenate([part for document in documents for part in (document, [judge.end])]).astype(np.int64)
    lengths = np.array([len(document) + 1 for document in documents])
    nats = judge.losses(ids, name, np.cumsum(lengths) - lengths)
    n_bytes = int(judge.sizes[ids].sum())
    return {
        "documents": len(documents),
        "bytes": n_bytes,
        "bits_per_byte": float(nats.sum()) / math.log(2) / n_bytes,
    }
