"""Benchmarks: prompts as published, scores as lm-evaluation-harness defines them, chance where nothing is known."""

import json
import math
from pathlib import Path

import numpy as np
import pytest
import torch

from model.config import TrainingError
from model.evaluation.task_files import Item, Task, read_task
from model.evaluation.tasks import credit, evaluate_task
from pipeline.shards import load_encoding
from tests.model.conftest import VOCAB

EVAL = Path(__file__).parents[4] / "shared/data/eval"
needs_eval = pytest.mark.skipif(not EVAL.is_dir(), reason=f"the shared evaluation items are not in {EVAL}")

ITEMS = {
    "hellaswag": {
        "activity_label": "Roof shingle removal", "ctx_a": "A man is  on a roof.", "ctx_b": "he", "label": "1",
        "endings": ["sits down [title] More [step] rest", "is ripping [substeps] tiles off."],
    },
    "piqa": {"goal": "ice box", "sol1": "add water", "sol2": "add soda", "label": 0},
    "arc": {
        "question": "What is soft?", "answerKey": "C",
        "choices": {"text": ["étain", "iron", "fur"], "label": ["A", "B", "C"]},
    },
    "winogrande": {"sentence": "Ann met Bo so _ smiled.", "option1": "Ann", "option2": "Bo", "answer": "2"},
    "multiple_choice": {"query": "Question: dresser\n", "choices": ["a pin", "a bobby pin"], "gold": 1},
    "lambada": {"context": "the mill grinds the", "continuation": "flour"},
    "blimp": {"sentence_good": "Mills grind.", "sentence_bad": "Mills grinds.", "UID": "agreement"},
}  # fmt: skip
"""An item of each benchmark as published."""

ANSWERS = {
    "hellaswag": (
        [
            ("Roof shingle removal: A man is on a roof. He", " sits down. More rest"),
            ("Roof shingle removal: A man is on a roof. He", " is ripping tiles off."),
        ],
        1,
        (20, 21),
    ),
    "piqa": ([("Question: ice box\nAnswer:", " add water"), ("Question: ice box\nAnswer:", " add soda")], 0, (9, 8)),
    "arc": ([("Question: What is soft?\nAnswer:", f" {word}") for word in ("étain", "iron", "fur")], 2, (5, 4, 3)),
    "winogrande": ([("Ann met Bo so Ann", " smiled."), ("Ann met Bo so Bo", " smiled.")], 1, (17, 16)),
    "multiple_choice": (
        [("Question: dresser\nAnswer:", " a pin"), ("Question: dresser\nAnswer:", " a bobby pin")], 1, (5, 11),
    ),
    "lambada": ([("the mill grinds the", " flour")], 0, (5,)),
    "blimp": ([("", " Mills grind."), ("", " Mills grinds.")], 0, (12, 13)),
}  # fmt: skip


def write(path, items):
    path.write_text("".join(json.dumps(item) + "\n\n" for item in items))
    return path


def constant(ids):
    return torch.zeros(*ids.shape, VOCAB)


def judged(task, encoding, logits=constant, **options):
    options = {"context": 256, "batch_size": 8, "resamples": 200, "seed": 0, **options}
    return evaluate_task(task, logits, encoding, **options)


@pytest.fixture
def encoding(tokenizer):
    return load_encoding(tokenizer)


@pytest.mark.parametrize("name", list(ITEMS))
def test_an_item_is_recognised_by_its_fields_and_asked_as_published(name, tmp_path):
    task = read_task(write(tmp_path / "set.jsonl", [ITEMS[name]]))
    answers, gold, lengths = ANSWERS[name]
    assert (task.name, task.items) == (name, [Item(tuple(answers), gold, lengths)])


@needs_eval
def test_hellaswag_is_asked_exactly_as_in_the_shared_requests():
    requests = [json.loads(line) for line in (EVAL / "olmo_requests_hellaswag_first400.jsonl").read_text().splitlines()]
    items = read_task(EVAL / "hellaswag_val_first300.jsonl").items
    for request in requests:
        asked = request["request"]
        item = items[request["doc_id"]]
        assert item.answers[request["idx"]] == (asked["context"], asked["continuation"])
        assert item.gold == request["label"]
    assert len(requests) == 400


