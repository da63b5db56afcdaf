"""`gptmill finetune`, and what can be done with its result: generate, export, evaluate, tune again."""

import json
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from flows.cli import main
from model.folder import open_folder
from model.training import checkpoint
from tests.flows.commands.test_export import store, write_checkpoint, write_tokenizer  # noqa: F401

LINES = [{"prompt": f"{number}?", "answer": " yes" if number % 2 else " no"} for number in range(40)]
OPTIONS = ("--lr", "0.01", "--batch-tokens", "64", "--held-out", "0.2", "--threads", "1")


@pytest.fixture(autouse=True)
def _one_thread():
    torch.set_num_threads(1)


@pytest.fixture
def base(tmp_path):
    """A checkpoint with its tokenizer beside it; its context is 16."""
    folder = tmp_path / "base"
    folder.mkdir()
    write_checkpoint(folder)
    write_tokenizer(folder)
    return folder


@pytest.fixture
def data(tmp_path):
    path = tmp_path / "data.jsonl"
    path.write_text("".join(f"{json.dumps(line)}\n" for line in LINES))
    return path


def finetune(data, out, *more):
    return main(["finetune", *map(str, (data, "--out", out, *OPTIONS, *more))])


def said(capsys):
    return " ".join(capsys.readouterr().err.split())


def weights(folder):
    return (folder / checkpoint.WEIGHTS).read_bytes()


def test_the_loss_before_and_after_is_told_and_the_result_generates(base, data, tmp_path, capsys):
    assert finetune(data, tmp_path / "out", "--base", base) == 0
    captured = capsys.readouterr()
    told = " ".join(captured.err.split())
    assert captured.out == f"{tmp_path / 'out'}\n"
    assert "held-out answer tokens" in told
    before, after = told.split("answer tokens ")[1].split(" nats")[0].split(" → ")
    assert float(after) < float(before) - 1
    assert (
        main(["generate", "7?", "--checkpoint", str(tmp_path / "out"), "--temperature", "0", "--max-tokens", "4"]) == 0
    )
    assert capsys.readouterr().out.startswith("7?")
    assert {path.name for path in tmp_path.iterdir()} == {"base", "data.jsonl", "out"}


def test_the_newest_model_of_a_store_is_the_base_unless_one_is_given(store, data, tmp_path):  # noqa: F811
    assert finetune(data, tmp_path / "out", "--store", store.root, "--steps", 1) == 0
    given = store.artifact_folder("pretrain", "key")
    again = ("--base", given, "--store", store.root)
    assert finetune(data, tmp_path / "again", *again, "--steps", 1) == 0
    assert weights(tmp_path / "out") == weights(tmp_path / "again") != weights(given)


def test_the_result_is_exported_and_tuned_again_from_hugging_face(base, data, tmp_path):
    assert finetune(data, tmp_path / "out", "--base", base, "--steps", 3) == 0
    assert main(["export", "--hf", str(tmp_path / "hf"), "--checkpoint", str(tmp_path / "out")]) == 0
    ids = torch.arange(10)[None]
    mine, theirs = open_folder(tmp_path / "out").model.eval(), open_folder(tmp_path / "hf").model.eval()
    torch.testing.assert_close(mine(ids), theirs(ids), rtol=0, atol=1e-6)
    assert finetune(data, tmp_path / "again", "--base", tmp_path / "hf", "--steps", 3) == 0
    assert open_folder(tmp_path / "again").encoding.encode_ordinary("a b") == [97, 32, 98]


def test_what_is_longer_than_the_context_is_cut_or_dropped_and_counted(base, tmp_path, capsys):
    lines = [{"prompt": "p" * 30, "answer": "a"}, {"prompt": "p", "answer": "a" * 30}, *LINES]
    path = tmp_path / "data.jsonl"
    path.write_text("\n".join(map(json.dumps, lines)))
    assert finetune(path, tmp_path / "out", "--base", base, "--steps", 1) == 0
    told = said(capsys)
    assert "1 prompts lost their beginning, to fit the model's context of 16 tokens." in told
    assert "1 examples were dropped, whose answers alone are longer than that context." in told


