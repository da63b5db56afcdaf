"""How likely a model finds a continuation of a context: what every task score comes down to.

Only logits are asked of the model, so any model can be scored: `logits(ids)` takes int64 ids (B, T) and gives logits
(B, T, V), those at a place depending on no later one. Rows are padded on their right, and nothing padded is scored.
Contexts are cut on their left as lm-evaluation-harness 0.4 cuts them, and so are texts longer than the model's context
(its `get_rolling_token_windows` with one token of context), so that sums of both are the same numbers.
"""

from collections.abc import Callable, Iterator, Sequence
from typing import NamedTuple

import torch
from torch import Tensor

from pipeline.shards import Encoding

Logits = Callable[[Tensor], Tensor]
"""Ids (B, T), int64 on the CPU, to logits (B, T, V) on any device; causal."""


class Request(NamedTuple):
    """A context of at least one id, and the ids that are scored after it."""

    context: tuple[int, ...]
    continuation: tuple[int, ...]


class Likelihood(NamedTuple):
    """What a model says of a request.

    log_likelihood: nats, of the whole continuation. greedy: the chance that greedy decoding writes it, 1 or 0 except
    where tokens tie for the highest logit, one of which is then drawn.
    """

    log_likelihood: float
    greedy: float


class Window(NamedTuple):
    """Ids of which the last `scored` are scored, the others being context."""

    ids: tuple[int, ...]
    scored: int


def request_of(encoding: Encoding, context: str, continuation: str, end_of_text: int) -> Request:
    """The ids of a context and its continuation, as lm-evaluation-harness takes them (`TemplateLM._encode_pair`).

    Both are encoded as one text, so that the border is where training put it; whitespace that ends the context goes
    over to the continuation first. An empty context is an end-of-text. Raises `ValueError` where nothing is left to
    score.
    """
    kept = context.rstrip()
    continuation = context[len(kept) :] + continuation
    before = encoding.encode_ordinary(kept)
    ids = encoding.encode_ordinary(kept + continuation)[len(before) :]
    if not ids:
        raise ValueError(f"the answer {continuation!r} has no token of its own after its context")
    return Request(tuple(before) or (end_of_text,), tuple(ids))


def score(
    logits: Logits,
    requests: Sequence[Request],
    *,
    context: int,
    batch_size: int,
    tell: Callable[[int, int], None] = lambda _done, _total: None,
) -> list[Likelihood]:
    """What the model says of each request, in float32, where its input holds `context` ids.

    Equal requests are scored once, so that they tie whatever batches they would fall into. `tell(done, total)` hears
    of the windows before each batch.
    """
    found = dict.fromkeys(requests, Likelihood(0.0, 1.0))
    # The longest first: rows of a batch are of like length, and what does not fit in memory fails at once.
    work = [(window, request) for request in found for window in windows(request, context)]
    work.sort(key=lambda pair: (-len(pair[0].ids), pair[0].ids))
    for first in range(0, len(work), batch_size):
        tell(first, len(work))
        batch = work[first : first + batch_size]
        parts = score_windows(logits, [window for window, _ in batch])
        for (_, request), part in zip(batch, parts, strict=True):
            whole = found[request]
            found[request] = Likelihood(whole.log_likelihood + part.log_likelihood, whole.greedy * part.greedy)
    return [found[request] for request in requests]


def windows(request: Request, context: int) -> Iterator[Window]:
    """The request in windows whose inputs fit: one, if the continuation does; else `context` ids of it at a time.

    Each has as much before what it scores as fits.
    """
    whole = request.context + request.continuation
    for end in range(len(request.context) + context, len(whole) + context, context):
        seen = whole[:end][-(context + 1) :]
        yield Window(seen, min(end, len(whole)) - (end - context))


@torch.inference_mode()
def score_windows(logits: Logits, batch: Sequence[Window]) -> list[Likelihood]:
    """What the model says of each window, all of them put through it at once."""
    longest = max(len(window.ids) for window in batch) - 1
    inputs = torch.zeros(len(batch), longest, dtype=torch.int64)
    for row, window in enumerate(batch):
        inputs[row, : len(window.ids) - 1] = torch.tensor(window.ids[:-1])
    found = []
    for row, window in zip(logits(inputs), batch, strict=True):
        end = len(window.ids) - 1
        targets = torch.tensor(window.ids[-window.scored :], device=row.device)[:, None]
        scores = row[end - window.scored : end].float()
        nats = scores.log_softmax(dim=-1).gather(1, targets).double().sum()
        best = scores == scores.amax(dim=-1, keepdim=True)
        greedy = (best.gather(1, targets)[:, 0] / best.sum(dim=-1)).prod()
        found.append(Likelihood(float(nats), float(greedy)))
    return found
