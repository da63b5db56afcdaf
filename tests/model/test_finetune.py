"""Fine-tuning from the weights of a model that is there."""

import json
import os
import signal

import pytest
import torch

from model.config import GPTConfig, TrainingError
from model.finetune import FinetuneConfig, finetune
from model.folder import Opened, open_folder, write_tokenizer
from model.gpt import GPT
from model.huggingface import weights as hf
from model.presets import GPT2
from model.training import checkpoint
from model.training.answers import Line, Rows, encode, split
from model.training.score import mean_loss
from pipeline.shards import load_encoding
from tests.model.conftest import END, VOCAB

CAPITALS = {"Norway": "Oslo", "Italy": "Rome", "Japan": "Tokyo", "Egypt": "Cairo", "Peru": "Lima", "Ghana": "Accra"}
LINES = [
    Line(f"{number} The capital of {land}?", f" {town}") for number in range(10) for land, town in CAPITALS.items()
]
CONFIG = FinetuneConfig(
    steps=30, lr=2e-2, batch_tokens=256, held_out=0.2, checkpoint_every=10, device="cpu", dtype="float32", threads=1
)


@pytest.fixture
def base(model, tokenizer):
    """A model that has learnt nothing yet, of either shape, with the tokenizer of bytes; its context is 16."""
    wider = GPT(model.config.model_copy(update={"context": 64}))
    return Opened(wider, load_encoding(tokenizer))


@pytest.fixture
def tune(base, tmp_path):
    """Fine-tune into a fresh folder; runs that name the same `work` share it."""

    def go(config=CONFIG, work="work", lines=LINES, base=base, **options):
        out = tmp_path / f"out-{len(list(tmp_path.iterdir()))}"
        out.mkdir()
        train, held_out = (encode(side, base.encoding, 64) for side in split(lines, config.held_out))
        stats = finetune(
            out=out, work=tmp_path / work, config=config, base=base, train=train, held_out=held_out, **options
        )
        return out, stats

    return go


def content(out):
    return {name: (out / name).read_bytes() for name in checkpoint.FILES}


def test_the_loss_on_answers_that_were_held_out_falls(tune, base):
    out, stats = tune()
    assert stats["held_out"] + stats["examples"] == len(LINES)
    assert stats["val_loss"] < stats["loss_before"] / 2
    assert stats["bits_per_byte"] < stats["bits_per_byte_before"] / 2
    held_out = encode(split(LINES, 0.2)[1], base.encoding, 64)
    texts = [line.answer for line in split(LINES, 0.2)[1]]
    assert stats["answer_tokens"] == sum(len(text) + 1 for text in texts)  # and the end of text of each
    assert len(held_out.examples) == stats["held_out"]
    lines = [json.loads(line) for line in (out / "report/metrics.jsonl").read_text().splitlines()]
    assert lines[-1] == {"step": 30, "val_loss": stats["val_loss"], "final": True}


def test_the_loss_before_is_that_of_the_base_on_each_answer_alone(tune, base):
    _, stats = tune(CONFIG.model_copy(update={"steps": 1}))
    examples = encode(split(LINES, 0.2)[1], base.encoding, 64).examples
    with torch.no_grad():
        pairs = [[torch.from_numpy(part)[None] for part in example] for example in examples]
        nats = sum(float(base.model.loss(*pair)) for pair in pairs)
    assert stats["loss_before"] == pytest.approx(nats / stats["answer_tokens"], rel=1e-5)


def test_training_begins_at_the_base_and_leaves_it_alone(tune, base):
    before = {name: weight.detach().clone() for name, weight in base.model.named_parameters()}
    out, _ = tune(CONFIG.model_copy(update={"steps": 1, "lr": 1e-6, "weight_decay": 0.0}))
    after = dict(checkpoint.load_model(out).named_parameters())
    for name, weight in base.model.named_parameters():
        assert torch.equal(weight, before[name])
        torch.testing.assert_close(after[name], weight, rtol=0, atol=1.2e-6)
    assert any(not torch.equal(after[name], weight) for name, weight in before.items())


def test_the_result_can_be_opened_and_tuned_again(tune, base, tokenizer):
    out, stats = tune()
    write_tokenizer(tokenizer, out)
    opened = open_folder(out)
    assert opened.model.config.layers == base.model.config.layers
    assert tune(work="again", base=opened)[1]["loss_before"] == pytest.approx(stats["val_loss"], rel=1e-5)


