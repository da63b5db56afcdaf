import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from model.config import MODERN, GPTConfig
from model.generate import choose, generate, stream_text, window_start
from model.gpt import GPT
from pipeline.shards import load_encoding

END = 256


@pytest.fixture
def bold(model):
    """A model whose choices differ from token to token."""
    with torch.no_grad():
        for weight in model.parameters():
            if weight.ndim == 2:
                weight.mul_(5)
    return model.double()


@pytest.mark.parametrize("prompt", [[END], list(range(16)), list(range(40))], ids=["short", "full", "over"])
def test_greedy_with_a_cache_equals_greedy_without(bold, prompt):
    ways = [list(generate(bold, prompt, max_tokens=50, temperature=0, cached=cached)) for cached in (True, False)]
    assert ways[0] == ways[1]
    assert len(set(ways[0])) > 2


def test_greedy_takes_the_likeliest_token(bold):
    assert (
        next(generate(bold, [1, 2, 3], max_tokens=1, temperature=0)) == bold(torch.tensor([[1, 2, 3]]))[0, -1].argmax()
    )


@given(length=st.integers(1, 500), context=st.integers(1, 64))
def test_the_window_always_fits_and_never_shrinks_below_half(length, context):
    seen = length - window_start(length, context)
    assert min(length, context - context // 2) <= seen <= context


def test_the_same_seed_writes_the_same_ids(bold):
    def write(seed):
        return list(generate(bold, [END], max_tokens=30, temperature=1.5, seed=seed))

    assert write(1) == write(1)
    assert write(1) != write(2)


def test_generation_stops_before_end_of_text():
    model = GPT(GPTConfig(layers=1, heads=1, width=8, context=8, vocab_size=257, **MODERN))
    with torch.no_grad():
        model.embedding.weight.fill_(1.0)
        model.head.weight.zero_()
        model.head.weight[END] = 1.0
        for block in model.blocks:
            block.attention.out.weight.zero_()
            block.mlp.out.weight.zero_()
    assert list(generate(model, [5], max_tokens=10, temperature=0, stop_id=END)) == []
    assert list(generate(model, [5], max_tokens=3, temperature=0)) == [END] * 3


def test_an_empty_start_is_refused(bold):
    with pytest.raises(ValueError, match="at least one id"):
        next(generate(bold, [], max_tokens=1))


def draws(**options):
    logits = torch.tensor([0.5, 0.3, 0.15, 0.05]).log()
    random = torch.Generator().manual_seed(0)
    settings = {"temperature": 1.0, "top_k": 0, "top_p": 1.0, **options}
    return [choose(logits, random=random, **settings) for _ in range(4000)]


def test_sampling_follows_the_models_probabilities():
    drawn = torch.tensor(draws()).bincount() / 4000
    torch.testing.assert_close(drawn, torch.tensor([0.5, 0.3, 0.15, 0.05]), rtol=0, atol=0.03)


def test_top_k_and_top_p_leave_the_likeliest():
    assert set(draws(top_k=2)) == {0, 1}
    assert set(draws(top_p=0.6)) == {0, 1}
    assert set(draws(top_p=0.4)) == {0}
    assert set(draws(temperature=0)) == {0}


def test_streamed_text_never_shows_half_a_letter(tokenizer):
    encoding = load_encoding(tokenizer)
    text = "flour — 面粉 🌾."
    pieces = list(stream_text(encoding, [*text.encode(), END]))
    assert "".join(pieces) == text
    assert all("\ufffd" not in piece for piece in pieces)


def test_bytes_that_are_no_text_show_as_replacement(tokenizer):
    assert "".join(stream_text(load_encoding(tokenizer), [*b"a\xff", *b"b\xe9"])) == "a\ufffdb\ufffd"
