"""A decoder-only GPT: embed, blocks, norm, head. It knows nothing of files, devices, optimizers or processes.

Shapes in comments: B sequences, T tokens, C the width, V the vocabulary.
"""

import math
from functools import partial

import torch
from torch import Tensor, nn

from model.attention import Backend, attend_as, rotary_table
from model.cache import Cache
from model.config import GPTConfig
from model.cross_entropy import IGNORED, linear_cross_entropy
from model.layers import Block, norm
from model.patterns import consecutive, predicate, restarting

__all__ = ["GPT", "IGNORED"]


class GPT(nn.Module):
    """The model of `config`, with weights drawn from torch's global random generator as `init_weights` says."""

    def __init__(self, config: GPTConfig, backend: Backend = "auto") -> None:
        super().__init__()
        self.config = config
        self.backend = backend
        self.embedding = nn.Embedding(config.padded_vocab_size, config.width)
        self.positions = nn.Embedding(config.context, config.width) if config.positions == "learned" else None
        self.dropout = nn.Dropout(config.dropout)
        self.blocks = nn.ModuleList(Block(config) for _ in range(config.layers))
        self.norm = norm(config)
        self.head = nn.Linear(config.width, config.padded_vocab_size, bias=False)
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

        | weights                              | distribution                       |
        |--------------------------------------|------------------------------------|
        | norms                                | 1                                  |
        | biases                               | 0                                  |
        | `out` of attention and MLP (matrix)  | normal(0, 0.02 / sqrt(2 x layers)) |
        | learned positions                    | normal(0, 0.01)                    |
        | every other matrix, embedding, head  | normal(0, 0.02)                    |
        | rows of ids beyond the vocabulary    | 0                                  |

        Source: GPT-2, its paper (Radford et al. 2019, section 2.3: what a block adds is scaled by the root of the
        number of such sums) and its code (both deviations); GPT-3 says it does the same (Brown et al. 2020, section
        2.1). Llama's papers state none. A tied head is the embedding.
        """
        for name, weight in self.named_parameters():
            if name.endswith("bias"):
                weight.zero_()
            elif "norm" in name:
                weight.fill_(1.0)
            elif name.endswith("out.weight"):
                weight.normal_(0.0, 0.02 / math.sqrt(2 * self.config.layers))
            else:
                weight.normal_(0.0, 0.01 if name == "positions.weight" else 0.02)
        self.embedding.weight[self.config.vocab_size :] = 0
        self.head.weight[self.config.vocab_size :] = 0

    def hidden(self, ids: Tensor, documents: Tensor | None = None, cache: Cache | None = None) -> Tensor:
        """The normed residual stream (B, T, C) for ids (B, T).

        `documents` (B, T) numbers each input's document, in runs; only `within_documents` heeds it. With a cache,
        ids are prompts padded at the end, or the next token of each (B, 1); a row is one document.
        """
        config, length = self.config, ids.shape[1]
        assert length <= config.context, f"{length} tokens do not fit a context of {config.context}"
        patterns = set(config.pattern_of_layer)
        if cache is not None and length == 1:
            seen = {pattern: cache.places(pattern, config) for pattern in patterns}
        elif documents is not None and config.within_documents:
            assert cache is None, "a cache holds one document a row"
            seen = dict.fromkeys(patterns, restarting(documents))
        else:
            seen = dict.fromkeys(patterns, consecutive(length, ids.device))
        attend = {pattern: attend_as(pattern, config, seen[pattern], self.backend) for pattern in patterns}

        x: Tensor = self.embedding(ids)  # (B, T, C)
        places, rotary = seen[config.attention[0]].queries, None  # the same for every pattern
        if self.positions is not None:
            x = x + self.positions(places)
        else:
            rotary = (self.cosine[places].unsqueeze(-3), self.sine[places].unsqueeze(-3))
        x = self.dropout(x)
        for layer, (block, pattern) in enumerate(zip(self.blocks, config.pattern_of_layer, strict=True)):
            remember = None
            if cache is not None:
                remember = partial(cache.layers[layer].take, lengths=cache.lengths, longest=cache.longest)
            x = block(x, attend[pattern], rotary, remember)
        normed: Tensor = self.norm(x)
        return normed

    def forward(self, ids: Tensor, documents: Tensor | None = None, cache: Cache | None = None) -> Tensor:
        """Logits (B, T, V) of the token after each of `ids` (B, T)."""
        return self.logits(self.hidden(ids, documents, cache))

    def logits(self, hidden: Tensor) -> Tensor:
        """Logits (…, V) for the residual stream (…, C) that `hidden` gives."""
        logits: Tensor = self.head(hidden)
        return logits[..., : self.config.vocab_size]

    def loss(self, ids: Tensor, targets: Tensor, documents: Tensor | None = None, chunk: int = 0) -> Tensor:
        """Summed cross-entropy in nats of `targets` (B, T), those equal to `IGNORED` left out; float32, a scalar.

        The logits of only `chunk` tokens exist at once; 0 lets `linear_cross_entropy` choose. The sum, rather than
        the mean, lets micro-batches add up to the very loss of the whole batch.
        """
        x = self.hidden(ids, documents).flatten(0, 1)  # (B x T, C)
        return linear_cross_entropy(x, self.head.weight, targets.flatten(), self.config.vocab_size, chunk)

    def parameter_count(self) -> int:
        """Number of weights; a tied matrix counts once, rows of ids beyond the vocabulary do not count."""
        config = self.config
        padding = (config.padded_vocab_size - config.vocab_size) * config.width * (1 if config.tied else 2)
        return sum(weight.numel() for weight in self.parameters()) - padding

    def flops_per_token(self) -> int:
        """Floating-point operations that training takes for a token at full context, forward and backward.

        6 for each weight of a matrix that multiplies (a lookup costs nothing), and in each layer 12 x C for each key
        (Chowdhery et al. 2022, PaLM, appendix B). The keys are those that the last token of a context sees: all of
        them with full attention, as PaLM counts, though causal kernels skip half; `window` with local attention.
        That documents hide keys from one another is not counted.
        """
        config = self.config
        matrices = sum(weight.numel() for weight in self.blocks.parameters() if weight.ndim == 2)
        every = torch.arange(config.context, device="cpu")
        keys = sum(int(predicate(pattern, config)(every[-1], every).sum()) for pattern in config.pattern_of_layer)
        return 6 * (matrices + config.vocab_size * config.width) + 12 * config.width * keys
