import hashlib
import json
import lzma
import math

import numpy as np
import pytest
import torch

from model.config import EvaluateConfig, GPTConfig, TrainingError
from model.evaluate import entropy, evaluate, perplexity
from model.evaluation.memorisation import memorisation
from model.evaluation.ngram import NGram
from model.gpt import GPT
from model.training import checkpoint
from model.training.checkpoint import load_model
from pipeline.shards import TokenShards

VOCAB = 257


def save(folder, constant=False, **shape):
    """A checkpoint of a fresh model; a constant one gives every id the same logit."""
    torch.manual_seed(0)
    model = GPT(GPTConfig(layers=1, heads=2, width=16, context=24, **{"vocab_size": VOCAB, **shape}))
    if constant:
        torch.nn.init.zeros_(model.head.weight)
    folder.mkdir()
    state = checkpoint.State(steps=0, data_digest="")
    checkpoint.write(folder, checkpoint.Content(model.config, {}, checkpoint.weights_of(model), {}, state))
    return folder


@pytest.fixture
def judged(shards, tokenizer, tmp_path):
    def go(saved, sets=(), **options):
        config = EvaluateConfig(**{"samples": 0, "threads": 1, "resamples": 100, **options})
        stats = evaluate(
            out=tmp_path, config=config, checkpoint=saved, shards=shards, tokenizer=tokenizer, sets=list(sets)
        )
        return json.loads((tmp_path / "evaluation.json").read_text()), stats

    return go


def test_a_constant_model_scores_what_arithmetic_says(judged, shards, tmp_path):
    result, stats = judged(save(tmp_path / "model", constant=True))
    found = result["validation"]
    n_tokens = (shards[0] / "val.bin").stat().st_size // 2
    text = b"".join(bytes(part) for part in np.split(*_ids_and_ends(shards[0])))
    assert found["tokens"] == n_tokens == stats["rows"]
    assert found["bytes"] == n_tokens - 3  # an id is a byte, but for three ends of text
    assert found["val_loss"] == pytest.approx(math.log(VOCAB), rel=1e-6)
    assert found["token_perplexity"] == pytest.approx(VOCAB, rel=1e-5)
    assert found["bits_per_byte"] == pytest.approx(math.log2(VOCAB) * n_tokens / (n_tokens - 3), rel=1e-6)
    assert found["words"] == len(text.split())
    assert found["xz_bits_per_byte"] == 8 * len(lzma.compress(text, preset=9)) / len(text)
    assert found["bits_per_byte_interval"][0] <= found["bits_per_byte"] <= found["bits_per_byte_interval"][1]


def _ids_and_ends(part):
    ids = np.fromfile(part / "val.bin", "<u2")
    return ids[ids < 256].astype(np.uint8), []


def test_scores_do_not_depend_on_the_batch_size(judged, tmp_path):
    saved, pairs = save(tmp_path / "model"), tmp_path / "pairs.jsonl"
    pairs.write_text('{"sentence_good": "bread and flour", "sentence_bad": "the bread flour and"}\n' * 3)
    results = [judged(saved, [pairs], batch_size=size)[0] for size in (1, 3, 64)]
    for get in (
        lambda result: result["validation"]["val_loss"],
        lambda result: result["tasks"]["pairs.jsonl"]["answer_bits_per_byte"],
    ):
        assert [get(result) for result in results] == pytest.approx([get(results[0])] * 3, rel=1e-6)


def test_more_context_by_a_shorter_stride_still_scores_every_token(judged, tmp_path):
    saved = save(tmp_path / "model")
    assert judged(saved, stride=7)[0]["validation"]["tokens"] == judged(saved)[0]["validation"]["tokens"]


def test_the_same_evaluation_gives_the_same_bytes(judged, tmp_path):
    saved = save(tmp_path / "model")
    runs = [judged(saved, samples=2, sample_tokens=10, prompts=["the mill"])[0] for _ in range(2)]
    assert runs[0] == runs[1]
    assert [sample["prompt"] for sample in runs[0]["samples"]] == ["", "", "the mill", "the mill"]


def test_each_sample_ends_before_a_stop_of_its_own(judged, tmp_path):
    saved = save(tmp_path / "model")
    free = judged(saved, samples=4, sample_tokens=30, temperature=2.0, top_k=0)[0]["samples"]
    stop = next(letter for letter in free[0]["text"] if letter.isascii())
    held = judged(saved, samples=4, sample_tokens=30, temperature=2.0, top_k=0, stop=[stop])[0]["samples"]
    assert [sample["text"] for sample in held] == [sample["text"].split(stop)[0] for sample in free]
    assert held[0]["ended"]


def test_a_sample_is_what_its_seed_gives_alone(judged, tmp_path):
    saved = save(tmp_path / "model")
    several = judged(saved, samples=3, sample_tokens=10, seed=5, prompts=["the"])[0]["samples"]
    alone = judged(saved, samples=1, sample_tokens=10, seed=7, prompts=["the"])[0]["samples"]
    assert alone == [sample for sample in several if sample["seed"] == 7]


def test_sets_are_scored_by_file(judged, tmp_path):
    lines, plain = tmp_path / "a.jsonl", tmp_path / "b.txt"
    lines.write_text('{"text": "flour"}\n\n{"text": "é"}\n')
    plain.write_text("bread")
    result, _ = judged(save(tmp_path / "model", constant=True), [lines, plain])
    assert result["sets"]["a.jsonl"]["documents"] == 2
    assert result["sets"]["a.jsonl"]["bytes"] == 7
    for name in ("a.jsonl", "b.txt"):
        assert result["sets"][name]["bits_per_byte"] == pytest.approx(math.log2(VOCAB), rel=1e-6)
        assert result["sets"][name]["bits_per_byte_interval"] == pytest.approx([math.log2(VOCAB)] * 2, rel=1e-6)


