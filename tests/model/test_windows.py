import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from model.config import TrainingError
from model.data import Windows, data_digest, epoch_key, permute, scoring_windows
from model.gpt import IGNORED
from pipeline.shards import TokenShards

END, VOCAB = 256, 257


@given(count=st.integers(1, 3000), key=st.integers(0, 2**64 - 1))
def test_permutation_is_a_bijection_for_every_size(count, key):
    assert sorted(permute(np.arange(count), count, key)) == list(range(count))


@given(count=st.integers(1, 10**12), key=st.integers(0, 2**64 - 1), place=st.integers(0, 10**12))
def test_permutation_of_one_place_is_the_same_as_among_others(count, key, place):
    place %= count
    some = np.array([0, place, count - 1])
    assert permute(some, count, key)[1] == permute(some[1:2], count, key)[0]


def test_permutation_leaves_no_trace_of_the_order():
    order = permute(np.arange(10_001), 10_001, epoch_key(0, 0))
    assert abs(np.corrcoef(np.arange(10_001), order)[0, 1]) < 0.05
    assert (np.diff(order) == 1).mean() < 0.01


def test_every_window_is_seen_once_an_epoch_and_each_epoch_has_its_own_order(shards):
    stream = TokenShards.open(shards, "train", VOCAB)
    windows = Windows(stream, context=33, seed=5)
    epochs = [windows.batch(epoch * windows.count, windows.count)[0] for epoch in (0, 1)]
    whole = stream.window(0, windows.count * 33).reshape(-1, 33)
    for epoch in epochs:
        assert sorted(map(tuple, epoch)) == sorted(map(tuple, whole))
    assert (epochs[0] != epochs[1]).any()


def test_batches_do_not_depend_on_how_windows_were_asked_for(shards):
    windows = Windows(TokenShards.open(shards, "train", VOCAB), context=32, seed=0)
    size = windows.count + 3  # over the border of an epoch
    whole = windows.batch(2, size)[0]
    single = np.concatenate([windows.batch(2 + place, 1)[0] for place in range(size)])
    np.testing.assert_array_equal(whole, single)


def test_targets_are_the_tokens_after_the_inputs(shards):
    inputs, targets = Windows(TokenShards.open(shards, "train", VOCAB), context=32, seed=0).batch(0, 4)
    np.testing.assert_array_equal(inputs[:, 1:], targets[:, :-1])


def test_too_little_text_is_one_sentence(shards):
    with pytest.raises(TrainingError, match=r"fewer than the 100,001 of one window: add documents or lower"):
        Windows(TokenShards.open(shards, "train", VOCAB), context=100_000, seed=0)


@given(length=st.integers(0, 200), context=st.integers(1, 40), data=st.data())
def test_scoring_covers_every_token_once_in_order_after_what_came_before(length, context, data):
    stride = data.draw(st.integers(1, context))
    ids = np.arange(1000, 1000 + length)
    batches = scoring_windows(
        lambda start, count: ids[start : start + count], length, END, context=context, stride=stride, batch_size=3
    )
    scored = []
    for inputs, targets in batches:
        chosen = targets != IGNORED
        np.testing.assert_array_equal(inputs[chosen], np.where(targets[chosen] == 1000, END, targets[chosen] - 1))
        scored += targets[chosen].tolist()
    assert scored == ids.tolist()


def test_a_limited_validation_is_spread_over_the_split():
    ids = np.arange(1000)
    limited = list(
        scoring_windows(lambda start, n: ids[start : start + n], 1000, END, context=10, stride=10, batch_size=4, most=5)
    )
    assert [row[0] for _, targets in limited for row in targets] == [0, 200, 400, 600, 800]


def test_data_digest_changes_with_shards_and_tokenizer(shards, tokenizer, tmp_path):
    assert data_digest(shards, tokenizer) == data_digest(shards, tokenizer)
    assert data_digest(shards, tokenizer) != data_digest(shards[:1], tokenizer)
    for name in ("ranks.tiktoken", "tokenizer.json"):
        (tmp_path / name).write_bytes((tokenizer / name).read_bytes() + b"\n")
    assert data_digest(shards, tokenizer) != data_digest(shards, tmp_path)
