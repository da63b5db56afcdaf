"""A checkpoint is a folder: weights, shape, optimizer state, and a state file that holds the hash of each of them.

    model.safetensors      float32 weights by parameter name
    config.json            the shape (GPTConfig) and the training configuration
    optimizer.safetensors  moments and step counts, named optimizer/parameter/quantity
    state.json             step, windows seen, digest of the data, what the guard remembers, sha256 of each file

No pickle is ever written or read. A checkpoint exists whole or not at all: it is written aside, brought to disk,
and then renamed. Its bytes follow from its content alone; there is no time in them, and no random state: the
generator is seeded anew for every step.
"""

import hashlib
import json
import os
import shutil
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from pydantic import BaseModel, ConfigDict, ValidationError
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor

from model.config import GPTConfig, TrainingError
from model.gpt import GPT
from model.training.distributed import cut_like, whole

WEIGHTS, SHAPE, OPTIMIZER, STATE = "model.safetensors", "config.json", "optimizer.safetensors", "state.json"
HASHED = (WEIGHTS, SHAPE, OPTIMIZER)
FILES = (*HASHED, STATE)
PREFIX, ASIDE, DAMAGED = "step-", "writing-", "damaged-"


class State(BaseModel):
    """What a training needs beside tensors to go on exactly where it was."""

    model_config = ConfigDict(extra="forbid")

    data_digest: str
    """Names the shards and the tokenizer that were trained on."""
    steps: int
    """Steps that the training will have at its end; what `minutes` allow is settled once, at the beginning."""
    step: int = 0
    """Steps taken, skipped ones included."""
    position: int = 0
    """Windows seen since the beginning, over all epochs."""
    skipped: int = 0
    """Steps that left the weights alone, for whatever reason."""
    spikes: int = 0
    """Losses far above those before them."""
    not_finite_in_a_row: int = 0
    """How many of the very last steps had no finite loss and gradient."""
    recent_losses: list[float] = []
    """The last finite losses, at most `guard.WINDOW`."""
    best_step: int | None = None
    """The step with the lowest loss in the validations on the way; None before any."""
    best_loss: float | None = None
    """Its validation loss, in nats a token."""
    sha256: dict[str, str] = {}
    """Hash of each file of the checkpoint; that of this one is of all that it says beside."""


@dataclass(frozen=True)
class Content:
    """What is in a checkpoint: everything that a training goes on from."""

    shape: GPTConfig
    training: dict[str, Any]
    """The training configuration, as JSON values."""
    weights: dict[str, Tensor]
    """By parameter name, on the CPU; a tied matrix once, under its first name."""
    optimizer: dict[str, Tensor]
    """By optimizer/parameter/quantity, on the CPU."""
    state: State


def weights_of(model: GPT) -> dict[str, Tensor]:
    """The whole weights by parameter name, on the CPU; a tied head is the embedding, so it is there once.

    Where processes hold parts of the model, all of them must ask at once.
    """
    return {name: whole(weight) for name, weight in model.named_parameters()}


def write(folder: Path, content: Content) -> None:
    """Write the four files into an existing folder and bring them to disk.

    Raises `TrainingError` where that fails, or where a weight is not finite: nothing could go on from there.
    """
    if not all(weight.isfinite().all() for weight in content.weights.values()):
        raise TrainingError(
            f"The weights are not finite after step {content.state.step:,} and are not saved: lower the learning rate,"
            " or raise the warmup."
        )
    try:
        save_file(content.weights, folder / WEIGHTS)
        save_file(content.optimizer, folder / OPTIMIZER)
        (folder / SHAPE).write_text(_json({"model": content.shape.identity(), "training": content.training}))
        hashes = {name: _sha256(folder / name) for name in HASHED}
        (folder / STATE).write_text(_json(_sealed(content.state, hashes).model_dump()))
        for path in [*(folder / name for name in FILES), folder]:
            _sync(path)
    except (OSError, SafetensorError) as error:
        raise TrainingError(f"The checkpoint {folder} cannot be written ({error}): is the disk full?") from error


def save(work: Path, content: Content, keep: int) -> Path:
    """Save a checkpoint as `work/step-…`, at once or not at all; leave the newest `keep` and the best one so far.

    One that is already there stays: it was written from the same state.
    """
    for leftover in work.glob(f"{ASIDE}*"):
        shutil.rmtree(leftover)
    final = at_step(work, content.state.step)
    if not final.exists():
        aside = work / f"{ASIDE}{final.name}"
        aside.mkdir(parents=True)
        write(aside, content)
        aside.rename(final)
        _sync(work)
    best = None if content.state.best_step is None else at_step(work, content.state.best_step)
    for old in _saved(work)[:-keep]:
        if old != best:
            shutil.rmtree(old)
    return final