@pytest.mark.parametrize(
    ("line", "sentence"),
    [('{"prompt": "a"', "line 41 is no JSON"), ('{"prompt": "a"}', 'line 41 has neither a "prompt" and an "answer"')],
)
def test_a_broken_line_is_one_sentence_and_nothing_is_written(base, data, tmp_path, capsys, line, sentence):
    data.write_text(data.read_text() + line)
    assert finetune(data, tmp_path / "out", "--base", base) == 2
    assert sentence in said(capsys)
    assert {path.name for path in tmp_path.iterdir()} == {"base", "data.jsonl"}


@pytest.mark.parametrize(
    ("options", "sentence"),
    [
        (("--lr", "11"), "--lr 11.0: it should be less than or equal to 10"),
        (("--held-out", "2"), "--held-out 2.0: it should be less than or equal to 1"),
        (("--held-out", "1"), "is left to train on: of 40 examples 40 are held out"),
    ],
)
def test_settings_that_make_no_sense_are_one_sentence(base, data, tmp_path, capsys, options, sentence):
    assert finetune(data, tmp_path / "out", "--base", base, *options) == 2
    assert sentence in said(capsys)
    assert not (tmp_path / "out").exists()


def test_a_folder_that_holds_something_is_refused_and_left_alone(base, data, tmp_path, capsys):
    (tmp_path / "out").mkdir()
    (tmp_path / "out/mine").write_text("precious")
    assert finetune(data, tmp_path / "out", "--base", base) == 2
    assert "is not empty" in said(capsys)
    assert [path.name for path in (tmp_path / "out").iterdir()] == ["mine"]


def test_a_base_whose_weights_are_not_those_that_were_saved_is_refused(base, data, tmp_path, capsys):
    damaged = bytearray(weights(base))
    damaged[-1] ^= 1
    (base / checkpoint.WEIGHTS).write_bytes(damaged)
    assert finetune(data, tmp_path / "out", "--base", base) == 2
    assert "model.safetensors is missing or not the file that was saved" in said(capsys)


def test_a_base_without_a_tokenizer_is_refused(base, data, tmp_path, capsys):
    (base / "tokenizer.json").unlink()
    assert finetune(data, tmp_path / "out", "--base", base, "--store", tmp_path / "none") == 2
    assert "has no tokenizer beside its model" in said(capsys)


def start(data, base, out, *more):
    command = [sys.executable, "-m", "flows", "finetune", data, "--out", out, "--base", base, *OPTIONS, *more]
    return subprocess.Popen(list(map(str, command)), cwd=Path(__file__).parents[3], stderr=subprocess.PIPE)


def wait_for_checkpoint(process, unfinished):
    while process.poll() is None and not list(unfinished.glob("step-*")):
        try:
            process.wait(0.02)
        except subprocess.TimeoutExpired:
            continue


@pytest.mark.slow
@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGINT])
def test_a_run_that_was_stopped_goes_on_and_ends_in_the_same_bytes(base, data, tmp_path, number):
    steps = ("--steps", 80, "--checkpoint-every", 10)
    process = start(data, base, tmp_path / "out", *steps)
    wait_for_checkpoint(process, tmp_path / "out.unfinished")
    os.kill(process.pid, number)
    told = process.communicate()[1].decode()
    assert process.returncode == (-signal.SIGKILL if number == signal.SIGKILL else 130), told
    assert ("run again to go on from there" in told) == (number == signal.SIGINT)
    assert not (tmp_path / "out").exists()
    assert finetune(data, tmp_path / "out", "--base", base, *steps) == 0
    assert finetune(data, tmp_path / "alone", "--base", base, *steps) == 0
    assert weights(tmp_path / "out") == weights(tmp_path / "alone")
    assert not (tmp_path / "out.unfinished").exists()
