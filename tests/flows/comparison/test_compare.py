"""`gptmill compare`: two models side by side in the terminal and as a page."""

import json

import numpy as np
import pytest
import torch
from markupsafe import escape
from rich.console import Console

from flows.cli import main
from flows.comparison.layout import Comparison, Sample, Written, tables
from flows.comparison.models import Asked, _paired, compare_models
from flows.models import model_in
from model.folder import open_folder
from model.presets import GPT2
from tests.flows.commands.test_export import store, write_checkpoint, write_tokenizer  # noqa: F401


@pytest.fixture(autouse=True)
def _one_thread():
    torch.set_num_threads(1)


@pytest.fixture
def folders(tmp_path):
    """Two checkpoints of different shapes, with their tokenizers."""
    for name, shape in (("modern", {}), ("gpt2", {"shape": GPT2})):
        (tmp_path / name).mkdir()
        write_checkpoint(tmp_path / name, **shape)
        write_tokenizer(tmp_path / name)
    return tmp_path / "modern", tmp_path / "gpt2"


@pytest.fixture
def compare(capsys, monkeypatch):
    monkeypatch.setenv("COLUMNS", "160")

    def go(*arguments):
        assert main(["compare", *map(str, arguments)]) == 0
        return capsys.readouterr().out

    return go


def row(table, what):
    """The two values of a fact."""
    (line,) = [line for line in table.splitlines() if line.startswith(what)]
    return [value.strip() for value in line.removeprefix(what).split("  ") if value.strip()]


def test_facts_stand_side_by_side(compare, folders):
    table = compare(*folders, "--max-tokens", 4)
    assert row(table, "parameters") == [f"{open_folder(folder).model.parameter_count():,}" for folder in folders]
    assert row(table, "context") == ["16 tokens", "16 tokens"]
    assert row(table, "parts") == ["rotary positions, rmsnorm, swiglu", "learned positions, layernorm, gelu"]


def test_both_write_what_generate_writes_for_the_same_prompt_and_seed(compare, folders, capsys):
    table = compare(*folders, "--prompt", "ab", "--seed", 3, "--samples", 2, "--max-tokens", 6, "--top-p", 0.9)
    assert [table.count(how) for how in ("greedy", "seed 3", "seed 4", "seed 5")] == [1, 1, 1, 0]
    page = folders[0].parent / "page.html"
    compare(*folders, "--prompt", "ab", "--seed", 4, "--max-tokens", 6, "--top-p", 0.9, "--html", page)
    for folder in folders:
        options = ("--checkpoint", folder, "--seed", 4, "--max-tokens", 6, "--top-p", 0.9)
        assert main(["generate", "ab", *map(str, options)]) == 0
        written = capsys.readouterr().out.removesuffix("\n").removeprefix("ab")
        assert str(escape(written)) in page.read_text(encoding="utf-8")


def test_a_text_is_scored_by_both_and_a_model_is_as_good_as_itself(compare, folders, tmp_path):
    (tmp_path / "notes.txt").write_text("The mill turns. " * 10)
    table = compare(folders[0], folders[0], "--text", tmp_path / "notes.txt", "--max-tokens", 2)
    first, second = row(table, "bits per byte of notes.txt")
    assert first == second
    assert 5 < float(first) < 12


def test_a_model_is_within_chance_of_itself_on_the_same_texts(folders):
    model = model_in(folders[0], folders[0])
    asked = Asked([], [], 1, texts=[f"The mill turned {number} times. " * 4 for number in range(30)])
    _, [row], _ = compare_models([model, model], asked, lambda *_: None)
    assert row.what == "bits per byte of 30 texts that both hold out"
    assert row.verdict == "+0.0000 (+0.0000 to +0.0000), within chance"
    assert 5 < float(row.values[0]) < 12


@pytest.mark.parametrize(
    ("n_texts", "gain", "verdict"),
    [(50, 0.1, "more than chance"), (50, 0.001, "within chance"), (5, 0.1, "too few texts to judge")],
)
def test_a_difference_in_most_texts_is_more_than_chance_though_texts_differ_more(n_texts, gain, verdict):
    texts = ["The mill turned. " * (1 + number) for number in range(n_texts)]
    sizes = np.array([len(text) for text in texts])
    random = np.random.default_rng(0)
    hard = random.uniform(1, 7, n_texts)
    bits = [sizes * hard, sizes * (hard - gain + random.normal(0, 0.05, n_texts))]
    [row] = _paired(bits, texts)
    assert row.verdict.endswith(verdict)
    assert float(row.verdict.split()[0]) == pytest.approx(-gain, abs=0.03)


def test_json_has_the_facts_of_the_terminal_and_what_both_wrote(compare, folders):
    arguments = (*folders, "--prompt", "ab", "--seed", 3, "--max-tokens", 4)
    table, told = compare(*arguments), json.loads(compare(*arguments, "--json"))
    (models,) = (section for section in told["sections"] if section["title"] == "The models")
    facts = {fact["name"]: [fact["a"], fact["b"]] for fact in models["rows"]}
    assert facts["parameters"] == row(table, "parameters")
    assert [(sample["prompt"], sample["how"]) for sample in told["samples"]] == [("ab", "greedy"), ("ab", "seed 3")]
    assert told["samples"][0]["a"].keys() == {"text", "ended"}
    assert told["names"] == list(map(str, folders))


