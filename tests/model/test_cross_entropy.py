"""The chunked cross-entropy against the plain one: the same value and gradients, however it is cut."""

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.nn import functional
from torch.profiler import ProfilerActivity, profile

from model import cross_entropy
from model.cross_entropy import CHUNK_ROWS, IGNORED, linear_cross_entropy, whole_cross_entropy

WIDTH = 6


def drawn(rows, vocab, padded, dtype=torch.float32, ignored=(), seed=0):
    """x, weight and targets; the weight's padding is large, so that scoring it would show."""
    generator = torch.Generator().manual_seed(seed)
    x = torch.randn(rows, WIDTH, dtype=dtype, generator=generator)
    weight = torch.randn(padded, WIDTH, dtype=dtype, generator=generator)
    weight[vocab:] = 9.0
    targets = torch.randint(vocab, (rows,), generator=generator)
    targets[list(ignored)] = IGNORED
    return x.requires_grad_(), weight.requires_grad_(), targets


def value_and_gradients(loss, *leaves):
    return [loss.detach(), *torch.autograd.grad(loss, leaves)]


@settings(max_examples=60, deadline=None)
@given(
    rows=st.integers(1, 12),
    vocab=st.integers(1, 30),
    padding=st.integers(0, 5),
    chunk=st.integers(1, 13),
    data=st.data(),
)
def test_any_chunk_gives_the_loss_and_gradients_of_the_whole(rows, vocab, padding, chunk, data):
    ignored = data.draw(st.sets(st.integers(0, rows - 1)))
    x, weight, targets = drawn(rows, vocab, vocab + padding, torch.float64, ignored)
    chunked = value_and_gradients(linear_cross_entropy(x, weight, targets, vocab, chunk), x, weight)
    whole = value_and_gradients(whole_cross_entropy(x, weight, targets, vocab), x, weight)
    torch.testing.assert_close(chunked, whole)


def test_the_whole_is_the_sum_that_the_definition_gives():
    x, weight, targets = drawn(5, 7, 9, torch.float64, ignored=[2])
    logits = (x @ weight.t())[:, :7].detach()
    expected = sum(
        math.log(sum(math.exp(logit) for logit in row)) - row[target]
        for row, target in zip(logits.tolist(), targets.tolist(), strict=True)
        if target != IGNORED
    )
    assert whole_cross_entropy(x, weight, targets, 7).item() == pytest.approx(expected, rel=1e-12)


def test_gradients_are_the_derivatives():
    x, weight, targets = drawn(5, 7, 8, torch.float64, ignored=[3])
    assert torch.autograd.gradcheck(lambda x, weight: linear_cross_entropy(x, weight, targets, 7, 2), (x, weight))


def test_float32_agrees_with_float64_to_rounding():
    x, weight, targets = drawn(64, 999, 1024)
    exact = (x.detach().double().requires_grad_(), weight.detach().double().requires_grad_())
    found = value_and_gradients(linear_cross_entropy(x, weight, targets, 999, 10), x, weight)
    right = value_and_gradients(whole_cross_entropy(*exact, targets, 999), *exact)
    torch.testing.assert_close(found, [each.float() for each in right], rtol=1e-5, atol=1e-6)


def test_the_incoming_gradient_scales_what_goes_back():
    x, weight, targets = drawn(5, 7, 8, torch.float64)
    factor = torch.tensor(3.0, dtype=torch.float64, requires_grad=True)
    loss = linear_cross_entropy(x, weight, targets, 7, 2)
    plain = torch.autograd.grad(loss, (x, weight), retain_graph=True)
    scaled = torch.autograd.grad(loss * factor, (x, weight, factor))
    torch.testing.assert_close(scaled, (3 * plain[0], 3 * plain[1], loss.detach()))


def test_padding_gets_no_gradient():
    x, weight, targets = drawn(6, 7, 16)
    linear_cross_entropy(x, weight, targets, 7, 2).backward()
    assert not weight.grad[7:].any()


def test_nothing_scored_is_no_loss_and_no_gradient():
    x, weight, targets = drawn(6, 7, 8, ignored=range(6))
    found = value_and_gradients(linear_cross_entropy(x, weight, targets, 7, 2), x, weight)
    assert not any(each.any() for each in found)


def test_a_tied_weight_gets_the_gradients_of_both_uses():
    _, weight, targets = drawn(6, 7, 8, torch.float64)
    ids = torch.tensor([0, 3, 3, 6, 1, 2])

    def tied(loss):
        return value_and_gradients(loss(functional.embedding(ids, weight)), weight)

    chunked = tied(lambda x: linear_cross_entropy(x, weight, targets, 7, 4))
    torch.testing.assert_close(chunked, tied(lambda x: whole_cross_entropy(x, weight, targets, 7)))


