import math

import pytest
import torch
from pydantic import ValidationError

from model.config import GPT2, MODERN, GPTConfig, PretrainConfig
from model.gpt import GPT, IGNORED
from model.layers import rotary_table, rotate


def batch(model, size=2, length=16, seed=1):
    random = torch.Generator().manual_seed(seed)
    return torch.randint(model.config.vocab_size, (size, length), generator=random)


def test_gpt2_small_has_its_published_number_of_parameters():
    config = GPTConfig(layers=12, heads=12, width=768, context=1024, vocab_size=50_257, **GPT2)
    with torch.device("meta"):
        assert GPT(config).parameter_count() == 124_439_808


def test_modern_demo_has_the_parameters_that_its_shape_says():
    with torch.device("meta"):
        model = GPT(GPTConfig(layers=4, heads=4, width=192, context=256, vocab_size=4096, **MODERN))
    block = 4 * 192 * 192 + 3 * 192 * 512 + 2 * 192
    assert model.parameter_count() == 2 * 4096 * 192 + 4 * block + 192


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


def test_first_loss_is_that_of_a_uniform_guess(model):
    ids = batch(model, size=64)
    assert model.loss(ids, ids.roll(1)).item() / ids.numel() == pytest.approx(
        math.log(model.config.vocab_size), abs=0.05
    )


def test_initial_weights_follow_the_table(shape):
    torch.manual_seed(0)
    model = GPT(shape.model_copy(update={"width": 256, "layers": 8}))
    for name, weight in model.named_parameters():
        if name.endswith("bias"):
            assert (weight == 0).all()
        elif "norm" in name:
            assert (weight == 1).all()
        else:
            expected = 0.02 / math.sqrt(16) if name.endswith("out.weight") else 0.02
            assert weight.std().item() == pytest.approx(expected, rel=0.05), name


def test_loss_in_chunks_equals_the_whole_in_value_and_gradient(model):
    model.double()
    ids = batch(model)
    targets = ids.roll(-1)
    targets[0, :5] = IGNORED
    gradients = []
    for chunk in (0, 7):
        model.zero_grad()
        loss = model.loss(ids, targets, chunk)
        loss.backward()
        gradients.append([loss.detach(), *(weight.grad.clone() for weight in model.parameters())])
    torch.testing.assert_close(gradients[0], gradients[1], rtol=1e-5, atol=1e-6)


def test_one_batch_can_be_learned_by_heart(model):
    ids = batch(model)
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-2, weight_decay=0)
    for _ in range(150):
        optimizer.zero_grad()
        loss = model.loss(ids[:, :-1], ids[:, 1:]) / ids[:, 1:].numel()
        loss.backward()
        optimizer.step()
    assert loss.item() < 0.05


def test_rotation_keeps_lengths_and_makes_products_depend_on_distance_alone():
    config = GPTConfig(layers=1, heads=1, width=8, context=64, vocab_size=2)
    cosine, sine = rotary_table(config)
    query, key = torch.randn(2, 8, generator=torch.Generator().manual_seed(0))
    turned = [rotate(x.expand(1, 1, 64, 8), (cosine, sine))[0, 0] for x in (query, key)]
    torch.testing.assert_close(turned[0].norm(dim=-1), query.norm().expand(64))
    products = turned[0] @ turned[1].T
    torch.testing.assert_close(products[5, 2], products[43, 40])


def test_impossible_shapes_are_refused():
    with pytest.raises(ValidationError, match="cannot be divided among 5 heads"):
        PretrainConfig(heads=5)
    with pytest.raises(ValidationError, match="even width per head"):
        PretrainConfig(heads=64)
    with pytest.raises(ValidationError, match="cannot be cut"):
        PretrainConfig(micro_batches=3)
    with pytest.raises(ValidationError, match="Extra inputs"):
        PretrainConfig(learning_rate=1)


def test_execution_fields_are_no_part_of_what_a_training_is():
    assert PretrainConfig(threads=7, compile="no", dtype="float32").identity() == PretrainConfig().identity()
    assert PretrainConfig(lr=1e-3).identity() != PretrainConfig().identity()
