"""A whole mill in seconds: a real crawl of our sample site and a few given documents, and a tiny GPT.

`mill` runs the command line in a process of its own. `milled` is a store in which the whole mill ran once; tests
that change it work on a copy.
"""

import json
import os
import pydoc
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
MODULES = ("json", "csv", "string", "random", "heapq", "bisect", "shlex", "textwrap", "calendar", "statistics")
MADE_FROM_SNAPSHOT = (
    "extract",
    "language",
    "tokenizer",
    "quality",
    "signatures",
    "contamination",
    "select",
    "deduplicate",
    "tokenize",
    "pack",
)
STAGES = ("scrape", *MADE_FROM_SNAPSHOT, "pretrain", "evaluate", "report")

CONFIG = """
[scrape]
segment_bytes = 60_000

[[scrape.sources]]
name = "site"
seeds = ["http://notes.localhost/"]
hosts = ["notes.localhost", "mirror.localhost"]
serve = ["{root}/data/demo/site"]
delay_s = 0.0
concurrency_per_host = 8

[[scrape.sources]]
name = "modules"
paths = ["{folder}/modules.jsonl"]

[policy]
rules = ["gopher_quality"]
min_gopher_alphabetic_words = 0.4
min_language_score = 0.3

[tokenizer]
vocab_size = 400

[pack]
val_fraction = 0.3

[pretrain]
layers = 1
heads = 2
width = 32
context = 32
batch_tokens = 128
steps = 8
warmup = 0.25
val_every = 4
val_windows = 4
checkpoint_every = 2
compile = "no"
threads = 1

[evaluate]
sets = ["{root}/data/demo/eval.jsonl", "{root}/data/demo/pairs.jsonl"]
memorisation_samples = 8
memorisation_prompt = 8
memorisation_continuation = 8
samples = 1
sample_tokens = 8
resamples = 20
"""

UNWATCHED = """
import sys
from pathlib import Path
from flows import dag, promotion
from flows.config import load_config
from flows.display import Display
from flows.plan import Mill
from flows.session import Selection, Session
from pipeline.engine.store import Store
mill = Mill(Store(Path(sys.argv[2])), load_config(Path(sys.argv[1])))
with Session(mill, Selection(mill), int(sys.argv[3]), Display()) as session:
    session.start({})
    dag.mill(session.walk, mill.config, mill)
    promotion.conclude(session)
"""
"""The same run without Prefect's seconds of start-up, for tests that need many runs."""


class MillCommand:
    """The command line on one config and one store."""

    def __init__(self, config: Path, store: Path, root: Path = ROOT) -> None:
        self.config = config
        self.store = store
        self.root = root
        self.folder = root

    def environment(self) -> dict[str, str]:
        return {**os.environ, "PYTHONPATH": str(self.root), "COLUMNS": "200"}

    def __call__(self, *arguments: str, code: int = 0) -> subprocess.CompletedProcess[str]:
        """Run `gptmill ARGUMENTS` with the store and, where it takes one, the config; check the exit code."""
        command = [sys.executable, "-m", "flows", *arguments, "--store", str(self.store)]
        if arguments[0] in {"run", "refresh", "plan", "accept"}:
            command += ["-c", str(self.config)]
        done = subprocess.run(
            command, cwd=self.folder, env=self.environment(), capture_output=True, text=True, timeout=300, check=False
        )
        assert done.returncode == code, f"{command} ended with {done.returncode}:\n{done.stdout}\n{done.stderr}"
        return done

    def start(self, *arguments: str) -> "subprocess.Popen[str]":
        """Start the command as a terminal would: in a process group of its own."""
        command = [sys.executable, "-m", "flows", *arguments, "--store", str(self.store), "-c", str(self.config)]
        return subprocess.Popen(
            command, cwd=self.root, env=self.environment(), stderr=subprocess.PIPE, text=True, start_new_session=True
        )

    def unwatched(self, jobs: int = 1) -> subprocess.Popen[bytes]:
        """Start a run without Prefect, in a process group of its own."""
        command = [sys.executable, "-c", UNWATCHED, str(self.config), str(self.store), str(jobs)]
        quiet = subprocess.DEVNULL
        return subprocess.Popen(
            command, cwd=self.root, env=self.environment(), stdout=quiet, stderr=quiet, start_new_session=True
        )

    def finish(self, jobs: int = 1) -> None:
        """A whole run without Prefect."""
        assert self.unwatched(jobs).wait(timeout=300) == 0

    def plan(self, *arguments: str) -> dict[str, dict]:
        """The plan by stage."""
        decisions = json.loads(self("plan", "--json", *arguments).stdout)
        return {decision["stage"]: decision for decision in decisions}

    def statuses(self, *arguments: str) -> dict[str, str]:
        """The status of each stage in the plan."""
        return {stage: decision["status"] for stage, decision in self.plan(*arguments).items()}

    def digests(self) -> dict[str, str]:
        """The digest of each stage from extract to pack."""
        decisions = self.plan()
        return {stage: decisions[stage]["digest"] for stage in MADE_FROM_SNAPSHOT}

    def log(self) -> list[dict]:
        """The rows of the newest run's log."""
        paths = sorted((self.store / "runs").glob("*.jsonl"), key=lambda path: path.stat().st_mtime)
        return [json.loads(line) for line in paths[-1].read_text().splitlines()] if paths else []

    def manifest(self, stage: str) -> dict:
        """The manifest of a stage's artifact in the plan."""
        return json.loads((Path(self.plan()[stage]["path"]) / "manifest.json").read_text())

    def copy(self, folder: Path, root: Path | None = None) -> "MillCommand":
        """The same config on a copy of the store."""
        shutil.copytree(self.store, folder / "store")
        return MillCommand(self.config, folder / "store", root or self.root)


def kill_group(process: subprocess.Popen[bytes]) -> None:
    """SIGKILL the process alone, as the kernel's out-of-memory killer would, and see that its children go too."""
    process.send_signal(signal.SIGKILL)
    process.wait()
    deadline = time.monotonic() + 10
    while subprocess.run(["pgrep", "-g", str(process.pid)], capture_output=True, check=False).stdout:
        assert time.monotonic() < deadline, "children outlived the killed run"
        time.sleep(0.05)


@pytest.fixture(scope="session")
def config(tmp_path_factory):
    folder = tmp_path_factory.mktemp("config")
    rows = []
    for name in MODULES:
        text = pydoc.plain(pydoc.render_doc(name))
        rows.append({"url": f"http://modules.localhost/{name}", "text": text})
    (folder / "modules.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    path = folder / "small.toml"
    path.write_text(CONFIG.format(root=ROOT, folder=folder))
    return path


@pytest.fixture(scope="session")
def milled(config, tmp_path_factory):
    mill = MillCommand(config, tmp_path_factory.mktemp("milled") / "store")
    mill.first_run = mill("run")
    return mill


@pytest.fixture
def copied(milled, tmp_path):
    return milled.copy(tmp_path)
