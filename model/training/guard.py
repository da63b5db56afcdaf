"""What stands between a bad batch and the weights: checks of a step's loss and gradient norm before the optimizer.

Both are judged from two numbers that the step has anyway. What the guard remembers is part of the checkpoint, so a
resumed run judges as an undisturbed one would.
"""

import math
from collections.abc import Sequence
from statistics import fmean

WINDOW = 128
"""Losses that a new one is compared with, and that must be there before any is called a spike (as in llm.c)."""

MOST_IN_A_ROW = 5
"""Steps in a row without a finite loss and gradient after which a training is given up."""


def is_finite(loss: float, norm: float) -> bool:
    """Whether a step may be taken at all: one infinite or undefined gradient makes the norm so, too."""
    return math.isfinite(loss) and math.isfinite(norm)


def is_spike(loss: float, recent: Sequence[float], z: float) -> bool:
    """Whether `loss` lies more than `z` standard deviations above the mean of the last `WINDOW`; never with z = 0.

    Fewer losses than a window tell too little: a training's first ones are no spikes.
    """
    if not z or len(recent) < WINDOW or not math.isfinite(loss):
        return False
    mean = fmean(recent)
    return loss - mean > z * math.sqrt(fmean((each - mean) ** 2 for each in recent))


def remember(recent: Sequence[float], loss: float) -> list[float]:
    """The last `WINDOW` finite losses with a new one, spikes among them: a level that stays stops being one."""
    return [*recent, loss][-WINDOW:] if math.isfinite(loss) else list(recent)
