"""How fast, how well and in how much memory we train, beside nanoGPT's recipe, Hugging Face's Trainer and litgpt.

    python benchmarks/train.py [--text FILE] [--rounds N] [--threads N] [--clock CLOCK] [--litgpt-python PYTHON]
                              [--json]

On a CPU: the same text, shape, batch, steps, learning rates and threads for all, each in a process of its own, some
steps each in turn, round by round. Two shapes: GPT-2's vocabulary with 4 layers of 256, 256 tokens, 4 windows a step;
and characters with 4 layers of 128, 64 tokens, 12 windows a step, which is nanoGPT's recipe for tinyshakespeare on a
CPU. `matched` are the peers in our precision, compiled, as we are; as shipped they are float32 and eager.

Ratios are medians over the rounds of their time over ours. The loss is that of the same validation windows in float32,
once after equal steps, and once after the seconds that the fastest of all took. Peak memory is that of further
processes that train and validate nothing, from import to the fifth step, compiling with an empty cache included; so
is the time to the first step. At last ours trains the preset `char-cpu` whole (`char_val_loss`, every validation token;
nanoGPT's README gives 1.88).

Without --text: tinyshakespeare of ../shared/data/text, or where that is absent the documentation of this Python's own
modules. litgpt has no GPT-2 and trains a shape like Pythia's; PYTHON is an interpreter that has it.
Needs transformers and accelerate: pip install -e '.[bench]'.
"""

import argparse
import importlib.util
import json
import os
import pydoc
import subprocess
import sys
import tempfile
import time
from contextlib import ExitStack, contextmanager
from pathlib import Path
from statistics import median
from typing import Any

ROOT = Path(__file__).resolve().parents[1]
sys.path[0] = str(ROOT)  # not this folder, whose pipeline.py would hide the package

import numpy as np  # noqa: E402
import pyarrow as pa  # noqa: E402
import tiktoken  # noqa: E402

from model.config import GPTConfig, PretrainConfig  # noqa: E402
from model.training.hardware import has_bfloat16  # noqa: E402
from pipeline.documents import write_table  # noqa: E402
from pipeline.shards import INDEX  # noqa: E402
from pipeline.vocabulary.bpe import GPT2_PATTERN  # noqa: E402
from pipeline.vocabulary.gpt2 import gpt2_ranks  # noqa: E402

TEXT = ROOT.parent / "shared" / "data" / "text" / "tinyshakespeare.txt"
MODULES = ("argparse", "asyncio", "collections", "datetime", "decimal", "email", "http", "logging", "os", "typing")
CHILD = Path(__file__).with_name("train_contenders.py")

# nanoGPT's learning rates for small models, in its README and config/train_shakespeare_char.py.
RECIPE = {"lr": 1e-3, "beta2": 0.99, "weight_decay": 0.1}
SHAPES = {
    "gpt2_vocabulary": {"layers": 4, "heads": 4, "width": 256, "context": 256, "batch": 4, "every": 4},
    "characters": {"layers": 4, "heads": 4, "width": 128, "context": 64, "batch": 12, "every": 50},
}
PEERS = ("nanogpt", "nanogpt_matched", "hf", "hf_matched", "litgpt")