def test_items_of_a_benchmark_are_scored_as_such(judged, tmp_path):
    pairs = tmp_path / "pairs.jsonl"
    pairs.write_text('{"sentence_good": "the mill turns", "sentence_bad": "the turns mill"}\n' * 3)
    result, stats = judged(save(tmp_path / "model", constant=True), [pairs])
    assert result["sets"] == {}
    assert result["tasks"]["pairs.jsonl"]["acc"] == 0.5
    assert stats["tasks"] == {"pairs.jsonl": {"items": 3, "acc": 0.5, "chance": 0.5}}


def test_each_set_and_benchmark_is_told_with_the_sha256_of_its_file(judged, tmp_path):
    (tmp_path / "notes.txt").write_text("bread")
    (tmp_path / "pairs.jsonl").write_text('{"sentence_good": "bread", "sentence_bad": "flour"}\n' * 3)
    files = [tmp_path / "notes.txt", tmp_path / "pairs.jsonl"]
    result = judged(save(tmp_path / "model"), files)[0]
    digests = [hashlib.sha256(file.read_bytes()).hexdigest() for file in files]
    assert [result["sets"]["notes.txt"]["sha256"], result["tasks"]["pairs.jsonl"]["sha256"]] == digests


def test_a_set_of_plain_texts_is_a_benchmark_where_the_config_says_so(judged, tmp_path):
    words = tmp_path / "words.jsonl"
    words.write_text('{"text": "the mill turns"}\n')
    saved = save(tmp_path / "model", constant=True)
    result, _ = judged(saved, [words], tasks={"words": "lambada"})
    assert result["tasks"]["words.jsonl"]["perplexity"] == pytest.approx(VOCAB ** len(" turns"), rel=1e-4)
    assert "words.jsonl" in judged(saved, [words])[0]["sets"]


def test_counting_is_measured_on_the_same_text_and_from_the_training_split_alone(judged, shards, tmp_path):
    saved = save(tmp_path / "model")
    found = judged(saved)[0]["validation"]
    train, val = (TokenShards.open(shards, split, VOCAB) for split in ("train", "val"))
    counted = NGram.fit(train.window(0, len(train)), VOCAB).nats(val.window(0, len(val)), VOCAB - 1)
    assert found["ngram_bits_per_byte"] == pytest.approx(counted.sum() / math.log(2) / found["bytes"])
    assert found["ngram_tokens"] == len(train)
    assert judged(saved, ngram_tokens=640)[0]["validation"]["ngram_tokens"] == 640
    assert "ngram_bits_per_byte" not in judged(saved, ngram_tokens=0)[0]["validation"]


def test_memorisation_is_looked_for_in_both_splits(judged, shards, tmp_path):
    saved = save(tmp_path / "model", tied=True)  # which mostly repeats: "mill" has "l" after "l"
    asked = {"samples": 200, "prompt": 2, "continuation": 1}
    found = judged(saved, **{f"memorisation_{name}": value for name, value in asked.items()})[0]["memorisation"]
    options = {"context": 24, "batch_size": 16, "resamples": 100, "seed": 0, **asked}
    for split in ("train", "val"):
        assert found[split] == memorisation(load_model(saved), TokenShards.open(shards, split, VOCAB), **options)
    assert found["train"]["rate"] != found["val"]["rate"]


def test_without_samples_memorisation_is_not_looked_for(judged, tmp_path):
    assert judged(save(tmp_path / "model"), memorisation_samples=0)[0]["memorisation"] == {}


def test_memorisation_that_does_not_fit_the_model_is_skipped_with_a_reason(judged, tmp_path):
    found = judged(save(tmp_path / "model"))[0]["memorisation"]
    assert "does not fit the model's context of 24" in found["skipped"]


def test_held_out_text_has_a_loss_by_host(judged, tmp_path):
    result, _ = judged(save(tmp_path / "model"))
    (host,) = result["hosts"]
    assert (host["host"], host["documents"]) == ("x", 3)
    assert host["bits_per_byte"] == pytest.approx(result["validation"]["bits_per_byte"])


def test_a_broken_set_is_refused_before_anything_is_scored(tmp_path):
    (tmp_path / "broken.jsonl").write_text("{")
    absent = tmp_path / "absent"
    with pytest.raises(TrainingError, match=r"broken.jsonl"):
        evaluate(
            out=tmp_path, config=EvaluateConfig(), checkpoint=absent, shards=[], tokenizer=absent,
            sets=[tmp_path / "broken.jsonl"],
        )  # fmt: skip


def test_a_model_of_another_tokenizer_is_refused(judged, tmp_path):
    with pytest.raises(TrainingError, match="evaluate with the tokenizer"):
        judged(save(tmp_path / "model", vocab_size=300))


def test_an_empty_validation_split_is_refused(shards, tokenizer, tmp_path):
    with pytest.raises(TrainingError, match="validation split is empty"):
        evaluate(
            out=tmp_path, config=EvaluateConfig(), checkpoint=save(tmp_path / "model"),
            shards=shards[1:], tokenizer=tokenizer,
        )  # fmt: skip


def test_entropy_is_that_of_the_frequencies():
    assert entropy(np.array([1, 2, 3, 4])) == 2
    assert entropy(np.array([7, 7, 7])) == 0
    assert entropy(np.array([0, 0, 0, 1])) == pytest.approx(0.8112781244591328)


def test_a_perplexity_beyond_numbers_is_none():
    assert perplexity(1e9, 1) is None
    assert perplexity(1.0, 0) is None
