"""Folders of Hugging Face's: what is read and written, and what is refused with which sentence."""

import json
import pickle
import shutil

import pytest
import torch
from safetensors.torch import load_file, save_file
from transformers import AutoModelForCausalLM, GPT2Config, GPT2LMHeadModel, GPT2Model

from model.config import GPTConfig, TrainingError
from model.gpt import GPT
from model.huggingface.shapes import family_of, from_theirs, to_theirs
from model.huggingface.weights import load, save
from model.presets import GPT2, MODERN, PRESETS

SMALL = {"layers": 2, "heads": 2, "width": 16, "context": 12, "vocab_size": 61}
NEO = {**GPT2, "attention": ("full", "local"), "scaled_attention": False, "qkv_bias": False}


def model_of(**values):
    torch.manual_seed(0)
    return GPT(GPTConfig(**{**SMALL, **values})).eval()


def weights_of(model):
    return {name: weight.detach() for name, weight in model.named_parameters()}


@pytest.fixture
def exported(tmp_path):
    """A model of GPT-2's shape, exported."""
    save(model_of(**GPT2), tmp_path)
    return tmp_path


def edit(folder, **fields):
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps({**config, **fields}))


@pytest.mark.parametrize("values", [GPT2, NEO, MODERN, {**MODERN, "kv_heads": 1, "tied": True}])
def test_a_model_comes_back_from_its_export_with_the_same_weights(values, tmp_path):
    model = model_of(**values)
    save(model, tmp_path)
    again = load(tmp_path)
    assert weights_of(again).keys() == weights_of(model).keys()
    for name, weight in weights_of(model).items():
        assert torch.equal(weights_of(again)[name], weight), name


def test_ids_beyond_the_vocabulary_are_left_out_and_come_back_as_zeros(exported):
    assert load_file(exported / "model.safetensors")["transformer.wte.weight"].shape == (61, 16)
    assert (load(exported).embedding.weight[61:] == 0).all()


@pytest.mark.parametrize("values", [{**GPT2, "bias": False}, {**MODERN, "qkv_bias": True}])
def test_biases_that_one_side_lacks_are_zero_on_the_other(values, tmp_path):
    """GPT-2 has biases everywhere, and Llama, where queries have one, in the rest of attention too."""
    model = model_of(**values)
    with torch.no_grad():
        for name, weight in model.named_parameters():
            if name.endswith("bias"):
                weight.normal_()
    save(model, tmp_path)
    ids = torch.arange(12)[None]
    with torch.no_grad():
        logits = model(ids)
        torch.testing.assert_close(
            AutoModelForCausalLM.from_pretrained(tmp_path)(ids).logits, logits, rtol=0, atol=1e-6
        )
        torch.testing.assert_close(load(tmp_path)(ids), logits, rtol=0, atol=1e-6)


def test_weights_in_several_files_are_read(exported):
    weights = load_file(exported / "model.safetensors")
    (exported / "model.safetensors").unlink()
    names = {name: f"model-{place % 2 + 1:05d}-of-00002.safetensors" for place, name in enumerate(weights)}
    for file in set(names.values()):
        save_file({name: weights[name] for name in weights if names[name] == file}, exported / file)
    (exported / "model.safetensors.index.json").write_text(json.dumps({"weight_map": names}))
    assert torch.equal(load(exported).norm.weight, weights["transformer.ln_f.weight"])


def test_a_model_saved_without_its_head_and_prefix_is_read(tmp_path):
    """As the hub's own GPT-2 was: base names, with the masks of old versions among the weights."""
    theirs = GPT2Model(GPT2Config(vocab_size=61, n_positions=12, n_embd=16, n_layer=2, n_head=2))
    theirs.save_pretrained(tmp_path)
    weights = load_file(tmp_path / "model.safetensors")
    weights |= {f"h.{block}.attn.bias": torch.ones(1, 1, 12, 12).tril() for block in range(2)}
    save_file(weights, tmp_path / "model.safetensors")
    assert "wte.weight" in weights
    assert torch.equal(load(tmp_path).embedding.weight[:61], theirs.wte.weight)