def main() -> int:
    """Measure and print; 2 where a peer is not installed or the text is missing."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--text", type=Path, help="a file of plain text")
    parser.add_argument("--rounds", type=int, default=8, help="turns of each")
    parser.add_argument("--threads", type=int, default=len(os.sched_getaffinity(0)))
    parser.add_argument(
        "--clock", choices=("wall", "cpu"), default="wall", help="cpu for a busy machine, with 1 thread"
    )
    parser.add_argument("--litgpt-python", metavar="PYTHON", help="an interpreter that has litgpt")
    parser.add_argument("--json", action="store_true", help="the figures as one JSON object on the last line")
    options = parser.parse_args()
    if not all(importlib.util.find_spec(name) for name in ("transformers", "accelerate")):
        print("transformers and accelerate are not installed: pip install -e '.[bench]'", file=sys.stderr)
        return 2
    if options.text and not options.text.is_file():
        print(f"There is no file {options.text}.", file=sys.stderr)
        return 2
    figures: dict[str, Any] = {"threads": options.threads, "bfloat16": has_bfloat16(False), "shapes": {}}
    with tempfile.TemporaryDirectory() as scratch:
        for name, shape in SHAPES.items():
            folder = Path(scratch) / name
            prepare(folder, text_of(options.text), shape, options, characters=name == "characters")
            figures["shapes"][name] = measure(folder, options)
            print_page(name, figures["shapes"][name])
        losses = figures["shapes"]["gpt2_vocabulary"]
        figures |= {f"x_{peer}": losses[peer]["x"] for peer in PEERS if peer in losses}
        figures["x_nanogpt_shipped"] = figures.pop("x_nanogpt")
        figures["peak_mib"] = losses["ours"]["peak_mib"]
        figures |= char_recipe(Path(scratch) / "characters", options.threads)
    print(f"\nchar-cpu, {figures['char_steps']:,} steps in {figures['char_s']:.0f} s: {figures['char_val_loss']:.4f}")
    if options.json:
        print(json.dumps(figures))
    return 0


def text_of(file: Path | None) -> str:
    """The text to train on."""
    file = file or (TEXT if TEXT.is_file() else None)
    return file.read_text() if file else "".join(pydoc.plain(pydoc.render_doc(name)) for name in MODULES)


def prepare(folder: Path, text: str, shape: dict[str, int], options: argparse.Namespace, *, characters: bool) -> None:
    """Nine tenths of the text as ids in train.bin, the rest in val.bin, 16 bits each, and facts.json."""
    folder.mkdir()
    if characters:
        alphabet = sorted(set(text))
        places = {character: place for place, character in enumerate(alphabet)}
        ids, vocab_size = np.array([places[character] for character in text], dtype="<u2"), len(alphabet)
    else:
        ranks = gpt2_ranks()
        encoding = tiktoken.Encoding("gpt2", pat_str=GPT2_PATTERN, mergeable_ranks=ranks, special_tokens={})
        ids, vocab_size = np.array(encoding.encode_ordinary(text), dtype="<u2"), len(ranks) + 1  # end-of-text
    cut = len(ids) * 9 // 10
    for split, part in {"train": ids[:cut], "val": ids[cut:]}.items():
        part.tofile(folder / f"{split}.bin")
        row = [[split.encode().ljust(16)], [None], [0], [len(part)]]
        columns = [pa.array(value, field.type) for value, field in zip(row, INDEX, strict=True)]
        write_table(pa.table(columns, schema=INDEX), folder / f"{split}.arrow")
    steps = 1 + options.rounds * shape["every"]
    facts = {
        **shape, **RECIPE, "vocab_size": vocab_size, "steps": steps, "warmup": steps // 20,
        "threads": options.threads, "clock": options.clock,
        "padded_vocab_size": GPTConfig(vocab_size=vocab_size).padded_vocab_size, "bfloat16": has_bfloat16(False),
    }  # fmt: skip
    (folder / "facts.json").write_text(json.dumps(facts))


def measure(folder: Path, options: argparse.Namespace) -> dict[str, Any]:
    """Name of a contender to its figures, for one shape."""
    facts = json.loads((folder / "facts.json").read_text())
    pythons = dict.fromkeys(("ours", *PEERS), sys.executable) | {"litgpt": options.litgpt_python}
    names = [name for name, python in pythons.items() if python]
    figures: dict[str, Any] = {}
    # Code compiled by the first is not to be found by the second.
    environment = os.environ | {"OMP_NUM_THREADS": str(options.threads), "TOKENIZERS_PARALLELISM": "false"}
    for name in names:
        own = environment | {"TORCHINDUCTOR_CACHE_DIR": str(folder / f"cache-{name}")}
        command = [pythons[name], str(CHILD), name, str(folder), "--peak"]
        figures[name] = json.loads(subprocess.run(command, env=own, check=True, stdout=-1).stdout.splitlines()[-1])
    with ExitStack() as stack:
        runs = {}
        for name in names:
            own = environment | {"TORCHINDUCTOR_CACHE_DIR": str(folder / f"cache-{name}")}
            command = [pythons[name], str(CHILD), name, str(folder)]
            runs[name] = stack.enter_context(running(command, own))
        rounds = [{name: turn(runs[name]) for name in ordered} for ordered in turns(names, options.rounds)]
    seconds = {name: np.cumsum([each[name]["seconds"] for each in rounds]) for name in names}
    least = min(times[-1] for times in seconds.values())
    for name in names:
        losses = [each[name]["val_loss"] for each in rounds]
        figures[name] |= {
            "tokens_s": median(facts["batch"] * facts["context"] * facts["every"] / r[name]["seconds"] for r in rounds),
            "x": median(each[name]["seconds"] / each["ours"]["seconds"] for each in rounds),
            "val_loss": losses[-1],
            "val_loss_equal_seconds": float(np.interp(least, seconds[name], losses)),
        }
    return figures


def turns(names: list[str], rounds: int) -> list[list[str]]:
    """Who goes when: everyone once a round, each round beginning with another."""
    return [names[first % len(names) :] + names[: first % len(names)] for first in range(rounds)]


@contextmanager
def running(command: list[str], environment: dict[str, str]) -> Any:
    """A contender's process, once its first step is done."""
    process = subprocess.Popen(command, env=environment, stdin=-1, stdout=-1, text=True)
    try:
        record(process)
        yield process
    finally:
        process.kill()
        process.wait()


