"""Cross-entropy of a linear head without the logits of a whole batch.

The gradients are made going forward, while a chunk's logits exist, so that nothing is computed twice and only the
gradients themselves wait for the way back (as in Liger Kernel, Hsu et al. 2024, https://arxiv.org/abs/2410.10989).
With logits z = x W^T, e = exp(z - max z), s the sum of e over the vocabulary, and g = e but for g[target] = e[target]
- s, the gradients of a row are

    dx = g W / s        dW = g^T (x / s)

Of the passes that a softmax and its derivative make over (rows, V), maximum, exponential and sum are left; dividing
and leaving out rows happen in (rows, C).

Time and memory by `benchmarks/cross_entropy.py`, one thread, bfloat16, V = 50,304, C = 256: 1,024 rows take
300 ms and 90 MiB, the logits in one piece 337 and 147 compiled or 790 and 663 not; 4,096 rows 1.3 s and 140 MiB, in one
piece 1.2 and 438 or 3.1 and 2,407. Chunks computed again going backward take 1.3 to 2.3 times as long as ours.

Shapes in comments: N rows, C the width, V the vocabulary with its padding.
"""

from typing import Any

import torch
from torch import Tensor
from torch.nn import functional

IGNORED = -100
"""A target that is not scored (PyTorch's convention)."""

CHUNK_LOGITS = 2**22
"""Logits of a chunk, where none is given: few enough for a processor's cache."""

CHUNK_ROWS = 256
"""Fewest rows of such a chunk: each chunk goes through the gradient of the whole weight once more."""

MOST_CHUNKS = 8
"""Most such chunks, for the same reason where the batch is large."""

COMPILED_LOGITS = 2**23
"""Logits up to which compiled code is faster in one piece: 32 ms in place of 38 for 2,048 rows of 4,096."""

TILE_NUMBERS = 2**20
"""Numbers that a CPU works on at once: few enough to stay in its cache in float32."""


