"""Intervals by the percentile bootstrap (Efron 1979): what a figure might be for other items of the same kind."""

import numpy as np
import numpy.typing as npt

INTERVAL = (2.5, 97.5)
"""Percentiles of the bootstrap: a 95 % interval."""

MOST_COUNTS = 1 << 24
"""Counts of drawn items that are in memory at once: 128 MiB."""


def interval(
    values: npt.NDArray[np.float64], weights: npt.NDArray[np.float64], resamples: int, seed: int
) -> tuple[float, float]:
    """The 95 % interval of sum(values) / sum(weights) when the items are drawn anew with replacement.

    With weights of 1 that is the mean's; with bits as values and bytes as weights it is that of bits per byte.
    """
    random = np.random.default_rng(seed)
    at_once = max(1, MOST_COUNTS // len(values))
    ratios = []
    for first in range(0, resamples, at_once):
        size = min(at_once, resamples - first)
        drawn = random.multinomial(len(values), np.full(len(values), 1 / len(values)), size=size)
        ratios.append((drawn @ values) / np.maximum(1, drawn @ weights))
    low, high = np.percentile(np.concatenate(ratios), INTERVAL)
    return float(low), float(high)
