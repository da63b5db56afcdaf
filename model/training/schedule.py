"""The learning rate as a pure function of the step, as a share of its peak.

Every schedule rises linearly over the warmup, whose last step is the first at the peak, and takes the training's
very last step at `final_lr`. Only `constant`, and `wsd` with a `decay` of 0, stay at the peak, where the one step of a
training of one is taken too.
"""

import math

from model.config import PretrainConfig


def rate(config: PretrainConfig, step: int, steps: int) -> float:
    """Share of the peak learning rate at `step`, of 0 to `steps` - 1, as `config` says; never 0 at the first step."""
    warmup = min(round(config.warmup * steps), steps - 1)
    if step < warmup:
        return (step + 1) / warmup
    if steps == 1:
        return 1.0
    match config.schedule:
        case "cosine":
            return cosine(_progress(step, warmup, steps), config.final_lr)
        case "linear":
            return linear(_progress(step, warmup, steps), config.final_lr)
        case "wsd" if config.decay:
            begin = max(warmup, steps - max(1, round(config.decay * steps)))
            return linear(_progress(step, begin, steps), config.final_lr)
    return 1.0


def cosine(progress: float, final: float) -> float:
    """Half a cosine from 1 down to `final` while `progress` goes from 0 to 1 (Loshchilov and Hutter 2016)."""
    return final + (1 - final) * 0.5 * (1 + math.cos(math.pi * progress))


def linear(progress: float, final: float) -> float:
    """A straight line from 1 down to `final` while `progress` goes from 0 to 1.

    After a plateau this is the trapezoid, or warmup, stable, decay (Hu et al. 2024, https://arxiv.org/abs/2404.06395).
    """
    return 1 - (1 - final) * progress


def _progress(step: int, begin: int, steps: int) -> float:
    """How much of the stretch from `begin` to `steps` is done after `step`: 0 before it, 1 at the last step."""
    return max(0.0, step + 1 - begin) / (steps - begin)
