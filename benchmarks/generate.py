"""Greedy generation with and without a key-value cache, and by transformers' `generate` on the exported model.

    python benchmarks/generate.py [--tokens N] [--rounds N] [--layers N] [--width N] [--json]

A model of GPT-2's shape (12 layers of 768 by default, GPT-2's vocabulary, context 512, random weights, float32) goes
on from one prompt of 16 ids and, but for the way without a cache, which would take a quarter of an hour a round, from
8 of them at once. The contenders take turns, round by round; a figure is the median. What each writes is compared, so a
ratio is of equal work: with one prompt all three must write the same ids.
"""

import argparse
import json
import statistics
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

sys.path[0] = str(Path(__file__).parents[1])  # not this folder, whose pipeline.py would hide the package

import torch  # noqa: E402

from model.config import GPTConfig  # noqa: E402
from model.generation.generate import generate_batch  # noqa: E402
from model.generation.sampling import Sampling  # noqa: E402
from model.gpt import GPT  # noqa: E402
from model.huggingface.weights import save  # noqa: E402
from model.presets import GPT2  # noqa: E402

GREEDY = Sampling(temperature=0)
PROMPT, ROWS = 16, 8
WARM_UP = 4
"""Tokens."""

Ids = list[list[int]]
Way = Callable[[Ids, int], Ids]
"""From prompts and a number of tokens to what it writes after each."""


def main() -> None:
    """Build the model, measure, print."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--tokens", type=int, default=256)
    parser.add_argument("--rounds", type=int, default=2)
    parser.add_argument("--layers", type=int, default=12)
    parser.add_argument("--width", type=int, default=768, help="a multiple of 64, the width of a head")
    parser.add_argument("--json", action="store_true", help="the figures as one JSON object on the last line")
    options = parser.parse_args()
    try:
        from transformers import GPT2LMHeadModel
    except ImportError:
        sys.exit("transformers is not installed: pip install 'gptmill[bench]'.")
    torch.manual_seed(0)
    heads = options.width // 64
    shape = GPTConfig(layers=options.layers, heads=heads, width=options.width, context=512, vocab_size=50_257, **GPT2)
    model = GPT(shape).eval()
    with torch.no_grad():  # logits far enough apart that rounding changes no choice
        for weight in model.parameters():
            weight.mul_(5 if weight.ndim == 2 else 1)
    with tempfile.TemporaryDirectory() as folder:
        save(model, Path(folder))
        theirs = GPT2LMHeadModel.from_pretrained(folder).eval()

    def ours(prompts: Ids, tokens: int, *, cached: bool) -> Ids:
        steps = generate_batch(model, prompts, max_tokens=tokens, sampling=GREEDY, cached=cached)
        return [list(column) for column in zip(*steps, strict=True)]  # type: ignore[arg-type]

    @torch.no_grad()
    def transformers(prompts: Ids, tokens: int) -> Ids:
        ids = torch.tensor(prompts)
        written = theirs.generate(
            ids,
            attention_mask=torch.ones_like(ids),
            max_new_tokens=tokens,
            do_sample=False,
            eos_token_id=None,
            pad_token_id=0,
        )
        return written[:, PROMPT:].tolist()

    random = torch.Generator().manual_seed(1)
    prompts = torch.randint(shape.vocab_size, (ROWS, PROMPT), generator=random).tolist()
    print(f"{options.tokens} new tokens after {PROMPT}, {torch.get_num_threads()} threads, float32")
    print(f"{'':24}{'one prompt':>14}{f'{ROWS} prompts':>14}   tokens/s")
    ways: dict[str, Way] = {
        "cached": lambda some, tokens: ours(some, tokens, cached=True),
        "uncached": lambda some, tokens: ours(some, tokens, cached=False),
        "transformers": transformers,
    }
    alone, agreed = measured(ways, prompts[:1], options.tokens, options.rounds)
    if not agreed:
        sys.exit("The three did not write the same ids: their speeds cannot be compared.")
    del ways["uncached"]
    together, _ = measured(ways, prompts, options.tokens, options.rounds)
    for name, seconds in alone.items():
        rate = f"{ROWS * options.tokens / together[name]:14,.0f}" if name in together else f"{'–':>14}"
        print(f"{name:24}{options.tokens / seconds:14,.1f}{rate}")
    figures = {
        "x_uncached": round(alone["uncached"] / alone["cached"], 2),
        "x_transformers": round(alone["transformers"] / alone["cached"], 2),
        "x_transformers_batch": round(together["transformers"] / together["cached"], 2),
    }
    print("  ".join(f"{name} {value}" for name, value in figures.items()))
    if options.json:
        print(json.dumps(figures))


def measured(ways: dict[str, Way], prompts: Ids, tokens: int, rounds: int) -> tuple[dict[str, float], bool]:
    """Median seconds of each way, taking turns after a short unmeasured go; and whether all wrote the same."""
    for way in ways.values():
        way(prompts, WARM_UP)
    seconds: dict[str, list[float]] = {name: [] for name in ways}
    written = []
    for _ in range(rounds):
        for name, way in ways.items():
            began = time.perf_counter()
            written.append(way(prompts, tokens))
            seconds[name].append(time.perf_counter() - began)
    same = all(ids == written[0] for ids in written)
    return {name: statistics.median(times) for name, times in seconds.items()}, same


if __name__ == "__main__":
    main()
