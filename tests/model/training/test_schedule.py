from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from model.config import PretrainConfig
from model.training.schedule import rate

STEPS = 100
SCHEDULES = ("cosine", "wsd", "linear", "constant")


def rates(schedule, steps=STEPS, **changes):
    config = PretrainConfig(schedule=schedule, **{"warmup": 0.1, "decay": 0.2, "final_lr": 0.1, **changes})
    return [rate(config, step, steps) for step in range(steps)]


@pytest.mark.parametrize("schedule", SCHEDULES)
def test_warmup_rises_linearly_and_its_last_step_is_the_first_at_the_peak(schedule):
    found = rates(schedule)
    assert found[:10] == pytest.approx([step / 10 for step in range(1, 11)])
    assert found[9] == 1.0


@pytest.mark.parametrize(
    ("schedule", "expected"),
    [
        ("cosine", {54: 0.55, 99: 0.1}),
        ("linear", {54: 0.55, 99: 0.1}),
        ("wsd", {10: 1.0, 79: 1.0, 89: 0.55, 99: 0.1}),
        ("constant", {10: 1.0, 54: 1.0, 99: 1.0}),
    ],
)
def test_schedules_at_named_steps(schedule, expected):
    found = rates(schedule)
    assert {step: pytest.approx(found[step]) for step in expected} == expected


def test_a_cosine_falls_slowly_first_and_last():
    found = rates("cosine", warmup=0.0, final_lr=0.0)
    assert found[24] == pytest.approx(0.8536, abs=1e-4)
    assert found[74] == pytest.approx(0.1464, abs=1e-4)


@given(
    schedule=st.sampled_from(SCHEDULES),
    steps=st.integers(1, 500),
    warmup=st.floats(0, 0.5),
    decay=st.floats(0, 0.5),
    final=st.floats(0, 1),
)
def test_no_step_is_outside_nought_and_the_peak_and_rates_only_fall_after_warmup(schedule, steps, warmup, decay, final):
    found = rates(schedule, steps, warmup=warmup, decay=decay, final_lr=final)
    assert all(0 <= each <= 1 for each in found)
    after = found[max(0, min(round(warmup * steps), steps - 1) - 1) :]
    assert all(now >= later - 1e-12 for now, later in pairwise(after))


@pytest.mark.parametrize("schedule", SCHEDULES)
@pytest.mark.parametrize("steps", [1, 2, STEPS])
def test_the_first_step_is_never_wasted(schedule, steps):
    assert rates(schedule, steps, warmup=0.0, final_lr=0.0)[0] > 0


@given(
    schedule=st.sampled_from(["cosine", "wsd", "linear"]),
    steps=st.integers(2, 60),
    warmup=st.floats(0, 1, exclude_max=True),
    decay=st.floats(0.001, 1),
)
def test_the_last_of_several_steps_is_taken_at_the_final_rate(schedule, steps, warmup, decay):
    found = rates(schedule, steps, warmup=warmup, decay=min(decay, 1 - warmup), final_lr=0.1)
    assert found[-1] == pytest.approx(0.1)


def test_wsd_without_a_decay_stays_at_the_peak():
    assert rates("wsd", decay=0.0)[-1] == 1.0
