"""`gptmill export`: what nanoGPT, llm.c and Hugging Face read, from a store with a small corpus and a model."""

import base64
import json

import numpy as np
import pytest
import torch
from transformers import AutoModelForCausalLM, AutoTokenizer

from flows.cli import main
from model.config import GPTConfig
from model.gpt import GPT
from model.huggingface.weights import load
from model.presets import GPT2, MODERN
from model.training.checkpoint import Content, State, weights_of, write
from pipeline.engine.store import Store, describe_files, write_atomically
from pipeline.shards import dtype_for, ids_path, load_encoding

SHARDS = [{"train": 700, "val": 90}, {"train": 0, "val": 5}, {"train": 301, "val": 0}]


def write_tokenizer(folder):
    lines = [b"%s %d\n" % (base64.b64encode(bytes([byte])), byte) for byte in range(256)]
    (folder / "ranks.tiktoken").write_bytes(b"".join(lines))
    facts = {"name": "bytes", "pattern": r"\w+|\W+", "special_tokens": {"<|endoftext|>": 256}, "vocab_size": 257}
    (folder / "tokenizer.json").write_text(json.dumps(facts))


def write_shards(root, vocab_size=257):
    random = np.random.default_rng(0)
    parts = [root / f"part-{number:05d}" for number in range(len(SHARDS))]
    for part, sizes in zip(parts, SHARDS, strict=True):
        part.mkdir(parents=True)
        for split, size in sizes.items():
            random.integers(257, size=size).astype(dtype_for(vocab_size)).tofile(ids_path(part, split))
    return parts


def write_checkpoint(folder, shape=MODERN, vocab_size=257):
    torch.manual_seed(0)
    model = GPT(GPTConfig(layers=2, heads=2, width=32, context=16, vocab_size=vocab_size, **shape))
    write(folder, Content(model.config, {}, weights_of(model), {}, State(data_digest="", steps=1)))


def publish(store, stage, fill, **told):
    """An artifact as a run would leave it; its manifest says what is `told` too."""
    aside = store.work_folder(stage, "key") / "out"
    aside.mkdir()
    parts = fill(aside) or []
    folder = store.artifact_folder(stage, "key")
    at = [f"{store.relative(folder)}/{part.name}" for part in parts]
    described = [{"at": each, "digest": "", "snapshot": "", "source": ""} for each in at]
    manifest = {"stage": stage, "key": "key", "digest": "", "parts": described, "files": describe_files(aside)}
    store.publish(aside, folder, {**manifest, **told})


@pytest.fixture
def store(tmp_path):
    """A store whose config `small` has a tokenizer, three shards and a model."""
    made = Store(tmp_path / "store")
    made.create()
    publish(made, "tokenizer", write_tokenizer)
    publish(made, "pack", write_shards)
    publish(made, "pretrain", write_checkpoint)
    stages = {stage: {"key": "key", "digest": ""} for stage in ("tokenizer", "pack", "pretrain")}
    write_atomically(made.root / "refs/small/latest.json", json.dumps({"stages": stages}))
    return made


def export(store, *arguments):
    return main(["export", *map(str, arguments), "--store", str(store.root)])


def stream(store, split):
    """The ids of all shards, in order."""
    files = sorted(store.artifact_folder("pack", "key").glob(f"part-*/{split}.bin"))
    return np.concatenate([np.fromfile(file, "<u2") for file in files])


def test_nanogpt_draws_windows_of_the_very_stream_that_we_train_on(store, tmp_path):
    """As its train.py does: each file mapped as uint16, windows from anywhere, targets one further."""
    assert export(store, "--nanogpt", tmp_path / "out") == 0
    random = np.random.default_rng(1)
    for split in ("train", "val"):
        data = np.memmap(tmp_path / "out" / f"{split}.bin", dtype=np.uint16, mode="r")
        ours = stream(store, split)
        assert len(data) == len(ours)
        for start in random.integers(len(data) - 16, size=20):
            inputs, targets = data[start : start + 16].astype(np.int64), data[start + 1 : start + 17].astype(np.int64)
            assert (inputs == ours[start : start + 16]).all()
            assert (targets == ours[start + 1 : start + 17]).all()


def test_an_export_holds_no_pickle_and_nothing_else_that_nobody_asked_for(store, tmp_path):
    assert export(store, "--nanogpt", tmp_path / "nanogpt") == 0
    assert export(store, "--llmc", tmp_path / "llmc") == 0
    names = {path.name for path in (tmp_path / "nanogpt").iterdir()}
    assert names == {"train.bin", "val.bin"}
    assert {path.name for path in (tmp_path / "llmc").iterdir()} == {"train_000000.bin", "val_000000.bin"}
    assert {path.name for path in tmp_path.iterdir()} == {"store", "nanogpt", "llmc"}