def test_half_precision_is_read_as_float32(tmp_path):
    theirs = GPT2LMHeadModel(GPT2Config(vocab_size=61, n_positions=12, n_embd=16, n_layer=2, n_head=2)).bfloat16()
    theirs.save_pretrained(tmp_path)
    assert torch.equal(load(tmp_path).embedding.weight[:61], theirs.transformer.wte.weight.float())


def test_pickled_weights_are_never_opened(exported):
    class Bomb:
        def __reduce__(self):
            return (shutil.rmtree, (str(exported),))

    (exported / "model.safetensors").unlink()
    (exported / "pytorch_model.bin").write_bytes(pickle.dumps(Bomb()))
    with pytest.raises(TrainingError, match=r"only pytorch_model\.bin, a pickle"):
        load(exported)
    assert exported.is_dir()


def test_an_index_cannot_name_a_file_elsewhere(exported, tmp_path_factory):
    elsewhere = tmp_path_factory.mktemp("elsewhere") / "model.safetensors"
    shutil.move(exported / "model.safetensors", elsewhere)
    index = {"weight_map": {"transformer.wte.weight": str(elsewhere)}}
    (exported / "model.safetensors.index.json").write_text(json.dumps(index))
    with pytest.raises(TrainingError, match="no safetensors file beside it"):
        load(exported)


@pytest.mark.parametrize(
    ("fields", "sentence"),
    [
        ({"model_type": "mistral"}, "model_type is 'mistral', and only gpt2, gpt_neo, llama are known"),
        ({"scale_attn_by_inverse_layer_idx": True}, "scale_attn_by_inverse_layer_idx = true is nothing"),
        ({"add_cross_attention": True}, "add_cross_attention = true is nothing"),
        ({"activation_function": "relu"}, 'activation_function = "relu" is nothing'),
        ({"quantization_config": {"bits": 4}}, "quantization_config = "),
        ({"n_embd": None}, "n_embd is missing"),
        ({"n_head": 3}, "cannot be divided among 3 heads"),
        ({"n_layer": 0}, "n_layer cannot be used"),
        ({"n_layer": "two"}, "n_layer cannot be used"),
        ({"n_layer": 3}, r"h\.2\.ln_1\.weight is missing"),
        ({"n_layer": 1}, r"no place in our GPT for transformer\.h\.1\."),
        ({"vocab_size": 60}, r"wte\.weight has the shape \(61, 16\)"),
        ({"tie_word_embeddings": False}, r"lm_head\.weight is missing"),
    ],
)
def test_what_ours_cannot_do_is_refused_by_name(exported, fields, sentence):
    edit(exported, **fields)
    with pytest.raises(TrainingError, match=sentence):
        load(exported)


@pytest.mark.parametrize(
    ("fields", "sentence"),
    [
        ({"rope_parameters": {"rope_type": "llama3", "rope_theta": 1e4, "factor": 8.0}}, "rope_parameters = "),
        ({"rope_scaling": {"type": "linear", "factor": 2.0}}, "rope_scaling = "),
        ({"rope_parameters": {"rope_type": "default", "partial_rotary_factor": 0.5}}, "rope_parameters = "),
        ({"head_dim": 4}, "head_dim = 4 is nothing"),
        ({"hidden_act": "gelu"}, 'hidden_act = "gelu" is nothing'),
        ({"num_attention_heads": 0}, "num_attention_heads cannot be used"),
        ({"rope_parameters": "yarn"}, "rope_parameters cannot be used"),
        ({"rope_scaling": ["linear"]}, "rope_scaling cannot be used"),
        ({"attention_bias": "no"}, "attention_bias cannot be used"),
        ({"attention_dropout": "none"}, "attention_dropout cannot be used"),
    ],
)
def test_what_is_no_plain_llama_is_refused_by_name(tmp_path, fields, sentence):
    save(model_of(**MODERN), tmp_path)
    edit(tmp_path, **fields)
    with pytest.raises(TrainingError, match=sentence):
        load(tmp_path)


