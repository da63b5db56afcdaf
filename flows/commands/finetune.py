"""`gptmill finetune`: a model that is there, trained further on prompts with answers or on plain texts.

All is written into FOLDER.unfinished, and renamed at the end; a run that was killed goes on from what it left there.
"""

import argparse
import shutil
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pydantic import ValidationError

from flows import interrupt
from flows import options as kinds
from flows.commands.folders import refuse_filled
from flows.display import Display
from flows.models import model_named
from flows.refs import LATEST
from pipeline.config import BadInput, StageFailed
from pipeline.engine import locks
from pipeline.engine.store import flush

if TYPE_CHECKING:
    from model.finetune import FinetuneConfig
    from model.training.answers import Encoded

SETTINGS = (
    *("epochs", "steps", "lr", "batch_tokens", "micro_batch_tokens"),
    *("held_out", "result", "seed", "threads", "checkpoint_every"),
)
"""Options that are fields of `FinetuneConfig`, whose defaults stand where none is given."""


def arguments(added: argparse.ArgumentParser) -> None:
    """Declare what the command takes."""
    kinds.with_store(added)
    example = '{"prompt": …, "answer": …} or {"text": …}, one a line'
    added.add_argument("data", type=Path, metavar="DATA.jsonl", help=example)
    added.add_argument("--out", type=Path, required=True, metavar="FOLDER", help="where the result goes")
    which = "a checkpoint or Hugging Face folder, a config, a run, or latest, which is the default"
    added.add_argument("--base", default=LATEST, metavar="MODEL", help=which)
    length = added.add_mutually_exclusive_group()
    length.add_argument("--epochs", type=kinds.above_zero, help="times each example is seen (default 3)")
    length.add_argument("--steps", type=kinds.positive, help="optimizer steps in place of epochs")
    added.add_argument("--lr", type=kinds.above_zero, help="peak learning rate (default 5e-5)")
    added.add_argument("--batch-tokens", type=kinds.positive, metavar="N", help="tokens a step (default 4096)")
    added.add_argument("--micro-batch-tokens", type=kinds.positive, metavar="N", help="at once, to fit memory")
    added.add_argument("--held-out", type=kinds.at_least_zero, metavar="SHARE", help="never trained on (default 0.05)")
    added.add_argument("--result", choices=("last", "best"), help="best: the epoch with the lowest held-out loss")
    added.add_argument("--seed", type=kinds.seed, help="order of examples, dropout (default 0)")
    added.add_argument("--checkpoint-every", type=kinds.positive, metavar="N", help="steps (default 200)")
    added.add_argument("--threads", type=kinds.positive, metavar="N", help="processor threads (default: all cores)")


def run(options: argparse.Namespace, display: Display) -> int:
    """Train, tell how far the loss on held-out answers fell, and print the folder."""
    refuse_filled(options.out)
    chosen = model_named(options.base, options.store)
    from model.config import TrainingError
    from model.folder import open_folder
    from model.training import answers

    config = _config(options)
    try:
        lines = answers.read(options.data)
        base = open_folder(chosen.folder, chosen.tokenizer)
    except TrainingError as error:
        raise BadInput(str(error)) from error
    context = base.model.config.context
    train, held_out = (answers.encode(side, base.encoding, context) for side in answers.split(lines, config.held_out))
    if not train.examples:
        raise BadInput(
            f"Nothing of {options.data} is left to train on: of {len(lines):,} examples {len(held_out.examples):,} are"
            f" held out, and the others have answers that do not fit the model's context of {context:,} tokens."
        )
    display.note(_data_facts(train, held_out, context))
    stats = _train(options.out, display, chosen.tokenizer, config=config, base=base, train=train, held_out=held_out)
    display.note(_outcome(stats))
    print(options.out)  # noqa: T201  (the command's result)
    return 0


def _train(out: Path, display: Display, tokenizer: Path, **what: Any) -> dict[str, Any]:
    """Fine-tune what is given, and put checkpoint and tokenizer into `out` at once; returns what is told of it."""
    from model.config import TrainingError, TrainingStopped
    from model.finetune import finetune
    from model.folder import write_tokenizer

    unfinished = out.absolute().with_name(f"{out.name}.unfinished")
    with locks.held(unfinished / "lock", on_wait=lambda: display.note(f"Another run is writing {out}: waiting.")):
        refuse_filled(out)
        result = unfinished / "result"
        shutil.rmtree(result, ignore_errors=True)
        result.mkdir()
        try:
            with display.stage("finetune") as bar:
                stats = finetune(out=result, work=unfinished, progress=bar, **what)
            write_tokenizer(tokenizer, result)
        except TrainingStopped as error:
            display.note(str(error))
            interrupt.stop()
        except TrainingError as error:
            raise StageFailed(str(error)) from error
        for path in [*result.iterdir(), result]:
            flush(path)
        result.rename(out)
        flush(unfinished.parent)
        shutil.rmtree(unfinished)
    return stats


def _config(options: argparse.Namespace) -> "FinetuneConfig":
    from model.finetune import FinetuneConfig

    given = {name: getattr(options, name) for name in SETTINGS if getattr(options, name) is not None}
    try:
        return FinetuneConfig(**given)
    except ValidationError as error:
        first = error.errors()[0]
        name = str(first["loc"][0]).replace("_", "-")
        message = first["msg"].replace("Input should be", "it should be")
        raise BadInput(f"--{name} {first['input']}: {message}.") from error


def _data_facts(train: "Encoded", held_out: "Encoded", context: int) -> str:
    facts = [f"{len(train.examples):,} examples to train on, {len(held_out.examples):,} held out."]
    cut, dropped = train.cut + held_out.cut, train.dropped + held_out.dropped
    if cut:
        facts.append(f"{cut:,} prompts lost their beginning, to fit the model's context of {context:,} tokens.")
    if dropped:
        facts.append(f"{dropped:,} examples were dropped, whose answers alone are longer than that context.")
    if not held_out.examples:
        facts.append("No loss will be told: a larger --held-out measures it.")
    return " ".join(facts)


def _outcome(stats: dict[str, Any]) -> str:
    took = f"{stats['steps']:,} steps, {stats['epochs']:.1f} epochs"
    if stats["val_loss"] is None:
        return f"{took}."
    loss = f"loss on {stats['answer_tokens']:,} held-out answer tokens"
    nats = f"{stats['loss_before']:.3f} → {stats['val_loss']:.3f} nats a token"
    bits = f"{stats['bits_per_byte_before']:.3f} → {stats['bits_per_byte']:.3f} bits per byte"
    return f"{took}: {loss} {nats}, {bits}."
