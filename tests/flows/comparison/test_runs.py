"""`gptmill compare` of two runs: what they were told, what they packed, and what was removed; without models here."""

import json
import re

import pytest

from flows import runs
from flows.comparison import diff
from flows.comparison.compare import _latest_side
from flows.comparison.layout import Row, Section
from flows.comparison.runs import _settings, compare_runs, held_out_texts
from flows.comparison.scores import curves, scores, with_paired
from flows.names import find_run
from pipeline.corpus import Corpus
from pipeline.engine import upkeep
from pipeline.engine.store import Artifact, write_atomically
from pipeline.shares import shares
from tests.flows.commands.test_export import write_checkpoint, write_tokenizer
from tests.flows.conftest import PAGES
from tests.flows.test_runs import changed  # noqa: F401

FROM_NOTHING = {"key_document": {"config": {}, "tools": {}, "code": {}}, "inputs": {}}
WENT_ON = {**FROM_NOTHING, "inputs": {"start": {"key": "0123456789abcdef"}}}


@pytest.fixture
def compared(changed):  # noqa: F811
    """A store with two runs, and what is told of them: rows by section and name."""
    little, first, second = changed
    found = compare_runs(little.store, *(find_run(little.store, run) for run in (first, second)))
    return little, first, second, {section.title: {row.what: row for row in section.rows} for section in found}


def test_settings_that_differ_are_named_with_both_values_and_no_others(compared):
    *_, told = compared
    assert told["What they were told"] == {"policy.min_gopher_words": Row("policy.min_gopher_words", ("8", "130"))}


def test_what_a_training_went_on_from_is_a_setting_that_differs():
    told = list(_settings({"pretrain": FROM_NOTHING}, {"pretrain": WENT_ON}))
    assert told == [Row("training starts from", ("nothing", "the checkpoint 0123456789ab"))]


def test_diff_says_what_a_training_went_on_from(tmp_path):
    before, after = (
        Corpus({"pretrain": Artifact("pretrain", "", "", tmp_path, manifest=manifest)}, ())
        for manifest in (FROM_NOTHING, WENT_ON)
    )
    assert list(diff._settings(before, after)) == ["training starts from nothing → the checkpoint 0123456789ab"]


def test_what_was_removed_stands_under_its_stage_and_reason(compared):
    *_, told = compared
    removed = told["Removed, by stage and reason"]
    before, after = (int(count) for count in removed["select: quality:gopher words"].values)
    assert before < after
    kept = [int(count.replace(",", "")) for count in told["The corpus"]["Documents"].values]
    assert kept == [len(PAGES)] * 2
    for side in (0, 1):
        lost = sum(int(row.values[side]) for name, row in removed.items() if not name.startswith("scrape"))
        assert kept[side] - lost == int(told["The corpus"]["Packed"].values[side])


def test_documents_of_one_run_alone_and_of_both_add_up(compared):
    little, first, second, told = compared
    corpus = told["The corpus"]
    difference = little.asked("diff", first, second)
    assert corpus["Only in this one"].values[0].endswith(f"in {difference['lost']['documents']} documents")
    assert corpus["Only in this one"].values[1] == "nothing"
    assert f"{difference['unchanged']['tokens']:,} tokens" in corpus["In both"].values[0]


def test_shares_of_hosts_add_up_to_what_is_packed(little):
    corpus = runs.corpus_of(little.store, find_run(little.store, None, "pack"))
    stats = corpus.artifacts["pack"].manifest["stats"]
    for kind, found in shares(corpus).items():
        assert sum(share.documents for share in found.values()) == sum(stats["documents"].values()), kind
        # Each document is followed by an end-of-text, which belongs to nobody.
        tokens = sum(stats["tokens"].values()) - sum(stats["documents"].values())
        assert sum(share.tokens for share in found.values()) == tokens
    assert list(shares(corpus)["license"]) == [""]


def test_texts_that_both_hold_out_are_the_same_ones_and_no_more_than_asked(changed):  # noqa: F811
    little, first, second = changed
    both = [find_run(little.store, run) for run in (first, second)]
    texts = held_out_texts(little.store, *both, 100)
    assert len(texts) > 1
    assert set(texts) <= set(PAGES.values())
    assert held_out_texts(little.store, *both, 1) == texts[:1]


def test_a_terminal_of_80_columns_shows_all_of_it(changed, monkeypatch):  # noqa: F811
    little, first, second = changed
    monkeypatch.setenv("COLUMNS", "80")
    told = little.command("compare", first, second)
    assert max(map(len, told.splitlines())) <= 80
    assert "policy.min_gopher_words" in told
    assert "Neither was trained." in told


def test_json_of_two_runs_is_all_that_stdout_has_and_tells_each_section(changed):  # noqa: F811
    little, first, second = changed
    told = little.asked("compare", first, second)
    rows = {section["title"]: section["rows"] for section in told["sections"]}
    assert rows["What they were told"] == [{"name": "policy.min_gopher_words", "a": "8", "b": "130", "worth": ""}]
    assert rows["The runs"][0] == {"name": "run", "a": first, "b": second, "worth": ""}
    assert told["samples"] == []


