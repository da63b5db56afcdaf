"""The whole stage, on a corpus of a few kilobytes."""

import json
import math
import os
import shutil
import signal
import sys

import numpy as np
import pytest
import torch

from model.config import PretrainConfig, TrainingError
from model.gpt import GPT
from model.presets import GPT2
from model.pretrain import pretrain
from model.training import checkpoint
from model.training.hardware import has_compiler
from model.training.step import Training

HOT = {"lr": 1.0, "muon_lr": 1.0, "weight_decay": 5.0, "warmup": 0.9, "schedule": "constant"}
"""So hot that the loss rises after the first validation."""


@pytest.fixture
def run(shards, tokenizer, tmp_path):
    """Train into a fresh folder; runs that name the same `work` share it."""

    def go(config, work="work", **options):
        out = tmp_path / f"out-{len(list(tmp_path.iterdir()))}"
        out.mkdir()
        stats = pretrain(out=out, config=config, shards=shards, tokenizer=tokenizer, work=tmp_path / work, **options)
        return out, stats

    return go


@pytest.fixture
def break_weights(monkeypatch):
    """Let the update of one step leave weights that are finite, but with which no loss is."""

    def go(broken):
        plain = Training.update

        def update(self, share):
            plain(self, share)
            if self.state.step + 1 == broken:
                with torch.no_grad():
                    for weight in self.model.parameters():
                        weight *= 1e18

        monkeypatch.setattr(Training, "update", update)

    return go


def damage(path):
    """Flip a bit of a file's last byte."""
    raw = bytearray(path.read_bytes())
    raw[-1] ^= 1
    path.write_bytes(raw)


def content(out):
    return {name: (out / name).read_bytes() for name in checkpoint.FILES}


def metrics(out):
    return [json.loads(line) for line in (out / "report" / "metrics.jsonl").read_text().splitlines()]


def validations(out):
    return [line for line in metrics(out) if "val_loss" in line]


@pytest.mark.parametrize("changes", [{}, {**GPT2, "optimizer": "adamw", "lr": 3e-3}], ids=["modern", "gpt2"])
def test_training_learns_and_reports(run, config, changes):
    out, stats = run(config.model_copy(update=changes))
    assert stats["rows"] == 24 * 4 * 32
    assert stats["val_loss"] < 4.5  # a uniform guess is ln 257 = 5.5
    assert stats["hardware"]["device"] == "cpu"
    steps = [line for line in metrics(out) if "loss" in line]
    assert [line["step"] for line in steps] == list(range(1, 25))
    assert steps[0].keys() == {
        *("step", "loss", "lr", "grad_norm", "skipped", "spike", "tokens", "seconds", "tokens_per_s"),
        *("mfu", "memory_mib"),
    }
    assert [line["step"] for line in validations(out)] == [8, 16, 24]
    assert validations(out)[-1] == {"step": 24, "val_loss": stats["val_loss"], "final": True}


@pytest.mark.parametrize(
    "changes",
    [
        {"within_documents": True},
        {"boundary_labels": False},
        {"dropout": 0.1, "schedule": "wsd", "optimizer": "adamw"},
        {"kv_heads": 1, "attention": ("local", "full"), "window": 8},
    ],
    ids=["documents", "boundaries", "dropout", "shape"],
)
def test_every_kind_of_training_learns(run, config, changes):
    assert run(config.model_copy(update=changes))[1]["val_loss"] < 4.5


def test_the_same_training_gives_the_same_bytes(run, config):
    assert content(run(config, "one")[0]) == content(run(config, "two")[0])


def test_compiled_training_on_two_threads_gives_the_same_bytes_each_time(run, config):
    """Threads adding to few embeddings: if their order counted, a compiled sum would differ in its last bits."""
    if not has_compiler(gpu=False):
        pytest.skip("there is no C++ compiler")
    settings = {"compile": "yes", "threads": 2, "batch_tokens": 1024, "context": 128, "steps": 6, "warmup": 0.3}
    many = config.model_copy(update={**settings, "width": 128})
    ran = [run(many, f"work-{turn}") for turn in range(3)]
    assert len({(out / "model.safetensors").read_bytes() for out, _ in ran}) == 1
    assert all(stats["hardware"]["compiled"] and stats["seconds"]["compile"] > 0 for _, stats in ran)


def test_the_best_checkpoint_is_the_result_where_that_is_asked_for(run, config):
    hot = config.model_copy(update={"result": "best", **HOT})
    out, stats = run(hot)
    *on_the_way, final = validations(out)
    assert [line["step"] for line in on_the_way] == [8, 16, 24]
    best = min(on_the_way, key=lambda line: line["val_loss"])
    assert best["step"] < 24
    assert stats["result_step"] == final["step"] == best["step"] == checkpoint.verify(out).step
    assert final["val_loss"] == stats["val_loss"] < on_the_way[-1]["val_loss"]


