import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from model.config import GPTConfig
from model.generation.generate import generate, generate_batch, window_start
from model.generation.sampling import Sampling, choose
from model.generation.writing import stopping, stream_text
from model.gpt import GPT
from model.presets import MODERN
from pipeline.shards import load_encoding

END = 256
GREEDY = Sampling(temperature=0)


def emboldened(model):
    """The model with weights so large that its choices differ from token to token, places and all."""
    with torch.no_grad():
        for weight in model.parameters():
            if weight.ndim == 2:
                weight.normal_(0, 0.3)
    return model.double()


@pytest.fixture
def bold(model):
    return emboldened(model)


@pytest.mark.parametrize("prompt", [[END], list(range(16)), list(range(40))], ids=["short", "full", "over"])
def test_greedy_with_a_cache_equals_greedy_without(bold, prompt):
    ways = [list(generate(bold, prompt, max_tokens=50, sampling=GREEDY, cached=cached)) for cached in (True, False)]
    assert ways[0] == ways[1]
    assert len(set(ways[0])) > 2


@pytest.mark.parametrize("pattern", ["local", "banded", "strided", "fixed"])
def test_a_cache_changes_nothing_for_any_pattern_beyond_the_window(shape, pattern):
    torch.manual_seed(0)
    changes = {"attention": ("full", pattern), "window": 5, "stride": 4, "summary": 1, "kv_heads": 1}
    model = emboldened(GPT(shape.model_copy(update=changes)))
    ways = [list(generate(model, range(11), max_tokens=30, sampling=GREEDY, cached=cached)) for cached in (True, False)]
    assert ways[0] == ways[1]
    assert len(set(ways[0])) > 2


def test_greedy_takes_the_likeliest_token(bold):
    assert (
        next(generate(bold, [1, 2, 3], max_tokens=1, sampling=GREEDY))
        == bold(torch.tensor([[1, 2, 3]]))[0, -1].argmax()
    )


