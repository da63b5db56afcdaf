"""`gptmill generate`: text from a model, as it comes."""

import argparse
import secrets
import sys
from pathlib import Path

from flows import options as kinds
from flows.display import Display
from flows.models import latest_model, model_in
from pipeline.config import BadInput
from pipeline.shards import end_of_text


def arguments(added: argparse.ArgumentParser) -> None:
    """Declare what the command takes."""
    kinds.with_store(added)
    added.add_argument("prompt", nargs="?", default="", help="the text to go on from; none: start a new document")
    added.add_argument("-c", "--config", type=Path, metavar="FILE", help="the latest model of this config")
    added.add_argument("--checkpoint", type=Path, metavar="FOLDER", help="this checkpoint, or Hugging Face folder")
    added.add_argument("--temperature", type=kinds.at_least_zero, default=0.8, help="0: the likeliest (default 0.8)")
    added.add_argument("--top-k", type=kinds.count, default=0, help="sample among the k likeliest (default: all)")
    added.add_argument("--top-p", type=kinds.share, default=0.95, help="sample within this probability (default 0.95)")
    added.add_argument("--min-p", type=kinds.up_to_one, default=0.0, help="least share of the likeliest's chance")
    added.add_argument(
        "--repetition-penalty", type=kinds.at_least_one, default=1.0, metavar="R", help="above 1: say less twice"
    )
    added.add_argument(
        "--stop",
        type=kinds.some_text,
        action="append",
        default=[],
        metavar="TEXT",
        help="end before TEXT; may be repeated",
    )
    added.add_argument("--seed", type=kinds.seed, default=None, help="same seed, same text")
    added.add_argument("--max-tokens", type=kinds.positive, default=200, help="stop after so many (default 200)")


def run(options: argparse.Namespace, _display: Display) -> int:
    """Stream a text to stdout."""
    if options.checkpoint:
        chosen = model_in(options.checkpoint, options.store, options.config)
    else:
        chosen = latest_model(options.store, options.config)
    from model.config import TrainingError
    from model.folder import open_folder
    from model.generation.generate import generate
    from model.generation.sampling import Sampling
    from model.generation.writing import stream_text

    try:
        model, encoding = open_folder(chosen.folder, chosen.tokenizer)
    except TrainingError as error:
        raise BadInput(f"The model of {chosen.name} cannot be used: {error}") from error
    stop = end_of_text(encoding)
    ids = generate(
        model.eval(),
        [stop, *encoding.encode_ordinary(options.prompt)],
        max_tokens=options.max_tokens,
        sampling=Sampling(
            temperature=options.temperature,
            top_k=options.top_k,
            top_p=options.top_p,
            min_p=options.min_p,
            repetition_penalty=options.repetition_penalty,
        ),
        seed=secrets.randbits(32) if options.seed is None else options.seed,
        stop_id=stop,
    )
    sys.stdout.write(options.prompt.encode("utf-8", "replace").decode())  # an argument may be no UTF-8
    for text in stream_text(encoding, ids, options.stop):
        sys.stdout.write(text)
        sys.stdout.flush()
    sys.stdout.write("\n")
    return 0