def test_a_best_checkpoint_that_is_damaged_is_forgotten(run, config, tmp_path, caplog):
    """As if the run had been killed just before its result was written."""
    hot = config.model_copy(update={"result": "best", **HOT})
    best = run(hot)[1]["result_step"]
    damage(checkpoint.at_step(tmp_path / "work", best) / checkpoint.WEIGHTS)
    stats = run(hot)[1]
    assert best < stats["result_step"] == 24
    assert "was the best" in caplog.text


def test_minutes_end_a_training_and_keep_their_number_of_steps(run, config, tmp_path):
    timed = config.model_copy(update={"minutes": 0.01, "steps": None})
    stop = {"on": True}

    def once(done, _total, _text):
        if stop["on"] and done == 2:
            stop["on"] = False
            os.kill(os.getpid(), signal.SIGTERM)

    with pytest.raises(TrainingError, match="stopped by SIGTERM"):
        run(timed, progress=once)
    settled = checkpoint.verify(checkpoint.newest(tmp_path / "work")[0]).steps
    assert settled > 2
    assert run(timed)[1]["steps"] == settled


def test_a_checkpoint_is_there_before_its_validation_begins(run, config, tmp_path):
    there = {}

    def look(done, _total, text):
        if text.startswith("validating"):
            there[done] = checkpoint.at_step(tmp_path / "work", done).is_dir()

    run(config, progress=look)
    assert there == {8: True, 16: True, 24: True}


def test_a_signal_saves_a_checkpoint_and_says_so(run, config, tmp_path):
    def terminate(done, _total, _text):
        if done == 7:
            os.kill(os.getpid(), signal.SIGTERM)

    with pytest.raises(TrainingError, match="stopped by SIGTERM at step 7 of 24"):
        run(config, "stopped", progress=terminate)
    assert checkpoint.newest(tmp_path / "stopped")[0].name == "step-000000007"
    assert content(run(config, "stopped")[0]) == content(run(config, "undisturbed")[0])


def test_other_data_or_settings_are_refused(run, config, shards, tokenizer, tmp_path):
    run(config)
    with pytest.raises(TrainingError, match="with other settings"):
        run(config.model_copy(update={"lr": 1e-4}))
    with pytest.raises(TrainingError, match=r"other data: remove .*work to train from the beginning\."):
        pretrain(out=tmp_path, config=config, shards=shards[:1], tokenizer=tokenizer, work=tmp_path / "work")


def test_a_loss_that_stays_not_finite_ends_the_training_and_names_the_last_good_checkpoint(run, config, monkeypatch):
    """The weights are finite and the loss is not: as when a product overflows."""
    plain = Training.gradients

    def break_after_six_steps(self, position):
        loss, norm = plain(self, position)
        return (math.inf, norm) if position >= 6 * 4 else (loss, norm)

    monkeypatch.setattr(Training, "gradients", break_after_six_steps)
    with pytest.raises(TrainingError, match=r"5 steps in a row, up to step 11: .* checkpoint is .*step-000000005\."):
        run(config)


def test_a_checkpoint_that_no_finite_step_came_after_is_put_aside(run, config, tmp_path, break_weights, monkeypatch):
    often = config.model_copy(update={"checkpoint_every": 1})
    break_weights(10)
    for _ in range(2):
        with pytest.raises(TrainingError, match=r"up to step 15: .* the last good checkpoint is .*step-000000009\."):
            run(often)
        assert (tmp_path / "work" / "damaged-step-000000010").is_dir()
    monkeypatch.undo()
    assert content(run(often)[0]) == content(run(often, "undisturbed")[0])


def test_a_result_whose_loss_is_not_finite_is_an_error_and_the_next_run_goes_on_before_it(
    run, config, tmp_path, break_weights, monkeypatch
):
    break_weights(24)
    with pytest.raises(TrainingError, match=r"after step 24, is not finite: .* checkpoint is .*step-000000020\."):
        run(config)
    last = (tmp_path / "work" / "metrics.jsonl").read_text().splitlines()[-1]
    assert last == '{"step": 24, "val_loss": null, "final": true}'
    monkeypatch.undo()
    assert content(run(config)[0]) == content(run(config, "undisturbed")[0])


def test_a_validation_on_the_way_that_is_not_finite_is_null(run, config, tmp_path, break_weights):
    break_weights(8)
    with pytest.raises(TrainingError, match="up to step 13"):
        run(config)
    assert '{"step": 8, "val_loss": null}' in (tmp_path / "work" / "metrics.jsonl").read_text().splitlines()


def test_a_signal_while_steps_are_not_finite_says_that_nothing_is_saved(run, config, tmp_path, break_weights):
    def terminate(done, _total, _text):
        if done == 12:
            os.kill(os.getpid(), signal.SIGTERM)

    break_weights(10)
    with pytest.raises(TrainingError, match=r"SIGTERM at step 12 of 24, and no checkpoint is saved"):
        run(config, progress=terminate)
    assert not checkpoint.at_step(tmp_path / "work", 12).exists()