def test_prompts_come_from_a_file_of_lines_or_of_examples(compare, folders, tmp_path):
    (tmp_path / "prompts.txt").write_text("one two\n\nthree\n")
    (tmp_path / "data.jsonl").write_text(json.dumps({"prompt": "four\nfive", "answer": "six"}))
    lines = compare(*folders, "--prompts", tmp_path / "prompts.txt", "--max-tokens", 2)
    assert lines.index("'one two'") < lines.index("'three'")
    assert r"'four\nfive'" in compare(*folders, "--prompts", tmp_path / "data.jsonl", "--max-tokens", 2)


def test_what_is_known_of_a_training_is_told_and_what_is_not_is_a_dash(compare, folders, tmp_path):
    lines = [{"prompt": f"{number}?", "answer": " yes"} for number in range(30)]
    (tmp_path / "data.jsonl").write_text("\n".join(map(json.dumps, lines)))
    tune = ("--out", tmp_path / "tuned", "--base", folders[0], "--steps", 2, "--held-out", 0.3, "--batch-tokens", 32)
    assert main(["finetune", *map(str, (tmp_path / "data.jsonl", *tune))]) == 0
    assert main(["export", "--hf", str(tmp_path / "hf"), "--checkpoint", str(tmp_path / "tuned")]) == 0
    table = compare(tmp_path / "tuned", tmp_path / "hf", "--max-tokens", 2)
    assert row(table, "steps") == ["2", "–"]
    assert row(table, "tokens seen") == ["64", "–"]
    loss, unknown = row(table, "own held-out loss")
    assert 0 < float(loss.removesuffix(" nats a token")) < 10
    assert unknown == "–"


def test_losses_of_models_of_other_vocabularies_are_said_not_to_compare(compare, folders, tmp_path):
    (tmp_path / "data.jsonl").write_text(json.dumps({"prompt": "1?", "answer": " yes"}) + "\n")
    for folder in folders:
        tune = ("--out", tmp_path / f"tuned-{folder.name}", "--base", folder, "--steps", 1, "--batch-tokens", 32)
        assert main(["finetune", str(tmp_path / "data.jsonl"), *map(str, tune)]) == 0
    told = "The vocabularies differ: losses a token do not compare."
    tuned = [tmp_path / f"tuned-{folder.name}" for folder in folders]
    assert told not in compare(*tuned, "--max-tokens", 1)
    facts = json.loads((tuned[1] / "tokenizer.json").read_text())
    (tuned[1] / "tokenizer.json").write_text(json.dumps(facts | {"pattern": r"\w|\W"}))
    assert told in compare(*tuned, "--max-tokens", 1)


def test_what_a_model_writes_cannot_steer_the_terminal_and_keeps_its_lines(capsys):
    wild = Written("one\x1b[2J\x1b]0;title\x07\ntwo\r", ended=True)
    shown = Console(width=80)
    for table in tables(Comparison(("a", "b"), [], [Sample("", "greedy", (wild, wild))])):
        shown.print(table)
    told = capsys.readouterr().out
    assert not {"\x1b", "\x07", "\r"} & set(told)
    assert [line.count(word) for word in ("one", "two") for line in told.splitlines() if word in line] == [2, 2]


def test_the_page_is_whole_by_itself_and_shows_texts_as_texts(compare, folders, tmp_path):
    compare(*folders, "--prompt", "<script>alert(1)</script>", "--max-tokens", 2, "--html", tmp_path / "page.html")
    page = (tmp_path / "page.html").read_text()
    assert "&lt;script&gt;alert(1)" in page
    assert "<script" not in page
    assert "http" not in page.replace("http-equiv", "")


def test_a_model_of_a_store_can_be_named(compare, store, folders):  # noqa: F811
    table = compare("small", folders[0], "--store", store.root, "--max-tokens", 2)
    assert "small" in table.split()  # the other name, a folder's, may take several lines
    assert "latest (small)" in compare("latest", "small", "--store", store.root, "--max-tokens", 2)


def test_a_name_that_nothing_has_is_one_sentence(store, folders, capsys):  # noqa: F811
    assert main(["compare", str(folders[0]), "bread", "--store", str(store.root)]) == 2
    told = capsys.readouterr().err
    assert "bread is no folder and no config with results" in told
    assert told.count("\n") == 1


def test_prompts_of_unlike_length_are_written_as_each_alone(compare, folders):
    table = compare(*folders, "--prompt", "ab", "--prompt", "a longer one", "--seed", 3, "--max-tokens", 6)
    for prompt in ("ab", "a longer one"):
        alone = compare(*folders, "--prompt", prompt, "--seed", 3, "--max-tokens", 6)
        for how in ("greedy", "seed 3"):
            assert block(alone, prompt, how) == block(table, prompt, how)


def block(table, prompt, how):
    """The lines that one sample has in the terminal."""
    lines = table.splitlines()
    start = next(n for n, line in enumerate(lines) if repr(prompt) in line and line.rstrip().endswith(how))
    end = next(n for n, line in enumerate(lines[start:], start) if line.startswith("└"))
    return lines[start:end]
