"""A corpus and a model kept fresh: what a refresh does, what it promotes, and how it goes on after a kill."""

import json
import shutil
import sqlite3
import subprocess
import sys

import pytest

from flows import refs
from flows.commands.refresh import begin_refresh
from flows.display import Display
from flows.models import model_named
from flows.plan import plan
from pipeline.config import BadInput, StageFailed
from pipeline.documents import read_table
from pipeline.engine.store import read_object
from pipeline.pack import split_of
from tests.e2e.conftest import ROOT, STAGES, MillCommand
from tests.e2e.living_site import HOST, Living, html, text_of

pytestmark = pytest.mark.slow

NAMES = tuple(f"{number}.html" for number in range(12))
WORSE = ("pretrain.steps=1",)
"""A training that hardly began."""


def pages(*numbers):
    return {f"{number}.html": html(text_of("kettle", number)) for number in numbers}


@pytest.fixture(scope="module")
def first(tmp_path_factory):
    """A site of eight pages beside its anchors, milled once; tests work on a copy."""
    living = Living.make(tmp_path_factory.mktemp("first"))
    living.publish(pages(*range(8)), NAMES)
    living.run()
    return living


@pytest.fixture
def living(first, tmp_path):
    return first.copy(tmp_path / "copy")


@pytest.fixture
def changed(living):
    """The site has changed since: a page went, two came."""
    living.publish(pages(*range(1, 10)), NAMES)
    return living


def latest(living):
    return refs.promoted(living.store, "living")["stages"]["pretrain"]["key"]


def decisions(living):
    return refs.decisions(living.store, "living")


def snapshots(living):
    return len(list((living.store.root / "snapshots").glob("*/*/manifest.json")))


def statuses(living, *settings):
    return {decision.stage: decision.status for decision in plan(living.mill(*settings))}


def test_a_refresh_that_finds_nothing_new_trains_nothing_and_asks_no_question(living):
    before = decisions(living)
    living.refresh(start="continue")
    assert snapshots(living) == 2
    assert living.did() == {stage: "run" if stage == "scrape" else "cached" for stage in STAGES}
    assert decisions(living) == before
    assert set(statuses(living).values()) == {"cached"}


def test_a_refresh_that_finds_nothing_new_never_imports_prefect(living):
    code = (
        "import sys; from flows.cli import main; "
        f"code = main(['refresh', '-c', {str(living.config)!r}, '--store', {str(living.store.root)!r}]); "
        "sys.exit(code or ('prefect' in sys.modules) * 9)"
    )
    mill = MillCommand(living.config, living.store.root)
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=ROOT, env=mill.environment(), capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    assert f"1 stages ran, {len(STAGES) - 1} cached." in done.stderr


def test_a_crawl_that_stores_nothing_counts_where_it_takes_a_page_out_of_the_corpus_or_back_in(living):
    first = living.run()
    living.publish(pages(*range(1, 8)), NAMES)
    for missed, status in enumerate(("cached", "run"), 1):
        made = living.refresh(until="select")
        assert living.did()["select"] == status
        assert made["select"].manifest["stats"]["reasons"].get("gone", 0) == missed - 1
    living.publish(pages(*range(8)), NAMES)
    assert living.refresh(until="select")["select"].key == first["select"].key
    assert living.did()["select"] == "cached"


def test_a_model_that_is_as_good_is_promoted_and_all_four_numbers_are_kept(changed):
    before = latest(changed)
    made = changed.refresh("refresh.margin=0.5")
    assert latest(changed) == made["pretrain"].key != before
    (event,) = (row for row in changed.log() if row["event"] == "promotion")
    assert event["promoted"]
    assert event["against"] == before
    for name in ("fixed", "sampled"):
        assert event["numbers"][name].keys() == {"meaning", "documents", "bytes", "new", "promoted"}
    assert decisions(changed)[-1]["numbers"] == event["numbers"]
    assert event["numbers"]["sampled"]["new"] == pytest.approx(
        json.loads((made["evaluate"].path / "evaluation.json").read_text())["validation"]["bits_per_byte"], rel=1e-5
    )


def test_no_model_is_asked_about_a_page_that_the_other_was_trained_on(changed):
    changed.refresh("refresh.margin=0.5", "pack.val_fraction=0.25")
    urls = read_table(refs.validation_path(changed.store, "living"))["url"].to_pylist()
    told = decisions(changed)[-1]["numbers"]["fixed"]
    assert told["documents"] == sum(split_of(url, 0.25) == "val" for url in urls) < len(urls)


