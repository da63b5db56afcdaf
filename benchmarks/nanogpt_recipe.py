"""A peer for `train.py`: nanoGPT's training recipe for a CPU, written from its documentation in our own words.

GPT-2's shape without biases and with the erf form of GELU, a tied head, logits and cross-entropy in one piece; windows
drawn from anywhere, with replacement; AdamW with decay on matrices alone, in torch's default form on a CPU, which is
neither fused nor foreach; gradients clipped at 1; a cosine after a warmup. As shipped, `--device=cpu --compile=False`:
float32, eager. Source: https://github.com/karpathy/nanoGPT, README and config/train_shakespeare_char.py.
"""

import math
from collections.abc import Callable
from contextlib import nullcontext
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional


class Layer(nn.Module):
    """Causal attention and an MLP, each on a normed copy of the stream and added back to it."""

    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        self.heads = heads
        self.norms = nn.ModuleList(nn.LayerNorm(width, bias=False) for _ in range(2))
        self.qkv = nn.Linear(width, 3 * width, bias=False)
        self.mix = nn.Linear(width, width, bias=False)
        self.widen = nn.Linear(width, 4 * width, bias=False)
        self.narrow = nn.Linear(4 * width, width, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        """(B, T, C) to (B, T, C)."""
        batch, length, width = x.shape
        parts = self.qkv(self.norms[0](x)).split(width, dim=2)
        query, key, value = (part.view(batch, length, self.heads, -1).transpose(1, 2) for part in parts)
        mixed = functional.scaled_dot_product_attention(query, key, value, is_causal=True)
        x = x + self.mix(mixed.transpose(1, 2).contiguous().view(batch, length, width))
        return x + self.narrow(functional.gelu(self.widen(self.norms[1](x))))


class Model(nn.Module):
    """The whole of it; its loss is a mean."""

    def __init__(self, facts: dict[str, Any], vocabulary: int) -> None:
        super().__init__()
        width = facts["width"]
        self.tokens = nn.Embedding(vocabulary, width)
        self.places = nn.Embedding(facts["context"], width)
        self.layers = nn.ModuleList(Layer(width, facts["heads"]) for _ in range(facts["layers"]))
        self.norm = nn.LayerNorm(width, bias=False)
        self.head = nn.Linear(width, vocabulary, bias=False)
        self.head.weight = self.tokens.weight
        for name, weight in self.named_parameters():
            if weight.ndim == 2:
                closing = name.endswith(("mix.weight", "narrow.weight"))
                nn.init.normal_(weight, std=0.02 / math.sqrt(2 * facts["layers"]) if closing else 0.02)

    def forward(self, ids: Tensor, targets: Tensor | None = None) -> tuple[Tensor, Tensor | None]:
        """Logits (B, T, V), and the mean loss where there are targets (B, T)."""
        x = self.tokens(ids) + self.places(torch.arange(ids.shape[1]))
        for layer in self.layers:
            x = layer(x)
        logits = self.head(self.norm(x))
        if targets is None:
            return logits, None
        return logits, functional.cross_entropy(logits.view(-1, logits.shape[-1]), targets.view(-1), ignore_index=-1)


def draw(file: Path, context: int, batch: int) -> tuple[Tensor, Tensor]:
    """Inputs and targets (batch, context) from anywhere in the file, which is opened anew for each batch."""
    ids = np.memmap(file, dtype=np.uint16, mode="r")
    starts = torch.randint(len(ids) - context, (batch,)).tolist()
    rows = np.stack([ids[start : start + context + 1].astype(np.int64) for start in starts])
    return torch.from_numpy(rows[:, :-1].copy()), torch.from_numpy(rows[:, 1:].copy())


def train(folder: Path, facts: dict[str, Any], matched: bool, step_done: Callable[[Any], None]) -> None:
    """Train for `steps`; `step_done` gets, after each, a function to logits. Matched: bfloat16, compiled."""
    torch.manual_seed(0)
    model = Model(facts, facts["padded_vocab_size"])
    forward = torch.compile(model) if matched else model
    narrow = matched and facts["bfloat16"]
    matrices = [weight for weight in model.parameters() if weight.ndim >= 2]
    vectors = [weight for weight in model.parameters() if weight.ndim < 2]
    groups = [{"params": matrices, "weight_decay": facts["weight_decay"]}, {"params": vectors, "weight_decay": 0.0}]
    optimizer = torch.optim.AdamW(groups, lr=facts["lr"], betas=(0.9, facts["beta2"]))
    for step in range(facts["steps"]):
        for group in optimizer.param_groups:
            group["lr"] = rate(step, facts)
        ids, targets = draw(folder / "train.bin", facts["context"], facts["batch"])
        with torch.autocast("cpu", dtype=torch.bfloat16) if narrow else nullcontext():
            _, loss = forward(ids, targets)
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)
        loss.item()  # with its log_interval of 1, every loss is shown
        step_done(lambda ids: model(ids)[0][..., : facts["vocab_size"]])


def rate(step: int, facts: dict[str, Any]) -> float:
    """The learning rate: a linear warmup, and a cosine down to a tenth."""
    peak, warmup = facts["lr"], facts["warmup"]
    if step < warmup:
        return peak * (step + 1) / (warmup + 1)
    progress = (step - warmup) / max(1, facts["steps"] - warmup)
    return peak * (0.1 + 0.9 * 0.5 * (1 + math.cos(math.pi * progress)))
