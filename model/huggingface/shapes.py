"""Shapes of GPTs in Hugging Face's words, and the other way round.

A bias that one side has and the other lacks is zero. Dropout acts in training alone: theirs has several rates, ours
one, and the largest is taken. `within_documents` says what a training was shown, so it is no part of an export.
"""

from typing import Annotated, Any

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from model.config import Count, GPTConfig, Natural, TrainingError
from model.huggingface.families import ACTIVATIONS, FAMILIES, GPT2, GPT_NEO, LLAMA, MLPS, ROPE_THETA, Family


class _Typed(BaseModel):
    """The types of those of their fields that are looked into here; `GPTConfig` knows what the others can be."""

    model_config = ConfigDict(strict=True)

    hidden_size: Count = 1
    num_attention_heads: Count = 1
    attention_types: list[Annotated[tuple[list[str], Natural], Field(strict=False)]] = []
    activation_function: str = ""
    attention_bias: bool = False
    mlp_bias: bool = False
    rope_parameters: dict[str, Any] = {}
    rope_scaling: dict[str, Any] = {}
    attention_dropout: float = 0.0
    attn_pdrop: float = 0.0
    embd_pdrop: float = 0.0
    embed_dropout: float = 0.0
    resid_dropout: float = 0.0
    resid_pdrop: float = 0.0


def family_of(config: GPTConfig) -> Family:
    """The architecture that can say what this shape is; raises `TrainingError` where none can, naming the field."""
    local = set(config.pattern_of_layer) - {"full"}
    family = LLAMA if config.positions == "rotary" else GPT_NEO if local else GPT2
    given = {
        **{field: (getattr(config, field),) for field in ("positions", "norm", "mlp", "scaled_attention")},
        "attention": config.pattern_of_layer,
        "qkv_bias": (_qkv_bias(config),),
    }
    needs = dict(family.needs)
    if family is not LLAMA:
        given["kv_heads"], needs["kv_heads"] = (config.kv_heads or config.heads,), (config.heads,)
    for field, allowed in needs.items():
        for value in given[field]:
            if value not in allowed:
                raise TrainingError(
                    f"No Hugging Face architecture has this shape: {field} is {_said(value)}, and the nearest,"
                    f" {family.architecture}, has {' or '.join(map(_said, allowed))}."
                )
    return family


def to_theirs(config: GPTConfig, mlp_width: int) -> dict[str, Any]:
    """The fields of a config.json for this shape, `mlp_width` being the MLP's hidden size in numbers."""
    family = family_of(config)
    filled = config.model_copy(update={"mlp_width": mlp_width, "kv_heads": config.kv_heads or config.heads})
    theirs: dict[str, Any] = {"model_type": family.model_type, "architectures": [family.architecture]}
    theirs |= {name: getattr(filled, field) for field, name in family.fields.items()}
    theirs |= dict.fromkeys(family.dropouts, config.dropout)
    if family is LLAMA:
        theirs |= {
            "head_dim": config.head_width,
            "hidden_act": "silu",
            "attention_bias": _qkv_bias(config) or config.bias,
            "mlp_bias": config.bias,
            # Before version 5, transformers read the base under its own name.
            "rope_theta": config.rotary_base,
            "rope_parameters": {"rope_type": "default", "rope_theta": config.rotary_base},
        }
    else:
        theirs["activation_function"] = ACTIVATIONS[config.mlp]
    if family is GPT_NEO:
        theirs["attention_types"] = [[["global" if p == "full" else "local" for p in config.pattern_of_layer], 1]]
    return theirs


