import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch

from model import checkpoint
from model.config import GPT2, TrainingError
from model.data import Windows
from model.hardware import choose, has_compiler
from model.pretrain import MOST_SKIPPED_IN_A_ROW, Training, pretrain
from pipeline.shards import TokenShards

VOCAB = 257
CONTENT = (*checkpoint.HASHED, checkpoint.STATE)

SLOW_TRAINING = """
import sys, time
from pathlib import Path
from model.config import PretrainConfig
from model.pretrain import pretrain
out, work, tokenizer, config, *shards = sys.argv[1:]
pretrain(out=Path(out), work=Path(work), tokenizer=Path(tokenizer), shards=[Path(part) for part in shards],
         config=PretrainConfig.model_validate_json(config), progress=lambda *_: time.sleep(0.05))
"""


def content(out):
    return {name: (out / name).read_bytes() for name in CONTENT}


def losses(out):
    lines = map(json.loads, (out / "report" / "metrics.jsonl").read_text().splitlines())
    return [(line["step"], line.get("loss"), line.get("val_loss")) for line in lines]


@pytest.fixture
def run(shards, tokenizer, tmp_path):
    """Train into a fresh folder; runs that name the same `work` share it."""

    def go(config, work, **options):
        out = tmp_path / f"out-{len(list(tmp_path.iterdir()))}"
        out.mkdir()
        stats = pretrain(out=out, config=config, shards=shards, tokenizer=tokenizer, work=tmp_path / work, **options)
        return out, stats

    return go


@pytest.fixture
def training(config, shards):
    def build(**changes):
        changed = config.model_copy(update={"dtype": "float32", **changes})
        training = Training.start(changed, VOCAB, choose(changed), "")
        return training, Windows(TokenShards.open(shards, "train", VOCAB), changed.context, changed.seed)

    return build


@pytest.mark.parametrize("changes", [{}, {**GPT2, "optimizer": "adamw", "lr": 3e-3}], ids=["modern", "gpt2"])
def test_training_learns_and_reports(run, config, changes):
    out, stats = run(config.model_copy(update=changes), "work")
    assert stats["rows"] == 24 * 4 * 32
    assert stats["val_loss"] < 4.5  # a uniform guess is ln 257 = 5.5
    assert stats["hardware"]["device"] == "cpu"
    lines = losses(out)
    assert [step for step, loss, _ in lines if loss is not None] == list(range(1, 25))
    assert [step for step, _, val_loss in lines if val_loss is not None] == [8, 16, 24]
    assert lines[-1][2] == stats["val_loss"]


def test_the_same_training_gives_the_same_bytes(run, config):
    assert content(run(config, "one")[0]) == content(run(config, "two")[0])


def test_compiled_training_on_two_threads_gives_the_same_bytes_each_time(run, config):
    """Threads adding to few embeddings: if their order counted, a compiled sum would differ in its last bits."""
    if not has_compiler(on_gpu=False):
        pytest.skip("there is no C++ compiler")
    settings = {"compile": "yes", "threads": 2, "batch_size": 8, "context": 128, "steps": 6, "warmup_steps": 2}
    many = config.model_copy(update={**settings, "width": 128})
    weights = {(run(many, f"work-{turn}")[0] / "model.safetensors").read_bytes() for turn in range(3)}
    assert len(weights) == 1


def test_a_killed_training_ends_in_the_bytes_of_an_undisturbed_one(run, config, shards, tokenizer, tmp_path):
    work = tmp_path / "killed"
    arguments = [tmp_path, work, tokenizer, config.model_dump_json(), *shards]
    environment = {**os.environ, "PYTHONPATH": str(Path(__file__).parents[2])}
    process = subprocess.Popen([sys.executable, "-c", SLOW_TRAINING, *map(str, arguments)], env=environment)
    metrics = work / "metrics.jsonl"
    while not metrics.exists() or len(metrics.read_text().splitlines()) < 13:
        assert process.poll() is None
        time.sleep(0.01)
    process.send_signal(signal.SIGKILL)
    process.wait()
    resumed_at = checkpoint.verify(checkpoint.newest(work)[0]).step
    assert 0 < resumed_at < 24
    resumed, undisturbed = run(config, "killed")[0], run(config, "undisturbed")[0]
    assert content(resumed) == content(undisturbed)
    assert losses(resumed) == losses(undisturbed)


def test_a_signal_saves_a_checkpoint_and_says_so(run, config, tmp_path):
    def terminate(done, _total, _text):
        if done == 7:
            os.kill(os.getpid(), signal.SIGTERM)

    with pytest.raises(TrainingError, match="stopped by SIGTERM at step 7 of 24"):
        run(config, "stopped", progress=terminate)
    assert checkpoint.newest(tmp_path / "stopped")[0].name == "step-000000007"
    assert content(run(config, "stopped")[0]) == content(run(config, "undisturbed")[0])


def test_a_checkpoint_of_other_data_or_settings_is_refused(run, config, shards, tokenizer, tmp_path):
    run(config, "work")
    with pytest.raises(TrainingError, match="other settings"):
        run(config.model_copy(update={"lr": 1e-4}), "work")
    with pytest.raises(TrainingError, match="other data"):
        pretrain(out=tmp_path, config=config, shards=shards[:1], tokenizer=tokenizer, work=tmp_path / "work")


def test_micro_batches_change_rounding_only(training):
    results = []
    for micro_batches in (1, 4):
        run, windows = training(micro_batches=micro_batches)
        metrics = run.step(windows, run.model.loss)
        results.append((metrics["loss"], metrics["grad_norm"]))
    assert results[0] == pytest.approx(results[1], rel=1e-5)


def test_a_step_that_is_not_finite_changes_no_weight_and_is_counted(training):
    run, windows = training()
    run.step(windows, run.model.loss)
    before = [weight.clone() for weight in run.model.parameters()]
    metrics = run.step(windows, lambda *batch: run.model.loss(*batch) * float("nan"))
    assert all(torch.equal(old, new) for old, new in zip(before, run.model.parameters(), strict=True))
    assert (metrics["skipped"], metrics["loss"]) == (True, None)
    assert (run.state.step, run.state.position, run.state.skipped) == (2, 8, 1)
    run.step(windows, run.model.loss)
    assert run.state.skipped_in_a_row == 0


def test_many_steps_in_a_row_that_are_not_finite_end_the_training(training):
    run, windows = training()
    broken = lambda *batch: run.model.loss(*batch) * float("inf")  # noqa: E731
    for _ in range(MOST_SKIPPED_IN_A_ROW):
        run.step(windows, broken)
    with pytest.raises(TrainingError, match=r"not finite at 6 steps in a row.*lower pretrain.lr"):
        run.step(windows, broken)


def test_clipping_bounds_the_gradient(training):
    run, windows = training(clip=1e-3)
    assert run.step(windows, run.model.loss)["grad_norm"] > 1e-3


def test_too_few_tokens_are_one_sentence(run, config):
    with pytest.raises(TrainingError, match=r"training split has [\d,]+ tokens, fewer than"):
        run(config.model_copy(update={"context": 100_000}), "work")


def test_a_missing_gpu_is_one_sentence(run, config):
    if torch.cuda.is_available():
        pytest.skip("there is a GPU")
    with pytest.raises(TrainingError, match="torch finds none"):
        run(config.model_copy(update={"device": "cuda"}), "work")
