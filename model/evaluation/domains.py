"""Loss by domain: what a model makes of the text of each host."""

import math
from typing import Any
from urllib.parse import urlsplit

import numpy as np
import pyarrow as pa

from model.training.data import Ints
from model.training.score import Floats


def by_host(nats: Floats, sizes: Ints, index: pa.Table, most: int) -> list[dict[str, Any]]:
    """Documents, tokens, bytes, loss (nats a token) and bits per byte of the `most` hosts with most bytes.

    `nats` and `sizes` are the loss and the bytes of every token of a split, in order, and `index` is its index. What
    all further hosts have is the last row, its host None.
    """
    starts = index["start"].to_numpy()
    per_document = np.stack(
        [
            np.ones(len(starts)),
            index["length"].to_numpy(),
            np.add.reduceat(sizes, starts),
            np.add.reduceat(nats, starts),
        ]
    )
    hosts, places = np.unique(
        [urlsplit(url or "").hostname or "" for url in index["url"].to_pylist()], return_inverse=True
    )
    sums = np.stack([np.bincount(places, weights=row) for row in per_document], axis=1)
    order = np.lexsort((hosts, -sums[:, 2]))
    rows = [_row(str(hosts[place]), sums[place]) for place in order[:most]]
    return rows + ([_row(None, sums[order[most:]].sum(axis=0))] if len(order) > most else [])


def _row(host: str | None, sums: Floats) -> dict[str, Any]:
    documents, tokens, n_bytes, nats = sums.tolist()
    return {
        "host": host,
        "documents": int(documents),
        "tokens": int(tokens),
        "bytes": int(n_bytes),
        "loss": nats / tokens,
        "bits_per_byte": nats / math.log(2) / n_bytes if n_bytes else None,
    }
