import math

import pytest
import torch
from pydantic import ValidationError
from torch.nn import functional
from torch.utils.flop_counter import FlopCounterMode

from model.config import Architecture, GPTConfig, PretrainConfig
from model.gpt import GPT, IGNORED
from model.presets import GPT2, MODERN


def batch(model, size=2, length=16, seed=1):
    random = torch.Generator().manual_seed(seed)
    return torch.randint(model.config.vocab_size, (size, length), generator=random)


def test_modern_demo_has_the_parameters_that_its_shape_says():
    with torch.device("meta"):
        model = GPT(GPTConfig(layers=4, heads=4, width=192, context=256, vocab_size=4096, **MODERN))
    block = 4 * 192 * 192 + 3 * 192 * 512 + 2 * 192
    assert model.parameter_count() == 2 * 4096 * 192 + 4 * block + 192


def test_shared_heads_of_keys_and_values_have_so_many_weights_less():
    with torch.device("meta"):
        counts = [GPT(GPTConfig(vocab_size=64, kv_heads=heads)).parameter_count() for heads in (0, 4, 2, 1)]
    assert counts[0] == counts[1]
    assert counts[1] - counts[2] == 4 * 192 * 2 * 2 * 48
    assert counts[2] - counts[3] == 4 * 192 * 2 * 1 * 48


def test_logits_have_one_row_a_token_and_one_column_an_id(model):
    assert model(batch(model)).shape == (2, 16, model.config.vocab_size)


def test_a_token_never_sees_what_comes_after_it(model):
    model.double()
    ids = batch(model)
    changed = ids.clone()
    changed[:, 10:] = (changed[:, 10:] + 1) % model.config.vocab_size
    before, after = model(ids), model(changed)
    torch.testing.assert_close(before[:, :10], after[:, :10], rtol=0, atol=1e-12)
    assert not torch.allclose(before[:, 10:], after[:, 10:])


def test_a_token_sees_all_that_comes_before_it(model):
    ids = batch(model)
    changed = ids.clone()
    changed[:, 0] = (changed[:, 0] + 1) % model.config.vocab_size
    assert (model(ids)[:, -1] != model(changed)[:, -1]).any()


def test_each_place_has_a_learned_position_of_its_own():
    model = GPT(GPTConfig(layers=1, width=32, context=16, vocab_size=50, **GPT2)).double()
    ids = batch(model)
    before = model(ids)
    with torch.no_grad():
        model.positions.weight[9] += torch.randn(32)
    differs = (model(ids) - before).abs().amax(dim=(0, 2)) > 1e-9
    assert differs.tolist() == [False] * 9 + [True] * 7


def test_first_loss_is_that_of_a_uniform_guess(model):
    ids = batch(model, size=64)
    assert model.loss(ids, ids.roll(1)).item() / ids.numel() == pytest.approx(
        math.log(model.config.vocab_size), abs=0.05
    )


def test_initial_weights_follow_the_table(shape):
    torch.manual_seed(0)
    model = GPT(shape.model_copy(update={"width": 256, "layers": 8, "context": 64}))
    for name, weight in model.named_parameters():
        if name.endswith("bias"):
            assert (weight == 0).all()
        elif "norm" in name:
            assert (weight == 1).all()
        else:
            drawn = weight[: model.config.vocab_size] if name in ("embedding.weight", "head.weight") else weight
            expected = {"out.weight": 0.02 / math.sqrt(16), "positions.weight": 0.01}
            std = next((value for end, value in expected.items() if name.endswith(end)), 0.02)
            assert drawn.std().item() == pytest.approx(std, rel=0.05), name
    assert (model.head.weight[model.config.vocab_size :] == 0).all()
    assert (model.embedding.weight[model.config.vocab_size :] == 0).all()


