"""A checkpoint is a folder: weights, shape, optimizer state, and a state file that holds the hash of each of them.

    model.safetensors      float32 weights by parameter name
    config.json            the shape (GPTConfig) and the training configuration
    optimizer.safetensors  moments and step counts, named optimizer/parameter/quantity
    state.json             step, windows seen, random state, digest of the data, skipped steps, sha256 of each file

No pickle is ever written or read. A checkpoint exists whole or not at all: it is written aside, brought to disk,
and then renamed. Its bytes follow from its content alone; there is no time in them.
"""

import base64
import hashlib
import json
import os
import shutil
from pathlib import Path
from typing import Any

import torch
from pydantic import BaseModel, ConfigDict, ValidationError
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor

from model.config import GPTConfig, TrainingError
from model.gpt import GPT

WEIGHTS, SHAPE, OPTIMIZER, STATE = "model.safetensors", "config.json", "optimizer.safetensors", "state.json"
HASHED = (WEIGHTS, SHAPE, OPTIMIZER)
PREFIX, ASIDE, DAMAGED = "step-", "writing-", "damaged-"


class State(BaseModel):
    """What a training needs beside tensors to go on exactly where it was."""

    model_config = ConfigDict(extra="forbid")

    step: int
    """Steps taken, skipped ones included."""
    position: int
    """Windows seen since the beginning, over all epochs."""
    skipped: int
    """Steps skipped because loss or gradient was not finite."""
    skipped_in_a_row: int
    """How many of them were the very last ones."""
    data_digest: str
    """Names the shards and the tokenizer that were trained on."""
    rng: dict[str, str]
    """Random state of the processor and, if there is one, of the CUDA device, in base64."""
    sha256: dict[str, str] = {}
    """Hash of each other file of the checkpoint."""


def rng_state() -> dict[str, str]:
    """The state of torch's random generators."""
    states = {"cpu": torch.get_rng_state()}
    if torch.cuda.is_available():
        states["cuda"] = torch.cuda.get_rng_state()
    return {name: base64.b64encode(state.numpy().tobytes()).decode() for name, state in states.items()}


def restore_rng(states: dict[str, str]) -> None:
    """Put back what `rng_state` gave."""
    tensors = {name: torch.tensor(list(base64.b64decode(text)), dtype=torch.uint8) for name, text in states.items()}
    torch.set_rng_state(tensors["cpu"])
    if "cuda" in tensors and torch.cuda.is_available():
        torch.cuda.set_rng_state(tensors["cuda"])


def write(folder: Path, model: GPT, training: dict[str, Any], optimizer: dict[str, Tensor], state: State) -> None:
    """Write the four files into an existing folder and bring them to disk; raises `TrainingError`."""
    try:
        _write(folder, model, training, optimizer, state)
    except (OSError, SafetensorError) as error:
        raise TrainingError(f"The checkpoint {folder} cannot be written ({error}): is the disk full?") from error


def _write(folder: Path, model: GPT, training: dict[str, Any], optimizer: dict[str, Tensor], state: State) -> None:
    # A tied head is the embedding: one tensor, stored under its first name.
    weights = {name: weight.detach().cpu().contiguous() for name, weight in model.named_parameters()}
    save_file(weights, folder / WEIGHTS)
    save_file(optimizer, folder / OPTIMIZER)
    (folder / SHAPE).write_text(_json({"model": model.config.identity(), "training": training}))
    hashes = {name: _sha256(folder / name) for name in HASHED}
    (folder / STATE).write_text(_json(state.model_copy(update={"sha256": hashes}).model_dump()))
    for path in [*folder.iterdir(), folder]:
        _sync(path)


def save(
    work: Path, model: GPT, training: dict[str, Any], optimizer: dict[str, Tensor], state: State, keep: int
) -> Path:
    """Save a checkpoint as `work/step-…`, at once or not at all, and leave only the newest `keep`."""
    for leftover in work.glob(f"{ASIDE}*"):
        shutil.rmtree(leftover)
    name = f"{state.step:09d}"
    aside, final = work / f"{ASIDE}{name}", work / f"{PREFIX}{name}"
    aside.mkdir(parents=True)
    write(aside, model, training, optimizer, state)
    if final.exists():
        shutil.rmtree(final)
    aside.rename(final)
    _sync(work)
    for old in _saved(work)[:-keep]:
        shutil.rmtree(old)
    return final


def newest(work: Path) -> tuple[Path | None, list[str]]:
    """The newest intact checkpoint in `work`, if any, and one sentence for each damaged one that was put aside."""
    complaints = []
    for folder in reversed(_saved(work)):
        try:
            verify(folder)
        except TrainingError as error:
            aside = folder.with_name(DAMAGED + folder.name)
            shutil.rmtree(aside, ignore_errors=True)
            folder.rename(aside)
            complaints.append(str(error))
        else:
            return folder, complaints
    return None, complaints


def verify(folder: Path) -> State:
    """The state of a checkpoint whose files all have their hashes; raises `TrainingError` otherwise."""
    try:
        state = State.model_validate_json((folder / STATE).read_bytes())
    except OSError as error:
        raise TrainingError(f"{folder} holds no checkpoint: {STATE} cannot be read ({error.strerror}).") from error
    except ValidationError as error:
        raise TrainingError(f"{folder / STATE} is damaged: train again, or go back to an older checkpoint.") from error
    for name in HASHED:
        path = folder / name
        if not path.is_file() or _sha256(path) != state.sha256.get(name):
            raise TrainingError(f"{path} is missing or not the file that was saved: go back to an older checkpoint.")
    return state


def read_training(folder: Path) -> dict[str, Any]:
    """The training configuration that the checkpoint was saved with."""
    training: dict[str, Any] = json.loads((folder / SHAPE).read_bytes())["training"]
    return training


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
            weight.copy_(weights[name])


def load_tensors(folder: Path) -> tuple[dict[str, Tensor], dict[str, Tensor]]:
    """Weights and optimizer state of a verified checkpoint."""
    return load_file(folder / WEIGHTS), load_file(folder / OPTIMIZER)


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