def test_a_worse_model_is_not_promoted_stays_in_the_store_and_can_be_promoted_by_hand(changed, capfd):
    before = latest(changed)
    made = changed.refresh(*WORSE)
    worse = made["pretrain"].key
    assert latest(changed) == before != worse
    assert "not promoted: bits per byte" in (told := capfd.readouterr().err)
    assert model_named("latest", changed.store.root).folder.name == before
    newest, oldest = (row["run"] for row in json.loads(changed.command("runs", "--json")))
    assert f"gptmill promote {newest}" in " ".join(told.split())
    listed = changed.command("runs").splitlines()
    assert "not promoted" in listed[0]
    assert "[latest]" in listed[1]
    asked = json.loads(changed.command("trace", f"http://{HOST}/3.html", "--json"))
    assert asked["run"] == oldest
    planned = statuses(changed, *WORSE)
    for run, model in ((newest, worse), (oldest, before), (newest, worse)):
        changed.command("promote", run)
        assert latest(changed) == model
        assert statuses(changed, *WORSE) == planned


def test_under_prefect_the_question_is_a_task_with_a_page_and_a_refusal_is_a_warning_and_no_failure(changed):
    mill = MillCommand(changed.config, changed.store.root)
    told = mill("refresh", "--set", WORSE[0], "--name", "tried").stderr
    assert "! promote       not promoted: bits per byte" in told
    with sqlite3.connect(changed.store.root / "prefect" / "prefect.db") as database:
        tasks = dict(database.execute("select name, state_name from task_run").fetchall())
        ((page,),) = database.execute("select data from artifact where key = 'promotion'").fetchall()
    assert list(tasks) == [*STAGES, "promote"]
    assert tasks["promote"] == "Refused"
    assert "# Not promoted" in page
    changed.command("promote", "tried")
    assert set(mill.statuses("--set", WORSE[0]).values()) == {"cached"}


def test_what_a_refresh_refused_a_run_by_hand_does_not_promote_unasked_but_a_new_model_it_does(changed):
    before = latest(changed)
    changed.refresh(*WORSE)
    changed.run(*WORSE)
    assert latest(changed) == before
    made = changed.run()
    assert latest(changed) == made["pretrain"].key != before


def test_training_that_continues_starts_from_the_promoted_model_which_is_in_its_key(changed):
    before = latest(changed)
    made = changed.refresh("refresh.margin=0.5", start="continue")
    start = made["pretrain"].manifest["inputs"]["start"]
    assert start["key"] == before
    assert made["pretrain"].manifest["key_document"]["inputs"]["start"] == start["digest"]
    lines = (made["pretrain"].path / "report" / "metrics.jsonl").read_text().splitlines()
    from_nothing = (changed.store.artifact_folder("pretrain", before) / "report" / "metrics.jsonl").read_text()
    assert json.loads(lines[0])["loss"] < json.loads(from_nothing.splitlines()[0])["loss"] - 0.1


def test_what_training_starts_from_is_settled_once_whatever_is_promoted_later(changed):
    made = changed.refresh("refresh.margin=0.5", start="continue")
    assert latest(changed) == made["pretrain"].key
    assert set(statuses(changed).values()) == {"cached"}
    changed.command("promote", json.loads(changed.command("runs", "--json"))[-1]["run"])
    assert set(statuses(changed).values()) == {"cached"}
    changed.command("gc")
    assert set(statuses(changed).values()) == {"cached"}


def test_a_run_is_told_anew_what_training_starts_from_though_the_corpus_is_the_same(changed):
    """A model that was continued from another, and is now to have another shape, must start from nothing."""
    further = changed.refresh("refresh.margin=0.5", start="continue")["pretrain"].key
    with pytest.raises(BadInput, match="another shape"):
        changed.tell_start("continue", "pretrain.width=64")
    with pytest.raises(StageFailed, match=r"another shape .*start from nothing with --start scratch"):
        changed.run("pretrain.width=64")
    changed.tell_start("scratch")
    assert "start" not in changed.run("pretrain.width=64")["pretrain"].manifest["inputs"]
    changed.command("promote", changed.run_of(further))
    changed.tell_start("continue")
    assert changed.run()["pretrain"].manifest["inputs"]["start"]["key"] == further
    assert set(statuses(changed).values()) == {"cached"}


@pytest.mark.parametrize(
    ("setting", "sentence"),
    [
        ("pretrain.width=64", "whose model has another shape .*width 32 → 64"),
        ("tokenizer.vocab_size=310", "another tokenizer"),
    ],
)
def test_what_training_cannot_go_on_from_is_one_sentence(changed, setting, sentence):
    with pytest.raises(BadInput, match=sentence):
        changed.refresh(setting, start="continue")


def test_another_shape_is_refused_before_anything_is_crawled(changed):
    with pytest.raises(BadInput):
        changed.refresh("pretrain.width=64", start="continue")
    assert snapshots(changed) == 1


def test_a_run_finishes_a_refresh_that_was_killed_after_its_crawl_with_its_question(changed):
    changed.refresh(until="extract")
    changed.run("refresh.margin=0.5")
    assert snapshots(changed) == 2
    assert decisions(changed)[-1]["by"] == "refresh"
    changed.run("refresh.margin=0.5", "pretrain.lr=0.004")
    assert decisions(changed)[-1]["by"] == "run"