@needs_eval
@pytest.mark.parametrize(
    ("name", "task", "count"),
    [("arc_easy", "multiple_choice", 200), ("lambada", "lambada", 200), ("piqa", "multiple_choice", 200),
     ("winogrande", "winogrande", 200)],
)  # fmt: skip
def test_the_shared_sets_are_recognised(name, task, count):
    found = read_task(EVAL / f"{name}_first200.jsonl")
    assert (found.name, len(found.items)) == (task, count)


def test_arc_as_published_is_read_like_that_of_the_hub(tmp_path):
    choices = [{"text": text, "label": label} for text, label in zip(["étain", "iron", "fur"], "ABC", strict=True)]
    published = {"id": "x", "question": {"stem": "What is soft?", "choices": choices}, "answerKey": "C"}
    both = [read_task(write(tmp_path / "set.jsonl", [item])).items for item in (published, ITEMS["arc"])]
    assert both[0] == both[1]


def test_texts_are_lambada_only_where_the_config_says_so(tmp_path):
    path = write(tmp_path / "set.jsonl", [{"text": "the mill grinds the flour"}])
    assert read_task(path) is None
    assert read_task(path, "lambada").items == read_task(write(tmp_path / "b.jsonl", [ITEMS["lambada"]])).items


def test_a_query_that_asks_nothing_is_gone_on_with(tmp_path):
    item = {"query": "The mill:", "choices": ["grinds"], "gold": 0}
    assert read_task(write(tmp_path / "set.jsonl", [item])).items[0].answers == (("The mill:", " grinds"),)


@pytest.mark.parametrize(
    "broken",
    [{**ITEMS["piqa"], "label": 2}, {**ITEMS["piqa"], "sol1": 3}, {**ITEMS["arc"], "answerKey": "D"}, {"goal": ""}, []],
)
def test_a_broken_item_is_one_sentence_with_its_line(broken, tmp_path):
    with pytest.raises(TrainingError, match=r"set\.jsonl, line 3, is no item of piqa"):
        read_task(write(tmp_path / "set.jsonl", [ITEMS["piqa"], broken]), "piqa")


def test_the_right_answer_shares_with_those_it_ties_with():
    assert credit([-1.0, -2.0, -1.0, -1.0], 0) == pytest.approx(1 / 3)
    assert credit([-1.0, -2.0], 1) == 0
    assert credit([-3 * math.log(7), -math.log(7) - 2 * math.log(7)], 1) == 0.5


def test_accuracies_are_those_worked_out_by_hand(encoding):
    # A model that gives " " 1 part, "a" 2 parts, "b" 4 parts, whatever came before.
    parts = {" ": 1, "a": 2, "b": 4}

    def weighted(ids):
        logits = torch.full((VOCAB,), -math.inf)
        for letter, weight in parts.items():
            logits[ord(letter)] = math.log(weight / 7)
        return logits.expand(*ids.shape, VOCAB)

    items = [
        Item((("a", " a"), ("a", " b")), 1, (1, 1)),  # 2/49 < 4/49: right by both
        Item((("a", " b"), ("a", " bb")), 1, (1, 2)),  # 4/49 > 16/343, and yet (4/49)^(1/1) < (16/343)^(1/2)
        Item((("a", " a"), ("a", " aa"), ("a", " a")), 2, (1, 2, 1)),  # 2/49 > 4/343, a tie of two; normalised wrong
        Item((("a", " b"), ("a", " aa")), 1, (1, 2)),  # right by characters, not by tokens: (4/343)^(1/2) > 4/49
    ]
    found = judged(Task("multiple_choice", ("acc", "acc_norm"), items), encoding, weighted)
    assert found["acc"] == pytest.approx((1 + 0 + 0.5 + 0) / 4)
    assert found["acc_norm"] == pytest.approx((1 + 1 + 0 + 1) / 4)
    assert found["chance"] == pytest.approx((1 / 2 + 1 / 2 + 1 / 3 + 1 / 2) / 4)
    nats = -math.log(4 / 49) - math.log(16 / 343) - math.log(2 / 49) - math.log(4 / 343)
    assert found["answer_bits_per_byte"] == pytest.approx(nats / math.log(2) / 10, rel=1e-6)


