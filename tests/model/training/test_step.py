"""One step of a training: what it computes, what it leaves alone, what it says."""

import math

import pytest
import torch
from torch.nn import functional

from model.config import TrainingError
from model.gpt import IGNORED
from model.training import checkpoint, guard
from model.training.data import Windows
from model.training.distributed import Processes
from model.training.hardware import choose
from model.training.step import Training
from pipeline.shards import TokenShards
from tests.model.conftest import VOCAB, text, write_split


@pytest.fixture
def start(config, shards):
    """A training in float32 on given shards or those of all tests, with changed settings."""

    def go(parts=shards, **changes):
        changed = config.model_copy(update={"dtype": "float32", **changes})
        windows = Windows(
            TokenShards.open(parts, "train", VOCAB),
            changed.context,
            changed.seed,
            within_documents=changed.within_documents,
            boundary_labels=changed.boundary_labels,
        )
        hardware = choose(changed)
        return Training.start(changed, VOCAB, hardware, Processes(hardware.device), windows, "digest")

    return go


@pytest.fixture
def uneven(tmp_path):
    """Shards in which some windows have many documents, and so few targets where first tokens are none."""
    short, long = list("abcdefgh" * 12), [text(seed) for seed in range(3)]
    write_split(tmp_path, "train", short + long)
    write_split(tmp_path, "val", [])
    return [tmp_path]


def gradients(training):
    loss, norm = training.gradients(0)
    return loss, norm, {name: weight.grad.clone() for name, weight in training.model.named_parameters()}


def weights(training):
    return {name: weight.detach().clone() for name, weight in training.model.named_parameters()}


def same(mine, other):
    return mine.keys() == other.keys() and all(torch.equal(mine[name], other[name]) for name in mine)


@pytest.mark.parametrize("within_documents", [False, True])
def test_micro_batches_change_rounding_only_however_unevenly_targets_are_spread(start, uneven, within_documents):
    settings = {"boundary_labels": False, "within_documents": within_documents, "clip": 1e9}
    whole = gradients(start(uneven, **settings))
    parts = start(uneven, micro_batch_tokens=32, **settings)
    counts = {parts.windows.batch(place, 1).scored for place in range(4)}
    assert max(counts) > 1.5 * min(counts)
    cut = gradients(parts)
    assert cut[:2] == pytest.approx(whole[:2], rel=1e-5)
    for name, expected in whole[2].items():
        torch.testing.assert_close(cut[2][name], expected, rtol=1e-4, atol=1e-6)


def test_the_loss_is_the_mean_over_the_targets_of_the_batch(start, uneven):
    training = start(uneven, boundary_labels=False, micro_batch_tokens=32)
    batch = training.windows.batch(0, training.config.batch_size)
    logits = training.model(torch.from_numpy(batch.inputs.copy()))
    targets = torch.from_numpy(batch.targets.copy())
    expected = functional.cross_entropy(logits.flatten(0, 1), targets.flatten(), ignore_index=IGNORED)
    assert training.gradients(0)[0] == pytest.approx(float(expected.detach()), rel=1e-5)


def test_the_first_loss_is_that_of_a_uniform_guess(start):
    assert start().step()["loss"] == pytest.approx(math.log(VOCAB), abs=0.1)


def test_a_batch_seen_again_and_again_is_learnt_by_heart(start, tmp_path):
    write_split(tmp_path, "train", [text(0)[:32]])
    write_split(tmp_path, "val", [])
    training = start([tmp_path], steps=120, batch_tokens=32)
    losses = [training.step()["loss"] for _ in range(120)]
    assert losses[-1] < 0.05


def test_clipping_bounds_the_gradient_and_the_norm_before_it_is_told(start):
    training = start(clip=1e-3)
    _, norm, clipped = gradients(training)
    assert norm > 0.1
    assert torch.stack([each.norm() for each in clipped.values()]).norm() == pytest.approx(1e-3, rel=1e-3)


@pytest.mark.parametrize("bad", [math.nan, math.inf])
@pytest.mark.parametrize("where", ["loss", "gradient"])
def test_a_step_that_is_not_finite_changes_nothing_but_the_count(start, caplog, bad, where):
    training = start()
    training.step()
    before, moments = weights(training), training.content().optimizer
    plain = training.loss
    if where == "loss":
        training.loss = lambda *batch: plain(*batch) * bad
    else:
        training.model.blocks[0].mlp.out.weight.register_hook(lambda gradient: gradient * bad)
    record = training.step()
    assert same(weights(training), before)
    assert same(training.content().optimizer, moments)
    assert (record["skipped"], record["grad_norm"]) == (True, None)
    assert (training.state.step, training.state.position, training.state.skipped) == (2, 8, 1)
    assert "step 2, not finite" in caplog.text


def test_a_finite_step_ends_a_series_of_others(start):
    training = start()
    plain = training.loss
    training.loss = lambda *batch: plain(*batch) * math.nan
    training.step()
    training.step()
    assert training.state.not_finite_in_a_row == 2
    training.loss = plain
    assert not training.step()["skipped"]
    assert training.state.not_finite_in_a_row == 0