def test_a_run_that_gc_collected_is_one_sentence(changed, capsys):  # noqa: F811
    little, first, second = changed
    upkeep.collect(little.store, dry_run=False)
    little.command("compare", first, second, code=2)
    told = capsys.readouterr().err
    assert told.count("\n") == 1
    assert f"What pack gave in the run {first} is no longer in the store" in told


def test_runs_without_models_say_so_and_a_folder_cannot_stand_beside_one(changed, tmp_path, capsys):  # noqa: F811
    little, first, second = changed
    little.command("compare", first, second)
    assert f"{first} has no model that is still there" in capsys.readouterr().err
    (tmp_path / "model").mkdir()
    write_checkpoint(tmp_path / "model")
    write_tokenizer(tmp_path / "model")
    little.command("compare", first, str(tmp_path / "model"), code=2)
    assert "is a run without a model, and the other is no run" in capsys.readouterr().err


def log_of(store, run, config, at, *stages):
    """The log of a run that has these stages beside what the last one has."""
    last = runs.runs(store)[-1]
    rows = [{"event": "start", "config": config, "at": at}]
    rows += [{"event": "stage", **row} for row in last.stages.values()]
    rows += [{"event": "stage", "stage": stage, "key": "shared", "digest": "", "status": "run"} for stage in stages]
    (store.root / "runs" / f"{run}.jsonl").write_text("\n".join(map(json.dumps, rows)))


@pytest.fixture
def shared(copied):
    """A store whose promoted model three later runs have in common: evaluated, not evaluated, of another config."""
    copied.run()
    latest = copied.store.root / "refs/little/latest.json"
    reference = json.loads(latest.read_text())
    reference["stages"]["pretrain"] = {"key": "shared", "digest": ""}
    latest.write_text(json.dumps(reference))
    write_atomically(copied.store.artifact_folder("pretrain", "shared") / "manifest.json", "{}")
    now = runs.runs(copied.store)[0].started
    log_of(copied.store, "ours", "little", now + 1, "pretrain", "evaluate")
    log_of(copied.store, "unevaluated", "little", now + 2, "pretrain")
    log_of(copied.store, "theirs", "other", now + 3, "pretrain", "evaluate")
    return copied.store


@pytest.mark.parametrize("name", ["little", "latest"])
def test_a_config_means_its_own_run_of_the_model_that_others_share_and_the_evaluated_one(shared, name):
    side = _latest_side(shared, name)
    assert side.model.folder.name == "shared"
    assert side.run.id == "ours"


def test_a_config_means_its_newest_run(changed):  # noqa: F811
    little, first, second = changed
    assert second in little.command("compare", "little", first)


def evaluated(folder, validation, tasks, sets=None, stride=0):
    """A corpus of which only an evaluation is known."""
    folder.mkdir()
    found = {"validation": validation, "tasks": tasks, "sets": sets or {}}
    (folder / "evaluation.json").write_text(json.dumps(found))
    evaluation = Artifact("evaluate", "", "", folder, manifest={"key_document": {"config": {"stride": stride}}})
    return Corpus({"evaluate": evaluation, "pack": Artifact("pack", "", "", folder)}, ())


def task(acc, low, high, sha256="one", kind="arc", items=50):
    score = {"acc": acc, "acc_interval": [low, high], "chance": 0.5}
    return {"yes.jsonl": {**score, "items": items, "task": kind, "sha256": sha256}}


def held_out(value, low, high, n_bytes=900, documents=50):
    return {
        "bits_per_byte": value,
        "bits_per_byte_interval": [low, high],
        "bytes": n_bytes,
        "documents": documents,
    }


def verdicts(a, b):
    """What is said of each figure, by its name; nothing where nothing is."""
    return {row.what: row.verdict for row in scores(a, b).rows if row.verdict}


@pytest.mark.parametrize(
    ("other", "sha256", "told"),
    [
        ((1.2, 1.1, 1.3), "one", ["+0.2000, intervals overlap", "+0.1000, intervals overlap"]),
        ((1.4, 1.3, 1.5), "one", ["+0.4000, intervals apart", "+0.1000, intervals overlap"]),
        ((1.4, 1.3, 1.5, 901), "two", ["other texts", "other items"]),
    ],
)
def test_a_difference_is_called_what_it_is_worth(tmp_path, other, sha256, told):
    a = evaluated(tmp_path / "a", held_out(1.0, 0.9, 1.15), task(0.5, 0.4, 0.6))
    b = evaluated(tmp_path / "b", held_out(*other), task(0.6, 0.5, 0.7, sha256))
    assert list(verdicts(a, b).values()) == told


def test_a_difference_over_few_items_is_too_few_to_judge_however_far_apart(tmp_path):
    a = evaluated(tmp_path / "a", held_out(1.0, 0.9, 1.1, documents=19), task(0.2, 0.1, 0.3, items=20))
    b = evaluated(tmp_path / "b", held_out(2.0, 1.9, 2.1, documents=19), task(0.8, 0.7, 0.9, items=20))
    assert list(verdicts(a, b).values()) == ["+1.0000, too few to judge", "+0.6000, intervals apart"]