def test_lambada_is_right_where_greedy_decoding_writes_the_word(encoding):
    def after(ids):
        """Says "ab" after a space, each with 7 parts of 7 + 256."""
        logits = torch.zeros(*ids.shape, VOCAB)
        logits[..., ord(" ")] = math.log(7)
        logits[ids == ord(" ")] = torch.nn.functional.one_hot(torch.tensor(ord("a")), VOCAB) * math.log(7)
        logits[ids == ord("a")] = torch.nn.functional.one_hot(torch.tensor(ord("b")), VOCAB) * math.log(7)
        return logits

    items = [Item((("the", " ab"),), 0, (2,)), Item((("the", " ba"),), 0, (2,))]
    found = judged(Task("lambada", ("acc", "perplexity"), items), encoding, after)
    nats = [3 * -math.log(7 / 263), -math.log(7 / 263) - 2 * math.log(1 / 263)]
    # After "b" the model prefers a space, so "a" has one part.
    assert found["acc"] == 0.5
    assert found["perplexity"] == pytest.approx(math.exp(np.mean(nats)), rel=1e-5)


def test_a_model_that_cannot_tell_sentences_apart_scores_half_of_blimp(encoding, tmp_path):
    pairs = [{"sentence_good": "Mills grind.", "sentence_bad": "Mill grinds."}] * 20
    found = judged(read_task(write(tmp_path / "set.jsonl", pairs)), encoding)
    assert found["acc"] == found["uniform_acc"] == found["chance"] == 0.5
    assert found["acc_interval"] == [0.5, 0.5]


def test_a_model_that_knows_nothing_has_the_vocabularys_size_as_perplexity(encoding):
    items = [Item((("a", "b"),), 0, (1,))] * 3
    found = judged(Task("lambada", ("acc", "perplexity"), items), encoding)
    assert found["perplexity"] == pytest.approx(VOCAB, rel=1e-6)
    assert found["acc"] == pytest.approx(found["chance"])
    assert found["chance"] == pytest.approx(1 / VOCAB)


@needs_eval
@pytest.mark.parametrize(
    "name", ["arc_easy_first200", "hellaswag_val_first300", "piqa_first200", "winogrande_first200"]
)
def test_a_constant_model_scores_what_lengths_give_away_and_no_more(name, encoding):
    task = read_task(EVAL / f"{name}.jsonl")
    found = judged(task, encoding, batch_size=64)
    for metric in task.metrics:
        assert found[metric] == pytest.approx(found[f"uniform_{metric}"], abs=1e-9)
        low, high = found[f"{metric}_interval"]
        assert low - 0.02 <= found["chance"] <= high + 0.02


def test_scores_do_not_depend_on_the_batch_size(encoding, tmp_path):
    torch.manual_seed(0)
    embedding, layer = torch.nn.Embedding(VOCAB, 24), torch.nn.GRU(24, VOCAB, batch_first=True)

    def recurrent(ids):
        return 5 * layer(5 * embedding(ids))[0]

    random = np.random.default_rng(0)
    words = [" ".join(random.choice(["mill", "flour", "grinds"], size=random.integers(1, 6))) for _ in range(80)]
    items = [
        {"goal": "x" * size, "sol1": words[size], "sol2": words[size + 40], "label": size % 2} for size in range(40)
    ]
    task = read_task(write(tmp_path / "set.jsonl", items))
    found = [judged(task, encoding, recurrent, batch_size=size, context=40) for size in (1, 3, 64)]
    nats = [each.pop("answer_bits_per_byte") for each in found]
    assert 0 < found[0]["acc"] < 1
    assert found[0] == found[1] == found[2]
    assert nats == pytest.approx([nats[0]] * 3, rel=1e-6)


def test_a_perplexity_beyond_numbers_is_none(encoding):
    def sure_of_others(ids):
        return torch.nn.functional.one_hot(torch.zeros_like(ids), VOCAB) * 1e4

    found = judged(Task("lambada", ("acc", "perplexity"), [Item((("a", "b"),), 0, (1,))]), encoding, sure_of_others)
    assert found["perplexity"] is None


def test_an_answer_without_a_token_is_one_sentence(encoding):
    with pytest.raises(TrainingError, match="Item 1 of piqa cannot be scored"):
        judged(Task("piqa", ("acc",), [Item((("a", ""), ("a", "b")), 0, (0, 1))]), encoding)