def at_step(work: Path, step: int) -> Path:
    """Where the checkpoint of a step is saved."""
    return work / f"{PREFIX}{step:09d}"


def copy(source: Path, folder: Path) -> None:
    """Copy an intact checkpoint into an existing folder; raises `TrainingError`."""
    verify(source)
    try:
        for name in FILES:
            shutil.copyfile(source / name, folder / name)
            _sync(folder / name)
    except OSError as error:
        raise TrainingError(f"The checkpoint {folder} cannot be written ({error}): is the disk full?") from error


def newest(work: Path) -> tuple[Path | None, list[str]]:
    """The newest intact checkpoint in `work`, if any, and one sentence for each damaged one that was put aside."""
    complaints: list[str] = []
    for folder in reversed(_saved(work)):
        complaint = examine(folder)
        if complaint is None:
            return folder, complaints
        complaints.append(complaint)
    return None, complaints


def examine(folder: Path) -> str | None:
    """One sentence if the checkpoint is damaged, which is then put aside; None if it is intact."""
    try:
        verify(folder)
    except TrainingError as error:
        put_aside(folder)
        return str(error)
    return None


def put_aside(folder: Path) -> None:
    """Rename a checkpoint, if it is there, so that no training goes on from it."""
    if folder.exists():
        aside = folder.with_name(DAMAGED + folder.name)
        shutil.rmtree(aside, ignore_errors=True)
        folder.rename(aside)


def verify(folder: Path) -> State:
    """The state of a checkpoint whose files all have their hashes; raises `TrainingError` otherwise."""
    try:
        state = State.model_validate_json((folder / STATE).read_bytes())
    except OSError as error:
        raise TrainingError(f"{folder} holds no checkpoint: {STATE} cannot be read ({error.strerror}).") from error
    except ValidationError as error:
        raise TrainingError(f"{folder / STATE} is damaged: train again, or go back to an older checkpoint.") from error
    if state != _sealed(state, {name: value for name, value in state.sha256.items() if name != STATE}):
        raise TrainingError(f"{folder / STATE} is not the file that was saved: go back to an older checkpoint.")
    for name in HASHED:
        path = folder / name
        if not path.is_file() or _sha256(path) != state.sha256.get(name):
            raise TrainingError(f"{path} is missing or not the file that was saved: go back to an older checkpoint.")
    return state


def read_settings(folder: Path) -> dict[str, Any]:
    """`model`, the shape, and `training`, the training configuration, that a verified checkpoint was saved with."""
    settings: dict[str, Any] = json.loads((folder / SHAPE).read_bytes())
    return settings


def load_model(folder: Path) -> GPT:
    """The model of a checkpoint, float32 on the CPU, once all hashes are right; raises `TrainingError`."""
    verify(folder)
    try:
        config = GPTConfig.model_validate(json.loads((folder / SHAPE).read_bytes())["model"])
        model = GPT(config)
        weights = load_file(folder / WEIGHTS)
    except (ValueError, KeyError, SafetensorError) as error:
        raise TrainingError(f"{folder} is no checkpoint that this version can read: {error}.") from error
    load_weights(model, weights)
    return model


def load_weights(model: GPT, weights: dict[str, Tensor]) -> None:
    """Copy weights by parameter name; every one must be there with its shape, and no other."""
    mine = dict(model.named_parameters())
    if {name: weight.shape for name, weight in mine.items()} != {name: w.shape for name, w in weights.items()}:
        raise TrainingError("The weights are those of a model of another shape: start from its own config.json.")
    with torch.no_grad():
        for name, weight in mine.items():
            weight.copy_(cut_like(weights[name], weight))


def load_tensors(folder: Path) -> tuple[dict[str, Tensor], dict[str, Tensor]]:
    """Weights and optimizer state of a verified checkpoint."""
    return load_file(folder / WEIGHTS), load_file(folder / OPTIMIZER)


def _sealed(state: State, hashes: dict[str, str]) -> State:
    """The state with the hashes of the other files, and with its own."""
    said = state.model_copy(update={"sha256": hashes})
    own = hashlib.sha256(_json(said.model_dump()).encode()).hexdigest()
    return said.model_copy(update={"sha256": {**hashes, STATE: own}})


def _saved(work: Path) -> list[Path]:
    return sorted(work.glob(f"{PREFIX}*"))


def _json(value: Any) -> str:
    return json.dumps(value, indent=2, sort_keys=True) + "\n"


def _sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _sync(path: Path) -> None:
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
