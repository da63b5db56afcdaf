"""Memorisation: what is given back word for word counts, and only stretches within a document are asked."""

import numpy as np
import pytest
import torch

from model.config import TrainingError
from model.evaluation.memorisation import memorisation, places
from pipeline.shards import TokenShards
from tests.model.conftest import END, VOCAB


def remembering(split):
    """A model that knows one text by heart and goes on with it from wherever it is put."""
    stream = split.window(0, len(split))

    def logits(ids):
        given = torch.zeros(*ids.shape, VOCAB)
        for row, sequence in enumerate(ids.numpy()):
            spans = np.lib.stride_tricks.sliding_window_view(stream, 24)
            for place in range(23, len(sequence)):
                found = np.flatnonzero((spans[:-1] == sequence[place - 23 : place + 1]).all(axis=1))
                if len(found):
                    given[row, place, stream[found[0] + 24]] = 1
        return given

    return logits


@pytest.fixture
def split(shards):
    return TokenShards.open(shards, "train", VOCAB)


def rate(logits, split, **options):
    options = {
        "prompt": 24,
        "continuation": 16,
        "samples": 20,
        "context": 64,
        "batch_size": 8,
        "resamples": 100,
        "seed": 0,
        **options,
    }
    return memorisation(logits, split, **options)


def test_who_knows_the_text_by_heart_has_memorised_it_and_who_knows_nothing_has_not(split):
    by_heart = rate(remembering(split), split)
    assert by_heart["rate"] > 0.8
    assert by_heart["interval"][0] <= by_heart["rate"] <= by_heart["interval"][1]
    knows_nothing = rate(lambda ids: torch.zeros(*ids.shape, VOCAB), split, continuation=2)
    assert knows_nothing["rate"] == pytest.approx(VOCAB**-2)


def test_what_is_asked_is_the_training_text_itself(split):
    rows = []

    def watching(ids):
        rows.extend(ids.tolist())
        return torch.zeros(*ids.shape, VOCAB)

    asked = rate(watching, split)
    stream = bytes(min(token, 255) for token in split.window(0, len(split)).tolist())
    assert asked["samples"] == len(rows) == 20
    assert all(len(row) == 24 + 16 - 1 and bytes(row) in stream for row in rows)


def test_every_stretch_lies_within_a_document_and_none_is_taken_twice(split):
    index = split.index()
    length = int(index["length"][0].as_py()) - 3
    begins = places(split, length, 10**6, seed=0)
    room = [max(0, size - length) for size in index["length"].to_pylist()]
    expected = [
        start + more for start, size in zip(index["start"].to_pylist(), room, strict=True) for more in range(size)
    ]
    assert begins.tolist() == expected
    assert END not in np.concatenate([split.window(int(begin), length) for begin in begins])


def test_the_seed_decides_which_places_are_asked(split):
    assert places(split, 40, 9, seed=1).tolist() == places(split, 40, 9, seed=1).tolist()
    assert places(split, 40, 9, seed=1).tolist() != places(split, 40, 9, seed=2).tolist()
    assert len(set(places(split, 40, 9, seed=1).tolist())) == 9


def test_without_a_document_that_is_long_enough_there_is_no_rate(split):
    found = rate(None, split, prompt=5000, continuation=5000, context=20000)
    assert (found["samples"], found["rate"], found["interval"]) == (0, None, None)


def test_more_than_the_context_holds_is_one_sentence(split):
    with pytest.raises(TrainingError, match="does not fit the model's context of 38"):
        rate(None, split, context=38)
