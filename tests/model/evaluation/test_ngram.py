"""The n-gram baseline: Kneser-Ney as its formulas say, a proper distribution, and better with more to go by."""

import math
from collections import Counter
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from model.evaluation.ngram import LEAST_DISCOUNT, NGram, discounts, spread
from pipeline.shards import TokenShards

TEXT = Path(__file__).parents[4] / "shared/data/text/tinyshakespeare.txt"
V = 5


def by_the_formulas(ids, order, context, word):
    """Chen and Goodman 1998, equations 24 to 27, word for word, with counts in dictionaries."""
    grams = [Counter(tuple(ids[i : i + n]) for i in range(len(ids) - n + 1)) for n in range(order + 1)]
    counts = grams[order]
    levels = {}
    for n in range(order, 0, -1):
        levels[n] = counts
        counts = Counter(gram[1:] for gram in grams[n])

    def probability(context, word):
        n = len(context) + 1
        lower = probability(context[1:], word) if n > 1 else 1 / V
        level = levels[n]
        after = {w: level[(*context, w)] for w in range(V) if level[(*context, w)] > 0}
        if not after:
            return lower
        taken = discounts(np.array([count for count in level.values() if count]))
        lose = {w: min(count, taken[min(count, 3)]) for w, count in after.items()}
        total = sum(after.values())
        return (after.get(word, 0) - lose.get(word, 0)) / total + sum(lose.values()) / total * lower

    return probability(tuple(context)[max(0, len(context) - order + 1) :], word)


@pytest.mark.parametrize("order", [1, 2, 3, 5])
@pytest.mark.parametrize("size", [6, 80, 2000])
def test_probabilities_are_those_of_the_formulas(order, size):
    random = np.random.default_rng(size)
    ids = np.minimum(random.geometric(0.5, size) - 1, V - 1)
    model = NGram.fit(ids, V, order)
    for _ in range(30):
        text = np.minimum(random.geometric(0.5, order + 1) - 1, V - 1)
        found = math.exp(-model.nats(text[1:], int(text[0]))[-1])
        assert found == pytest.approx(by_the_formulas(ids.tolist(), order, text[:-1].tolist(), text[-1]), rel=1e-9)


@settings(max_examples=40, deadline=None)
@given(
    st.lists(st.integers(0, V - 1), min_size=1, max_size=60), st.lists(st.integers(0, V - 1), min_size=1, max_size=7)
)
def test_after_any_context_the_probabilities_sum_to_one(ids, context):
    model = NGram.fit(np.array(ids), V, 5)
    chances = [math.exp(-model.nats(np.array([*context[1:], word]), context[0])[-1]) for word in range(V)]
    assert sum(chances) == pytest.approx(1)
    assert min(chances) > 0


def test_discounts_follow_from_counts_of_counts():
    counts = np.array([1] * 8 + [2] * 4 + [3] * 2 + [4] * 1)
    share = 8 / (8 + 2 * 4)
    assert discounts(counts) == pytest.approx([0, 1 - 2 * share * 4 / 8, 2 - 3 * share * 2 / 4, 3 - 4 * share * 1 / 2])


def test_no_discount_is_nothing_so_that_no_token_is_impossible():
    counts = np.array([1] * 10 + [2] + [3] * 5 + [4])
    assert discounts(counts)[2] == LEAST_DISCOUNT


def test_longer_contexts_say_more_of_a_real_text():
    if not TEXT.is_file():
        pytest.skip(f"the shared text is not in {TEXT}")
    ids = np.frombuffer(TEXT.read_bytes(), np.uint8).astype(np.int64)
    train, val = ids[:1_000_000], ids[1_000_000:]
    bits = [NGram.fit(train, 257, order).nats(val, 256).mean() / math.log(2) for order in (1, 2, 3, 5)]
    assert bits == sorted(bits, reverse=True)
    # 5-grams of characters are known to reach about two bits a character here.
    assert 1.9 < bits[-1] < 2.3


def test_a_part_of_a_corpus_is_taken_from_all_over_it(shards):
    split = TokenShards.open(shards, "train", 257)
    some = spread(split, 640)
    assert len(some) == 640
    assert some[:10].tolist() == split.window(0, 10).tolist()
    assert some[-10:].tolist() == split.window(len(split) - 10, 10).tolist()
    assert spread(split, 10**9).tolist() == split.window(0, len(split)).tolist()
