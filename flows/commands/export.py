"""Take a run elsewhere: its model for Hugging Face, its corpus for nanoGPT and llm.c, or all of it with a datasheet."""

import argparse
from pathlib import Path

from flows import options as kinds
from flows.commands.folders import sound, write_hugging_face, written_aside
from flows.config import load_config
from flows.display import Display
from flows.models import Model, existing_store, latest, model_in, trained
from flows.names import find_run, latest_run
from flows.refs import References
from pipeline import export
from pipeline.config import BadInput
from pipeline.corpus import PACKED
from pipeline.engine.store import Store
from pipeline.shards import Split, load_encoding


def arguments(added: argparse.ArgumentParser) -> None:
    """Declare what the command takes."""
    kinds.with_store(added)
    where = added.add_mutually_exclusive_group(required=True)
    where.add_argument("--hf", type=Path, metavar="FOLDER", help="the model and its tokenizer, for Hugging Face")
    where.add_argument("--nanogpt", type=Path, metavar="FOLDER", help="the corpus as nanoGPT's train.bin and val.bin")
    where.add_argument("--llmc", type=Path, metavar="FOLDER", help="the corpus as llm.c's files")
    where.add_argument("--release", type=Path, metavar="FOLDER", help="corpus, model and datasheet, for anybody")
    which = added.add_mutually_exclusive_group()
    kinds.with_run(which)
    which.add_argument("-c", "--config", type=Path, metavar="FILE", help="the latest of this config")
    added.add_argument("--checkpoint", type=Path, metavar="FOLDER", help="with --hf: this checkpoint's model")


def run(options: argparse.Namespace, display: Display) -> int:
    """Write one of them and print where it is."""
    folder = options.hf or options.nanogpt or options.llmc or options.release
    if options.checkpoint and (not options.hf or options.run):
        raise BadInput("--checkpoint says which model to export, so it goes with --hf alone.")
    if options.checkpoint:
        facts = to_hugging_face(model_in(options.checkpoint, options.store, options.config), folder)
    elif options.release:
        from flows.commands.release import to_release

        store = existing_store(options.store)
        if options.config:
            found = latest_run(store, load_config(options.config).name, "extract", PACKED)
        else:
            found = find_run(store, options.run, "extract", PACKED)
        facts = to_release(store, found, folder)
    else:
        store = existing_store(options.store)
        name, stages = _results(store, options)
        if options.hf:
            for stage in ("tokenizer", "pretrain"):
                sound(store, stages, stage)
            facts = to_hugging_face(trained(store, name, stages), folder)
        else:
            facts = (to_nanogpt if options.nanogpt else to_llmc)(store, stages, folder)
    for fact in facts:
        display.note(fact)
    print(folder)  # noqa: T201  (the command's result)
    return 0


def _results(store: Store, options: argparse.Namespace) -> tuple[str, References]:
    """The artifacts of the run that is asked for, or the promoted ones."""
    if options.run is None:
        return latest(store, options.config)
    found = find_run(store, options.run)
    return options.run, {stage: row for stage, row in found.stages.items() if stage != "scrape"}


def to_hugging_face(model: Model, folder: Path) -> list[str]:
    """A model with its tokenizer; tells what was written, a line a fact."""
    from model.config import TrainingError
    from model.folder import open_folder

    try:
        with written_aside(folder) as aside:
            gpt, encoding = open_folder(model.folder, model.tokenizer)
            write_hugging_face(gpt, encoding, model.tokenizer, aside)
    except TrainingError as error:
        raise BadInput(str(error)) from error
    return [f"A model of {gpt.parameter_count():,} parameters and its tokenizer of {encoding.n_vocab:,} ids."]


def to_nanogpt(store: Store, stages: References, folder: Path) -> list[str]:
    """The corpus as nanoGPT's train.bin and val.bin; tells what was written, a line a fact."""
    parts, vocab_size = _corpus(store, stages)
    with written_aside(folder) as aside:
        written = export.nanogpt(parts, vocab_size, aside)
    return _facts(written, vocab_size, export.NANOGPT_VOCABULARY, "nanoGPT, where there is no meta.pkl,")


def to_llmc(store: Store, stages: References, folder: Path) -> list[str]:
    """The corpus as llm.c's files; tells what was written, a line a fact."""
    parts, vocab_size = _corpus(store, stages)
    with written_aside(folder) as aside:
        written = export.llmc(parts, vocab_size, aside)
    return _facts(written, vocab_size, export.LLMC_VOCABULARY, "llm.c")


def _corpus(store: Store, stages: References) -> tuple[list[Path], int]:
    encoding = load_encoding(sound(store, stages, "tokenizer").path)
    return [part.folder for part in sound(store, stages, "pack").parts], encoding.n_vocab


def _facts(written: dict[Split, int], vocab_size: int, expected: int, reader: str) -> list[str]:
    counts = " and ".join(f"{count:,} for {split}" for split, count in written.items())
    facts = [f"Tokens: {counts}, of a vocabulary of {vocab_size:,}."]
    if vocab_size > expected:
        facts.append(f"{reader} builds models of {expected:,} ids, too few for this vocabulary.")
    return facts