def test_a_hugging_face_folder_is_tuned_as_the_model_that_was_exported_into_it(tune, tokenizer, tmp_path):
    torch.manual_seed(0)
    model = GPT(GPTConfig(layers=2, heads=2, width=32, context=64, vocab_size=VOCAB, **GPT2))
    (tmp_path / "hf").mkdir()
    hf.save(model, tmp_path / "hf", END)
    ours = tune(work="one", base=Opened(model, load_encoding(tokenizer)))
    theirs = tune(work="two", base=open_folder(tmp_path / "hf", tokenizer))
    assert content(theirs[0])[checkpoint.WEIGHTS] == content(ours[0])[checkpoint.WEIGHTS]
    assert theirs[1]["val_loss"] == ours[1]["val_loss"]


def test_texts_are_pretraining_that_goes_on(tune):
    lines = [Line(None, f"{line.prompt}{line.answer}. " * 4) for line in LINES]
    _, stats = tune(lines=lines)
    assert stats["val_loss"] < stats["loss_before"] - 1


def test_a_run_that_was_stopped_ends_in_the_same_bytes(tune, tmp_path):
    def terminate(done, _total, _text):
        if done == 17:
            os.kill(os.getpid(), signal.SIGINT)

    with pytest.raises(TrainingError, match="stopped by SIGINT at step 17 of 30, and a checkpoint is saved"):
        tune(work="stopped", progress=terminate)
    assert checkpoint.newest(tmp_path / "stopped")[0].name == "step-000000017"
    (resumed, stats), (alone, expected) = tune(work="stopped"), tune(work="undisturbed")
    assert content(resumed) == content(alone)
    assert stats["loss_before"] == expected["loss_before"]


@pytest.mark.parametrize("change", ["base", "train", "held out", "settings"])
def test_a_checkpoint_of_another_fine_tuning_is_not_taken_up(tune, base, change):
    tune()
    config, lines, other = CONFIG, LINES, base
    match change:
        case "base":
            weights = GPT(base.model.config)
            other = Opened(weights, base.encoding)
        case "train":
            lines = [*LINES[:-1], LINES[-1]._replace(answer=" elsewhere")]
        case "held out":
            lines = [line._replace(answer=" nowhere") if line in split(LINES, 0.2)[1] else line for line in LINES]
        case "settings":
            config = CONFIG.model_copy(update={"lr": 1e-4})
    reason = "other settings" if change == "settings" else "other data"
    with pytest.raises(TrainingError, match=rf"trained (with|on) {reason}.* remove .*work to train from the beginning"):
        tune(config, lines=lines, base=other)


def test_the_best_epoch_is_the_result_where_that_is_asked_for(tune):
    hot = {"lr": 0.5, "weight_decay": 5.0, "warmup": 0.9, "epochs": 6.0, "steps": None, "batch_tokens": 512}
    out, stats = tune(CONFIG.model_copy(update={**hot, "result": "best"}))
    lines = [json.loads(line) for line in (out / "report/metrics.jsonl").read_text().splitlines()]
    losses = [line["val_loss"] for line in lines if "val_loss" in line and "final" not in line]
    assert stats["val_loss"] == pytest.approx(min(losses))
    assert min(losses) < losses[-1]


def test_without_held_out_examples_there_is_no_loss_to_tell(tune):
    _, stats = tune(CONFIG.model_copy(update={"held_out": 0.0, "steps": 2}))
    assert (stats["held_out"], stats["loss_before"], stats["val_loss"], stats["bits_per_byte"]) == (0, None, None, None)


def test_nothing_to_train_on_is_one_sentence(tune):
    with pytest.raises(TrainingError, match="nothing to train on"):
        tune(CONFIG.model_copy(update={"held_out": 1.0}))


def test_epochs_become_steps_and_a_step_is_never_more_than_an_epoch():
    shape = GPTConfig(layers=1, heads=1, width=8, context=128, vocab_size=VOCAB)
    config = FinetuneConfig(epochs=2, batch_tokens=1024)
    assert config.training(shape, 100).steps == 25
    assert config.training(shape, 3).batch_size == 3
    assert config.training(shape, 3).steps == 2
    assert FinetuneConfig(batch_tokens=50).training(shape, 100).batch_size == 1
    assert FinetuneConfig(steps=7, epochs=2).training(shape, 100).steps == 7


@pytest.mark.parametrize(("most", "rows"), [(1, 1), (256, 2), (500, 3), (8192, 6)])
def test_micro_batches_divide_the_batch_and_fit(most, rows):
    shape = GPTConfig(layers=1, heads=1, width=8, context=128, vocab_size=VOCAB)
    config = FinetuneConfig(batch_tokens=6 * 128, micro_batch_tokens=most).training(shape, 100)
    assert config.micro_batch_size == rows


def test_the_loss_that_is_told_is_the_model_s(tune, base):
    out, stats = tune(CONFIG.model_copy(update={"steps": 3}))
    held = Rows(encode(split(LINES, 0.2)[1], base.encoding, 64).examples, 64, END)
    assert mean_loss(checkpoint.load_model(out), held.in_order(4)[0]) == pytest.approx(stats["val_loss"], rel=1e-5)
