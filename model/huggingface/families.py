"""Three architectures of Hugging Face's that are GPTs of ours, and what each part and field of ours is called there.

    GPT2LMHeadModel      learned positions, LayerNorm, GELU, full attention
    GPTNeoForCausalLM    the same with local attention; products are not scaled, queries, keys and values not biased
    LlamaForCausalLM     rotary positions, RMSNorm, SwiGLU, grouped queries

The names and defaults are those of the configuration and modeling files of transformers 5.23.
"""

from dataclasses import dataclass
from typing import Any

MLPS = {"gelu_new": "gelu", "gelu_pytorch_tanh": "gelu", "gelu": "gelu_erf"}
"""Their names of GELU, in its tanh form and as defined by the error function."""

ACTIVATIONS = {"gelu": "gelu_new", "gelu_erf": "gelu"}

ROPE_THETA = 10_000.0
"""The base of rotary positions where a config states none."""


@dataclass(frozen=True)
class Family:
    """An architecture of Hugging Face's, and what each part and field of ours is called there."""

    model_type: str
    architecture: str
    base: str
    """Name of the module that holds all but the head."""
    modules: dict[str, tuple[str, ...]]
    """Their modules for each of ours, rows one after another; those of block N stand as `blocks.N` and `N`."""
    transposed: bool
    """Whether matrices of blocks are stored as (inputs, outputs)."""
    fields: dict[str, str]
    """Their name of each of our fields that only differs by name."""
    dropouts: tuple[str, ...]
    defaults: dict[str, Any]
    """What their class takes where a config.json is silent."""
    needs: dict[str, tuple[Any, ...]]
    """Values that a field of ours must have for this architecture to be able to say it."""
    refuses: dict[str, tuple[Any, ...]]
    """Fields of theirs that ours has no word for, and the values at which they mean nothing."""


GPT2 = Family(
    model_type="gpt2",
    architecture="GPT2LMHeadModel",
    base="transformer",
    modules={
        "embedding": ("wte",),
        "positions": ("wpe",),
        "blocks.N.attention_norm": ("h.N.ln_1",),
        "blocks.N.attention.qkv": ("h.N.attn.c_attn",),
        "blocks.N.attention.out": ("h.N.attn.c_proj",),
        "blocks.N.mlp_norm": ("h.N.ln_2",),
        "blocks.N.mlp.up": ("h.N.mlp.c_fc",),
        "blocks.N.mlp.out": ("h.N.mlp.c_proj",),
        "norm": ("ln_f",),
    },
    transposed=True,
    fields={
        "vocab_size": "vocab_size",
        "context": "n_positions",
        "width": "n_embd",
        "layers": "n_layer",
        "heads": "n_head",
        "mlp_width": "n_inner",
        "norm_eps": "layer_norm_epsilon",
        "scaled_attention": "scale_attn_weights",
        "tied": "tie_word_embeddings",
    },
    dropouts=("embd_pdrop", "attn_pdrop", "resid_pdrop"),
    defaults={
        "n_inner": 0,
        "layer_norm_epsilon": 1e-5,
        "scale_attn_weights": True,
        "tie_word_embeddings": True,
        "activation_function": "gelu_new",
        "embd_pdrop": 0.1,
        "attn_pdrop": 0.1,
        "resid_pdrop": 0.1,
    },
    needs={"positions": ("learned",), "norm": ("layernorm",), "mlp": ("gelu", "gelu_erf"), "attention": ("full",)},
    refuses={"scale_attn_by_inverse_layer_idx": (False,), "add_cross_attention": (False,)},
)

GPT_NEO = Family(
    model_type="gpt_neo",
    architecture="GPTNeoForCausalLM",
    base="transformer",
    modules={
        **GPT2.modules,
        "blocks.N.attention.qkv": tuple(f"h.N.attn.attention.{part}_proj" for part in "qkv"),
        "blocks.N.attention.out": ("h.N.attn.attention.out_proj",),
    },
    transposed=False,
    fields={
        "vocab_size": "vocab_size",
        "context": "max_position_embeddings",
        "width": "hidden_size",
        "layers": "num_layers",
        "heads": "num_heads",
        "mlp_width": "intermediate_size",
        "norm_eps": "layer_norm_epsilon",
        "window": "window_size",
        "tied": "tie_word_embeddings",
    },
    dropouts=("embed_dropout", "attention_dropout", "resid_dropout"),
    defaults={
        "intermediate_size": 0,
        "layer_norm_epsilon": 1e-5,
        "window_size": 256,
        "tie_word_embeddings": True,
        "activation_function": "gelu_new",
        "attention_types": [[["global", "local"], 12]],
    },
    needs={
        **GPT2.needs,
        "attention": ("full", "local", "banded"),
        "scaled_attention": (False,),
        "qkv_bias": (False,),
    },
    refuses={},
)

LLAMA = Family(
    model_type="llama",
    architecture="LlamaForCausalLM",
    base="model",
    modules={
        "embedding": ("embed_tokens",),
        "blocks.N.attention_norm": ("layers.N.input_layernorm",),
        "blocks.N.attention.qkv": tuple(f"layers.N.self_attn.{part}_proj" for part in "qkv"),
        "blocks.N.attention.out": ("layers.N.self_attn.o_proj",),
        "blocks.N.mlp_norm": ("layers.N.post_attention_layernorm",),
        "blocks.N.mlp.gate": ("layers.N.mlp.gate_proj",),
        "blocks.N.mlp.up": ("layers.N.mlp.up_proj",),
        "blocks.N.mlp.out": ("layers.N.mlp.down_proj",),
        "norm": ("norm",),
    },
    transposed=False,
    fields={
        "vocab_size": "vocab_size",
        "context": "max_position_embeddings",
        "width": "hidden_size",
        "layers": "num_hidden_layers",
        "heads": "num_attention_heads",
        "kv_heads": "num_key_value_heads",
        "mlp_width": "intermediate_size",
        "norm_eps": "rms_norm_eps",
        "tied": "tie_word_embeddings",
    },
    dropouts=("attention_dropout",),
    defaults={
        "num_key_value_heads": 0,
        "rms_norm_eps": 1e-6,
        "tie_word_embeddings": False,
        "attention_bias": False,
        "mlp_bias": False,
    },
    needs={
        "positions": ("rotary",),
        "norm": ("rmsnorm",),
        "mlp": ("swiglu",),
        "attention": ("full",),
        "scaled_attention": (True,),
    },
    refuses={"hidden_act": ("silu",)},
)

FAMILIES = (GPT2, GPT_NEO, LLAMA)
