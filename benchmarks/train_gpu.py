"""A training step on a GPU beside nanoGPT's recipe and transformers' GPT-2, and whether flex and resume hold there.

    python benchmarks/train_gpu.py [--shape gpt2-124m|tiny] [--device cuda|cpu] [--windows N …] [--steps N] [--json]

GPT-2 124M, context 1,024, bfloat16, compiled, all three; ids are random, which no kernel minds. Each takes the number
of windows at once that is fastest for it of those given, after warming up; figures are medians. MFU is against what a
large bfloat16 matrix product reaches on this very device, and against the data sheet's dense peak where it is known.
Then: the largest difference of logits and gradients between FlexAttention and SDPA with documents and local
attention in float32, and between a training of 8 steps and one that was resumed after 4. `--shape tiny --device cpu`
shows that the command works where there is no GPU.
"""

import argparse
import json
import statistics
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[1]
sys.path[0] = str(ROOT)  # not this folder, whose pipeline.py would hide the package

import numpy as np  # noqa: E402
import pyarrow as pa  # noqa: E402
import torch  # noqa: E402

from benchmarks import nanogpt_recipe  # noqa: E402
from model import checkpoint  # noqa: E402
from model.config import PretrainConfig  # noqa: E402
from model.gpt import GPT  # noqa: E402
from model.training.data import Windows  # noqa: E402
from model.training.distributed import Processes  # noqa: E402
from model.training.flops import dense_peak  # noqa: E402
from model.training.hardware import choose, on_gpu  # noqa: E402
from model.training.step import Training  # noqa: E402
from pipeline.documents import write_table  # noqa: E402
from pipeline.shards import INDEX, TokenShards  # noqa: E402

SHAPES: dict[str, dict[str, Any]] = {
    "gpt2-124m": {"preset": "gpt2-124m", "micro_batch_tokens": 0, "vocab_size": 50_257},
    "tiny": {
        "positions": "learned",
        "norm": "layernorm",
        "mlp": "gelu",
        "bias": True,
        "tied": True,
        "optimizer": "adamw",
        "layers": 2,
        "heads": 2,
        "width": 64,
        "context": 64,
        "vocab_size": 500,
    },
}
MATRIX = 8192
"""Side of the matrices whose product tells the peak."""

Step = Callable[[], None]


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--shape", choices=SHAPES, default="gpt2-124m")
    parser.add_argument("--device", choices=("cuda", "cpu"), default="cuda")
    parser.add_argument("--windows", type=int, nargs="+", default=[16, 32, 64], help="windows at once, to choose from")
    parser.add_argument("--steps", type=int, default=10, help="steps of a turn")
    parser.add_argument("--json", action="store_true", help="the figures as one JSON object on the last line")
    options = parser.parse_args()
    if options.device == "cuda" and not torch.cuda.is_available():
        sys.exit("torch finds no CUDA device here: try --shape tiny --device cpu.")
    shape = dict(SHAPES[options.shape])
    vocab_size, device = shape.pop("vocab_size"), torch.device(options.device)
    with tempfile.TemporaryDirectory() as folder:
        write_ids(Path(folder), vocab_size)
        figures = measure(Path(folder), shape, vocab_size, device, options)
        figures["resume_difference"] = resumed(Path(folder), shape, vocab_size, device, min(options.windows))
    figures["flex_difference"] = flex_difference(device)
    print("  ".join(f"{name} {value}" for name, value in figures.items() if not isinstance(value, dict)))
    if options.json:
        print(json.dumps(figures))


def write_ids(folder: Path, vocab_size: int) -> None:
    """Four million random ids as a shard of one document."""
    ids = np.random.default_rng(0).integers(0, vocab_size, 4_000_000).astype("<u2")
    ids.tofile(folder / "train.bin")
    row = [[b"0" * 16], [None], [0], [len(ids)]]
    columns = [pa.array(value, field.type) for value, field in zip(row, INDEX, strict=True)]
    write_table(pa.table(columns, schema=INDEX), folder / "train.arrow")


