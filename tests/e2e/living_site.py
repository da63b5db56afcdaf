"""A small site that changes between crawls, and a mill that crawls it in this process, without Prefect."""

from __future__ import annotations

import contextlib
import io
import json
import shutil
from pathlib import Path
from typing import Any, NamedTuple

from flows import cli, dag, promotion
from flows.commands.refresh import begin_anew, begin_refresh
from flows.config import load_config
from flows.display import Display
from flows.plan import Mill
from flows.runs import runs
from flows.session import Selection, Session
from pipeline.documents import read_table
from pipeline.engine.store import Artifact, Store
from tests.flows.conftest import SUBJECTS, text_of

HOST = "site.localhost"

CONFIG = """
[scrape]
segment_bytes = 4_000

[[scrape.sources]]
name = "site"
seeds = ["http://site.localhost/"]
serve = ["{folder}/site"]
delay_s = 0.0
concurrency_per_host = 8

[policy]
rules = []
min_language_score = false
max_contamination = false

[tokenizer]
vocab_size = 300

[pack]
val_fraction = 0.4

[pretrain]
layers = 1
heads = 2
width = 32
context = 32
batch_tokens = 256
steps = 6
compile = "no"
threads = 1
device = "cpu"

[evaluate]
memorisation_samples = 0
samples = 0
resamples = 10
ngram_tokens = 0
threads = 1
device = "cpu"
"""

ANCHORS = {f"anchor{number}.html": text_of(SUBJECTS[number], 40 + number) for number in range(5)}
"""Pages that never change, so that neither side of the split is ever empty."""


def html(text: str, links: tuple[str, ...] = (), head: str = "") -> str:
    """A page with a text as its main content."""
    paragraphs = "".join(f"<p>{sentence}.</p>" for sentence in text.removesuffix(".").split(". "))
    listed = "".join(f'<li><a href="/{link}">{link}</a></li>' for link in links)
    return f'<html lang="en"><head>{head}</head><body><main>{paragraphs}</main><ul>{listed}</ul></body></html>'


class Living(NamedTuple):
    """A site's folder, and a config and a store that mill it."""

    folder: Path
    store: Store

    @classmethod
    def make(cls, folder: Path, config: str = CONFIG) -> Living:
        """A site of anchors alone, and an empty store."""
        (folder / "site" / HOST).mkdir(parents=True)
        (folder / "living.toml").write_text(config.format(folder=folder))
        return cls(folder, Store(folder / "store"))

    @property
    def config(self) -> Path:
        """The config's file."""
        return self.folder / "living.toml"

    @property
    def site(self) -> Path:
        """What the host serves, as files."""
        return self.folder / "site" / HOST

    def publish(self, pages: dict[str, str], names: tuple[str, ...]) -> None:
        """Let the site have these pages, by name, beside the anchors; the start page links to all of `names`."""
        shutil.rmtree(self.site)
        self.site.mkdir()
        everything = {name: html(text) for name, text in ANCHORS.items()} | pages
        start = html(text_of("mill", 50), (*ANCHORS, *names))
        for name, page in {"index.html": start, **everything}.items():
            (self.site / name).parent.mkdir(exist_ok=True)
            (self.site / name).write_text(page)

    def mill(self, *settings: str) -> Mill:
        """The mill."""
        return Mill(self.store, load_config(self.config, list(settings)))

    def refresh(self, *settings: str, start: str = "scratch", until: str | None = None) -> dict[str, Artifact]:
        """`gptmill refresh` without Prefect; stopped after a stage, as by a kill, where `until` names one."""
        return self.run(*settings, start=start, until=until)

    def run(self, *settings: str, start: str | None = None, until: str | None = None) -> dict[str, Artifact]:
        """`gptmill run` without Prefect up to a stage, or a refresh where `start` says what it trains from."""
        mill = self.mill(*settings)
        with Session(mill, Selection(mill, until=until), 1, Display()) as session:
            if start is not None:
                begin_refresh(mill, start, Display())
            session.start({"arguments": ["refresh" if start else "run"]})
            dag.mill(session.walk, mill.config, mill)
            promotion.conclude(session)
        return session.artifacts

    def tell_start(self, start: str, *settings: str) -> None:
        """What `gptmill run --start` does before it runs."""
        begin_anew(self.mill(*settings), start, Display())

    def run_of(self, model: str) -> str:
        """The id of the run that made a model."""
        return next(run.id for run in runs(self.store) if run.stages.get("pretrain", {}).get("key") == model)

    def command(self, *arguments: str, code: int = 0) -> str:
        """What a command on the store writes to stdout."""
        written = io.StringIO()
        with contextlib.redirect_stdout(written):
            assert cli.main([*arguments, "--store", str(self.store.root)]) == code
        return written.getvalue()

    def log(self) -> list[dict[str, Any]]:
        """The rows of the newest run's log."""
        path = max((self.store.root / "runs").glob("*.jsonl"), key=lambda path: path.stat().st_mtime_ns)
        return [json.loads(line) for line in path.read_text().splitlines()]

    def did(self) -> dict[str, str]:
        """The status of each stage in the newest run."""
        return {row["stage"]: row["status"] for row in self.log() if row["event"] == "stage"}

    def copy(self, folder: Path) -> Living:
        """The same site, config and store, in another folder."""
        copied = Living.make(folder)
        shutil.rmtree(copied.site)
        shutil.copytree(self.site, copied.site)
        shutil.copytree(self.store.root, copied.store.root)
        return copied

    def reasons(self, made: dict[str, Artifact]) -> dict[tuple[int, str], str | None]:
        """What `select` says of each document: by its snapshot's number and its URL."""
        found = {}
        for part, selected in zip(made["extract"].parts, made["select"].parts, strict=True):
            urls = read_table(part.folder / "documents.arrow", ["url"])["url"].to_pylist()
            reasons = read_table(selected.folder / "select.arrow", ["reason"])["reason"].to_pylist()
            number = int(part.snapshot.rpartition("/")[2])
            found |= {(number, url): reason for url, reason in zip(urls, reasons, strict=True)}
        return found
