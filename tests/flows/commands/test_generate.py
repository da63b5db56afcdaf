"""`gptmill generate`: from a store, from a checkpoint with its tokenizer, from a Hugging Face folder."""

import pytest
import torch

from flows.cli import main
from model.presets import GPT2
from model.training import checkpoint
from tests.flows.commands.test_export import store, write_checkpoint, write_tokenizer  # noqa: F401

OPTIONS = ("--seed", "3", "--max-tokens", "12")


@pytest.fixture(autouse=True)
def _one_thread():
    torch.set_num_threads(1)


@pytest.fixture
def folder(tmp_path):
    made = tmp_path / "step"
    made.mkdir()
    write_checkpoint(made, GPT2)
    write_tokenizer(made)
    return made


def generated(capsys, *arguments):
    assert main(["generate", "ab", *map(str, arguments), *OPTIONS]) == 0
    return capsys.readouterr().out


def test_a_hugging_face_folder_writes_what_the_checkpoint_in_it_writes(folder, tmp_path, capsys):
    assert main(["export", "--hf", str(tmp_path / "hf"), "--checkpoint", str(folder)]) == 0
    capsys.readouterr()
    text = generated(capsys, "--checkpoint", folder)
    assert text == generated(capsys, "--checkpoint", tmp_path / "hf")
    assert text.startswith("ab")
    assert len(text) > len("ab\n")


def test_without_a_checkpoint_the_newest_model_of_the_store_writes(store, capsys):  # noqa: F811
    newest = generated(capsys, "--store", store.root)
    assert newest == generated(capsys, "--store", store.root, "--checkpoint", store.artifact_folder("pretrain", "key"))


def test_a_checkpoint_that_is_damaged_is_one_sentence(folder, capsys):
    (folder / checkpoint.WEIGHTS).write_bytes(b"")
    assert main(["generate", "ab", "--checkpoint", str(folder)]) == 2
    told = capsys.readouterr().err
    assert "not the file that was saved" in told
    assert told.count("\n") == 1


def test_a_folder_without_a_model_is_one_sentence(tmp_path, capsys):
    write_tokenizer(tmp_path)
    assert main(["generate", "ab", "--checkpoint", str(tmp_path)]) == 2
    assert "holds no checkpoint" in capsys.readouterr().err
    assert main(["generate", "ab", "--checkpoint", str(tmp_path / "none")]) == 2
    assert "is no folder" in capsys.readouterr().err
