"""Loss by host: every document counts for its own, and together they are the whole."""

import math

import numpy as np
import pyarrow as pa
import pytest

from model.evaluation.domains import by_host
from pipeline.shards import INDEX

URLS = ["http://a.example/1", "https://b.example:8080/2", "http://a.example/3", "http://c.example/4"]
LENGTHS = [3, 2, 1, 4]


@pytest.fixture
def scored():
    starts = np.cumsum(LENGTHS) - LENGTHS
    ids = [bytes([row]) * 16 for row in range(4)]
    index = pa.table([ids, URLS, starts, LENGTHS], schema=INDEX)
    nats = np.arange(1.0, 11.0)
    sizes = np.array([2, 2, 0, 5, 0, 0, 1, 1, 1, 0])  # the last of each document is its end-of-text
    return nats, sizes, index


def test_each_host_has_the_tokens_bytes_and_loss_of_its_documents(scored):
    rows = {row["host"]: row for row in by_host(*scored, most=9)}
    assert list(rows) == ["b.example", "a.example", "c.example"]
    assert rows["a.example"] == {
        "host": "a.example", "documents": 2, "tokens": 4, "bytes": 4,
        "loss": (1 + 2 + 3 + 6) / 4, "bits_per_byte": pytest.approx(12 / math.log(2) / 4),
    }  # fmt: skip


def test_hosts_beyond_the_largest_are_one_row_and_nothing_is_lost(scored):
    rows = by_host(*scored, most=1)
    assert [row["host"] for row in rows] == ["b.example", None]
    assert sum(row["tokens"] for row in rows) == 10
    assert sum(row["loss"] * row["tokens"] for row in rows) == pytest.approx(55)
