import json
import lzma
import math

import numpy as np
import pytest
import torch

from model import checkpoint
from model.config import EvaluateConfig, GPTConfig, TrainingError
from model.evaluate import bootstrap, entropy, evaluate, perplexity
from model.gpt import GPT

VOCAB = 257


def save(folder, constant=False, **shape):
    """A checkpoint of a fresh model; a constant one gives every id the same logit."""
    torch.manual_seed(0)
    model = GPT(GPTConfig(layers=1, heads=2, width=16, context=24, **{"vocab_size": VOCAB, **shape}))
    if constant:
        torch.nn.init.zeros_(model.head.weight)
    folder.mkdir()
    state = checkpoint.State(step=0, position=0, skipped=0, skipped_in_a_row=0, data_digest="", rng={})
    checkpoint.write(folder, model, {}, {}, state)
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
    saved = save(tmp_path / "model")
    found = [judged(saved, batch_size=size)[0]["validation"]["val_loss"] for size in (1, 3, 64)]
    assert found == pytest.approx([found[0]] * 3, rel=1e-6)


def test_more_context_by_a_shorter_stride_still_scores_every_token(judged, tmp_path):
    saved = save(tmp_path / "model")
    assert judged(saved, stride=7)[0]["validation"]["tokens"] == judged(saved)[0]["validation"]["tokens"]


def test_the_same_evaluation_gives_the_same_bytes(judged, tmp_path):
    saved = save(tmp_path / "model")
    runs = [judged(saved, samples=2, sample_tokens=10, prompts=["the mill"])[0] for _ in range(2)]
    assert runs[0] == runs[1]
    assert [sample["prompt"] for sample in runs[0]["samples"]] == ["", "", "the mill", "the mill"]


def test_sets_are_scored_by_file(judged, tmp_path):
    lines, plain = tmp_path / "a.jsonl", tmp_path / "b.txt"
    lines.write_text('{"text": "flour"}\n\n{"text": "é"}\n')
    plain.write_text("bread")
    result, _ = judged(save(tmp_path / "model", constant=True), [lines, plain])
    assert result["sets"]["a.jsonl"]["documents"] == 2
    assert result["sets"]["a.jsonl"]["bytes"] == 7
    for name in ("a.jsonl", "b.txt"):
        assert result["sets"][name]["bits_per_byte"] == pytest.approx(math.log2(VOCAB), rel=1e-6)


@pytest.mark.parametrize("content", ["{", '{"words": 1}', '{"text": 1}', "[]", "\xff"])
def test_a_broken_set_is_one_sentence(judged, tmp_path, content):
    (tmp_path / "broken.jsonl").write_bytes(content.encode("latin-1"))
    with pytest.raises(TrainingError, match=r"broken.jsonl"):
        judged(save(tmp_path / "model"), [tmp_path / "broken.jsonl"])


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


def test_documents_alike_leave_no_uncertainty():
    assert bootstrap(np.full(5, math.log(2) * 16), np.full(5, 8), 50, seed=0) == pytest.approx((2.0, 2.0))


def test_a_perplexity_beyond_numbers_is_none():
    assert perplexity(1e9, 1) is None
    assert perplexity(1.0, 0) is None