def test_large_logits_do_not_overflow():
    x, weight, targets = drawn(6, 7, 8)
    found = value_and_gradients(linear_cross_entropy(x * 1e4, weight, targets, 7, 2), x, weight)
    torch.testing.assert_close(found, value_and_gradients(whole_cross_entropy(x * 1e4, weight, targets, 7), x, weight))


def test_in_bfloat16_the_loss_stays_float32_and_gradients_keep_their_types():
    x, weight, targets = drawn(64, 999, 1024)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        loss = linear_cross_entropy(x, weight, targets, 999, 10)
    found = value_and_gradients(loss, x, weight)
    assert [each.dtype for each in found] == [torch.float32] * 3
    right = value_and_gradients(whole_cross_entropy(x, weight, targets, 999), x, weight)
    for mine, exact in zip(found, right, strict=True):
        assert torch.linalg.vector_norm(mine - exact) < 0.01 * torch.linalg.vector_norm(exact)


@pytest.mark.parametrize("sureness", [0.0, 1.0, 2.0, 3.0])
def test_in_bfloat16_gradients_are_as_exact_as_those_of_the_whole_however_sure_the_model_is(sureness):
    generator = torch.Generator().manual_seed(0)
    weight = torch.randn(512, 64, generator=generator) * 0.3
    targets = torch.randint(512, (256,), generator=generator)
    x = sureness * weight[targets] + torch.randn(256, 64, generator=generator) * 0.3
    leaves = x.double().requires_grad_(), weight.double().requires_grad_()
    _, *exact = value_and_gradients(whole_cross_entropy(*leaves, targets, 512), *leaves)

    def errors(loss, *more):
        leaves = x.clone().requires_grad_(), weight.clone().requires_grad_()
        with torch.autocast("cpu", dtype=torch.bfloat16):
            _, *found = value_and_gradients(loss(*leaves, targets, 512, *more), *leaves)
        return [float((mine - true).norm() / true.norm()) for mine, true in zip(found, exact, strict=True)]

    for mine, plain in zip(errors(linear_cross_entropy, 64), errors(whole_cross_entropy), strict=True):
        assert mine < 1.5 * plain


def test_tiles_change_nothing(monkeypatch):
    x, weight, targets = drawn(9, 30, 32)
    whole = value_and_gradients(linear_cross_entropy(x, weight, targets, 30, 4), x, weight)
    monkeypatch.setattr(cross_entropy, "TILE_NUMBERS", 70)
    torch.testing.assert_close(value_and_gradients(linear_cross_entropy(x, weight, targets, 30, 4), x, weight), whole)


def test_without_gradients_the_loss_is_the_same():
    x, weight, targets = drawn(6, 7, 8)
    loss = linear_cross_entropy(x, weight, targets, 7, 2)
    with torch.no_grad():
        assert torch.equal(linear_cross_entropy(x, weight, targets, 7, 2), loss)


@pytest.mark.slow
def test_it_compiles_as_one_graph_and_gives_the_same():
    x, weight, targets = drawn(9, 30, 32, ignored=[4])
    compiled = torch.compile(linear_cross_entropy, fullgraph=True)
    torch.use_deterministic_algorithms(True)
    try:
        with torch.autocast("cpu", dtype=torch.bfloat16):
            found = value_and_gradients(compiled(x, weight, targets, 30, 4), x, weight)
            eager = value_and_gradients(linear_cross_entropy(x, weight, targets, 30, 4), x, weight)
    finally:
        torch.use_deterministic_algorithms(False)
    torch.testing.assert_close(found, eager, rtol=0.02, atol=0.02)


@pytest.mark.parametrize(("chunk", "rows"), [(30, 30), (0, CHUNK_ROWS)])
def test_the_logits_of_one_chunk_exist_at_once(chunk, rows):
    vocab = 20_000  # so that the logits of a chunk are more than a gradient of the weight
    x, weight, targets = drawn(2 * CHUNK_ROWS, vocab, vocab)
    with profile(activities=[ProfilerActivity.CPU], profile_memory=True) as seen:
        linear_cross_entropy(x, weight, targets, vocab, chunk).backward()
    assert max(event.self_cpu_memory_usage for event in seen.events()) == 4 * rows * vocab


def test_rows_that_are_not_scored_cost_no_logits():
    x, weight, targets = drawn(64, 7, 8, ignored=range(2, 64))
    with profile(activities=[ProfilerActivity.CPU]) as seen:
        linear_cross_entropy(x, weight, targets, 7, 2)
    assert sum(event.name == "aten::amax" for event in seen.events()) == 1
