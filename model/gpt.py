"""A decoder-only GPT: embed, blocks, norm, head. It knows nothing of files, devices, optimizers or processes.

Shapes in comments: B sequences, T tokens, C the width, V the vocabulary.
"""

import math

import torch
from torch import Tensor, nn
from torch.nn import functional
from torch.utils.checkpoint import checkpoint

from model.config import GPTConfig
from model.layers import Block, LayerCache, norm, rotary_table

INIT_STD = 0.02
"""Standard deviation of initial weights (GPT-2's code)."""

IGNORED = -100
"""A target that is not scored (PyTorch's convention)."""


class GPT(nn.Module):
    """The model of `config`, with weights drawn from torch's global random generator as `init_weights` says."""

    def __init__(self, config: GPTConfig) -> None:
        super().__init__()
        self.config = config
        self.embedding = nn.Embedding(config.vocab_size, config.width)
        self.positions = nn.Embedding(config.context, config.width) if config.positions == "learned" else None
        self.blocks = nn.ModuleList(Block(config) for _ in range(config.layers))
        self.norm = norm(config)
        self.head = nn.Linear(config.width, config.vocab_size, bias=False)
        if config.tied:
            self.head.weight = self.embedding.weight
        # Tables follow from the shape, so they are no part of a checkpoint.
        cosine, sine = rotary_table(config) if config.positions == "rotary" else (torch.empty(0), torch.empty(0))
        self.cosine: Tensor
        self.sine: Tensor
        self.register_buffer("cosine", cosine, persistent=False)
        self.register_buffer("sine", sine, persistent=False)
        self.init_weights()

    @torch.no_grad()
    def init_weights(self) -> None:
        """Draw every weight anew, in the order of `named_parameters`.

        | weights                              | distribution                      |
        |--------------------------------------|-----------------------------------|
        | norms                                | 1                                 |
        | biases                               | 0                                 |
        | `out` of attention and MLP (matrix)  | normal(0, 0.02 / sqrt(2 x layers)) |
        | every other matrix, embeddings, head | normal(0, 0.02)                   |

        Source: GPT-2 (Radford et al. 2019, section 2.3, and its code); a tied head is the embedding.
        """
        for name, weight in self.named_parameters():
            if name.endswith("bias"):
                weight.zero_()
            elif "norm" in name:
                weight.fill_(1.0)
            elif name.endswith("out.weight"):
                weight.normal_(0.0, INIT_STD / math.sqrt(2 * self.config.layers))
            else:
                weight.normal_(0.0, INIT_STD)

    def hidden(self, ids: Tensor, cache: list[LayerCache] | None = None) -> Tensor:
        """The normed residual stream (B, T, C) for ids (B, T); with a cache, ids are what follows what it holds."""
        start = cache[0].length if cache else 0
        end = start + ids.shape[1]
        assert end <= self.config.context, f"{end} tokens do not fit a context of {self.config.context}"
        x: Tensor = self.embedding(ids)
        if self.positions is not None:
            x = x + self.positions.weight[start:end]
        rotary = None if self.positions is not None else (self.cosine[start:end], self.sine[start:end])
        for index, block in enumerate(self.blocks):
            x = block(x, rotary, cache[index] if cache else None)
        normed: Tensor = self.norm(x)
        return normed

    def forward(self, ids: Tensor, cache: list[LayerCache] | None = None) -> Tensor:
        """Logits (B, T, V) of the token after each of `ids` (B, T)."""
        logits: Tensor = self.head(self.hidden(ids, cache))
        return logits

    def loss(self, ids: Tensor, targets: Tensor, chunk: int = 0) -> Tensor:
        """Summed cross-entropy in nats of `targets` (B, T), those equal to `IGNORED` left out; float32, a scalar.

        With `chunk` > 0 the logits of only so many tokens exist at once; they are computed again going backward.
        The sum, rather than the mean, lets micro-batches add up to the very loss of the whole batch.
        """
        x = self.hidden(ids).flatten(0, 1)  # (B x T, C)
        flat = targets.flatten()
        if not chunk:
            return self._summed_loss(x, flat)
        parts = [
            checkpoint(self._summed_loss, part, labels, use_reentrant=False)
            for part, labels in zip(x.split(chunk), flat.split(chunk), strict=True)
        ]
        return torch.stack(parts).sum()

    def _summed_loss(self, x: Tensor, targets: Tensor) -> Tensor:
        return functional.cross_entropy(self.head(x).float(), targets, ignore_index=IGNORED, reduction="sum")

    def new_cache(self, batch: int = 1) -> list[LayerCache]:
        """Empty caches, one a layer, with room for `context` tokens of `batch` sequences."""
        config, like = self.config, self.embedding.weight
        shape = (batch, config.heads, config.context, config.width // config.heads)
        return [LayerCache(like.new_empty(shape), like.new_empty(shape)) for _ in range(config.layers)]

    def parameter_count(self) -> int:
        """Number of weights, a tied matrix counted once."""
        return sum(weight.numel() for weight in self.parameters())