def linear_cross_entropy(x: Tensor, weight: Tensor, targets: Tensor, vocab_size: int, chunk: int = 0) -> Tensor:
    """Summed cross-entropy in nats of `targets` (N,) under the logits of x (N, C) and weight (V, C); a float32 scalar.

    Rows of `weight` from `vocab_size` on are padding and never scored; targets equal to `IGNORED` are left out. The
    logits of only `chunk` rows exist at once, 0 for as many as are fast; rows that fit one chunk take the plain way,
    `whole_cross_entropy`. Matrix products are in autocast's type where that is on; softmax and loss are in float32,
    or float64 for a float64 `x`.
    """
    if not chunk:
        few = torch.compiler.is_compiling() and len(x) * len(weight) <= COMPILED_LOGITS
        chunk = len(x) if few else max(CHUNK_LOGITS // len(weight), CHUNK_ROWS, -(-len(x) // MOST_CHUNKS))
    if len(x) <= chunk:
        return whole_cross_entropy(x, weight, targets, vocab_size)
    device = x.device.type
    dtype = torch.get_autocast_dtype(device) if torch.is_autocast_enabled(device) else x.dtype
    gradients = torch.is_grad_enabled() and (x.requires_grad or weight.requires_grad)
    loss: Tensor = _Chunked.apply(x, weight, targets, vocab_size, chunk, dtype, gradients)
    return loss


def whole_cross_entropy(x: Tensor, weight: Tensor, targets: Tensor, vocab_size: int) -> Tensor:
    """What `linear_cross_entropy` computes, in one piece: its reference, and faster where the logits are few."""
    logits = functional.linear(x, weight)[:, :vocab_size]
    precise = logits.to(torch.promote_types(logits.dtype, torch.float32))
    return functional.cross_entropy(precise, targets, ignore_index=IGNORED, reduction="sum")


class _Chunked(torch.autograd.Function):
    """The loss of `_loss_and_gradients`, whose gradients wait for the one that comes back."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, weight: Tensor, *rest: Any) -> Tensor:
        loss, *gradients = _loss_and_gradients(x, weight, *rest)
        ctx.save_for_backward(*gradients)
        return loss

    @staticmethod
    def backward(ctx: Any, scale: Tensor) -> tuple[Tensor | None, ...]:
        grad_x, grad_weight = ctx.saved_tensors
        return (grad_x * scale).to(grad_x.dtype), grad_weight * scale, None, None, None, None, None


@torch.library.custom_op("gptmill::chunked_cross_entropy", mutates_args=())
def _loss_and_gradients(
    x: Tensor, weight: Tensor, targets: Tensor, vocab_size: int, chunk: int, dtype: torch.dtype, gradients: bool
) -> tuple[Tensor, Tensor, Tensor]:
    """Summed loss, and the gradients of x and of weight or, where they are not asked for, two empty tensors.

    One operation to torch.compile, which would otherwise take seconds for every chunk, and compute the logits of all
    before it uses any. Matrix products are of type `dtype`.
    """
    precise = torch.promote_types(dtype, torch.float32)
    scored = targets != IGNORED
    # To leave rows out, a GPU would have to wait until they are counted.
    kept = scored.nonzero()[:, 0] if x.device.type == "cpu" else torch.arange(len(x), device=x.device)
    rows, labels, head = x[kept].to(dtype), torch.where(scored, targets, 0)[kept, None], weight.to(dtype)
    loss = torch.zeros((), dtype=precise, device=x.device)
    grad_x = torch.zeros(x.shape if gradients else 0, dtype=x.dtype, device=x.device)
    grad_weight = torch.zeros(weight.shape if gradients else 0, dtype=precise, device=x.device)
    for part, label, places in zip(rows.split(chunk), labels.split(chunk), kept.split(chunk), strict=True):
        logits, counts = part @ head.t(), scored[places, None]
        logits[:, vocab_size:] = -torch.inf
        largest = logits.amax(-1, keepdim=True).to(precise)
        target = logits.gather(1, label).to(precise)
        sums = _exponentiate(logits, largest)
        loss += ((sums.log() + largest - target) * counts).sum()
        if gradients:
            # In the target's column what is left of its share, in float32: rounded first, it would be lost where the
            # model is sure.
            logits.scatter_(1, label, ((target - largest).exp() - sums).to(dtype))
            share = counts / sums
            grad_x[places] = ((logits @ head) * share).to(x.dtype)
            _add_product(grad_weight, logits, (part * share).to(dtype))
        del logits  # before the next chunk makes its own
    return loss, grad_x, grad_weight.to(weight.dtype)


@_loss_and_gradients.register_fake
def _shapes(
    x: Tensor, weight: Tensor, _targets: Tensor, _vocab_size: int, _chunk: int, dtype: torch.dtype, gradients: bool
) -> tuple[Tensor, Tensor, Tensor]:
    """What torch.compile needs to know of the results."""
    loss = x.new_empty((), dtype=torch.promote_types(dtype, torch.float32))
    return loss, x.new_empty(x.shape if gradients else 0), weight.new_empty(weight.shape if gradients else 0)


def _exponentiate(logits: Tensor, largest: Tensor) -> Tensor:
    """Replace logits (rows, V) by exp(logits - largest), and return the sums over V, (rows, 1)."""
    sums = torch.empty_like(largest)
    for tile in _tiles(logits):
        powers = logits[tile].to(largest.dtype).sub_(largest[tile]).exp_()
        sums[tile] = powers.sum(-1, keepdim=True)
        logits[tile] = powers
    return sums


def _add_product(total: Tensor, left: Tensor, right: Tensor) -> None:
    """Add left^T (V, rows) times right (rows, C) to total (V, C), whose type may be wider than theirs."""
    for tile in _tiles(total):
        total[tile] += left[:, tile].t() @ right


def _tiles(matrix: Tensor) -> list[slice]:
    """Slices of rows that fit a CPU's cache; a GPU has none so large, and takes all at once."""
    height = len(matrix) if matrix.is_cuda else max(1, TILE_NUMBERS // matrix.shape[1])
    return [slice(start, start + height) for start in range(0, len(matrix), height)]