def test_a_run_crawls_what_a_killed_refresh_did_not(changed):
    begin_refresh(changed.mill(), "scratch", Display())
    assert plan(changed.mill())[0].reasons == ["a refresh crawls source site again"]
    changed.run(until="extract")
    changed.run(until="extract")
    assert snapshots(changed) == 2


def test_a_refresh_that_was_killed_before_its_question_asks_it_though_all_is_cached(changed):
    before = refs.promoted(changed.store, "living")
    made = changed.refresh("refresh.margin=0.5", until="pretrain")
    folder = refs.state_folder(changed.store, "living")
    refs.begin_refresh(changed.store, "living", {**refs.last_refresh(changed.store, "living"), "open": True})
    rows = (folder / "promotions.jsonl").read_text().splitlines()
    (folder / "promotions.jsonl").write_text(rows[0] + "\n")
    (changed.store.root / "refs/living/latest.json").write_text(json.dumps(before))
    changed.run("refresh.margin=0.5", until="pretrain")
    assert set(changed.did().values()) == {"cached"}
    assert decisions(changed)[-1]["by"] == "refresh"
    assert latest(changed) == made["pretrain"].key


def test_a_site_that_is_down_ends_the_refresh_and_later_runs_go_on_without_it(living):
    shutil.rmtree(living.site)
    with pytest.raises(BadInput):
        living.refresh()
    assert set(statuses(living).values()) == {"cached"}


def test_gc_keeps_what_is_promoted_the_fixed_validation_set_and_where_training_starts(changed):
    before = latest(changed)
    changed.refresh(*WORSE, start="continue")
    changed.run(*WORSE, "pretrain.seed=1", until="pretrain")
    changed.command("promote", json.loads(changed.command("runs", "--json"))[-1]["run"])
    changed.command("gc")
    assert (changed.store.artifact_folder("pretrain", before) / "model.safetensors").is_file()
    assert refs.validation_path(changed.store, "living").is_file()
    changed.refresh("refresh.margin=0.5")


def test_a_store_with_one_ref_for_both_roles_goes_on_as_it_was(changed):
    before = latest(changed)
    shutil.rmtree(refs.state_folder(changed.store, "living"))
    path = changed.store.root / "refs/living/latest.json"
    path.write_text(json.dumps({"stages": read_object(path)["stages"]}))
    assert set(statuses(changed).values()) == {"cached"}
    assert model_named("latest", changed.store.root).folder.name == before
    changed.refresh("refresh.margin=0.5")
    assert decisions(changed)[-1]["numbers"].keys() == {"fixed", "sampled"}
    assert decisions(changed)[-1]["against"] == before


def test_a_takedown_leaves_the_fixed_validation_set_and_a_purge_its_file(living):
    path = refs.validation_path(living.store, "living")
    url = next(url for url in read_table(path)["url"].to_pylist() if "anchor" not in url)
    living.command("takedown", url, "--reason", "asked")
    living.publish(pages(*range(9)), NAMES)
    living.refresh("refresh.margin=0.5")
    told = decisions(living)[-1]["numbers"]["fixed"]
    assert told["documents"] == len(read_table(path)) - 1
    living.command("takedown", url, "--reason", "asked again", "--purge")
    assert url not in read_table(path)["url"].to_pylist()


def test_a_takedown_names_the_checkpoints_that_went_on_from_one_that_trained_on_it(changed):
    page = f"http://{HOST}/0.html"
    trained = changed.refresh("refresh.margin=0.5")["pretrain"].key  # one 404 withdraws nothing
    made = changed.refresh("refresh.margin=0.5", start="continue")["pretrain"].key
    found = json.loads(changed.command("takedown", page, "--reason", "asked", "--json"))["checkpoints"]
    told = {row["key"]: row.get("from") for row in found}
    assert told[trained] is None
    assert told[made] == trained


def test_pages_that_changed_went_moved_or_forbid_their_use_leave_with_a_row_that_says_why(living):
    files = pages(2, 3, 4, 5, 6)
    files["2.html"] = html(text_of("kettle", 2) + " It was mended again.")
    files["3.html"] = html(text_of("kettle", 3), head='<meta name="robots" content="noai, noindex">')
    moved = files.pop("4.html")
    files |= {"4.html/index.html": moved, "robots.txt": "User-agent: *\nDisallow: /5.html\n"}
    living.publish(files, NAMES)
    living.refresh(until="select")
    assert set(living.reasons(living.run(until="select")).values()) == {None, "superseded", "gone"}
    reasons = living.reasons(living.refresh(until="select"))
    told = {url.removeprefix(f"http://{HOST}/"): reason for (number, url), reason in reasons.items() if number == 0}
    assert {name: told[f"{name}.html"] for name in range(8)} == {
        0: "gone",  # 404 twice
        1: "gone",
        2: "superseded",
        3: "gone",  # forbids its use
        4: "gone",  # moved
        5: "gone",  # disallowed
        6: None,
        7: "gone",
    }
    assert reasons[1, f"http://{HOST}/2.html"] is None
    assert reasons[1, f"http://{HOST}/4.html/"] is None
