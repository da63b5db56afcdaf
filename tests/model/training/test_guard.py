import math

import numpy as np
import pytest

from model.training.guard import WINDOW, is_finite, is_spike, remember

CALM = (2.0 + 0.1 * np.random.default_rng(0).standard_normal(WINDOW)).tolist()


@pytest.mark.parametrize("bad", [math.nan, math.inf, -math.inf])
def test_a_loss_or_gradient_that_is_not_finite_forbids_a_step(bad):
    assert is_finite(2.0, 1.0)
    assert not is_finite(bad, 1.0)
    assert not is_finite(2.0, bad)


def test_a_spike_lies_so_many_deviations_above_the_last_losses():
    mean, spread = np.mean(CALM), np.std(CALM)
    assert is_spike(mean + 6.1 * spread, CALM, 6.0)
    assert not is_spike(mean + 5.9 * spread, CALM, 6.0)
    assert not is_spike(mean - 20 * spread, CALM, 6.0)


def test_the_first_losses_are_no_spikes():
    assert not is_spike(1e9, CALM[1:], 6.0)
    assert is_spike(1e9, CALM, 6.0)


def test_no_spikes_are_looked_for_with_a_z_of_nought():
    assert not is_spike(1e9, CALM, 0.0)


def test_the_last_finite_losses_are_remembered():
    recent = []
    for loss in [math.nan, *range(WINDOW + 10)]:
        recent = remember(recent, float(loss))
    assert recent == [float(loss) for loss in range(10, WINDOW + 10)]


def test_a_level_that_stays_stops_being_a_spike():
    recent = CALM
    spikes = []
    for _ in range(WINDOW):
        spikes.append(is_spike(5.0, recent, 6.0))
        recent = remember(recent, 5.0)
    assert spikes[0]
    assert not any(spikes[10:])