def test_no_checkpoint_is_saved_while_steps_are_not_finite(start, tmp_path):
    training = start()
    training.step()
    assert training.save(tmp_path) == tmp_path / "step-000000001"
    plain = training.loss
    training.loss = lambda *batch: plain(*batch) * math.nan
    training.step()
    assert training.save(tmp_path) is None
    assert [path.name for path in tmp_path.iterdir()] == ["step-000000001"]


@pytest.mark.parametrize("on_spike", ["log", "skip"])
def test_a_spike_is_logged_and_skipped_if_so_asked(start, caplog, on_spike):
    training = start(on_spike=on_spike)
    training.state.recent_losses = [3.0 + 0.01 * (number % 5) for number in range(guard.WINDOW)]
    before = weights(training)
    record = training.step()  # a first loss of 5.5
    assert (record["spike"], record["skipped"]) == (True, on_spike == "skip")
    assert same(weights(training), before) == (on_spike == "skip")
    assert training.state.spikes == 1
    assert training.state.not_finite_in_a_row == 0
    assert "step 1, spike" in caplog.text


def test_dropout_is_a_function_of_seed_and_step(start):
    losses = [[training.step()["loss"] for _ in range(3)] for training in (start(dropout=0.5), start(dropout=0.5))]
    assert losses[0] == losses[1]
    assert losses[0][0] != start(dropout=0.0).step()["loss"]


def test_a_rehearsal_leaves_no_trace(start):
    rehearsed, fresh = start(dropout=0.1), start(dropout=0.1)
    before = weights(rehearsed)
    assert rehearsed.rehearse(2) > 0
    assert same(weights(rehearsed), before)
    assert not rehearsed.content().optimizer
    for _ in range(3):
        assert rehearsed.step()["loss"] == fresh.step()["loss"]
    assert same(weights(rehearsed), weights(fresh))


def test_a_rehearsal_survives_gradients_that_are_not_finite(start):
    training = start()
    before, plain = weights(training), training.loss
    training.loss = lambda *batch: plain(*batch) * math.inf
    training.rehearse(1)
    assert same(weights(training), before)


def test_minutes_become_the_steps_that_fit_into_them(start):
    training = start(minutes=2.0, steps=None)
    ticks = iter(range(0, 1000, 10))
    training.clock = lambda: float(next(ticks))
    training.settle_steps()
    assert training.state.steps == 2 * 60 / (10 / 5)  # 10 s for 5 steps


def test_the_first_of_several_budgets_ends_a_training(start):
    training = start(minutes=60.0, steps=7)
    training.settle_steps()
    assert training.state.steps == 7
    assert start(tokens=1000, steps=100).state.steps == 1000 // 128


def test_metrics_are_measured_on_the_clock(start):
    training = start()
    ticks = iter([100.0, 100.5])
    training.clock = lambda: next(ticks)
    record = training.step()
    assert record["seconds"] == 0.5
    assert record["tokens_per_s"] == 4 * 32 / 0.5
    assert record["tokens"] == 4 * 32
    assert record["memory_mib"] > 0


def test_mfu_is_the_arithmetic_of_a_step_over_time_and_peak_and_null_without_a_peak(start):
    training = start()
    assert training.step()["mfu"] is None
    ticks = iter([100.0, 102.0])
    training.clock, training.peak = (lambda: next(ticks)), 1e9
    assert training.step()["mfu"] == pytest.approx(training.model.flops_per_token() * 4 * 32 / 2.0 / 1e9)


def test_a_resumed_training_goes_on_as_if_it_had_never_stopped(start, tmp_path):
    undisturbed, stopped, resumed = start(dropout=0.1), start(dropout=0.1), start(dropout=0.1)
    expected = [undisturbed.step()["loss"] for _ in range(6)]
    for _ in range(3):
        stopped.step()
    stopped.save(tmp_path)
    resumed.resume(checkpoint.at_step(tmp_path, 3))
    assert [resumed.step()["loss"] for _ in range(3)] == expected[3:]
    assert same(weights(resumed), weights(undisturbed))
    assert same(resumed.content().optimizer, undisturbed.content().optimizer)
    assert resumed.state == undisturbed.state


@pytest.mark.parametrize(
    ("changes", "sentence"),
    [
        ({"lr": 1e-4}, r"trained with other settings \(lr 0.008 → 0.0001\)"),
        ({"dtype": "bfloat16"}, r"trained with other settings \(dtype float32 → bfloat16\)"),
        ({"layers": 1}, r"trained with another shape \(layers 2 → 1\)"),
    ],
)
def test_a_checkpoint_of_another_training_is_refused_with_what_differs(start, tmp_path, changes, sentence):
    start().save(tmp_path)
    with pytest.raises(TrainingError, match=sentence):
        start(**changes).resume(checkpoint.at_step(tmp_path, 0))


def test_what_says_how_a_training_runs_does_not_keep_it_from_going_on(start, tmp_path):
    start().save(tmp_path)
    start(micro_batch_tokens=64, checkpoint_every=1, threads=2).resume(checkpoint.at_step(tmp_path, 0))
