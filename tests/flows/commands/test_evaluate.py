"""`gptmill evaluate`: any model scored on given files, with the figures that others get for it."""

import json
import math

import pytest
import torch
from torch.nn import functional
from transformers import AutoModelForCausalLM, AutoTokenizer, GPT2Config, GPT2LMHeadModel

from flows.cli import main
from model.config import EvaluateConfig
from model.evaluate import Judge
from model.folder import open_folder
from model.huggingface.tokenizer import export_tokenizer
from model.training import checkpoint
from tests.flows.commands.test_export import store, write_checkpoint, write_tokenizer  # noqa: F401

TEXT = "The mill turns, é, and grinds <|endoftext|> to flour. " * 20
CONTEXT = 32


@pytest.fixture(autouse=True)
def _one_thread():
    torch.set_num_threads(1)


@pytest.fixture
def text(tmp_path):
    path = tmp_path / "notes.txt"
    path.write_text(TEXT)
    return path


@pytest.fixture
def hf(tmp_path):
    """A GPT-2 of random weights as `transformers` saves it, with a tokenizer whose ids are the bytes."""
    torch.manual_seed(0)
    config = GPT2Config(n_layer=2, n_head=2, n_embd=32, n_positions=CONTEXT, vocab_size=257, initializer_range=0.2)
    GPT2LMHeadModel(config).save_pretrained(tmp_path / "hf")
    (tmp_path / "ours").mkdir()
    write_tokenizer(tmp_path / "ours")
    export_tokenizer(tmp_path / "ours", tmp_path / "hf", CONTEXT)
    return tmp_path / "hf"


def evaluated(capsys, *arguments):
    assert main(["evaluate", *map(str, arguments), "--json"]) == 0
    return json.loads(capsys.readouterr().out)


def loss_by_transformers(folder):
    """Mean nats a token, in windows of the context side by side, the first token after an end-of-text."""
    model, tokenizer = AutoModelForCausalLM.from_pretrained(folder).eval(), AutoTokenizer.from_pretrained(folder)
    ids = torch.tensor([tokenizer.bos_token_id, *tokenizer(TEXT)["input_ids"]])
    inputs, targets = ids[:-1].split(CONTEXT), ids[1:].split(CONTEXT)
    with torch.no_grad():
        logits = [model(some[None]).logits[0] for some in inputs]
    return float(functional.cross_entropy(torch.cat(logits), torch.cat(targets))), len(ids) - 1


def test_a_hugging_face_folder_scores_as_transformers_scores_it(hf, text, capsys):
    found = evaluated(capsys, hf, text)["sets"]["notes.txt"]
    loss, tokens = loss_by_transformers(hf)
    assert found["tokens"] == tokens == len(TEXT.encode())
    assert found["bits_per_byte"] * math.log(2) * found["bytes"] / tokens == pytest.approx(loss, abs=1e-5)
    assert abs(loss - math.log(257)) > 0.1  # random weights that make a difference


def test_the_library_scores_any_folder_too(hf):
    judge = Judge(*open_folder(hf), EvaluateConfig())
    nats = judge.losses(torch.tensor(judge.encoding.encode_ordinary(TEXT)).numpy(), "text")
    assert nats.mean() == pytest.approx(loss_by_transformers(hf)[0], abs=1e-5)


def test_a_model_of_a_store_is_found_by_the_name_of_its_config(store, text, capsys):  # noqa: F811
    by_name, by_folder = (
        evaluated(capsys, which, text, "--store", store.root)
        for which in ("small", store.artifact_folder("pretrain", "key"))
    )
    assert by_name["sets"] == by_folder["sets"]


def test_benchmarks_stand_beside_chance(hf, text, tmp_path, capsys):
    items = [
        {"goal": "To grind", "sol1": "use a mill", "sol2": "use a river", "label": place % 2} for place in range(8)
    ]
    (tmp_path / "piqa.jsonl").write_text("\n".join(map(json.dumps, items)))
    assert main(["evaluate", str(hf), str(text), str(tmp_path / "piqa.jsonl")]) == 0
    rows = [line.split() for line in capsys.readouterr().out.splitlines()]
    assert rows[1][:4] == ["notes.txt", "bits", "per", "byte"]
    assert rows[2] == ["piqa.jsonl", "acc", "0.5000", rows[2][3], "…", rows[2][5], "0.5000"]


def test_what_a_file_holds_can_be_said(hf, tmp_path, capsys):
    (tmp_path / "last_words.jsonl").write_text(json.dumps({"text": "the mill turns the river"}))
    assert "lambada" in str(evaluated(capsys, hf, tmp_path / "last_words.jsonl", "--task", "last_words=lambada"))


def test_weights_that_are_not_those_that_were_saved_are_refused(text, tmp_path, capsys):
    folder = tmp_path / "step"
    folder.mkdir()
    write_checkpoint(folder)
    write_tokenizer(folder)
    damaged = bytearray((folder / checkpoint.WEIGHTS).read_bytes())
    damaged[-1] ^= 1
    (folder / checkpoint.WEIGHTS).write_bytes(damaged)
    assert main(["evaluate", str(folder), str(text)]) == 2
    assert "not the file that was saved" in " ".join(capsys.readouterr().err.split())


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        (("nowhere", "notes.txt"), "nowhere is no folder, and there is no store in"),
        (("hf", "missing.txt"), "missing.txt cannot be read"),
        (("hf", "notes.txt", "--task", "lambada"), "is not of the form NAME=TASK"),
        (("hf", "notes.txt", "--task", "notes=chess"), "--task"),
    ],
)
@pytest.mark.usefixtures("hf", "text")
def test_what_cannot_be_scored_is_one_sentence(tmp_path, capsys, monkeypatch, arguments, sentence):
    monkeypatch.chdir(tmp_path)
    assert main(["evaluate", *arguments]) == 2
    told = capsys.readouterr().err
    assert sentence in " ".join(told.split())
    assert told.count("\n") == 1


def test_a_gpu_that_is_full_is_one_sentence(hf, text, capsys, monkeypatch):
    def full(*_):
        raise torch.OutOfMemoryError("CUDA out of memory.")

    monkeypatch.setattr(torch.nn.functional, "embedding", full)
    assert main(["evaluate", str(hf), str(text)]) == 1
    told = capsys.readouterr().err
    assert "Traceback" not in told
    assert "memory is too small" in told.splitlines()[-1]


def test_a_sets_name_is_shown_as_it_is(hf, tmp_path, capsys):
    (tmp_path / "notes[bold].txt").write_text(TEXT)
    assert main(["evaluate", str(hf), str(tmp_path / "notes[bold].txt")]) == 0
    assert "notes[bold].txt" in capsys.readouterr().out
