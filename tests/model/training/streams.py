"""Streams of tokens in documents of given lengths: each id is its own place, so that a window shows where it is."""

import numpy as np
import pyarrow as pa

from pipeline.shards import INDEX, TokenShards


def corpus(lengths: list[int]) -> TokenShards:
    """A stream of ids 0, 1, 2, ... cut into documents of these lengths, end-of-text included."""
    ends = np.cumsum(lengths)
    names = [f"{row:016}".encode() for row in range(len(lengths))]
    columns = [names, [""] * len(lengths), ends - lengths, lengths]
    table = pa.table([pa.array(column, field.type) for column, field in zip(columns, INDEX, strict=True)], schema=INDEX)
    return TokenShards([np.arange(ends[-1])], [table])
