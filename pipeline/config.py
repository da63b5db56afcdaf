"""What every stage's configuration shares: strict, frozen, and split into identity and execution.

A field shapes the bytes of a stage's output unless it is declared with `execution`; only fields that
shape bytes enter a key. A field's description is the docstring under it.
"""

from typing import Any

from pydantic import BaseModel, ConfigDict, Field


class BadInput(Exception):
    """Something given to gptmill is wrong; the message is one sentence: what, where, and what to do."""


class StageFailed(Exception):
    """A stage could not be finished; the message is one sentence."""


class StageStopped(StageFailed):
    """A stage ended because it was asked to; the message says what is kept."""


class Config(BaseModel):
    """Base of every stage's section: unknown keys are refused, values never change."""

    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False, use_attribute_docstrings=True)


def execution(default: Any, **constraints: Any) -> Any:
    """A field that says how a stage runs and cannot change what it writes; it never enters a key."""
    return Field(default, json_schema_extra={"execution": True}, **constraints)


def identity(config: BaseModel) -> dict[str, Any]:
    """The fields of `config` that shape bytes, as plain JSON values; execution fields are left out, nested ones too."""
    fields: dict[str, Any] = {}
    for name, field in type(config).model_fields.items():
        extra = field.json_schema_extra
        if isinstance(extra, dict) and extra.get("execution"):
            continue
        fields[name] = _plain(getattr(config, name))
    return fields


def _plain(value: Any) -> Any:
    if isinstance(value, BaseModel):
        return identity(value)
    if isinstance(value, (list, tuple)):
        return [_plain(item) for item in value]
    if isinstance(value, dict):
        return {str(key): _plain(item) for key, item in value.items()}
    if value is None or isinstance(value, (bool, int, float, str)):
        return value
    return str(value)
