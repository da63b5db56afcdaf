"""Log-likelihoods of continuations: what arithmetic says, whatever the batches, and nothing padded."""

import math
from itertools import pairwise

import numpy as np
import pytest
import torch

from model.evaluation.likelihood import Likelihood, Request, Window, request_of, score, windows
from pipeline.shards import load_encoding
from tests.model.conftest import END, VOCAB

TABLE = torch.randn(VOCAB, VOCAB, generator=torch.Generator().manual_seed(0))
"""Logits of a model that sees one token: exact, however it is batched."""


def bigram(ids):
    return TABLE[ids]


def counting(ids):
    """A model that knows how many tokens it was shown before each: the logit of id t is -t at place t."""
    return -torch.arange(ids.shape[1], dtype=torch.float32)[None, :, None] * torch.arange(VOCAB)


def random_requests(count):
    random = np.random.default_rng(0)
    sizes = random.integers(1, 12, (count, 2))
    return [Request(*(tuple(random.integers(0, END, size).tolist()) for size in pair)) for pair in sizes]


def by_hand(request):
    nats, greedy = 0.0, 1.0
    for before, token in pairwise((request.context[-1], *request.continuation)):
        logits = TABLE[before].double()
        nats += float(logits[token] - logits.exp().sum().log())
        greedy *= float(token == logits.argmax())
    return Likelihood(nats, greedy)


@pytest.mark.parametrize("batch_size", [1, 3, 64])
def test_the_sum_is_that_of_the_continuation_alone_at_any_batch_size(batch_size):
    requests = random_requests(50)
    found = score(bigram, requests, context=24, batch_size=batch_size)
    for request, each in zip(requests, found, strict=True):
        assert each.log_likelihood == pytest.approx(by_hand(request).log_likelihood, abs=1e-5)
        assert each.greedy == by_hand(request).greedy


def test_batches_of_all_sizes_agree_to_the_bit_where_the_model_does():
    found = [score(bigram, random_requests(50), context=24, batch_size=size) for size in (1, 3, 64)]
    assert found[0] == found[1] == found[2]


def test_padding_is_never_scored_nor_seen():
    def poisoned(ids):
        logits = TABLE[ids].clone()
        logits[(ids == 0).cumsum(-1) > 0] = math.nan  # 0 is what rows are padded with, and no request holds it
        return logits

    requests = [Request((1,), (2, 3)), Request((4, 5, 6, 7), (8,)), Request((9,), (1,))]
    assert score(poisoned, requests, context=8, batch_size=3) == score(bigram, requests, context=8, batch_size=1)


def test_a_long_context_is_cut_on_its_left():
    request = Request(tuple(range(1, 9)), (20, 21))
    assert list(windows(request, context=4)) == [Window((6, 7, 8, 20, 21), 2)]


def test_a_continuation_longer_than_the_context_is_scored_token_by_token_once():
    # The example in lm-evaluation-harness's `LM.loglikelihood_rolling`.
    request = Request((END,), tuple(range(10)))
    assert list(windows(request, context=4)) == [
        Window((END, 0, 1, 2, 3), 4),
        Window((3, 4, 5, 6, 7), 4),
        Window((5, 6, 7, 8, 9), 2),
    ]


def test_windows_of_a_continuation_add_up():
    request = Request((1,), tuple(range(2, 13)))
    whole = score(bigram, [request], context=24, batch_size=1)[0]
    parts = score(bigram, [request], context=4, batch_size=2)[0]
    assert parts.log_likelihood == pytest.approx(whole.log_likelihood, abs=1e-5)


def test_what_is_scored_stands_at_the_end_of_what_is_seen():
    # At place 2 the model gives id t the logit -2t: the third token of the input predicts the continuation.
    found = score(counting, [Request((7, 7, 7), (5,))], context=8, batch_size=1)[0]
    expected = -10 - math.log(sum(math.exp(-2 * token) for token in range(VOCAB)))
    assert found.log_likelihood == pytest.approx(expected, rel=1e-6)


def test_greedy_decoding_among_equals_is_a_draw():
    def two_best(ids):
        return torch.nn.functional.one_hot(torch.zeros_like(ids), VOCAB).float() + torch.nn.functional.one_hot(
            torch.ones_like(ids), VOCAB
        )

    found = score(two_best, [Request((9,), (0,)), Request((9,), (0, 1)), Request((9,), (2,))], context=8, batch_size=2)
    assert [each.greedy for each in found] == [0.5, 0.25, 0.0]


def test_equal_requests_are_put_through_the_model_once():
    rows = []

    def counted(ids):
        rows.append(len(ids))
        return TABLE[ids]

    found = score(counted, [Request((1,), (2,))] * 5, context=8, batch_size=2)
    assert rows == [1]
    assert len(set(found)) == 1


def test_the_end_of_a_context_goes_over_to_the_continuation(tokenizer):
    encoding = load_encoding(tokenizer)
    request = request_of(encoding, "the mill \n", "turns", END)
    assert request == Request(tuple(b"the mill"), tuple(b" \nturns"))


def test_an_empty_context_is_an_end_of_text(tokenizer):
    encoding = load_encoding(tokenizer)
    assert request_of(encoding, "", " flour", END) == Request((END,), tuple(b" flour"))
    assert request_of(encoding, " ", "flour", END) == Request((END,), tuple(b" flour"))


def test_context_and_continuation_are_encoded_as_one_text():
    import tiktoken

    ranks = {**{bytes([byte]): byte for byte in range(256)}, b"mill": 256, b"mi": 257, b"ll": 258}
    joined = tiktoken.Encoding("test", pat_str=r"\S+|\s+", mergeable_ranks=ranks, special_tokens={"<|endoftext|>": 259})
    assert request_of(joined, "a mi", "lls", 259).continuation == tuple(joined.encode_ordinary("a mills")[3:])
    with pytest.raises(ValueError, match="no token of its own"):
        request_of(joined, "a mi", "", 259)