def test_rows_beyond_the_vocabulary_are_never_scored_nor_returned(model):
    ids = batch(model)
    logits, loss = model(ids), model.loss(ids, ids.roll(-1))
    assert model.embedding.weight.shape[0] == 320 > model.config.vocab_size
    with torch.no_grad():
        model.embedding.weight[model.config.vocab_size :] = 1e3
        model.head.weight[model.config.vocab_size :] = 1e3
    assert model(ids).equal(logits)
    assert model.loss(ids, ids.roll(-1)).equal(loss)


@pytest.mark.parametrize("chunk", [0, 7])
def test_the_loss_is_the_cross_entropy_of_the_logits(model, chunk):
    model.double()
    ids = batch(model)
    targets = ids.roll(-1)
    targets[0, :5] = IGNORED
    expected = sum(
        functional.cross_entropy(model(ids)[row, place], targets[row, place])
        for row in range(2)
        for place in range(16)
        if targets[row, place] != IGNORED
    )
    wanted = torch.autograd.grad(expected, list(model.parameters()))
    loss = model.loss(ids, targets, chunk=chunk)
    torch.testing.assert_close(loss.double(), expected, rtol=1e-6, atol=0)
    torch.testing.assert_close(torch.autograd.grad(loss, list(model.parameters())), wanted, rtol=1e-5, atol=1e-6)


def test_one_batch_can_be_learned_by_heart(model):
    ids = batch(model)
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-2, weight_decay=0)
    for _ in range(150):
        optimizer.zero_grad()
        loss = model.loss(ids[:, :-1], ids[:, 1:]) / ids[:, 1:].numel()
        loss.backward()
        optimizer.step()
    assert loss.item() < 0.05


def test_flops_are_those_that_a_step_is_counted_to_take():
    model = GPT(GPTConfig(layers=2, width=64, context=32, vocab_size=128, **GPT2), backend="math")
    ids = batch(model, size=3, length=32)
    with FlopCounterMode(display=False) as counter:
        model.loss(ids, ids).backward()
    assert counter.get_total_flops() == model.flops_per_token() * ids.numel()


def test_flops_of_attention_follow_the_keys_that_a_pattern_shows():
    def attention(pattern, **values):
        with torch.device("meta"):
            model = GPT(GPTConfig(layers=1, context=256, vocab_size=64, attention=(pattern,), **values))
        weights = sum(weight.numel() for weight in model.blocks.parameters() if weight.ndim == 2) + 64 * 192
        return (model.flops_per_token() - 6 * weights) / (12 * 192)

    assert attention("full") == 256
    assert attention("local", window=40) == 40
    assert attention("local", window=1000) == 256
    assert attention("strided", stride=32) == 32 + 7
    assert attention("fixed", stride=32, summary=3) == 32 + 7 * 3


def test_more_tokens_than_the_context_are_refused(model):
    with pytest.raises(AssertionError, match="17 tokens do not fit a context of 16"):
        model(batch(model, length=17))


def test_impossible_shapes_are_refused():
    with pytest.raises(ValidationError, match="cannot be divided among 5 heads"):
        Architecture(heads=5)
    with pytest.raises(ValidationError, match="even width per head"):
        Architecture(heads=64)
    with pytest.raises(ValidationError, match="4 heads cannot share 3 kv_heads"):
        Architecture(kv_heads=3)
    with pytest.raises(ValidationError, match="summary 9 is longer than the blocks of 8"):
        Architecture(attention=("fixed",), stride=8, summary=9)
    with pytest.raises(ValidationError, match="Extra inputs"):
        PretrainConfig(learning_rate=1)


def test_patterns_repeat_over_the_layers():
    assert Architecture(layers=5, attention=("full", "local")).pattern_of_layer == (
        "full", "local", "full", "local", "full",
    )  # fmt: skip


def test_execution_fields_are_no_part_of_what_a_training_is():
    assert PretrainConfig(threads=7, compile="no", device="cpu").identity() == PretrainConfig().identity()
    assert PretrainConfig(lr=1e-3).identity() != PretrainConfig().identity()


def test_another_precision_is_another_training():
    assert len({str(PretrainConfig(dtype=dtype).identity()) for dtype in ("auto", "float32", "bfloat16")}) == 3
