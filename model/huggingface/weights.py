"""Models to and from Hugging Face: a folder that `AutoModelForCausalLM.from_pretrained` opens, and such a folder read.

    config.json         the shape, in their words
    model.safetensors   weights by their names, of the type that ours have; rows that pad the vocabulary are left out

`transformers` is needed for neither, and no pickle is ever opened. Logits and gradients are the same on both sides.
"""

import json
import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor

from model.config import TrainingError
from model.gpt import GPT
from model.huggingface.families import Family
from model.huggingface.shapes import biased, family_of, from_theirs, to_theirs

CONFIG, WEIGHTS, WEIGHTS_INDEX = "config.json", "model.safetensors", "model.safetensors.index.json"
HEAD = "lm_head.weight"

HUB_FILES = (CONFIG, "*.safetensors", WEIGHTS_INDEX, "tokenizer.json", "tokenizer_config.json")
"""What is asked of a hub."""

BUFFERS = re.compile(r"\.attn(\.attention)?\.(masked_)?bias$|\.rotary_emb\.inv_freq$")
"""Masks and tables that older versions of transformers saved among the weights; they follow from the shape."""


@dataclass(frozen=True)
class Slot:
    """One parameter of ours, and where it stands among theirs."""

    ours: str
    theirs: tuple[str, ...]
    """Names of the tensors that it is cut into, rows one after another."""
    sizes: tuple[int, ...]
    """How many rows of it each of them has."""
    transposed: bool = False


def save(model: GPT, folder: Path, end_of_text: int | None = None) -> None:
    """Write `config.json` and `model.safetensors` into an existing folder; `end_of_text` is the id that ends texts.

    Raises `TrainingError` where no architecture of theirs has the model's shape.
    """
    family = family_of(model.config)
    weights = {name: weight.detach().cpu() for name, weight in model.named_parameters()}
    theirs = to_theirs(model.config, weights["blocks.0.mlp.up.weight"].shape[0])
    dtype = str(model.embedding.weight.dtype).removeprefix("torch.")
    theirs |= {"bos_token_id": end_of_text, "eos_token_id": end_of_text, "dtype": dtype}
    exported: dict[str, Tensor] = {}
    for slot in _slots(model, family, theirs):
        # A bias that ours lacks is zero.
        whole = weights.get(slot.ours, torch.zeros(sum(slot.sizes), dtype=model.embedding.weight.dtype))
        for name, rows in zip(slot.theirs, whole[: sum(slot.sizes)].split(slot.sizes), strict=True):
            exported[name] = (rows.T if slot.transposed else rows).clone(memory_format=torch.contiguous_format)
    # Older versions of transformers take a file for PyTorch's only if it says so.
    save_file(exported, folder / WEIGHTS, metadata={"format": "pt"})
    (folder / CONFIG).write_text(json.dumps(theirs, indent=2) + "\n", encoding="utf-8")


def load(source: str | Path) -> GPT:
    """The model of a Hugging Face folder, float32 on the CPU; a name such as "openai-community/gpt2" is downloaded.

    Raises `TrainingError` where a file is missing or broken, or where the model does what ours cannot.
    """
    folder = _downloaded(source) if isinstance(source, str) and not Path(source).exists() else Path(source)
    theirs = _json(folder / CONFIG)
    try:
        family, config = from_theirs(theirs)
    except TrainingError as error:
        raise TrainingError(f"{folder / CONFIG} describes no model that can be loaded: {error}") from error
    found = _read(folder)
    model = GPT(config)
    try:
        _fill(model, family, theirs, found)
    except TrainingError as error:
        raise TrainingError(f"The weights in {folder} are not those of its {CONFIG}: {error}") from error
    return model


