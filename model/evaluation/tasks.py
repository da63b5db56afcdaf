"""Scores of benchmarks: accuracies as lm-evaluation-harness 0.4 defines them, with ties shared and with intervals.

An answer is chosen by its log-likelihood (`acc`), or by that over its length in characters (`acc_norm`). Where k tie
for the best, the right one counts 1/k: lm-evaluation-harness takes the first, which for BLiMP, whose good sentence
always comes first, makes a model that cannot tell them apart a perfect one.
"""

import math
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from model.config import TrainingError
from model.evaluation.bootstrap import interval
from model.evaluation.likelihood import Likelihood, Logits, Request, request_of, score
from model.evaluation.task_files import Item, Task
from pipeline.shards import Encoding, end_of_text

Floats = npt.NDArray[np.float64]

TIE = 1e-9
"""Log-likelihoods tie where they differ by less than this share: sums of equal numbers in another order do."""


def evaluate_task(
    task: Task,
    logits: Logits,
    encoding: Encoding,
    *,
    context: int,
    batch_size: int,
    resamples: int,
    seed: int,
    tell: Callable[[int, int], None] = lambda _done, _total: None,
) -> dict[str, Any]:
    """The scores of a benchmark for a model whose input holds `context` ids, each with its 95 % interval.

    Beside them stand `chance`, what guessing scores; the same scores for a model to which all tokens are equally
    likely (`uniform_...`), which knows nothing but the answers' lengths; and the bits per byte of the right answers,
    which tell small models apart where accuracies do not. A perplexity beyond numbers is None.
    Raises `TrainingError` where an answer leaves nothing to score.
    """
    requests = [_requests(task, number, encoding) for number in range(len(task.items))]
    flat = [request for answers in requests for request in answers]
    found = iter(score(logits, flat, context=context, batch_size=batch_size, tell=tell))
    judged = [[next(found) for _ in answers] for answers in requests]
    uniform = [[_of_equal_tokens(request, encoding.n_vocab) for request in answers] for answers in requests]

    result: dict[str, Any] = {"task": task.name, "items": len(task.items)}
    ones = np.ones(len(task.items))
    for metric in task.metrics:
        finish = _perplexity if metric == "perplexity" else float
        values = _values(metric, task.items, judged)
        result[metric] = finish(values.mean())
        result[f"{metric}_interval"] = [finish(end) for end in interval(values, ones, resamples, seed)]
        result[f"uniform_{metric}"] = finish(_values(metric, task.items, uniform).mean())
    result["chance"] = float(
        np.mean([1 / len(answers) if len(answers) > 1 else answers[0].greedy for answers in uniform])
    )
    right = [answers[item.gold] for item, answers in zip(task.items, requests, strict=True)]
    nats = -sum(answers[item.gold].log_likelihood for item, answers in zip(task.items, judged, strict=True))
    n_bytes = sum(len(encoding.decode_single_token_bytes(token)) for request in right for token in request.continuation)
    result["answer_bits_per_byte"] = nats / math.log(2) / n_bytes
    return result


def _requests(task: Task, number: int, encoding: Encoding) -> list[Request]:
    """The ids of each answer to an item, by its number."""
    end = end_of_text(encoding)
    try:
        return [request_of(encoding, *answer, end) for answer in task.items[number].answers]
    except ValueError as error:
        raise TrainingError(f"Item {number + 1} of {task.name} cannot be scored: {error}.") from error


def _of_equal_tokens(request: Request, n_vocab: int) -> Likelihood:
    """What a model says of a request to which all tokens are equally likely."""
    count = len(request.continuation)
    return Likelihood(-count * math.log(n_vocab), float(n_vocab) ** -count)


def _values(metric: str, items: Sequence[Item], judged: Sequence[Sequence[Likelihood]]) -> Floats:
    """A number for each item, whose mean is the metric; for perplexity nats, the metric being e to their mean."""
    return np.array([_value(metric, item, answers) for item, answers in zip(items, judged, strict=True)])


def _value(metric: str, item: Item, answers: Sequence[Likelihood]) -> float:
    if metric == "perplexity":
        return -answers[item.gold].log_likelihood
    if len(answers) == 1:
        return answers[0].greedy
    scores = [answer.log_likelihood for answer in answers]
    if metric == "acc_norm":
        scores = [each / length if length else -math.inf for each, length in zip(scores, item.lengths, strict=True)]
    return credit(scores, item.gold)


def credit(scores: Sequence[float], gold: int) -> float:
    """What choosing the best of scores, none above 0, is worth: 1 if that is `gold`, 1/k if `gold` is one of k such."""
    best = max(scores)
    tied = [each >= best * (1 + TIE) for each in scores]
    return tied[gold] / sum(tied)


def _perplexity(nats: float) -> float | None:
    try:
        return math.exp(nats)
    except OverflowError:
        return None
