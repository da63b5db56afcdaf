"""`gptmill export --release`: a run as a folder that a third party can open and judge.

    DATASHEET.md, datasheet.json   what is in it, whence, what was done to it, what it scored
    config.toml                    the config of the run, but who works for it and who is told
    data/train.bin, data/val.bin   the ids of both splits; data/documents.parquet says whose they are
    tokenizer/                     the vocabulary as gptmill and tiktoken read it
    model/                         the model and its tokenizer as transformers opens them

Texts and pages are not in it: personal data is replaced in the ids alone.
"""

import json
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from flows.commands import datasheet
from flows.commands.folders import sound, write_hugging_face, written_aside
from flows.config import as_toml
from flows.runs import Run, artifacts, corpus_of
from pipeline import export
from pipeline.config import BadInput
from pipeline.corpus import PACKED
from pipeline.engine.store import MANIFEST, Store, describe_files
from pipeline.shards import SPLITS, dtype_for, end_of_text, load_encoding, tokenizer_files

CONFIG = "config.toml"

OURS = ("workers", "notify")
"""Sections that are no business of others: who works, and who is told by which address, which may be a secret."""

IN_WORDS = {2: "two bytes each", 4: "four bytes each"}


def to_release(store: Store, run: Run, folder: Path) -> list[str]:
    """Write the folder, whole or not at all; tells what was written, a line a fact.

    Raises `BadInput` where what the run made is damaged or gone, or where the folder holds something.
    """
    missing = sorted(run.stages.keys() - {"scrape"} - artifacts(store, run).keys())
    if missing:
        raise BadInput(f"What {missing[0]} gave in the run {run.id} is no longer in the store: take a later run.")
    found = datasheet.facts(store, run)
    with written_aside(folder) as aside:
        found["data"] = _write_corpus(store, run, aside)
        model = "The run trained no model."
        if found["model"] is not None:
            found["model"]["opens_in"], model = _write_model(store, run, aside / "model")
        config = datasheet.config_of(run)
        found["config_file"] = None if config is None else CONFIG
        if config is not None:
            (aside / CONFIG).write_text(as_toml(config, without=OURS), encoding="utf-8")
        found["files"] = describe_files(aside)
        (aside / "datasheet.json").write_text(json.dumps(found, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")
        (aside / "DATASHEET.md").write_text(datasheet.as_markdown(found), encoding="utf-8")
    return list(_told(found, model))


def _write_corpus(store: Store, run: Run, aside: Path) -> dict[str, Any]:
    """The ids, the table of documents and the vocabulary; how to read them."""
    tokenizer, packed = (sound(store, run.stages, stage) for stage in ("tokenizer", PACKED))
    encoding = load_encoding(tokenizer.path)
    for name in ("data", "tokenizer"):
        (aside / name).mkdir()
    written = export.streams([part.folder for part in packed.parts], encoding.n_vocab, aside / "data")
    documents = export.documents(corpus_of(store, run), aside / "data" / "documents.parquet")
    counted = packed.manifest["stats"]
    assert written == counted["tokens"], f"{written} ids were written and {counted['tokens']} packed"
    assert documents == sum(counted["documents"].values()), f"{documents} rows were written and {counted} packed"
    for path in tokenizer_files(tokenizer.path):
        shutil.copyfile(path, aside / "tokenizer" / path.name)
    item = dtype_for(encoding.n_vocab)
    return {
        "item_type": item.str,
        "item_type_in_words": IN_WORDS[item.itemsize],
        "vocabulary": encoding.n_vocab,
        "end_of_text": end_of_text(encoding),
    }


def _write_model(store: Store, run: Run, out: Path) -> tuple[str, str]:
    """The model as transformers opens it or, where that has none like it, as gptmill does: who opens it, and a fact."""
    from model.config import TrainingError
    from model.folder import open_folder

    tokenizer, checkpoint = (sound(store, run.stages, stage).path for stage in ("tokenizer", "pretrain"))
    try:
        gpt, encoding = open_folder(checkpoint, tokenizer)
    except TrainingError as error:
        raise BadInput(str(error)) from error
    out.mkdir()
    try:
        write_hugging_face(gpt, encoding, tokenizer, out)
    except TrainingError as error:
        # What stands in the way is told to who exports; the sentence may name a folder of theirs.
        shutil.rmtree(out)
        shutil.copytree(checkpoint, out, ignore=shutil.ignore_patterns(MANIFEST, "report"))
        for path in tokenizer_files(tokenizer):
            shutil.copyfile(path, out / path.name)
        return "gptmill", f"The model is in gptmill's own format: {error}"
    return "transformers", f"A model of {gpt.parameter_count():,} parameters, which transformers opens."


def _told(found: dict[str, Any], model: str) -> Iterator[str]:
    """What was written, a line a fact."""
    counts = found["composition"]
    train, val = (f"{counts['tokens'][split]:,} tokens of {counts['documents'][split]:,} documents" for split in SPLITS)
    yield f"The run {found['run']['run']}: {train} to train on, {val} held out."
    yield model
    if found["config_file"]:
        yield (
            f"{found['config_file']} tells the run's settings, among them paths on this machine, the contact and "
            f"private hosts; [{'] and ['.join(OURS)}] are left out."
        )
    else:
        yield "The log of the run does not tell its whole config; the datasheet has the settings that shape bytes."
    yield "DATASHEET.md says where the mill does not know: fill that in before you pass it on."
