import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from model.config import TrainingError
from model.cross_entropy import IGNORED
from model.training.data import FEW_WINDOWS, Windows, data_digest, epoch_key, permute, scoring_texts, scoring_windows
from pipeline.shards import TokenShards
from tests.model.training.streams import corpus

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


@given(length=st.integers(2, 400), context=st.integers(1, 40), seed=st.integers(0, 2**63 - 1), epoch=st.integers(0, 9))
def test_an_epoch_visits_every_window_of_its_grid_once_and_leaves_out_less_than_two(length, context, seed, epoch):
    stream = corpus([length])
    if length <= context:
        with pytest.raises(TrainingError, match="fewer than"):
            Windows(stream, context, seed)
        return
    windows = Windows(stream, context, seed)
    few = (length - 1) // context < FEW_WINDOWS
    targets = np.sort(windows.batch(epoch * windows.count, windows.count).targets.ravel())
    np.testing.assert_array_equal(targets, targets[0] + np.arange(windows.count * context))  # each once, side by side
    assert 0 <= length - 1 - len(targets) < (1 if few else 2) * context


def test_each_epoch_has_its_own_order_and_its_own_grid():
    windows = Windows(corpus([10_000]), context=33, seed=5)
    one, two = (windows.first_tokens(epoch * windows.count, windows.count) for epoch in (0, 1))
    assert (np.argsort(one) != np.argsort(two)).any()
    assert one.min() != two.min()


def test_over_epochs_every_token_is_a_target_but_the_first_which_nothing_precedes():
    windows = Windows(corpus([100]), context=9, seed=0)
    assert set(windows.batch(0, 60 * windows.count).targets.ravel()) == set(range(1, 100))


def test_batches_do_not_depend_on_how_windows_were_asked_for(shards):
    windows = Windows(TokenShards.open(shards, "train", VOCAB), context=32, seed=0)
    size = windows.count + 3  # over the border of an epoch
    whole = windows.batch(2, size).inputs
    single = np.concatenate([windows.batch(2 + place, 1).inputs for place in range(size)])
    np.testing.assert_array_equal(whole, single)


def test_targets_are_the_tokens_after_the_inputs(shards):
    batch = Windows(TokenShards.open(shards, "train", VOCAB), context=32, seed=0).batch(0, 4)
    np.testing.assert_array_equal(batch.inputs[:, 1:], batch.targets[:, :-1])


@given(taken=st.lists(st.integers(1, 9), min_size=1, max_size=12))
def test_one_integer_is_enough_to_go_on(taken):
    """Batches of any sizes, across epochs, are one stream of which only the place needs to be known."""
    windows = Windows(corpus([70]), context=10, seed=3)
    whole = windows.batch(0, sum(taken)).inputs
    position = 0
    for size in taken:
        np.testing.assert_array_equal(windows.batch(position, size).inputs, whole[position : position + size])
        position += size


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
    for batch in batches:
        chosen = batch.targets != IGNORED
        tokens = batch.targets[chosen]
        np.testing.assert_array_equal(batch.inputs[chosen], np.where(tokens == 1000, END, tokens - 1))
        scored += tokens.tolist()
    assert scored == ids.tolist()


@given(lengths=st.lists(st.integers(0, 50), max_size=8), context=st.integers(1, 20), data=st.data())
def test_texts_are_scored_in_company_as_alone(lengths, context, data):
    stride, size = data.draw(st.integers(1, context)), data.draw(st.integers(1, 9))
    texts = [np.arange(1000 * (text + 1), 1000 * (text + 1) + length) for text, length in enumerate(lengths)]
    rows = []
    for batch in scoring_texts(texts, END, context=context, stride=stride, batch_size=size):
        assert len(batch.inputs) <= size
        assert (batch.targets[:, -1] != IGNORED).any(), "no batch is wider than it needs to be"
        rows += [strip(*row) for row in zip(batch.inputs, batch.targets, strict=True)]
    alone = []
    for text in texts:
        windows = scoring_windows(
            lambda start, count, text=text: text[start : start + count],
            len(text),
            END,
            context=context,
            stride=stride,
            batch_size=1,
        )
        alone += [strip(batch.inputs[0], batch.targets[0]) for batch in windows]
    assert rows == alone


def strip(inputs, targets):
    """A window without what pads it."""
    used = max(np.flatnonzero(targets != IGNORED)) + 1
    return inputs[:used].tolist(), targets[:used].tolist()


def test_a_limited_validation_is_spread_over_the_split():
    ids = np.arange(1000)
    limited = list(
        scoring_windows(lambda start, n: ids[start : start + n], 1000, END, context=10, stride=10, batch_size=4, most=5)
    )
    assert [row[0] for batch in limited for row in batch.targets] == [0, 200, 400, 600, 800]


def test_data_digest_changes_with_shards_and_tokenizer(shards, tokenizer, tmp_path):
    assert data_digest(shards, tokenizer) == data_digest(shards, tokenizer)
    assert data_digest(shards, tokenizer) != data_digest(shards[:1], tokenizer)
    for name in ("ranks.tiktoken", "tokenizer.json"):
        (tmp_path / name).write_bytes((tokenizer / name).read_bytes() + b"\n")
    assert data_digest(shards, tokenizer) != data_digest(shards, tmp_path)


def test_data_digest_is_that_of_whatever_files_a_tokenizer_has(shards, tmp_path):
    (tmp_path / "tokenizer.json").write_text("{}")
    digests = set()
    for content in (b"", b"a", b"b"):
        (tmp_path / "sentencepiece.model").write_bytes(content)
        digests.add(data_digest(shards, tmp_path))
    assert len(digests) == 3
