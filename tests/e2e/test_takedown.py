"""Trace and takedown after a whole run: from a trained model back to its pages, and out of everything shown of them."""

import json
import re
import subprocess
from pathlib import Path

import pytest

pytestmark = pytest.mark.slow

ORIGINAL = "http://mirror.localhost/archive/tides.html"
"""Kept, and trained on; four other pages of the sample site resemble it or are the same."""
DROPPED = "http://notes.localhost/offers.html"


def test_a_takedown_lists_the_checkpoints_that_trained_on_it(copied):
    key = copied.manifest("pretrain")["key"]
    (checkpoint,) = json.loads(copied("takedown", ORIGINAL, "--reason", "asked", "--json").stdout)["checkpoints"]
    assert checkpoint["key"] == key
    document = json.loads(copied("trace", ORIGINAL, "--json").stdout)["documents"][0]
    (place,) = document["tokens"]
    assert checkpoint[place["split"]] == {"documents": 1, "tokens": place["length"]}
    assert {copied.store / "runs" / f"{run}.jsonl" for run in checkpoint["runs"]} <= set(copied.store.glob("runs/*"))
    assert checkpoint["runs"]
    assert json.loads(copied("takedown", "--json").stdout)["takedowns"][0]["checkpoints"] == [checkpoint["key"]]
    told = json.loads(copied("takedown", DROPPED, "--reason", "asked", "--json").stdout)
    assert told["checkpoints"] == []


def test_a_crawled_page_tells_when_it_was_fetched_and_its_licence(milled):
    document = json.loads(milled("trace", ORIGINAL, "--json").stdout)["documents"][0]
    assert document["fetched_at"].endswith("+00:00")
    assert document["license"] == "https://creativecommons.org/licenses/by/4.0/"
    assert "robots (status 0)" in milled("trace", "http://notes.localhost/private/diary.html").stdout


def holders(mill, text):
    """Files of the store that hold a text as it is."""
    command = ["grep", "-rlaF", text, str(mill.store)]
    return subprocess.run(command, capture_output=True, text=True, check=False).stdout.splitlines()


def test_a_purge_leaves_nothing_of_a_page_in_reports_and_in_prefects_database(copied):
    cluster = copied.manifest("deduplicate")["stats"]["largest_clusters"][0]
    assert cluster["url"] == ORIGINAL
    excerpt = max(re.findall(r"[A-Za-z ]+", cluster["kept_text"][:180]), key=len)[:80]
    assert {Path(path).name for path in holders(copied, excerpt)} >= {"manifest.json", "report.html", "prefect.db"}
    copied("takedown", ORIGINAL, "--near", "--reason", "asked", "--purge")
    assert holders(copied, excerpt) == []
    assert copied("verify", "--full").stdout == ""
    copied.finish()
    packed = copied("corpus", "--stage", "pack", "--limit", "99").stdout
    assert "mirror.localhost" not in packed
    assert "modules.localhost" in packed


def test_a_named_run_is_kept_though_gc_takes_what_is_newer_than_it(copied):
    copied("run", "--name", "release")
    pretrain = copied.manifest("pretrain")["key"]
    copied("takedown", ORIGINAL, "--reason", "asked")
    copied.finish()
    copied("gc")
    assert (copied.store / "artifacts" / "pretrain" / pretrain / "model.safetensors").is_file()
    told = json.loads(copied("diff", "release", json.loads(copied("runs", "--json").stdout)[0]["run"], "--json").stdout)
    assert told["lost_because"] == {"select: taken_down": 1}
    assert "validation.bits_per_byte" in {row["name"] for row in told["figures"]}
    assert "is the name of the run" in copied("run", "--name", "release", code=2).stderr