def from_theirs(theirs: dict[str, Any]) -> tuple[Family, GPTConfig]:
    """The architecture and our shape of a config.json; raises `TrainingError` naming what ours cannot do."""
    family = next((f for f in FAMILIES if f.model_type == theirs.get("model_type")), None)
    if family is None:
        known = ", ".join(f.model_type for f in FAMILIES)
        raise TrainingError(f"model_type is {theirs.get('model_type')!r}, and only {known} are known.")
    given = {**family.defaults, **{name: value for name, value in theirs.items() if value is not None}}
    _refuse_mistyped(given)
    _refuse_foreign(family, given)
    missing = [name for name in family.fields.values() if name not in given]
    if missing:
        raise TrainingError(f"{', '.join(missing)} is missing.")
    ours: dict[str, Any] = {field: given[name] for field, name in family.fields.items()}
    ours["dropout"] = max(given.get(name, 0.0) for name in family.dropouts)
    if family is LLAMA:
        ours |= _llama(given)
    else:
        ours |= {"positions": "learned", "norm": "layernorm", "mlp": MLPS[given["activation_function"]], "bias": True}
    if family is GPT_NEO:
        ours |= {"attention": _patterns(given), "scaled_attention": False, "qkv_bias": False}
    try:
        return family, GPTConfig(**ours)
    except ValidationError as error:
        raise _unusable(error, family.fields) from error


def biased(family: Family, theirs: dict[str, Any]) -> tuple[str, ...]:
    """Ends of the names of those of our modules whose counterparts have biases."""
    if family is LLAMA:
        attention = ("qkv", "attention.out") if theirs.get("attention_bias") else ()
        return (*attention, *(("gate", "up", "mlp.out") if theirs.get("mlp_bias") else ()))
    return ("norm", "out", "up", *(("qkv",) if family is GPT2 else ()))


def _llama(given: dict[str, Any]) -> dict[str, Any]:
    rope = given.get("rope_parameters") or {}
    biases = {"bias": given["attention_bias"] or given["mlp_bias"], "qkv_bias": given["attention_bias"]}
    base = rope.get("rope_theta", given.get("rope_theta", ROPE_THETA))
    return {"positions": "rotary", "norm": "rmsnorm", "mlp": "swiglu", "rotary_base": base, **biases}


def _patterns(given: dict[str, Any]) -> list[str]:
    """Attention layer by layer, from `[[["global", "local"], 6]]`: the patterns and how often they are repeated."""
    names = [name for group, times in given["attention_types"] for _ in range(times) for name in group]
    if len(names) != given["num_layers"] or not set(names) <= {"global", "local"}:
        raise TrainingError(f"attention_types {given['attention_types']} does not fit {given['num_layers']} layers.")
    return ["full" if name == "global" else "local" for name in names]


def _refuse_mistyped(given: dict[str, Any]) -> None:
    try:
        _Typed.model_validate(given)
    except ValidationError as error:
        raise _unusable(error, {}) from error


def _unusable(error: ValidationError, names: dict[str, str]) -> TrainingError:
    """The first thing that is wrong, with their name of the field."""
    first = error.errors()[0]
    field = str(first["loc"][0]) if first["loc"] else "the shape"
    return TrainingError(f"{names.get(field, field)} cannot be used: {first['msg']}.")


def _refuse_foreign(family: Family, given: dict[str, Any]) -> None:
    allowed: dict[str, tuple[Any, ...]] = {**family.refuses, "quantization_config": ()}
    if family is LLAMA:
        allowed["head_dim"] = (given.get("hidden_size", 0) // given.get("num_attention_heads", 1),)
        for name in ("rope_parameters", "rope_scaling"):
            _refuse_scaled_rope(name, given.get(name) or {})
    else:
        allowed["activation_function"] = tuple(MLPS)
    for name, values in allowed.items():
        if name in given and given[name] not in values:
            raise TrainingError(f"{name} = {_said(given[name])} is nothing that our GPT can do.")


def _refuse_scaled_rope(name: str, rope: dict[str, Any]) -> None:
    kind = rope.get("rope_type", rope.get("type", "default"))
    if kind != "default" or rope.get("partial_rotary_factor", 1.0) != 1.0:
        raise TrainingError(f"{name} = {rope} is nothing that our GPT can do: it has plain rotary positions alone.")


def _qkv_bias(config: GPTConfig) -> bool:
    return config.bias if config.qkv_bias is None else config.qkv_bias


def _said(value: Any) -> str:
    """A value as TOML writes it."""
    return str(value).lower() if isinstance(value, bool) else repr(value).replace("'", '"')
