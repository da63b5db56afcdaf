"""Published shapes of GPTs, and one dial from which a whole training follows; plain dictionaries of config fields."""

import math
from typing import Any

MODERN: dict[str, Any] = {"positions": "rotary", "norm": "rmsnorm", "mlp": "swiglu", "bias": False, "tied": False}
"""The shape of Llama (Touvron et al. 2023) with an untied head; the default."""

GPT2: dict[str, Any] = {"positions": "learned", "norm": "layernorm", "mlp": "gelu", "bias": True, "tied": True}
"""The shape of GPT-2 (Radford et al. 2019); train it with `optimizer = "adamw"`."""

ADAMW: dict[str, Any] = {"optimizer": "adamw", "lr": 6e-4, "final_lr": 0.1, "weight_decay": 0.1, "warmup": 0.04}
"""How GPT-3 125M was trained (Brown et al. 2020, table 2.1 and appendix B); a default for shapes of its kind."""


def _gpt2(layers: int, heads: int, width: int, lr: float) -> dict[str, Any]:
    shape = {"layers": layers, "heads": heads, "width": width, "context": 1024}
    return {**GPT2, **ADAMW, **shape, "lr": lr, "batch_tokens": 524_288, "micro_batch_tokens": 16_384}


PRESETS: dict[str, dict[str, Any]] = {
    # GPT-2 (Radford et al. 2019, table 2), with the learning rates of GPT-3's models of those sizes (table 2.1).
    "gpt2-124m": _gpt2(12, 12, 768, 6e-4),
    "gpt2-355m": _gpt2(24, 16, 1024, 3e-4),
    "gpt2-774m": _gpt2(36, 20, 1280, 2.5e-4),
    "gpt2-1558m": _gpt2(48, 25, 1600, 2e-4),
    # GPT-3 Small (Brown et al. 2020): dense and locally banded attention by turns; the paper does not state the band.
    "gpt3-125m": {**_gpt2(12, 12, 768, 6e-4), "context": 2048, "attention": ["full", "banded"], "window": 256},
    # GPT-Neo 125M (Black et al. 2021): its config.json; global and local attention by turns, products not scaled.
    "gpt-neo-125m": {
        **_gpt2(12, 12, 768, 6e-4),
        "context": 2048,
        "attention": ["full", "local"],
        "window": 256,
        "qkv_bias": False,
        "scaled_attention": False,
    },
    # The shape of Llama 3 (Grattafiori et al. 2024) at the size of GPT-2 124M.
    "llama-124m": {
        **MODERN, **ADAMW, "layers": 12, "heads": 12, "kv_heads": 4, "width": 768, "context": 1024, "tied": True,
        "rotary_base": 500_000.0, "batch_tokens": 524_288, "micro_batch_tokens": 16_384,
    },
    # nanoGPT's recipe for tinyshakespeare on a CPU (its README): 4 layers of 128, 64 characters, 12 windows a step. At
    # its learning rate of 1e-3 the loss comes to 1.89 or 1.90 (theirs, ours), at 2e-3 to 1.84, at 3e-3 to 1.79.
    "char-cpu": {
        **GPT2, "bias": False, "layers": 4, "heads": 4, "width": 128, "context": 64, "batch_tokens": 12 * 64,
        "optimizer": "adamw", "lr": 3e-3, "beta2": 0.99, "final_lr": 0.1, "warmup": 0.05, "steps": 2000,
    },
    # Minutes on two cores (reference figures in docs/log.md); the defaults of every field, by name.
    "tiny-cpu": {**MODERN, "layers": 4, "heads": 4, "width": 192, "context": 256},
}  # fmt: skip

WIDTH_PER_LAYER = 64
"""Width over depth, and the width of a head (nanochat's aspect ratio and head size)."""

DEEP = 8
"""Layers from which a model of a given depth has GPT-2's context of 1,024 tokens; below it has 256, as the default."""

TOKENS_PER_PARAMETER = 20
"""Tokens to train on for each weight outside the embeddings (Hoffmann et al. 2022, https://arxiv.org/abs/2203.15556)."""

REFERENCE_WIDTH, REFERENCE_LR = 192, 8e-3
"""The width at which AdamW's default learning rate was found; others scale with the root of the ratio."""

BUDGETS = ("tokens", "steps", "minutes")


def from_depth(depth: int) -> dict[str, Any]:
    """The shape that follows from a number of layers: 64 of width and one head a layer, and a context."""
    sizes = {"layers": depth, "heads": depth, "width": WIDTH_PER_LAYER * depth}
    return {**MODERN, **sizes, "context": 1024 if depth >= DEEP else 256}


def recipe(width: int, context: int, weights: int, given: dict[str, Any]) -> dict[str, Any]:
    """Learning rate, tokens and batch for a shape whose blocks have so many `weights`, beside what is `given`.

    AdamW's rate falls with the square root of the width; Muon's needs no scaling, since its updates are orthogonal.
    Tokens are 20 for each weight of the blocks. A batch is the power of two of windows that is nearest to
    `best_batch_tokens`, and goes through the model 16,384 tokens at a time.
    """
    best = TOKENS_PER_PARAMETER * weights
    tokens = given.get("tokens")
    horizon = tokens if isinstance(tokens, int) and tokens > 0 else best
    windows = 2 ** max(0, round(math.log2(best_batch_tokens(weights, horizon) / context)))
    found = {
        "lr": REFERENCE_LR * math.sqrt(REFERENCE_WIDTH / width),
        "batch_tokens": windows * context,
        "micro_batch_tokens": 16_384,
    }
    return found if _has_budget(given) else {**found, "tokens": best}


def best_batch_tokens(weights: int, tokens: int) -> float:
    """The batch, in tokens, that trains so many weights on so many tokens best: 0.2920 x C ** 0.3271.

    C is 6 operations a weight and token. Source: DeepSeek LLM (Bi et al. 2024, https://arxiv.org/abs/2401.02954), which
    fits it from 1e17 to 2e19 operations; the line is taken to go on below.
    """
    return 0.2920 * float(6 * weights * tokens) ** 0.3271


def with_defaults(values: dict[str, Any]) -> dict[str, Any]:
    """The values, and under them those of their `preset` or the shape that follows from their `depth`.

    A budget that is given replaces the preset's whole budget: `steps` is not joined by the preset's `tokens`.
    """
    name, depth = values.get("preset", ""), values.get("depth", 0)
    usable = isinstance(depth, int) and not isinstance(depth, bool) and depth > 0
    derived = {**(from_depth(depth) if usable else {}), **PRESETS.get(name if isinstance(name, str) else "", {})}
    if _has_budget(values):
        derived = {key: value for key, value in derived.items() if key not in BUDGETS}
    return {**derived, **values}


def _has_budget(values: dict[str, Any]) -> bool:
    return any(values.get(budget) is not None for budget in BUDGETS)