def turn(process: "subprocess.Popen[str]") -> dict[str, float]:
    """Let a contender take its next steps; their seconds, and the loss after them."""
    process.stdin.write("\n")
    process.stdin.flush()
    return record(process)


def record(process: "subprocess.Popen[str]") -> dict[str, float]:
    """The next record that a contender prints; other lines are its libraries'."""
    for line in process.stdout:
        if line.startswith("{"):
            return json.loads(line)
    raise RuntimeError(f"{' '.join(process.args)} ended with exit status {process.wait()}")


def char_recipe(folder: Path, threads: int) -> dict[str, float]:
    """Loss of the preset `char-cpu` on the whole validation split, after all its steps."""
    import torch

    from model.training.data import Batch, Windows
    from model.training.distributed import Processes
    from model.training.hardware import choose, reproducible
    from model.training.score import mean_loss
    from model.training.step import Training
    from pipeline.shards import TokenShards

    vocab_size = json.loads((folder / "facts.json").read_text())["vocab_size"]
    config = PretrainConfig(preset="char-cpu", compile="yes", threads=threads)
    hardware = choose(config)
    windows = Windows(TokenShards.open([folder], "train", vocab_size), config.context, config.seed)
    val = np.fromfile(folder / "val.bin", dtype="<u2").astype(np.int64)
    count = (len(val) - 1) // config.context
    inputs, targets = (val[start : start + count * config.context].reshape(count, -1) for start in (0, 1))
    began = time.perf_counter()
    with reproducible(hardware.device):
        training = Training.start(config, vocab_size, hardware, Processes(hardware.device), windows, digest="benchmark")
        training.compile()
        for _ in range(training.state.steps):
            training.step()
        seconds = time.perf_counter() - began
        with torch.no_grad():
            batches = [Batch(inputs[row : row + 64], targets[row : row + 64]) for row in range(0, count, 64)]
            loss = mean_loss(training.model, batches)
    return {"char_val_loss": loss, "char_s": seconds, "char_steps": training.state.steps}


def print_page(name: str, figures: dict[str, Any]) -> None:
    """The figures of a shape for people."""
    heads = ("tokens/s", "ours is", "loss", "same s", "peak MiB", "first step")
    print(f"\n{name}\n{'':<17}" + "".join(f"{head:>12}" for head in heads))
    for contender, row in figures.items():
        print(
            f"{contender:<17}{row['tokens_s']:>12,.0f}{row['x']:>11.2f}x{row['val_loss']:>12.3f}"
            f"{row['val_loss_equal_seconds']:>12.3f}{row['peak_mib']:>12,.0f}{row['first_s']:>10.1f} s",
            flush=True,
        )


if __name__ == "__main__":
    sys.exit(main())