@pytest.mark.parametrize("training", [True, False], ids=["step", "validation"])
@pytest.mark.parametrize(("rows", "advice"), [(2, "micro_batch_tokens"), (1, "context")])
def test_a_gpu_whose_memory_is_full_is_one_sentence(run, config, monkeypatch, training, rows, advice):
    """With what torch raises then; no test fills a GPU."""
    plain = GPT.loss

    def loss(self, *batch):
        if self.training == training:
            raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 3.14 GiB.")
        return plain(self, *batch)

    monkeypatch.setattr(GPT, "loss", loss)
    with pytest.raises(TrainingError, match=rf"too small for {rows * 32} tokens at once: lower pretrain\.{advice}"):
        run(config.model_copy(update={"micro_batch_tokens": rows * 32}))


@pytest.mark.parametrize("split", ["train", "val"])
def test_an_id_beyond_the_vocabulary_is_one_sentence(config, shards, tokenizer, tmp_path, split):
    part = shutil.copytree(shards[0], tmp_path / "part")
    ids = np.fromfile(part / f"{split}.bin", np.uint16)
    ids[len(ids) // 2] = 65_535
    ids.tofile(part / f"{split}.bin")
    with pytest.raises(TrainingError, match=r"token shards hold the id 65,535, but the vocabulary has 257 ids"):
        pretrain(out=tmp_path, config=config, shards=[part], tokenizer=tokenizer, work=tmp_path / "work")


def test_a_missing_tracker_is_told_before_the_model_is_compiled(run, config, monkeypatch):
    monkeypatch.setitem(sys.modules, "wandb", None)
    heard = []
    with pytest.raises(TrainingError, match='"wandb", which is not installed'):
        run(
            config.model_copy(update={"trackers": ("wandb",), "compile": "yes"}),
            progress=lambda *told: heard.append(told),
        )
    assert heard == []


def test_a_report_comes_with_what_tensorboard_wrote(run, config):
    pytest.importorskip("tensorboard")
    out, _ = run(config.model_copy(update={"trackers": ("tensorboard",)}))
    assert list((out / "report" / "tensorboard").glob("events.*"))


def test_too_few_tokens_are_one_sentence(run, config):
    long = PretrainConfig.model_validate({**config.model_dump(), "context": 100_000, "batch_tokens": 100_000})
    with pytest.raises(TrainingError, match=r"training split has [\d,]+ tokens, fewer than"):
        run(long)


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["ddp", "fsdp"])
def test_what_two_processes_began_one_ends_as_if_it_had_been_alone(run, config, kind):
    def terminate(done, _total, text):
        if done == 7 and text.startswith("loss"):
            os.kill(os.getpid(), signal.SIGTERM)

    exact = config.model_copy(update={"dtype": "float32"})
    with pytest.raises(TrainingError, match=r"stopped by SIGTERM at step \d+ of 24"):
        run(exact.model_copy(update={"processes": 2, "parallel": kind}), "two", progress=terminate)
    (resumed, together), (alone, stats) = run(exact, "two"), run(exact, "one")
    assert together["val_loss"] == pytest.approx(stats["val_loss"], rel=1e-3)
    for mine, other in zip(metrics(resumed), metrics(alone), strict=True):
        assert mine["step"] == other["step"]
        assert mine.get("loss", 0.0) == pytest.approx(other.get("loss", 0.0), rel=1e-3)


def test_a_training_that_starts_from_a_checkpoint_begins_with_its_weights_and_a_fresh_schedule(run, config):
    first, _ = run(config)
    further, stats = run(config, work="further", start=first)
    before, after = metrics(first), metrics(further)
    assert after[0]["loss"] < before[0]["loss"] - 1
    assert after[0]["loss"] == pytest.approx(before[-3]["loss"], abs=0.5)
    assert [line.get("lr") for line in after] == [line.get("lr") for line in before]
    assert stats["steps"] == checkpoint.verify(further).step == checkpoint.verify(first).step


def test_a_training_that_starts_from_a_checkpoint_goes_on_after_a_stop_as_if_there_had_been_none(run, config):
    first, _ = run(config)
    whole, _ = run(config, work="whole", start=first)

    def stop(step, _total, _words):
        if step == 9:
            os.kill(os.getpid(), signal.SIGTERM)

    with pytest.raises(TrainingError, match="stopped by SIGTERM"):
        run(config, work="stopped", start=first, progress=stop)
    resumed, _ = run(config, work="stopped", start=first)
    assert content(resumed) == content(whole)
    with pytest.raises(TrainingError, match="other data"):
        run(config, work="stopped")


def test_a_checkpoint_of_another_shape_is_nothing_to_start_from_but_other_dropout_is_no_other_shape(run, config):
    first, _ = run(config)
    with pytest.raises(TrainingError, match=r"another shape \(layers 2 → 3\)"):
        run(config.model_copy(update={"layers": 3}), work="deeper", start=first)
    run(config.model_copy(update={"dropout": 0.1, "steps": 1}), work="dropout", start=first)
