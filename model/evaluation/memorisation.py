"""How much of its training text a model gives back word for word (Carlini et al. 2022, arXiv:2202.07646).

A prompt of consecutive training tokens counts as memorised if the greedy continuation equals the tokens that follow it.
Nothing need be generated: greedy decoding writes those tokens exactly if each of them is the likeliest after the true
ones before it, and one pass over prompt and continuation shows that.
"""

from collections.abc import Callable
from typing import Any

import numpy as np

from model.config import TrainingError
from model.evaluation.bootstrap import interval
from model.evaluation.likelihood import Logits, Request, score
from model.training.data import Ints
from pipeline.shards import TokenShards


def memorisation(
    logits: Logits,
    shards: TokenShards,
    *,
    prompt: int,
    continuation: int,
    samples: int,
    context: int,
    batch_size: int,
    resamples: int,
    seed: int,
    tell: Callable[[int, int], None] = lambda _done, _total: None,
) -> dict[str, Any]:
    """The share of sampled places in documents where `prompt` tokens call forth the next `continuation` tokens.

    Of the training split it tells what is memorised; of the validation split, what can be guessed without having been
    seen. Carlini et al. take 50 and 50. The rate and its 95 % interval are None where no document is long enough.
    Raises `TrainingError` where the model's input, of `context` ids, does not hold both.
    """
    if prompt + continuation > context + 1:
        raise TrainingError(
            f"A prompt of {prompt} tokens with {continuation} after it does not fit the model's context of {context}:"
            " ask for fewer in [evaluate]."
        )
    starts = places(shards, prompt + continuation, samples, seed)
    result: dict[str, Any] = {"prompt": prompt, "continuation": continuation, "samples": len(starts)}
    if not len(starts):
        return {**result, "rate": None, "interval": None}
    rows = [tuple(shards.window(int(start), prompt + continuation).tolist()) for start in starts]
    requests = [Request(row[:prompt], row[prompt:]) for row in rows]
    found = np.array(
        [each.greedy for each in score(logits, requests, context=context, batch_size=batch_size, tell=tell)]
    )
    return {
        **result,
        "rate": float(found.mean()),
        "interval": list(interval(found, np.ones(len(found)), resamples, seed)),
    }


def places(shards: TokenShards, length: int, samples: int, seed: int) -> Ints:
    """Where `samples` stretches of `length` tokens begin, each within one document and before its end-of-text.

    All such places are equally likely, none is taken twice; fewer are given where there are fewer. They are in order.
    """
    index = shards.index()
    room = np.maximum(0, index["length"].to_numpy() - length)
    ends = np.cumsum(room)
    total = int(ends[-1]) if len(ends) else 0
    drawn = np.random.default_rng(seed).choice(total, min(samples, total), replace=False, shuffle=False)
    drawn = np.sort(drawn)
    documents = np.searchsorted(ends, drawn, side="right")
    begins: Ints = index["start"].to_numpy()[documents] + drawn - (ends - room)[documents]
    return begins