@given(length=st.integers(1, 500), context=st.integers(1, 64))
def test_the_window_always_fits_and_never_shrinks_below_half(length, context):
    seen = length - window_start(length, context)
    assert min(length, context - context // 2) <= seen <= context


def test_the_same_seed_writes_the_same_ids(bold):
    def write(seed):
        return list(generate(bold, [END], max_tokens=30, sampling=Sampling(temperature=1.5), seed=seed))

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
    assert list(generate(model, [5], max_tokens=10, sampling=GREEDY, stop_id=END)) == []
    assert list(generate(model, [5], max_tokens=3, sampling=GREEDY)) == [END] * 3


def test_an_empty_start_is_refused(bold):
    with pytest.raises(ValueError, match="at least one id"):
        next(generate(bold, [], max_tokens=1))


def draws(sampling, seen=None):
    """4,000 draws from four tokens with the chances 0.5, 0.3, 0.15 and 0.05."""
    logits = torch.tensor([0.5, 0.3, 0.15, 0.05]).log().expand(4000, 4)
    uniform = torch.rand(4000, generator=torch.Generator().manual_seed(0))
    return choose(logits, sampling, uniform, seen).tolist()


def test_sampling_follows_the_models_probabilities():
    drawn = torch.tensor(draws(Sampling())).bincount() / 4000
    torch.testing.assert_close(drawn, torch.tensor([0.5, 0.3, 0.15, 0.05]), rtol=0, atol=0.03)


@pytest.mark.parametrize(
    ("sampling", "left"),
    [
        (Sampling(top_k=2), {0, 1}),
        (Sampling(top_p=0.6), {0, 1}),
        (Sampling(top_p=0.4), {0}),
        (Sampling(min_p=0.25), {0, 1, 2}),
        (Sampling(min_p=0.4), {0, 1}),
        (Sampling(min_p=1.0), {0}),
        (Sampling(min_p=5.0), {0}),
        (Sampling(temperature=1e-39), {0}),
        (Sampling(temperature=0), {0}),
        (Sampling(temperature=1e-6), {0}),
    ],
    ids=str,
)
def test_cut_offs_leave_the_likeliest(sampling, left):
    assert set(draws(sampling)) == left


def test_a_repetition_penalty_makes_what_was_there_less_likely():
    seen = torch.zeros(4000, 4, dtype=torch.bool)
    seen[:, 0] = True
    drawn = torch.tensor(draws(Sampling(repetition_penalty=3.0), seen)).bincount() / 4000
    expected = torch.tensor([0.5**3, 0.3, 0.15, 0.05])
    torch.testing.assert_close(drawn, expected / expected.sum(), rtol=0, atol=0.03)
    logits = torch.tensor([[2.0, 1.5]])
    assert choose(logits, Sampling(temperature=0, repetition_penalty=2.0), torch.zeros(1), logits > 1.7) == 1


def test_generation_with_a_repetition_penalty_counts_the_prompt_in(bold):
    penalised = Sampling(temperature=0, repetition_penalty=1e9)
    written = list(generate(bold, [1, 2, 3], max_tokens=40, sampling=penalised))
    assert len({1, 2, 3, *written}) == 43


PROMPTS = [[END], [1, 2, 3, 4, 5, 6, 7], list(range(40)), [9, 9]]


def columns(stream):
    """What each row wrote, from the steps of a batch."""
    return [[token for token in column if token is not None] for column in zip(*stream, strict=True)]


@pytest.mark.parametrize("sampling", [GREEDY, Sampling(temperature=1.2, top_p=0.9)], ids=["greedy", "sampled"])
@pytest.mark.parametrize("pattern", ["full", "local", "strided", "fixed"])
def test_a_row_writes_the_same_alone_and_in_company(shape, pattern, sampling):
    torch.manual_seed(0)
    changes = {"attention": ("full", pattern), "window": 5, "stride": 4, "summary": 1}
    model = emboldened(GPT(shape.model_copy(update=changes)))
    together = columns(generate_batch(model, PROMPTS, max_tokens=30, sampling=sampling, seed=7))
    for row, prompt in enumerate(PROMPTS):
        assert list(generate(model, prompt, max_tokens=30, sampling=sampling, seed=7 + row)) == together[row]


def test_each_row_stops_at_its_own_end_of_text(bold):
    free = columns(generate_batch(bold, PROMPTS, max_tokens=30, sampling=GREEDY))
    stop = free[1][10]
    held = columns(generate_batch(bold, PROMPTS, max_tokens=30, sampling=GREEDY, stop_id=stop))
    assert held == [ids[: ids.index(stop)] if stop in ids else ids for ids in free]
    assert len(set(map(len, held))) > 1


def test_a_row_stops_when_a_string_is_there(bold, tokenizer):
    encoding = load_encoding(tokenizer)
    free = list(generate(bold, [END], max_tokens=30, sampling=GREEDY))
    wanted = "mill"
    script = [*b"the mi", END, *b"ll turns"]
    ended = stopping(encoding, [wanted])
    assert [ended(script[: size + 1]) for size in range(len(script))].index(True) == len("the mi") + 2
    stop_early = generate_batch(bold, [[END]], max_tokens=30, sampling=GREEDY, ended=lambda ids: len(ids) == 3)
    assert columns(stop_early) == [free[:3]]


def test_streamed_text_ends_before_a_stop_and_never_shows_a_part_of_it(tokenizer):
    encoding = load_encoding(tokenizer)
    pieces = list(stream_text(encoding, b"the mill miller", ["mille"]))
    assert pieces == ["t", "h", "e", " ", "mill "]
    assert "".join(stream_text(encoding, b"the mil", ["mille"])) == "the mil"


def test_streamed_text_never_shows_half_a_letter(tokenizer):
    encoding = load_encoding(tokenizer)
    text = "flour — 面粉 🌾."
    pieces = list(stream_text(encoding, [*text.encode(), END]))
    assert "".join(pieces) == text
    assert all("\ufffd" not in piece for piece in pieces)


def test_bytes_that_are_no_text_show_as_replacement(tokenizer):
    assert "".join(stream_text(load_encoding(tokenizer), [*b"a\xff", *b"b\xe9"])) == "a\ufffdb\ufffd"
