"""lm-evaluation-harness and our own evaluation ask the same and give the same numbers for the same model and items."""

import importlib
import json
import os
import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path

import pytest
import torch

from model.config import TrainingError
from model.evaluation.likelihood import Request, score
from model.evaluation.task_files import read_task
from model.evaluation.tasks import evaluate_task
from pipeline.shards import load_encoding
from tests.model.conftest import END, VOCAB
from tests.model.evaluation.test_tasks import ITEMS

needs_harness = pytest.mark.skipif(
    find_spec("lm_eval") is None, reason="lm-evaluation-harness is not installed (extra lm-eval)"
)

ROOT = Path(__file__).parents[3]

TASK_FILES = {
    "hellaswag": "hellaswag/hellaswag.yaml",
    "piqa": "piqa/piqa.yaml",
    "arc": "arc/arc_challenge.yaml",
    "winogrande": "winogrande/default.yaml",
    "lambada": "lambada/lambada_openai.yaml",
    "blimp": "blimp/adjunct_island.yaml",
}
"""The harness's own definition of each benchmark."""

WORDS = ["mill", "river", "flour", "bread", "grain", "stone"]


def items(name):
    """Thirty items as published, each with other words."""
    pairs = [(first, second) for first in WORDS for second in WORDS if first != second]  # equal ones would tie
    changes = {
        "hellaswag": lambda a, b: {"ctx_a": f"The {a} is a {b}.", "endings": [f"{a} [x] and {b}", f"{b} or {a} of it"]},
        "piqa": lambda a, b: {"goal": f"{a} for {b}", "sol1": f"{a} and {b}", "sol2": f"{b} or {a}"},
        "arc": lambda a, b: {"choices": {"text": [a, b, f"{b} {a}"], "label": ["A", "B", "C"]}},
        "winogrande": lambda a, b: {"sentence": f"{a} met {b} so _ did {b}.", "option1": a, "option2": b},
        "lambada": lambda a, b: {"text": f"A {a} has one {b} and the {a} has"},
        "blimp": lambda a, b: {"sentence_good": f"The {a} {b}.", "sentence_bad": f"{b} the {a}."},
    }
    published = {} if name == "lambada" else ITEMS[name]
    return [{**published, **changes[name](*pair)} for pair in pairs]


def write_task(folder, name):
    """The harness's own task on a local file of items; returns that file."""
    import lm_eval

    path = folder / f"{name}.jsonl"
    path.write_text("".join(json.dumps(item) + "\n" for item in items(name)))
    (folder / f"{name}.yaml").write_text(
        f"include: {Path(lm_eval.__file__).parent / 'tasks' / TASK_FILES[name]}\n"
        f"task: local_{name}\ndataset_path: json\ndataset_name: null\n"
        f"dataset_kwargs:\n  data_files:\n    validation: {path}\n"
        "training_split: null\nvalidation_split: validation\ntest_split: null\n"
    )
    return path


def recurrent_model():
    torch.manual_seed(0)
    embedding, layer = torch.nn.Embedding(VOCAB, 24), torch.nn.GRU(24, VOCAB, batch_first=True)
    return lambda ids: 5 * layer(5 * embedding(ids))[0]


def offline(folder):
    return {"HF_HOME": str(folder), "HF_DATASETS_OFFLINE": "1", "HF_HUB_OFFLINE": "1", "HF_DATASETS_CACHE": str(folder)}


@needs_harness
@pytest.mark.slow
@pytest.mark.parametrize("name", list(TASK_FILES))
def test_requests_and_scores_are_those_of_the_harness(name, tokenizer, tmp_path, monkeypatch):
    for variable, value in offline(tmp_path / "cache").items():
        monkeypatch.setenv(variable, value)
    import lm_eval
    from lm_eval.tasks import TaskManager

    from model.evaluation.lm_eval_adapter import LogitsModel

    class Watched(LogitsModel):
        def loglikelihood(self, requests, **options):
            asked.extend(request.args for request in requests)
            return super().loglikelihood(requests, **options)

    asked = []
    logits, encoding = recurrent_model(), load_encoding(tokenizer)
    path = write_task(tmp_path, name)
    theirs = lm_eval.simple_evaluate(
        model=Watched(logits, encoding, context=128, batch_size=5),
        tasks=[f"local_{name}"],
        task_manager=TaskManager(include_path=str(tmp_path), include_defaults=False),
        bootstrap_iters=0,
    )["results"][f"local_{name}"]
    task = read_task(path, name)
    ours = evaluate_task(task, logits, encoding, context=128, batch_size=3, resamples=10, seed=0)
    assert asked == [answer for item in task.items for answer in item.answers]
    for metric in task.metrics:
        assert ours[metric] == pytest.approx(theirs[f"{metric},none"], rel=1e-6)