def test_no_interval_is_shown_of_one_document_or_item(tmp_path):
    both = [
        evaluated(tmp_path / name, held_out(1.0, 1.0, 1.0, documents=1), task(1.0, 1.0, 1.0, items=1)) for name in "ab"
    ]
    shown = {row.what: row.values for row in scores(*both).rows}
    assert shown["bits per byte, held out"] == shown["acc of yes.jsonl"] == ("1.0000", "1.0000")


def test_a_perplexity_without_an_upper_bound_is_not_apart_from_one_above_it(tmp_path):
    both = []
    for name, value, bounds in (("a", 50.0, [40.0, None]), ("b", 90.0, [80.0, 100.0])):
        scored = {"perplexity": value, "perplexity_interval": bounds, "task": "lambada", "items": 50, "sha256": "one"}
        both.append(evaluated(tmp_path / name, held_out(1.0, 0.9, 1.1), {"last.jsonl": scored | {"chance": 0.0}}))
    assert verdicts(*both)["perplexity of last.jsonl"] == "+40.0000, intervals overlap"


def test_a_set_that_was_added_does_not_make_another_one_other_items(tmp_path):
    a = evaluated(tmp_path / "a", held_out(1.0, 0.9, 1.1), task(0.5, 0.4, 0.6))
    first = {"first.jsonl": task(0, 0, 1, sha256="two")["yes.jsonl"]}
    b = evaluated(tmp_path / "b", held_out(1.0, 0.9, 1.1), first | task(0.5, 0.4, 0.6))
    assert verdicts(a, b)["acc of yes.jsonl"] == "+0.0000, intervals overlap"


def test_the_same_items_as_another_task_are_not_judged(tmp_path):
    a = evaluated(tmp_path / "a", held_out(1.0, 0.9, 1.1), task(0.5, 0.4, 0.6))
    b = evaluated(tmp_path / "b", held_out(1.0, 0.9, 1.1), task(0.9, 0.8, 1.0, kind="piqa"))
    assert verdicts(a, b)["acc of yes.jsonl"] == "another task"


def test_texts_scored_with_another_stride_are_not_judged_and_items_are(tmp_path):
    texts = {"notes.txt": held_out(1.0, 0.9, 1.1) | {"sha256": "two"}}
    whole = held_out(1.0, 0.9, 1.1)
    a, b = (evaluated(tmp_path / str(n), whole, task(0.5, 0.4, 0.6), texts, stride=n) for n in (0, 7))
    told = verdicts(a, b)
    assert told["bits per byte, held out"] == told["bits per byte of notes.txt"] == "another stride"
    assert told["acc of yes.jsonl"] == "+0.0000, intervals overlap"


def test_an_evaluation_that_does_not_tell_its_items_may_have_had_others(tmp_path):
    both = [evaluated(tmp_path / name, held_out(1, 0.9, 1.1), task(0.5, 0.4, 0.6, sha256=None)) for name in "ab"]
    assert verdicts(*both)["acc of yes.jsonl"] == "perhaps other items"


def test_a_paired_difference_stands_among_the_scores():
    paired = Row("bits per byte of 30 texts", ("1", "2"), "+1")
    sections = with_paired([Section("The corpus", []), Section("What they score", [])], [paired])
    assert [section.rows for section in sections] == [[], [paired]]


def trained(tmp_path, *tokenizers):
    """Corpora of which only the tokenizers and the metrics of the trainings are known: 10 steps, or 5 of the second."""
    both = []
    for name, steps in (("a", 10), ("b", 5)):  # b ends within the third stretch
        (tmp_path / name / "report").mkdir(parents=True)
        lines = [f'{{"step": {n}, "loss": {8 - n / 2}, "tokens": {100 * n}}}' for n in range(1, steps + 1)]
        lines += [f'{{"step": {steps}, "val_loss": 4.5, "final": true}}']
        (tmp_path / name / "report" / "metrics.jsonl").write_text("\n".join(lines))
        tokenizer = Artifact("tokenizer", "", tokenizers[len(both)], tmp_path)
        training = Artifact("pretrain", "", "", tmp_path / name)
        both.append(Corpus({"tokenizer": tokenizer, "pretrain": training}, ()))
    return both


def test_losses_of_other_vocabularies_are_said_not_to_compare_and_are_not_drawn(tmp_path):
    found = curves(*trained(tmp_path, "one", "two"))
    assert "The vocabularies differ: losses a token do not compare." in found.note
    assert not found.drawing


def test_curves_share_their_axes_and_tell_losses_at_the_same_tokens(tmp_path):
    found = curves(*trained(tmp_path, "one", "one"))
    assert "vocabularies" not in found.note
    rows = {row.what: row.values for row in found.rows}
    assert rows["after 400 tokens"] == ("6.2500", "6.2500")
    assert rows["after 600 tokens"] == ("5.2500", "–")
    assert rows["after 1k tokens"] == ("3.2500", "–")
    assert rows["last held-out loss"] == ("4.5000", "4.5000")
    a, b = (re.search(f'<polyline class="{name}" points="([^"]*)"', found.drawing)[1].split() for name in "ab")
    assert a[:5] == b
