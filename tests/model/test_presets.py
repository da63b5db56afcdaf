from typing import get_args

import pytest
import torch
from pydantic import ValidationError

from model.config import Architecture, GPTConfig, PretrainConfig
from model.gpt import GPT
from model.presets import MODERN, PRESETS


def model_of(vocab_size=50_257, **values):
    with torch.device("meta"):
        return GPT(PretrainConfig(**values).gpt(vocab_size))


@pytest.mark.parametrize(
    ("preset", "published"),
    [
        ("gpt2-124m", 124_439_808),
        ("gpt2-355m", 354_823_168),
        ("gpt2-774m", 774_030_080),
        ("gpt2-1558m", 1_557_611_200),
        ("gpt-neo-125m", 125_198_592),
    ],
)
def test_a_published_shape_has_its_published_number_of_parameters(preset, published):
    """The figures are those of the checkpoints on Hugging Face."""
    assert model_of(preset=preset).parameter_count() == published


@pytest.mark.parametrize(("preset", "millions"), [("gpt3-125m", 125), ("llama-124m", 113), ("char-cpu", 0.8)])
def test_other_shapes_are_of_the_size_that_their_source_says(preset, millions):
    vocab = 65 if preset == "char-cpu" else 50_257
    assert model_of(vocab, preset=preset).parameter_count() / 1e6 == pytest.approx(millions, rel=0.02)


def test_the_field_names_every_preset_and_no_other():
    assert set(get_args(PretrainConfig.model_fields["preset"].annotation)) == {"", *PRESETS}


@pytest.mark.parametrize("name", PRESETS)
def test_a_preset_is_a_training_whose_every_value_stands(name):
    config = PretrainConfig(preset=name)
    assert {key: config.model_dump(mode="json")[key] for key in PRESETS[name]} == PRESETS[name]


@pytest.mark.parametrize("name", PRESETS)
def test_a_token_goes_through_every_preset(name):
    shape = PretrainConfig(preset=name).gpt(64).model_copy(update={"width": 64, "heads": 4, "kv_heads": 2, "layers": 2})
    assert GPT(shape)(torch.arange(20)[None]).isfinite().all()


def test_a_preset_is_no_part_of_what_a_training_is_but_its_values_are():
    by_name, by_hand = PretrainConfig(preset="gpt2-355m"), PretrainConfig(**PRESETS["gpt2-355m"])
    assert by_name.identity() == by_hand.identity() != PretrainConfig().identity()


def test_what_is_given_stands_over_the_preset():
    config = PretrainConfig(preset="gpt2-124m", layers=2)
    assert (config.layers, config.width, config.mlp) == (2, 768, "gelu")


def test_a_preset_and_a_depth_are_refused_together():
    with pytest.raises(ValidationError, match='preset "gpt2-124m" and depth 3 are two models: give one of them'):
        PretrainConfig(preset="gpt2-124m", depth=3)


@pytest.mark.parametrize(
    ("changes", "windows"),
    [
        ({}, 16),
        ({"batch_tokens": 8 * 1024}, 8),
        ({"batch_tokens": 17 * 1024}, 1),
        ({"processes": 64}, 8),
        ({"batch_tokens": 48 * 1024, "processes": 2}, 12),
        ({"context": 32_768, "batch_tokens": 65_536}, 1),
        ({"micro_batch_tokens": 0}, 512),
    ],
    ids=str,
)
def test_a_micro_batch_is_the_largest_that_fits_and_divides_a_processs_share(changes, windows):
    assert PretrainConfig(preset="gpt2-124m", **changes).micro_batch_size == windows


def test_a_given_budget_replaces_the_presets_whole_budget():
    assert PretrainConfig(preset="char-cpu").step_budget == 2000
    assert PretrainConfig(preset="char-cpu", tokens=7680).step_budget == 10


def test_the_demos_preset_is_the_default_shape():
    assert PretrainConfig(preset="tiny-cpu") == PretrainConfig().model_copy(update={"preset": "tiny-cpu"})


@pytest.mark.parametrize("depth", [1, 4, 12, 20])
def test_a_depth_gives_a_whole_training(depth):
    config = PretrainConfig(depth=depth)
    assert (config.layers, config.heads, config.width, config.head_width) == (depth, depth, 64 * depth, 64)
    assert config.context == (1024 if depth >= 8 else 256)
    assert 500 < config.step_budget < 20_000


@pytest.mark.parametrize(
    "changes",
    [{}, {"width": 128}, {"mlp_width": 100}, {"mlp": "gelu"}, {"heads": 2, "kv_heads": 1}, {"layers": 2}],
    ids=str,
)
def test_a_depths_tokens_are_20_for_each_weight_of_the_blocks_as_they_are(changes):
    model = model_of(depth=4, **changes)
    matrices = sum(weight.numel() for weight in model.blocks.parameters() if weight.ndim == 2)
    assert PretrainConfig(depth=4, **changes).tokens == 20 * matrices


def test_the_learning_rate_of_a_depth_follows_the_width_that_is_given():
    assert PretrainConfig(depth=12, width=192).lr == PretrainConfig(depth=3).lr


def test_batches_grow_with_the_horizon_by_powers_of_two():
    batches = [PretrainConfig(depth=4, tokens=tokens).batch_tokens for tokens in (10**6, 10**8, 10**10)]
    assert batches == [2**13, 2**15, 2**17]
    assert PretrainConfig(depth=4, context=100).batch_tokens == 256 * 100


def test_what_is_wrong_beside_a_depth_is_said_as_it_is_without_one():
    with pytest.raises(ValidationError, match="width\n  Input should be a valid integer"):
        PretrainConfig(depth=4, width="wide")


def test_deeper_models_learn_slower():
    assert PretrainConfig(depth=12).lr == pytest.approx(PretrainConfig(depth=3).lr / 2)


def test_a_depth_leaves_what_is_given():
    config = PretrainConfig(depth=4, width=128, steps=10)
    assert (config.layers, config.width, config.tokens, config.step_budget) == (4, 128, None, 10)


def test_unknown_presets_are_refused():
    with pytest.raises(ValidationError, match="gpt2-124m"):
        PretrainConfig(preset="gpt5")


def test_presets_hold_fields_of_a_training_alone():
    assert {key for values in PRESETS.values() for key in values} <= set(PretrainConfig.model_fields)
    assert set(MODERN) <= set(Architecture.model_fields) < set(GPTConfig.model_fields)