def test_llmc_finds_its_header_and_as_many_ids_as_it_says(store, tmp_path):
    """As its dataloader.h checks: magic, version, and the size of the file."""
    assert export(store, "--llmc", tmp_path / "out") == 0
    for split in ("train", "val"):
        path = tmp_path / "out" / f"{split}_000000.bin"
        header = np.fromfile(path, "<i4", count=256)
        assert header.tolist() == [20240520, 1, len(stream(store, split)), *[0] * 253]
        assert path.stat().st_size == 1024 + 2 * header[2]
        assert (np.fromfile(path, "<u2", offset=1024) == stream(store, split)).all()


def test_hugging_face_opens_the_exported_folder_with_our_ids_and_logits(store, tmp_path):
    assert export(store, "--hf", tmp_path / "out") == 0
    text = "The mill <|endoftext|> turns, 知識."
    ids = AutoTokenizer.from_pretrained(tmp_path / "out")(text)["input_ids"][:16]
    assert ids == load_encoding(store.artifact_folder("tokenizer", "key")).encode_ordinary(text)[:16]
    theirs = AutoModelForCausalLM.from_pretrained(tmp_path / "out")
    assert theirs.config.eos_token_id == 256
    ours = load(tmp_path / "out")
    torch.testing.assert_close(ours(torch.tensor([ids])), theirs(torch.tensor([ids])).logits, rtol=0, atol=1e-5)


def test_one_checkpoint_can_be_exported(store, tmp_path):
    (tmp_path / "step").mkdir()
    write_checkpoint(tmp_path / "step", {**GPT2, "tied": False})
    assert export(store, "--hf", tmp_path / "out", "--checkpoint", tmp_path / "step") == 0
    assert json.loads((tmp_path / "out/config.json").read_text())["model_type"] == "gpt2"


def test_a_checkpoint_of_another_vocabulary_is_refused(store, tmp_path, capsys):
    (tmp_path / "step").mkdir()
    write_checkpoint(tmp_path / "step", vocab_size=300)
    assert export(store, "--hf", tmp_path / "out", "--checkpoint", tmp_path / "step") == 2
    assert "knows 300 ids" in capsys.readouterr().err
    assert not (tmp_path / "out").exists()


def test_a_shape_that_hugging_face_has_not_leaves_nothing_behind(store, tmp_path, capsys):
    (tmp_path / "step").mkdir()
    write_checkpoint(tmp_path / "step", {**MODERN, "norm": "layernorm"})
    assert export(store, "--hf", tmp_path / "out", "--checkpoint", tmp_path / "step") == 2
    assert 'norm is "layernorm"' in " ".join(capsys.readouterr().err.split())
    assert {path.name for path in tmp_path.iterdir()} == {"store", "step"}


@pytest.mark.parametrize("kind", ["--hf", "--nanogpt", "--llmc"])
def test_a_folder_that_holds_something_is_refused_and_left_alone(store, tmp_path, capsys, kind):
    (tmp_path / "out").mkdir()
    (tmp_path / "out/mine").write_text("precious")
    assert export(store, kind, tmp_path / "out") == 2
    assert "is not empty" in capsys.readouterr().err
    assert [path.name for path in (tmp_path / "out").iterdir()] == ["mine"]


@pytest.mark.parametrize("absolute", [False, True], ids=["dot", "path"])
def test_the_current_folder_is_refused_in_a_sentence(store, tmp_path, capsys, monkeypatch, absolute):
    (tmp_path / "out").mkdir()
    monkeypatch.chdir(tmp_path / "out")
    assert export(store, "--hf", tmp_path / "out" if absolute else ".") == 2
    assert "is the folder that you are in: give one that is not there yet" in capsys.readouterr().err


@pytest.mark.parametrize(("kind", "stage"), [("--hf", "tokenizer"), ("--nanogpt", "pack"), ("--llmc", "pack")])
def test_what_is_missing_is_named_in_a_sentence(store, tmp_path, capsys, kind, stage):
    (store.artifact_folder(stage, "key") / "manifest.json").unlink()
    assert export(store, kind, tmp_path / "out") == 2
    assert f"There is no result of {stage}" in capsys.readouterr().err


def test_a_damaged_corpus_is_not_exported(store, tmp_path, capsys):
    next(store.artifact_folder("pack", "key").glob("part-00000/train.bin")).write_bytes(b"short")
    assert export(store, "--nanogpt", tmp_path / "out") == 2
    assert "has 5 bytes in place of 1,400" in " ".join(capsys.readouterr().err.split())


def test_a_store_without_a_model_says_so(tmp_path, capsys):
    store = Store(tmp_path / "store")
    store.create()
    assert export(store, "--hf", tmp_path / "out") == 2
    assert "There is no trained model" in capsys.readouterr().err


def test_a_checkpoint_is_asked_for_with_hf_alone(store, tmp_path, capsys):
    assert export(store, "--nanogpt", tmp_path / "out", "--checkpoint", tmp_path) == 2
    assert "goes with --hf alone" in capsys.readouterr().err
