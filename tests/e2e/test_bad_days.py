"""Bad days: one clear sentence, an exit code that is not 0, and nothing half-written."""

import os
import subprocess
from pathlib import Path

import pytest

from tests.e2e.conftest import CONFIG, ROOT, MillCommand

pytestmark = pytest.mark.slow

GIVEN = '[[scrape.sources]]\nname = "given"\npaths = ["{path}"]\n'


@pytest.fixture
def mill(tmp_path):
    """A mill on a config of the test's own text."""

    def of(text):
        (tmp_path / "bad.toml").write_text(text)
        return MillCommand(tmp_path / "bad.toml", tmp_path / "store")

    return of


def told(mill, *arguments, code):
    """The one sentence that a command ends with."""
    done = mill(*arguments, code=code)
    assert "Traceback" not in done.stderr
    last = done.stderr.strip().splitlines()[-1]
    assert last.startswith("gptmill: ")
    assert done.stdout == ""
    return last


def no_artifacts(mill):
    return not list(mill.store.glob("artifacts/*/*")) and not list(mill.store.glob("snapshots/*/*"))


def test_an_unreadable_config(mill, tmp_path):
    there = mill("")
    missing = MillCommand(tmp_path / "nowhere.toml", tmp_path / "store")
    assert "nowhere.toml cannot be read" in told(missing, "run", code=2)
    assert "scrape is missing" in told(there, "plan", code=2)
    assert not there.store.exists()


def test_an_unreachable_seed(mill):
    it = mill('[[scrape.sources]]\nname = "x"\nseeds = ["http://127.0.0.1:9/"]\ndelay_s = 0.0\ntimeout_s = 5.0\n')
    assert "http://127.0.0.1:9/" in told(it, "run", code=2)
    assert no_artifacts(it)


def test_an_empty_crawl(mill, tmp_path):
    site = tmp_path / "sites" / "empty.localhost"
    site.mkdir(parents=True)
    (site / "robots.txt").write_text("User-agent: *\nDisallow: /\n")
    (site / "index.html").write_text("<p>Nobody may read this.</p>")
    it = mill(f'[[scrape.sources]]\nname = "x"\nseeds = ["http://empty.localhost/"]\nserve = ["{tmp_path}/sites"]\n')
    assert "robots" in told(it, "run", code=2)
    assert no_artifacts(it)


def test_a_warc_that_is_garbage(mill, tmp_path):
    (tmp_path / "garbage.warc.gz").write_bytes(os.urandom(10_000))
    it = mill(GIVEN.format(path=tmp_path / "garbage.warc.gz"))
    assert "garbage.warc.gz" in told(it, "run", code=2)
    assert no_artifacts(it)


def test_given_files_that_are_not_there(mill, tmp_path):
    it = mill(GIVEN.format(path=tmp_path / "none-*.jsonl"))
    assert "matches no file" in told(it, "plan", code=2)


def test_a_corpus_where_nothing_survives_the_filters(mill, tmp_path):
    (tmp_path / "short.jsonl").write_text('{"url": "http://a.localhost/", "text": "Too short to keep."}\n')
    it = mill(GIVEN.format(path=tmp_path / "short.jsonl"))
    sentence = told(it, "run", code=1)
    assert "Nothing survives the filters: all 1 documents were dropped" in sentence
    assert not (it.store / "artifacts" / "pack").exists()


