"""A folder with a model and its tokenizer: a checkpoint of ours, or what Hugging Face calls a pretrained model."""

import json
import shutil
import tempfile
from pathlib import Path
from typing import NamedTuple

from model.config import TrainingError
from model.gpt import GPT
from model.huggingface import weights as hf
from model.huggingface.tokenizer import HF_FILE, import_tokenizer
from model.training import checkpoint
from pipeline.shards import RANKS_FILE, SENTENCEPIECE_FILE, Encoding, ShardError, load_encoding, tokenizer_files


class Opened(NamedTuple):
    """A model, float32 on the CPU, and the encoding of the ids that it knows."""

    model: GPT
    encoding: Encoding


def open_folder(folder: Path, tokenizer: Path | None = None) -> Opened:
    """The model in `folder` and its tokenizer, which lies beside it unless another folder is named.

    Raises `TrainingError` where one of them is missing, damaged or of a kind that is not known, or where they do not
    go together.
    """
    encoding = _encoding(tokenizer or folder)
    model = hf.load(folder) if is_hugging_face(folder) else checkpoint.load_model(folder)
    if model.config.vocab_size != encoding.n_vocab:
        raise TrainingError(
            f"The model in {folder} knows {model.config.vocab_size:,} ids and the tokenizer in {tokenizer or folder}"
            f" has {encoding.n_vocab:,}: give the tokenizer that it was trained with."
        )
    return Opened(model, encoding)


def is_hugging_face(folder: Path) -> bool:
    """Whether the model in a folder is one of Hugging Face's, as its config.json tells."""
    try:
        return "model_type" in json.loads((folder / hf.CONFIG).read_bytes())
    except (OSError, ValueError):
        return False


def has_tokenizer(folder: Path) -> bool:
    """Whether a folder holds a tokenizer, ours or Hugging Face's."""
    return (folder / HF_FILE).is_file()  # the name is the same on both sides


def write_tokenizer(source: Path, out: Path) -> None:
    """Write the tokenizer in one folder, ours or Hugging Face's, into another as ours; raises `TrainingError`."""
    if not has_tokenizer(source):
        raise TrainingError(f"{source} has no tokenizer: give a folder that has a {HF_FILE}.")
    if not _is_ours(source):
        import_tokenizer(source, out)
        return
    for path in tokenizer_files(source):
        shutil.copyfile(path, out / path.name)


def _is_ours(folder: Path) -> bool:
    return any((folder / name).is_file() for name in (RANKS_FILE, SENTENCEPIECE_FILE))


def _encoding(folder: Path) -> Encoding:
    with tempfile.TemporaryDirectory(prefix="gptmill-") as made:
        if not _is_ours(folder):
            write_tokenizer(folder, Path(made))
        try:
            return load_encoding(folder if _is_ours(folder) else Path(made))
        except ShardError as error:
            raise TrainingError(str(error)) from error