@pytest.mark.parametrize(
    ("types", "sentence"),
    [
        ([[["global", "local"], 12]], "does not fit 2 layers"),
        ("x", "attention_types cannot be used"),
        ([["global", 2]], "attention_types cannot be used"),
        ([[["global"], "twice"]], "attention_types cannot be used"),
    ],
    ids=str,
)
def test_attention_types_must_cover_the_layers(tmp_path, types, sentence):
    save(model_of(**NEO), tmp_path)
    edit(tmp_path, attention_types=types)
    with pytest.raises(TrainingError, match=sentence):
        load(tmp_path)


def test_a_head_that_is_said_to_be_tied_and_is_not_is_refused(exported):
    weights = load_file(exported / "model.safetensors")
    head = weights["transformer.wte.weight"].clone()
    save_file({**weights, "lm_head.weight": head}, exported / "model.safetensors")
    load(exported)
    save_file({**weights, "lm_head.weight": head + 1}, exported / "model.safetensors")
    with pytest.raises(TrainingError, match=r"no place in our GPT for lm_head\.weight"):
        load(exported)


@pytest.mark.parametrize("file", ["config.json", "model.safetensors"])
def test_a_missing_or_broken_file_is_named(exported, file):
    (exported / file).write_bytes(b"{")
    with pytest.raises(TrainingError, match=file):
        load(exported)
    (exported / file).unlink()
    with pytest.raises(TrainingError, match="cannot be read" if file == "config.json" else "holds no weights"):
        load(exported)


@pytest.mark.parametrize(
    ("values", "field"),
    [
        ({**MODERN, "norm": "layernorm"}, "norm"),
        ({**MODERN, "positions": "learned"}, "norm"),
        ({**MODERN, "mlp": "gelu"}, "mlp"),
        ({**MODERN, "attention": ("full", "local")}, "attention"),
        ({**MODERN, "scaled_attention": False}, "scaled_attention"),
        ({**GPT2, "kv_heads": 1}, "kv_heads"),
        ({**GPT2, "attention": ("strided",)}, "attention"),
        ({**NEO, "scaled_attention": True}, "scaled_attention"),
        ({**NEO, "qkv_bias": None}, "qkv_bias"),
    ],
)
def test_a_shape_that_no_architecture_has_is_refused_by_field(values, field, tmp_path):
    with pytest.raises(TrainingError, match=f"No Hugging Face architecture has this shape: {field} is "):
        save(model_of(**values), tmp_path)
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("preset", [name for name in PRESETS if name != "gpt3-125m"])
def test_every_preset_but_one_has_an_architecture_and_its_shape_comes_back(preset):
    """gpt3-125m has bands and biased queries; GPT-Neo, which alone has bands, cannot bias queries."""
    fields = {name: value for name, value in PRESETS[preset].items() if name in GPTConfig.model_fields}
    config = GPTConfig(vocab_size=50_257, **fields)
    _, again = from_theirs(to_theirs(config, mlp_width=96))
    for name in ("layers", "heads", "width", "context", "positions", "rotary_base", "norm", "mlp", "tied", "window"):
        assert getattr(again, name) == getattr(config, name), name
    assert again.pattern_of_layer == config.pattern_of_layer
    assert (again.kv_heads or again.heads) == (config.kv_heads or config.heads)


def test_gpt3s_bands_with_biased_queries_have_none():
    fields = {name: value for name, value in PRESETS["gpt3-125m"].items() if name in GPTConfig.model_fields}
    with pytest.raises(TrainingError, match="scaled_attention is true"):
        family_of(GPTConfig(vocab_size=50_257, **fields))


def test_dropout_goes_out_and_comes_back(tmp_path):
    save(model_of(**GPT2, dropout=0.1), tmp_path)
    assert load(tmp_path).config.dropout == 0.1
