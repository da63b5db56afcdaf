"""One contender of `train.py`, in a process of its own: `python train_contenders.py NAME FOLDER [--peak]`.

Prints a JSON line after its first step, and then, for every line that it reads, one after `every` further steps: the
seconds they took and the loss on the validation windows, whose computing is not timed. With `--peak` it trains for a
few steps without a break, and prints how much memory that took.
"""

import json
import resource
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[1]
sys.path[0] = str(ROOT)  # not this folder, whose pipeline.py would hide the package

import numpy as np  # noqa: E402
import torch  # noqa: E402
from torch import Tensor  # noqa: E402
from torch.nn import functional  # noqa: E402

Logits = Callable[[Tensor], Tensor]
"""Ids (B, T) to logits (B, T, V) in float32, as far as weights and code allow."""

PEAK_STEPS = 5
VAL_WINDOWS = 24


class Pace:
    """Called after every step: keeps the time, and waits for the word to go on."""

    def __init__(self, folder: Path, facts: dict[str, Any]) -> None:
        self.every, self.batch, context = facts["every"], facts["batch"], facts["context"]
        ids = np.fromfile(folder / "val.bin", dtype=np.uint16).astype(np.int64)
        count = min(VAL_WINDOWS, (len(ids) - 1) // context)
        self.inputs = torch.from_numpy(ids[: count * context].reshape(count, context))
        self.targets = torch.from_numpy(ids[1 : count * context + 1].reshape(count, context))
        self.clock = time.process_time if facts["clock"] == "cpu" else time.perf_counter
        self.steps, self.start = 0, self.clock()

    def __call__(self, logits: Logits) -> None:
        """Hear that a step is done."""
        self.steps += 1
        if (self.steps - 1) % self.every:
            return
        seconds = self.clock() - self.start
        tell(steps=self.steps, seconds=seconds, val_loss=self.loss(logits))
        sys.stdin.readline()
        self.start = self.clock()

    @torch.no_grad()
    def loss(self, logits: Logits) -> float:
        """Mean nats a token on the validation windows."""
        pairs = zip(self.inputs.split(self.batch), self.targets.split(self.batch), strict=True)
        sums = [
            functional.cross_entropy(logits(ids).float().flatten(0, 1), targets.flatten(), reduction="sum").item()
            for ids, targets in pairs
        ]
        return sum(sums) / self.targets.numel()


class Peak:
    """Called after every step: ends the process after some, with what their memory came to."""

    def __init__(self, *_: Any) -> None:
        self.began, self.seconds = time.perf_counter(), []

    def __call__(self, _logits: Logits) -> None:
        """Hear that a step is done."""
        self.seconds.append(time.perf_counter() - self.began)
        if len(self.seconds) == PEAK_STEPS:
            tell(first_s=self.seconds[0], peak_mib=resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024)
            sys.exit()


def tell(**record: Any) -> None:
    """One line for the parent."""
    print(json.dumps(record), flush=True)


def train_ours(folder: Path, facts: dict[str, Any], step_done: Callable[[Logits], None]) -> None:
    """Our own step, compiled, in the precision that the processor is fast in."""
    from model.config import PretrainConfig
    from model.presets import GPT2
    from model.training.data import Windows
    from model.training.distributed import Processes
    from model.training.hardware import choose, reproducible
    from model.training.step import Training
    from pipeline.shards import TokenShards

    config = PretrainConfig(
        **{**GPT2, "bias": False, "optimizer": "adamw", "compile": "yes", "threads": facts["threads"]},
        **{name: facts[name] for name in ("layers", "heads", "width", "context", "lr", "beta2", "weight_decay")},
        batch_tokens=facts["batch"] * facts["context"],
        # One step more at either end gives each step that is taken the peers' rate, which starts lower and ends higher.
        steps=facts["steps"] + 1,
        warmup=(facts["warmup"] + 1) / (facts["steps"] + 1),
        final_lr=0.1,
    )
    hardware = choose(config)
    windows = Windows(TokenShards.open([folder], "train", facts["vocab_size"]), config.context, config.seed)
    with reproducible(hardware.device):
        training = Training.start(
            config, facts["vocab_size"], hardware, Processes(hardware.device), windows, digest="benchmark"
        )
        training.compile()
        for _ in range(facts["steps"]):
            training.step()
            step_done(training.model)


def train_nanogpt(folder: Path, facts: dict[str, Any], step_done: Callable[[Logits], None]) -> None:
    """The recipe of nanoGPT as shipped: float32, eager."""
    from benchmarks.nanogpt_recipe import train

    train(folder, facts, False, step_done)


def train_nanogpt_matched(folder: Path, facts: dict[str, Any], step_done: Callable[[Logits], None]) -> None:
    """The recipe of nanoGPT in our precision, compiled."""
    from benchmarks.nanogpt_recipe import train

    train(folder, facts, True, step_done)


def train_hf(
    folder: Path, facts: dict[str, Any], step_done: Callable[[Logits], None], settings: dict[str, Any] | None = None
) -> None:
    """Hugging Face's Trainer with GPT2LMHeadModel as shipped: float32, eager, its fused AdamW."""
    from transformers import GPT2Config, GPT2LMHeadModel, Trainer, TrainerCallback, TrainingArguments
    from transformers.utils import logging

    logging.set_verbosity_error()
    context = facts["context"]
    ids = np.memmap(folder / "train.bin", dtype=np.uint16, mode="r")

    class Rows(torch.utils.data.Dataset):
        def __len__(self) -> int:
            return len(ids) // context

        def __getitem__(self, index: int) -> dict[str, Any]:
            row = torch.from_numpy(ids[index * context : (index + 1) * context].astype(np.int64))
            return {"input_ids": row, "labels": row}

    class Pacing(TrainerCallback):
        def on_step_end(self, *_args: Any, model: Any, **_named: Any) -> None:
            step_done(lambda batch: getattr(model, "_orig_mod", model)(batch).logits)

    torch.manual_seed(0)
    shape = GPT2Config(
        vocab_size=facts["vocab_size"], n_positions=context, n_embd=facts["width"], n_layer=facts["layers"],
        n_head=facts["heads"], resid_pdrop=0.0, embd_pdrop=0.0, attn_pdrop=0.0, bos_token_id=0, eos_token_id=0,
        use_cache=False,
    )  # fmt: skip
    arguments = TrainingArguments(
        output_dir=str(folder / "hf"), use_cpu=True, max_steps=facts["steps"],
        per_device_train_batch_size=facts["batch"], learning_rate=facts["lr"], weight_decay=facts["weight_decay"],
        adam_beta2=facts["beta2"], lr_scheduler_type="cosine_with_min_lr", lr_scheduler_kwargs={"min_lr_rate": 0.1},
        warmup_steps=facts["warmup"], save_strategy="no", logging_strategy="no", report_to=[], disable_tqdm=True,
        dataloader_pin_memory=False, **(settings or {}),
    )  # fmt: skip
    Trainer(model=GPT2LMHeadModel(shape), args=arguments, train_dataset=Rows(), callbacks=[Pacing()]).train()


def train_hf_matched(folder: Path, facts: dict[str, Any], step_done: Callable[[Logits], None]) -> None:
    """Hugging Face's Trainer in our precision, compiled."""
    train_hf(folder, facts, step_done, {"bf16": facts["bfloat16"], "torch_compile": True})


def train_litgpt(folder: Path, facts: dict[str, Any], step_done: Callable[[Logits], None]) -> None:
    """The GPT of litgpt with Pythia's shape (it has no GPT-2: rotary positions, parallel residual, untied head).

    The step is that of its `pretrain`: compiled, chunked loss, AdamW on all parameters, gradients clipped.
    """
    from litgpt import GPT, Config
    from litgpt.utils import chunked_cross_entropy

    from benchmarks.nanogpt_recipe import draw, rate

    torch.manual_seed(0)
    shape = Config(
        block_size=facts["context"], n_layer=facts["layers"], n_embd=facts["width"], n_head=facts["heads"],
        vocab_size=facts["vocab_size"], padded_vocab_size=facts["padded_vocab_size"], rotary_percentage=0.25,
        norm_class_name="LayerNorm", mlp_class_name="GptNeoxMLP",
    )  # fmt: skip
    model = GPT(shape)
    forward = torch.compile(model)
    optimizer = torch.optim.AdamW(
        model.parameters(), lr=facts["lr"], betas=(0.9, facts["beta2"]), weight_decay=facts["weight_decay"]
    )
    for step in range(facts["steps"]):
        for group in optimizer.param_groups:
            group["lr"] = rate(step, facts)
        ids, targets = draw(folder / "train.bin", facts["context"], facts["batch"])
        with torch.autocast("cpu", dtype=torch.bfloat16, enabled=facts["bfloat16"]):
            loss = chunked_cross_entropy(forward(ids), targets)
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        optimizer.zero_grad()
        step_done(lambda ids: model(ids)[..., : facts["vocab_size"]])


CONTENDERS = {
    "ours": train_ours,
    "nanogpt": train_nanogpt,
    "nanogpt_matched": train_nanogpt_matched,
    "hf": train_hf,
    "hf_matched": train_hf_matched,
    "litgpt": train_litgpt,
}


def main() -> None:
    """Train as told."""
    name, folder, peak = sys.argv[1], Path(sys.argv[2]), "--peak" in sys.argv
    facts = json.loads((folder / "facts.json").read_text())
    torch.set_num_threads(facts["threads"])
    CONTENDERS[name](folder, facts, (Peak if peak else Pace)(folder, facts))


if __name__ == "__main__":
    main()