def training_of(
    folder: Path, shape: dict[str, Any], vocab_size: int, device: torch.device, windows: int, **more: Any
) -> Training:
    """Our own training of so many windows a step."""
    context = PretrainConfig(**shape).context
    config = PretrainConfig(**{"compile": "yes", "steps": 1000, **shape, **more}, device=device.type)
    config = PretrainConfig(**{**config.model_dump(), "batch_tokens": windows * context, "micro_batch_tokens": 0})
    hardware = choose(config)
    data = Windows(TokenShards.open([folder], "train", vocab_size), context, config.seed)
    return Training.start(config, vocab_size, hardware, Processes(device), data, digest="benchmark")


def ours(folder: Path, shape: dict[str, Any], vocab_size: int, device: torch.device, windows: int) -> Step:
    """Our step, compiled."""
    training = training_of(folder, shape, vocab_size, device, windows)
    training.compile()

    def step() -> None:
        training.step()

    return step


def peer_step(model: Any, loss_of: Callable[[Any, Any], Any], config: PretrainConfig, vocab_size: int) -> Step:
    """A step as nanoGPT takes it: bfloat16 autocast, clipping, AdamW with decay on matrices, fused on a GPU."""
    device = next(model.parameters()).device
    matrices = [weight for weight in model.parameters() if weight.ndim >= 2]
    vectors = [weight for weight in model.parameters() if weight.ndim < 2]
    groups = [{"params": matrices, "weight_decay": 0.1}, {"params": vectors, "weight_decay": 0.0}]
    optimizer = torch.optim.AdamW(groups, lr=config.lr, betas=(0.9, config.beta2), fused=on_gpu(device))
    random = torch.Generator().manual_seed(0)

    def step() -> None:
        ids = torch.randint(vocab_size, (config.batch_size, config.context + 1), generator=random).to(device)
        with torch.autocast(device.type, dtype=torch.bfloat16):
            loss = loss_of(ids[:, :-1].contiguous(), ids[:, 1:].contiguous())
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)
        loss.item()

    return step


def nanogpt(_folder: Path, shape: dict[str, Any], vocab_size: int, device: torch.device, windows: int) -> Step:
    """NanoGPT's recipe, compiled."""
    config = of_windows(shape, windows)
    facts = {name: getattr(config, name) for name in ("layers", "heads", "width", "context")}
    with device:
        model = nanogpt_recipe.Model(facts, config.gpt(vocab_size).padded_vocab_size)
    forward = torch.compile(model)
    return peer_step(model, lambda ids, targets: forward(ids, targets)[1], config, vocab_size)


def transformers(_folder: Path, shape: dict[str, Any], vocab_size: int, device: torch.device, windows: int) -> Step:
    """GPT2LMHeadModel of transformers, compiled, in the same loop."""
    from transformers import GPT2Config, GPT2LMHeadModel

    config = of_windows(shape, windows)
    theirs = GPT2Config(
        vocab_size=vocab_size, n_positions=config.context, n_embd=config.width, n_layer=config.layers,
        n_head=config.heads, resid_pdrop=0.0, embd_pdrop=0.0, attn_pdrop=0.0, use_cache=False,
    )  # fmt: skip
    model = GPT2LMHeadModel(theirs).to(device)
    forward = torch.compile(model)

    def loss(ids: torch.Tensor, targets: torch.Tensor) -> torch.Tensor:
        logits = forward(ids).logits.float()
        return torch.nn.functional.cross_entropy(logits.flatten(0, 1), targets.flatten())

    return peer_step(model, loss, config, vocab_size)


CONTENDERS = {"ours": ours, "nanogpt": nanogpt, "transformers": transformers}


def of_windows(shape: dict[str, Any], windows: int) -> PretrainConfig:
    """The shape with so many windows a step."""
    context = PretrainConfig(**shape).context
    return PretrainConfig(**{**shape, "batch_tokens": windows * context, "micro_batch_tokens": 0})


