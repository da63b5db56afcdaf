"""Folders for others: each appears whole or not at all, written aside, brought to disk, and renamed."""

import secrets
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

from flows.refs import References
from pipeline.config import BadInput
from pipeline.engine.store import Artifact, Store, flush
from pipeline.shards import Encoding, end_of_text

if TYPE_CHECKING:
    from model.gpt import GPT

READABLE = 0o644
"""Mode of what is written: who may see the folder may read it. Libraries that write by way of a temporary file give
0600."""


def sound(store: Store, stages: References, stage: str) -> Artifact:
    """The artifact that these references name of a stage, all its files being there; BadInput otherwise."""
    artifact = store.load(stage, stages[stage]["key"]) if stage in stages else None
    if artifact is None:
        raise BadInput(f"There is no result of {stage} in {store.root} to export: gptmill run makes one.")
    damaged = store.damage(artifact.path, artifact.manifest)
    if damaged:
        raise BadInput(f"{damaged[0].file} {damaged[0].problem}: gptmill run makes it again.")
    return artifact


@contextmanager
def written_aside(folder: Path) -> Iterator[Path]:
    """A folder to write into, which becomes `folder` at the end; BadInput where that holds something already."""
    refuse_filled(folder)
    parent = folder.absolute().parent
    parent.mkdir(parents=True, exist_ok=True)
    aside = parent / f".{folder.name}.{secrets.token_hex(4)}"
    aside.mkdir()
    try:
        yield aside
        for path in [*aside.rglob("*"), aside]:
            if path.is_file():
                path.chmod(READABLE)
            flush(path)
        aside.rename(folder)
        flush(parent)
    finally:
        shutil.rmtree(aside, ignore_errors=True)


def refuse_filled(folder: Path) -> None:
    """BadInput where a folder to be written holds something already, or is the current one, which cannot be renamed."""
    if folder.is_dir() and folder.samefile(Path.cwd()):
        raise BadInput(f"{folder} is the folder that you are in: give one that is not there yet.")
    if folder.is_dir() and any(folder.iterdir()):
        raise BadInput(f"{folder} is not empty: give a folder that is not there yet.")
    if folder.exists() and not folder.is_dir():
        raise BadInput(f"{folder} is a file: give a folder that is not there yet.")


def write_hugging_face(gpt: "GPT", encoding: Encoding, tokenizer: Path, out: Path) -> None:
    """The files of both in a folder that is there; raises `TrainingError` where Hugging Face has none like them."""
    from model.folder import write_tokenizer
    from model.huggingface import weights as hf
    from model.huggingface.tokenizer import export_tokenizer

    with tempfile.TemporaryDirectory(prefix="gptmill-") as ours:
        hf.save(gpt, out, end_of_text(encoding))
        write_tokenizer(tokenizer, Path(ours))
        export_tokenizer(Path(ours), out, gpt.config.context)
