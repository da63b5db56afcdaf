"""Documents inside windows: whose an input is, which targets cross a border, and what a scored token may see."""

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from model.cross_entropy import IGNORED
from model.training.data import Windows, scoring_windows
from tests.model.training.streams import corpus

END = 10**6

LENGTHS = st.lists(st.integers(1, 30), min_size=1, max_size=20)


def document_of(lengths):
    """The document of each token, one after another: what the index says, written the slow way."""
    return np.repeat(np.arange(len(lengths)), lengths)


@given(lengths=LENGTHS, context=st.integers(1, 25))
def test_an_input_belongs_to_the_document_of_the_token_that_it_predicts(lengths, context):
    lengths[-1] += context  # so that there is a window
    windows = Windows(corpus(lengths), context, seed=1, within_documents=True)
    batch = windows.batch(0, windows.count)
    np.testing.assert_array_equal(batch.documents, document_of(lengths)[batch.targets])


@given(lengths=LENGTHS, context=st.integers(1, 25), within=st.booleans())
def test_without_boundary_labels_the_first_token_of_a_document_alone_is_no_target(lengths, context, within):
    lengths[-1] += context
    stream = corpus(lengths)
    windows = Windows(stream, context, seed=1, within_documents=within, boundary_labels=False)
    batch = windows.batch(0, windows.count)
    firsts = np.cumsum(lengths) - lengths
    after = batch.inputs + 1  # ids are places
    np.testing.assert_array_equal(batch.targets, np.where(np.isin(after, firsts), IGNORED, after))


@given(lengths=LENGTHS, context=st.integers(1, 25), labels=st.booleans(), size=st.integers(1, 30))
def test_the_targets_of_a_batch_are_counted_without_reading_it(lengths, context, labels, size):
    lengths[-1] += context
    windows = Windows(corpus(lengths), context, seed=2, boundary_labels=labels)
    assert windows.scored(3, size) == windows.batch(3, size).scored


def test_documents_are_told_only_where_they_are_wanted():
    assert Windows(corpus([5, 9]), 4, seed=0).batch(0, 2).documents is None


def test_documents_come_from_lengths_and_not_from_ids():
    """A text may hold the id of an end-of-text: a chat that ends each turn with it."""
    stream = corpus([12, 20])
    stream._arrays[0][[3, 7]] = stream._arrays[0][11]
    windows = Windows(stream, 4, seed=0, within_documents=True)
    batch = windows.batch(0, windows.count)
    expected = document_of([12, 20])[windows.first_tokens(0, windows.count)[:, None] + 1 + np.arange(4)]
    np.testing.assert_array_equal(batch.documents, expected)


@given(lengths=LENGTHS, context=st.integers(1, 25), data=st.data())
def test_scoring_covers_every_token_once_after_all_that_its_window_holds_of_its_document(lengths, context, data):
    stride = data.draw(st.integers(1, context))
    stream, starts, mine = corpus(lengths), np.cumsum(lengths) - lengths, document_of(lengths)
    windows = scoring_windows(
        stream.window, len(stream), END, context=context, stride=stride, batch_size=3, starts=starts
    )
    scored = []
    for batch in windows:
        for ids, targets, documents in zip(batch.inputs, batch.targets, batch.documents, strict=True):
            for place in np.flatnonzero(targets != IGNORED):
                token = int(targets[place])
                begin = starts[mine[token]]
                seen = ids[: place + 1][documents[: place + 1] == documents[place]].tolist()
                longest = [END if begin == 0 else begin - 1, *range(begin, token)]
                assert seen == longest[len(longest) - len(seen) :]
                assert len(seen) >= min(len(longest), context - stride + 1)
                scored.append(token)
    assert scored == list(range(len(stream)))