def measure(
    folder: Path, shape: dict[str, Any], vocab_size: int, device: torch.device, options: argparse.Namespace
) -> dict[str, Any]:
    """The table, and the figures by name."""
    config = PretrainConfig(**shape)
    with torch.device("meta"):
        flops = GPT(config.gpt(vocab_size)).flops_per_token()
    reached = matrix_flops(device)
    name = torch.cuda.get_device_name(device) if on_gpu(device) else ""
    sheet = dense_peak(name, bfloat16=True)
    print(f"{name or device.type}: a matrix product reaches {reached / 1e12:,.1f} TFLOP/s")
    print(f"{'':<14}{'windows':>8}{'tokens/s':>12}{'MFU':>8}{'of sheet':>10}{'peak GiB':>10}")
    figures: dict[str, Any] = {"matrix_tflops": round(reached / 1e12, 1)}
    for contender, build in CONTENDERS.items():
        best: tuple[float, int, float] = (0.0, 0, 0.0)
        for windows in options.windows:
            torch._dynamo.reset()
            if on_gpu(device):
                torch.cuda.empty_cache()
                torch.cuda.reset_peak_memory_stats()
            try:
                seconds = timed(build(folder, shape, vocab_size, device, windows), device, options.steps)
            except torch.OutOfMemoryError:
                break
            memory = torch.cuda.max_memory_allocated() / 2**30 if on_gpu(device) else 0.0
            best = max(best, (windows * config.context / seconds, windows, memory))
        pace, windows, memory = best
        shares = pace * flops / reached, pace * flops / sheet if sheet else None
        figures[contender] = {"tokens_s": round(pace), "mfu": shares[0], "mfu_sheet": shares[1], "peak_gib": memory}
        told = f"{shares[1]:>9.1%}" if shares[1] else f"{'unknown':>9}"
        print(f"{contender:<14}{windows:>8}{pace:>12,.0f}{shares[0]:>8.1%} {told}{memory:>10.1f}", flush=True)
    for peer in ("nanogpt", "transformers"):
        figures[f"x_{peer}"] = round(figures["ours"]["tokens_s"] / max(1, figures[peer]["tokens_s"]), 2)
    figures["mfu"] = round(figures["ours"]["mfu"], 3)
    return figures


def timed(step: Step, device: torch.device, steps: int) -> float:
    """Median seconds of a step, after three unmeasured ones."""
    for _ in range(3):
        step()
    seconds = []
    for _ in range(steps):
        if on_gpu(device):
            torch.cuda.synchronize()
        began = time.perf_counter()
        step()
        if on_gpu(device):
            torch.cuda.synchronize()
        seconds.append(time.perf_counter() - began)
    return statistics.median(seconds)


def matrix_flops(device: torch.device) -> float:
    """FLOP/s of a large bfloat16 matrix product."""
    side = MATRIX if on_gpu(device) else 512
    one, two = (torch.randn(side, side, device=device, dtype=torch.bfloat16) for _ in range(2))

    def product() -> None:
        torch.matmul(one, two)

    return 2 * side**3 / timed(product, device, 20)


def flex_difference(device: torch.device) -> float:
    """Largest difference of logits, and on a GPU of gradients, between FlexAttention and SDPA, in float32."""
    torch.manual_seed(0)
    shape = PretrainConfig(
        layers=4, heads=4, width=128, context=256, attention=("full", "local", "strided", "fixed"), window=50,
        stride=32, within_documents=True,
    ).gpt(500)  # fmt: skip
    models = {backend: GPT(shape, backend=backend).to(device) for backend in ("sdpa", "flex")}
    models["flex"].load_state_dict(models["sdpa"].state_dict())
    ids = torch.randint(500, (2, 256), device=device)
    documents = (torch.arange(256, device=device) // 100).expand(2, 256).contiguous()
    found = []
    for model in models.values():
        with torch.set_grad_enabled(on_gpu(device)):  # on a CPU FlexAttention has no backward pass
            logits = model(ids, documents)
        parts = [logits.detach()]
        if on_gpu(device):
            logits.square().mean().backward()
            parts += [weight.grad for weight in model.parameters()]
        found.append(parts)
    return max(float((one - other).abs().max()) for one, other in zip(*found, strict=True))


def resumed(folder: Path, shape: dict[str, Any], vocab_size: int, device: torch.device, windows: int) -> float:
    """Largest difference of weights between a training of 8 steps and one resumed from its checkpoint after 4."""
    straight = training_of(folder, shape, vocab_size, device, windows, compile="no")
    for step in range(8):
        if step == 4:
            straight.save(folder / "work")
        straight.step()
    again = training_of(folder, shape, vocab_size, device, windows, compile="no")
    newest, _ = checkpoint.newest(folder / "work")
    assert newest
    again.resume(newest)
    for _ in range(4):
        again.step()
    pairs = zip(straight.model.parameters(), again.model.parameters(), strict=True)
    with torch.no_grad():
        return max(float((one - other).abs().max()) for one, other in pairs)


if __name__ == "__main__":
    main()
