"""The loss of a linear head, forward and backward, four ways: seconds and peak memory.

    python benchmarks/cross_entropy.py [--rounds N] [--threads N] [--clock CLOCK] [--json]

`ours` is `linear_cross_entropy`; `whole` makes all logits at once; `checkpointed` makes them in chunks, and again going
backward; each but for the last also compiled. In bfloat16 where the processor has it. Each way is measured in a process
of its own, a round each in turn; seconds are the least of the rounds, memory is what a process grows by at its peak
(on Linux), gradients of x and of weight included.
"""

import argparse
import json
import os
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

sys.path[0] = str(Path(__file__).parents[1])  # not this folder, whose pipeline.py would hide the package

import torch  # noqa: E402
from torch import Tensor  # noqa: E402
from torch.utils.checkpoint import checkpoint  # noqa: E402

from model.cross_entropy import CHUNK_ROWS, linear_cross_entropy, whole_cross_entropy  # noqa: E402
from model.training.hardware import has_bfloat16  # noqa: E402

SIZES = {"GPT-2, width 256": (1024, 256, 50257), "GPT-2, width 768": (1024, 768, 50257), "4,096": (2048, 192, 4096)}
"""Rows, width, vocabulary."""

Loss = Callable[[Tensor, Tensor, Tensor, int], Tensor]


def checkpointed(x: Tensor, weight: Tensor, targets: Tensor, vocab_size: int) -> Tensor:
    """The loss in chunks whose logits are computed again going backward."""
    parts = zip(x.split(CHUNK_ROWS), targets.split(CHUNK_ROWS), strict=True)
    losses = [
        checkpoint(whole_cross_entropy, some, weight, theirs, vocab_size, use_reentrant=False) for some, theirs in parts
    ]
    return torch.stack(losses).sum()


WAYS: dict[str, Callable[[], Loss]] = {
    "ours": lambda: linear_cross_entropy,
    "ours, compiled": lambda: torch.compile(linear_cross_entropy),
    "whole": lambda: whole_cross_entropy,
    "whole, compiled": lambda: torch.compile(whole_cross_entropy),
    "checkpointed": lambda: checkpointed,
}


def main() -> None:
    """Measure and print, or be one way that is measured."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rounds", type=int, default=9)
    parser.add_argument("--threads", type=int, default=len(os.sched_getaffinity(0)))
    parser.add_argument(
        "--clock", choices=("wall", "cpu"), default="wall", help="cpu for a busy machine, with 1 thread"
    )
    parser.add_argument("--json", action="store_true", help="the figures as one JSON object on the last line")
    parser.add_argument("--way", nargs=2, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.way:
        serve(*options.way, options)
        return
    figures = {size: measure(size, options) for size in SIZES}
    for size, ways in figures.items():
        print(f"\n{size:<20}{'ms':>10}{'MiB':>10}")
        for way, row in ways.items():
            print(f"{way:<20}{row['ms']:>10.1f}{row['mib']:>10.0f}")
    if options.json:
        print(json.dumps(figures))


def measure(size: str, options: argparse.Namespace) -> dict[str, dict[str, float]]:
    """Milliseconds and MiB of each way."""
    command = [sys.executable, __file__, "--threads", str(options.threads), "--clock", options.clock, "--way", size]
    runs = {way: subprocess.Popen([*command, way], stdin=-1, stdout=-1, text=True, bufsize=1) for way in WAYS}
    milliseconds: dict[str, list[float]] = {way: [] for way in WAYS}
    try:
        for _ in range(options.rounds + 1):
            for way, run in runs.items():
                run.stdin.write("\n")
                milliseconds[way].append(float(run.stdout.readline()))
        return {
            way: {"ms": min(milliseconds[way][1:]), "mib": float(run.communicate()[0])} for way, run in runs.items()
        }
    finally:
        for run in runs.values():
            run.kill()


def serve(size: str, way: str, options: argparse.Namespace) -> None:
    """For every line read, go forward and backward once and print the milliseconds; at the end, the MiB."""
    torch.set_num_threads(options.threads)
    clock = time.process_time if options.clock == "cpu" else time.perf_counter
    rows, width, vocab_size = SIZES[size]
    weight = torch.randn(-(-vocab_size // 64) * 64, width).mul_(0.02).requires_grad_()
    x, targets = torch.randn(rows, width, requires_grad=True), torch.randint(vocab_size, (rows,))
    loss = WAYS[way]()
    start_mib = 0.0
    for turn, _ in enumerate(sys.stdin):
        start = clock()
        with torch.autocast("cpu", dtype=torch.bfloat16, enabled=has_bfloat16(False)):
            mean = loss(x, weight, targets, vocab_size) / rows
        mean.backward()
        print((clock() - start) * 1000, flush=True)
        x.grad = weight.grad = None
        if turn == 0:  # compiled by now
            Path("/proc/self/clear_refs").write_text("5")  # the peak counts anew from here
            start_mib = memory("VmRSS")
    print(memory("VmHWM") - start_mib)


def memory(name: str) -> float:
    """MiB of this process, by the name that Linux has for them."""
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith(name)) / 1024


if __name__ == "__main__":
    main()
