"""Evaluation sets: what each file is, and what is refused in one sentence while planning."""

import json
from pathlib import Path

import pytest

from model.config import TrainingError
from model.evaluation.sets import read_sets

ROOT = Path(__file__).resolve().parents[3]


def test_a_set_is_a_benchmark_where_its_items_are_and_else_texts(tmp_path):
    contents = {
        "pairs.jsonl": '{"sentence_good": "a", "sentence_bad": "b"}\n',
        "texts.jsonl": '{"text": "a\\u2028b"}\n\n{"text": ""}\n',
        "whole.txt": '{"text": "a"}\n',
    }
    for name, content in contents.items():
        (tmp_path / name).write_text(content)
    found = read_sets([tmp_path / name for name in contents], {})
    assert found["pairs.jsonl"].name == "blimp"
    assert found["texts.jsonl"] == ["a\u2028b", ""]
    assert found["whole.txt"] == ['{"text": "a"}\n']


def test_a_text_keeps_its_newlines(tmp_path):
    (tmp_path / "windows.txt").write_bytes(b"one\r\ntwo\r\n")
    assert read_sets([tmp_path / "windows.txt"], {})["windows.txt"] == ["one\r\ntwo\r\n"]


@pytest.mark.parametrize(
    "content",
    [
        "{",
        '{"sentence": "no gap", "option1": "a", "option2": "b", "answer": "1"}',
        '{"words": 1}',
        '{"text": 1}',
        "[]",
        "\xff",
        "",
        '{"text": ""}',
    ],
)
def test_a_broken_set_is_one_sentence(tmp_path, content):
    path = tmp_path / "broken.jsonl"
    path.write_bytes(content.encode("latin-1"))
    with pytest.raises(TrainingError, match=r"broken.jsonl"):
        read_sets([path], {})


def test_a_file_of_another_kind_is_refused(tmp_path):
    (tmp_path / "a.csv").write_text("text")
    with pytest.raises(TrainingError, match=r"neither a \.jsonl nor a \.txt"):
        read_sets([tmp_path / "a.csv"], {})


def test_sets_of_one_name_are_refused_since_results_are_kept_by_name(tmp_path):
    paths = [tmp_path / "a" / "items.jsonl", tmp_path / "b" / "items.jsonl"]
    for path in paths:
        path.parent.mkdir()
        path.write_text('{"text": "a"}\n')
    with pytest.raises(TrainingError, match="Two evaluation sets are called items"):
        read_sets(paths, {})


def test_a_benchmark_named_for_a_set_that_is_not_there_is_refused(tmp_path):
    (tmp_path / "words.txt").write_text("a")
    with pytest.raises(TrainingError, match=r"lambada is said to be the task of words\.jsonl"):
        read_sets([tmp_path / "words.txt"], {"words": "lambada"})


@pytest.mark.parametrize(("name", "form", "items"), [("pairs", "blimp", 60), ("choices", "multiple_choice", 40)])
def test_the_demo_has_benchmarks_of_its_own(name, form, items):
    task = read_sets([ROOT / f"data/demo/{name}.jsonl"], {})[f"{name}.jsonl"]
    assert (task.name, len(task.items)) == (form, items)
    assert len({answer for item in task.items for answer in item.answers}) == sum(len(i.answers) for i in task.items)


def test_the_demos_right_answers_stand_in_no_fixed_place():
    lines = (ROOT / "data/demo/choices.jsonl").read_text().splitlines()
    places = [json.loads(line)["gold"] for line in lines]
    assert all(places.count(place) >= 5 for place in range(4))