def _slots(model: GPT, family: Family, theirs: dict[str, Any]) -> Iterator[Slot]:
    """Every parameter that theirs has, a tied head once."""
    config = model.config
    with_bias = biased(family, theirs)
    keys = (config.kv_heads or config.heads) * config.head_width
    for pattern, parts in family.modules.items():
        for block in range(config.layers) if "N" in pattern else [0]:
            module = pattern.replace("N", str(block))
            weight = model.get_parameter(f"{module}.weight")
            rows = config.vocab_size if module == "embedding" else len(weight)
            sizes = (rows,) if len(parts) == 1 else (config.width, keys, keys)
            for kind in ("weight", "bias") if module.endswith(with_bias) else ("weight",):
                names = tuple(f"{family.base}.{part.replace('N', str(block))}.{kind}" for part in parts)
                transposed = family.transposed and "N" in pattern and kind == "weight" and weight.ndim == 2
                yield Slot(f"{module}.{kind}", names, sizes, transposed)
    if not config.tied:
        yield Slot("head.weight", (HEAD,), (config.vocab_size,))


@torch.no_grad()
def _fill(model: GPT, family: Family, theirs: dict[str, Any], found: dict[str, Tensor]) -> None:
    """Copy their weights into ours, every one of them; `TrainingError` where one is missing, left over or misshapen.

    What theirs has not stays as a new model has it: biases and the rows that pad the vocabulary are zero.
    """
    parameters = dict(model.named_parameters())
    prefixes = (f"{family.base}.", HEAD)
    left = {name if name.startswith(prefixes) else f"{family.base}.{name}": found[name] for name in found}
    for slot in _slots(model, family, theirs):
        missing = [name for name in slot.theirs if name not in left]
        if missing:
            raise TrainingError(f"{missing[0]} is missing.")
        parts = [left.pop(name) for name in slot.theirs]
        ours = parameters[slot.ours][: sum(slot.sizes)]
        for name, part, size in zip(slot.theirs, parts, slot.sizes, strict=True):
            shape = (size, *ours.shape[1:])
            if part.shape != (shape[::-1] if slot.transposed else shape):
                raise TrainingError(f"{name} has the shape {tuple(part.shape)}.")
        ours.copy_(torch.cat([part.T if slot.transposed else part for part in parts]))
    if (
        model.config.tied
        and HEAD in left
        and torch.equal(left[HEAD].float(), model.embedding.weight[: len(left[HEAD])])
    ):
        del left[HEAD]
    surplus = sorted(name for name in left if not BUFFERS.search(name))
    if surplus:
        raise TrainingError(f"there is no place in our GPT for {surplus[0]}.")


def _read(folder: Path) -> dict[str, Tensor]:
    """All tensors of a folder, from one file or from those that its index names."""
    names = {WEIGHTS}
    if (folder / WEIGHTS_INDEX).is_file():
        names = {str(name) for name in dict(_json(folder / WEIGHTS_INDEX).get("weight_map", {})).values()}
    elif not (folder / WEIGHTS).is_file():
        pickled = next((path.name for path in folder.glob("*.bin")), None)
        reason = f"only {pickled}, a pickle, which could run any code" if pickled else "no weights"
        raise TrainingError(f"{folder} holds {reason}: save the model with safetensors.")
    tensors: dict[str, Tensor] = {}
    for name in sorted(names):
        if Path(name).name != name or not name.endswith(".safetensors"):
            raise TrainingError(f"{folder / WEIGHTS_INDEX} names {name}, which is no safetensors file beside it.")
        try:
            tensors |= load_file(folder / name)
        except (OSError, SafetensorError) as error:
            raise TrainingError(f"{folder / name} cannot be read ({error}): copy or download it again.") from error
    return tensors


def _json(path: Path) -> dict[str, Any]:
    try:
        found = json.loads(path.read_bytes())
    except OSError as error:
        raise TrainingError(f"{path} cannot be read ({error.strerror}): give a folder with a model.") from error
    except ValueError as error:
        raise TrainingError(f"{path} is no JSON ({error}): copy or download it again.") from error
    if not isinstance(found, dict):
        raise TrainingError(f"{path} holds no JSON object: copy or download it again.")
    return found


def _downloaded(name: str) -> Path:
    """A hub's repository as a folder, from the hub's cache where it was downloaded before."""
    from huggingface_hub import snapshot_download

    try:
        return Path(snapshot_download(name, allow_patterns=list(HUB_FILES)))
    except (OSError, ValueError) as error:
        reason = next(iter(str(error).splitlines()), type(error).__name__)
        raise TrainingError(f"{name} is no folder, and no hub gives a model of that name ({reason}).") from error