def test_a_full_disk(config, tmp_path):
    """On a disk of 1.5 MB: the run ends in one sentence, and goes on once there is room."""
    disk = tmp_path / "disk"
    disk.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", "size=1500k", "tmpfs", str(disk)]
    if os.geteuid() != 0 or subprocess.run(mount, capture_output=True, check=False).returncode:
        pytest.skip("a small disk can only be mounted by root")
    try:
        it = MillCommand(config, disk / "store")
        assert "the disk is full" in told(it, "run", code=1)
        run = it.unwatched()
        assert run.wait(timeout=120) == 1
        log = it.store / "runs"
        assert not [p for p in it.store.glob("artifacts/*/*") if not (p / "manifest.json").is_file()], log
        subprocess.run(["mount", "-o", "remount,size=200m", str(disk)], check=True)
        it.finish()
        assert set(it.statuses().values()) == {"cached"}
        assert it("verify", "--full").stdout == ""
    finally:
        subprocess.run(["umount", "-l", str(disk)], check=True)


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        (["run", "--only", "nothing"], "There is no stage nothing; there are scrape, extract"),
        (["run", "--jobs", "0"], "0 is no whole number of at least 1"),
        (["run", "--set", "pretrain.lr"], "is not of the form section.key=value"),
        (["accept", "quality"], "This config has no artifact of quality yet"),
        (["generate", "x", "--top-p", "2"], "2 is no number above 0 and up to 1"),
        (["generate", "x"], "There is no store in"),
        (["verify"], "There is no store in"),
    ],
)
def test_bad_arguments(arguments, sentence, config, tmp_path):
    assert sentence in told(MillCommand(config, tmp_path / "store"), *arguments, code=2)


def test_a_configured_server_that_is_not_there(config, tmp_path, monkeypatch):
    monkeypatch.setenv("PREFECT_API_URL", "http://127.0.0.1:9/api")
    sentence = told(MillCommand(config, tmp_path / "store"), "run", code=2)
    assert "PREFECT_API_URL http://127.0.0.1:9/api cannot be reached" in sentence


def test_prefect_settings_in_the_current_folder_do_not_matter(mill, tmp_path, monkeypatch):
    (tmp_path / "prefect.toml").write_text('[api]\nurl = "http://127.0.0.1:9/api"\n')
    (tmp_path / "short.jsonl").write_text('{"url": "http://a.localhost/", "text": "Too short to keep."}\n')
    it = mill(GIVEN.format(path=tmp_path / "short.jsonl"))
    monkeypatch.setattr(it, "folder", tmp_path)
    it("run", "--until", "extract")
    assert [row["stage"] for row in it.log() if row["event"] == "stage"] == ["scrape", "extract"]


def test_an_evaluation_set_that_is_none_is_refused_before_anything_runs(mill, tmp_path):
    (tmp_path / "items.jsonl").write_text('{"question": "?"}\n')
    it = mill(f'[evaluate]\nsets = ["{tmp_path}/items.jsonl"]\n' + GIVEN.format(path=tmp_path / "items.jsonl"))
    assert 'each line of a .jsonl file an object with a "text" or an item of a benchmark' in told(it, "plan", code=2)


def test_a_language_that_the_model_does_not_know_is_refused_before_anything_runs(mill, tmp_path):
    (tmp_path / "a.jsonl").write_text('{"url": "http://a.localhost/", "text": "Some text."}\n')
    it = mill('[language]\nwanted = ["qqq"]\n' + GIVEN.format(path=tmp_path / "a.jsonl"))
    assert 'language.wanted: "qqq" is none of the 176 languages' in told(it, "plan", code=2)


def test_a_corpus_too_small_to_hold_anything_out(mill, tmp_path):
    text = "The old bridge stands where the river is narrow, and it has been there for a very long time. " * 8
    (tmp_path / "one.jsonl").write_text(f'{{"url": "http://a.localhost/", "text": "{text}"}}\n')
    it = mill(GIVEN.format(path=tmp_path / "one.jsonl") + "[policy]\nrules = []\n[tokenizer]\nvocab_size = 300\n")
    assert "split is empty: 1 documents were packed in all" in told(it, "run", code=1)


def test_a_store_in_a_place_that_cannot_be_written(config, tmp_path):
    (tmp_path / "file").write_text("")
    it = MillCommand(config, tmp_path / "file" / "store")
    assert "cannot be made" in told(it, "run", code=2)


def test_every_command_has_help_with_an_example():
    from flows.cli import parser

    commands = parser()._subparsers._group_actions[0].choices
    assert "run" in commands
    for name, command in commands.items():
        assert f"example: gptmill {name}" in command.format_help()


def test_the_small_config_names_files_that_are_there():
    assert Path(ROOT, "data/demo/eval.jsonl").is_file()
    assert "{root}" in CONFIG