@needs_harness
def test_whole_texts_cost_what_the_sum_of_their_tokens_costs(tokenizer):
    from lm_eval.api.instance import Instance

    from model.evaluation.lm_eval_adapter import LogitsModel

    logits, encoding = recurrent_model(), load_encoding(tokenizer)
    adapter = LogitsModel(logits, encoding, context=16)
    texts = ["the mill", "the mill turns a river of words into flour"]
    found = adapter.loglikelihood_rolling([Instance("loglikelihood_rolling", {}, (text,), 0) for text in texts])
    expected = score(logits, [Request((END,), tuple(text.encode())) for text in texts], context=16, batch_size=1)
    assert found == pytest.approx([each.log_likelihood for each in expected], rel=1e-6)


@needs_harness
def test_generation_is_greedy_and_ends_before_a_stop_string(tokenizer):
    from lm_eval.api.instance import Instance

    from model.evaluation.lm_eval_adapter import LogitsModel

    cycle = {ord(a): ord(b) for a, b in zip("abcd", "bcda", strict=True)}

    def around(ids):
        return torch.nn.functional.one_hot(ids.apply_(lambda token: cycle.get(token, END)), VOCAB).float()

    adapter = LogitsModel(around, load_encoding(tokenizer), context=8)
    asked = [("xa", {"until": ["dab"]}), ("a", {"until": [], "max_gen_toks": 3}), ("x", {"until": []})]
    found = adapter.generate_until([Instance("generate_until", {}, request, 0) for request in asked])
    assert found == ["bc", "bcd", ""]
    with pytest.raises(ValueError, match="generates greedily"):
        adapter.generate_until([Instance("generate_until", {}, ("a", {"do_sample": True}), 0)])


@needs_harness
@pytest.mark.slow
def test_a_checkpoint_scored_by_the_command_line_of_the_harness_has_our_scores(tokenizer, tmp_path):
    from model.generation.generate import load
    from tests.model.test_evaluate import save

    checkpoint = save(tmp_path / "model")
    path = write_task(tmp_path, "lambada")
    command = [
        sys.executable, "-m", "model.evaluation.lm_eval_adapter", "run", "--model", "gptmill", "--device", "cpu",
        "--model_args", f"checkpoint={checkpoint},tokenizer={tokenizer}", "--tasks", "local_lambada",
        "--include_path", str(tmp_path), "--output_path", str(tmp_path / "results"), "--batch_size", "4",
    ]  # fmt: skip
    environment = {**os.environ, **offline(tmp_path / "cache")}
    subprocess.run(command, check=True, cwd=ROOT, env=environment, capture_output=True)
    written = json.loads(next((tmp_path / "results").rglob("results_*.json")).read_text())["results"]["local_lambada"]
    model, encoding = load(checkpoint), load_encoding(tokenizer)
    task = read_task(path, "lambada")
    ours = evaluate_task(task, model, encoding, context=model.config.context, batch_size=16, resamples=10, seed=0)
    assert written["acc,none"] == pytest.approx(ours["acc"])
    assert written["perplexity,none"] == pytest.approx(ours["perplexity"], rel=1e-6)


def test_without_the_harness_what_to_install_is_said(monkeypatch):
    monkeypatch.setitem(sys.modules, "lm_eval.api.model", None)
    monkeypatch.delitem(sys.modules, "model.evaluation.lm_eval_adapter", raising=False)
    with pytest.raises(TrainingError, match="install gptmill with its extra lm-eval"):
        importlib.import_module("model.evaluation.lm_eval_adapter")
