"""Hugging Face both ways: the same logits and gradients, from random weights five times their usual size.

At their usual size weights show nothing: the wrong GELU moves logits by 1.4e-5. All is computed in float64.
"""

import types

import pytest
import torch
from safetensors.torch import load_file
from torch.nn import functional
from transformers import (
    AutoModelForCausalLM,
    GPT2Config,
    GPT2LMHeadModel,
    GPTNeoConfig,
    GPTNeoForCausalLM,
    LlamaConfig,
    LlamaForCausalLM,
)
from transformers.models.gpt_neo import modeling_gpt_neo
from transformers.models.llama import modeling_llama

from model.config import GPTConfig
from model.gpt import GPT
from model.huggingface.weights import load, save
from model.presets import GPT2, MODERN

VOCAB = 61  # no multiple of 64: rows are padded on our side
SMALL = {"layers": 3, "heads": 4, "width": 32, "context": 40, "vocab_size": VOCAB}
NEO = {**GPT2, "attention": ("full", "local"), "window": 6, "scaled_attention": False, "qkv_bias": False}

OURS = {
    "gpt2": GPT2,
    "gpt2 untied": {**GPT2, "tied": False},
    "gpt2 with GELU by the error function": {**GPT2, "mlp": "gelu_erf"},
    "gpt2 with another hidden size and epsilon": {**GPT2, "mlp_width": 56, "norm_eps": 1e-2},
    "gpt2 without scaling": {**GPT2, "scaled_attention": False},
    "gpt-neo": NEO,
    "gpt-neo untied, banded alone": {**NEO, "tied": False, "attention": ("banded",)},
    "gpt-neo with GELU by the error function": {**NEO, "mlp": "gelu_erf"},
    "llama": MODERN,
    "llama tied": {**MODERN, "tied": True},
    "llama with grouped queries": {**MODERN, "kv_heads": 2},
    "llama with one head of keys": {**MODERN, "kv_heads": 1, "rotary_base": 500.0, "norm_eps": 1e-2},
    "llama with biases": {**MODERN, "bias": True, "mlp_width": 72},
}

DIMENSIONS = {"n_positions": 40, "n_embd": 32, "n_layer": 3, "n_head": 4}
SIZES = {"hidden_size": 32, "max_position_embeddings": 40, "vocab_size": VOCAB}
LLAMA_SIZES = {**SIZES, "num_hidden_layers": 3, "num_attention_heads": 4, "intermediate_size": 48}
NEO_SIZES = {**SIZES, "num_layers": 3, "num_heads": 4, "window_size": 6}

THEIRS = {
    "gpt2": (GPT2LMHeadModel, GPT2Config(vocab_size=VOCAB, **DIMENSIONS)),
    "gpt2 untied": (GPT2LMHeadModel, GPT2Config(vocab_size=VOCAB, tie_word_embeddings=False, **DIMENSIONS)),
    "gpt2 with other settings": (
        GPT2LMHeadModel,
        GPT2Config(vocab_size=64, n_inner=56, activation_function="gelu", layer_norm_epsilon=1e-2, **DIMENSIONS),
    ),
    "gpt-neo": (
        GPTNeoForCausalLM,
        GPTNeoConfig(attention_types=[[["global", "local"], 1], [["local"], 1]], **NEO_SIZES),
    ),
    "llama": (LlamaForCausalLM, LlamaConfig(num_key_value_heads=2, **LLAMA_SIZES)),
    "llama tied": (LlamaForCausalLM, LlamaConfig(tie_word_embeddings=True, **LLAMA_SIZES)),
    "llama with biases": (
        LlamaForCausalLM,
        LlamaConfig(
            attention_bias=True,
            mlp_bias=True,
            rms_norm_eps=1e-2,
            rope_parameters={"rope_type": "default", "rope_theta": 500.0},
            **LLAMA_SIZES,
        ),
    ),
}


class _Exact(types.ModuleType):
    """torch, but for one name: transformers casts scores and norms to float32 even in a float64 model."""

    float32 = torch.float64

    def __getattr__(self, name):
        return getattr(torch, name)


@pytest.fixture(autouse=True)
def _in_float64(monkeypatch):
    for module in (modeling_gpt_neo, modeling_llama):
        monkeypatch.setattr(module, "torch", _Exact("torch"))


@torch.no_grad()
def scaled(model):
    """The model in float64 without dropout, each matrix five times as large, each norm and bias at random too."""
    random = torch.Generator().manual_seed(0)
    for weight in model.parameters():
        noise = torch.randn(weight.shape, generator=random)
        weight.copy_(5 * weight if weight.ndim == 2 else weight + 0.2 * noise)
    return model.double().eval()


def ours_of(**values):
    torch.manual_seed(0)
    return scaled(GPT(GPTConfig(**{**SMALL, **values})))


def ids_of(length, size=2):
    return torch.randint(VOCAB, (size, length + 1), generator=torch.Generator().manual_seed(length))


def opened(folder):
    """The folder as AutoModelForCausalLM opens it, which must find every weight, and no other."""
    model, told = AutoModelForCausalLM.from_pretrained(folder, output_loading_info=True, dtype=torch.float64)
    assert not any(told.values()), told
    return model.eval()


def assert_equal(ours, theirs, folder):
    """Logits at several lengths, and the gradient of a loss in every parameter; ours are renamed by exporting them."""
    for length in (1, 7, 40):
        ids = ids_of(length)
        logits = ours(ids[:, :-1]), theirs(ids[:, :-1]).logits
        torch.testing.assert_close(*logits, rtol=0, atol=1e-9)
        assert logits[0].std() > 0.3
    for each in logits:
        functional.cross_entropy(each.flatten(0, 1), ids[:, 1:].flatten()).backward()
    with torch.no_grad():
        for weight in ours.parameters():
            weight.copy_(weight.grad)
    folder.mkdir()
    save(ours, folder)
    gradients = load_file(folder / "model.safetensors")
    expected = {name: weight.grad for name, weight in theirs.named_parameters()}
    assert gradients.keys() == expected.keys()
    for name, gradient in gradients.items():
        torch.testing.assert_close(gradient, expected[name], rtol=0, atol=1e-9, msg=name)
        assert gradient.abs().max() > 1e-6 or name.endswith("k_proj.bias")  # softmax cancels it


@pytest.mark.parametrize("values", OURS.values(), ids=OURS)
def test_an_exported_model_opens_with_the_same_logits_and_gradients(values, tmp_path):
    ours = ours_of(**values)
    save(ours, tmp_path)
    assert_equal(ours, opened(tmp_path), tmp_path / "gradients")


@pytest.mark.parametrize(("kind", "config"), THEIRS.values(), ids=THEIRS)
def test_a_loaded_model_has_the_same_logits_and_gradients(kind, config, tmp_path):
    torch.manual_seed(0)
    theirs = scaled(kind(config)).float()
    theirs.save_pretrained(tmp_path)
    ours = load(tmp_path).double().eval()
    assert_equal(ours, theirs.double(), tmp_path / "gradients")


def test_rotary_positions_are_theirs_at_long_contexts_too(tmp_path):
    """A frequency that is rounded otherwise turns the last of 2,048 tokens by another angle, though both are right."""
    ours = ours_of(**{**MODERN, "rotary_base": 500_000.0, "width": 128, "heads": 2, "context": 2048})
    save(ours, tmp_path)
    theirs = opened(tmp_path)
    ids = ids_of(2048, size=1)[:, :-1]
    with torch.no_grad():
        torch.testing.assert_close(ours(ids), theirs(ids).logits, rtol=0, atol=1e-9)
