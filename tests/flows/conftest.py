"""A corpus in a second: given pages of many hosts, milled up to the token shards in this process."""

import contextlib
import io
import json
import shutil
from pathlib import Path
from typing import Any, NamedTuple

import pytest

from flows import cli, dag, promotion
from flows.config import load_config
from flows.display import Display
from flows.plan import Mill
from flows.session import Selection, Session
from pipeline.engine.store import Artifact, Store

STAGES = ("extract", "select", "deduplicate", "tokenizer", "tokenize", "pack")

CONFIG = """
[scrape]
segment_bytes = 900

[[scrape.sources]]
name = "pages"
paths = ["{folder}/pages.jsonl"]

[policy]
rules = ["gopher_quality"]
min_gopher_words = 8
min_gopher_alphabetic_words = 0.3
min_language_score = false

[tokenizer]
vocab_size = 300

[pack]
val_fraction = 0.4
"""

SUBJECTS = ("bridge", "kettle", "ferry", "orchard", "lantern", "quarry", "violin", "harbour", "meadow", "engine")


def text_of(subject: str, number: int) -> str:
    """A text of its own for each number: no two are near duplicates."""
    years = range(1500 + 37 * number, 1500 + 37 * number + 8 + number % 4)
    told = (f"In {year} the {subject} was mended and {year * 7 % 91} people came to see it." for year in years)
    return f"This is the story of the {subject} number {number}. {' '.join(told)} That is the end of the story."


PAGES = {f"http://host{number % 4}.localhost/{number}": text_of(SUBJECTS[number % 10], number) for number in range(24)}
PAGES["http://mirror.localhost/copy"] = PAGES["http://host1.localhost/1"].replace(". ", "! ")
PAGES["http://mirror.localhost/near"] = PAGES["http://host1.localhost/1"] + " Thank you for reading it."
PAGES["http://host3.localhost/short"] = "Too short to keep."
PAGES["http://host2.localhost/wald"] = "Im Wald ist es still, und der Schnee liegt auf allen Bäumen."


class Little(NamedTuple):
    """A config and a store."""

    config: Path
    store: Store

    def run(self, until: str = "pack", force: str | None = None) -> dict[str, Artifact]:
        """Run the mill up to a stage; the artifacts by stage."""
        mill = Mill(self.store, load_config(self.config))
        with Session(mill, Selection(mill, until=until, force=force), 1, Display()) as session:
            session.start({"arguments": ["run"]})
            dag.mill(session.walk, mill.config, mill)
            promotion.conclude(session)
        return session.artifacts

    def digests(self) -> dict[str, str]:
        """The digests after a run."""
        artifacts = self.run()
        return {stage: artifacts[stage].digest for stage in STAGES}

    def command(self, *arguments: str, code: int = 0) -> str:
        """What a command writes to stdout."""
        written = io.StringIO()
        with contextlib.redirect_stdout(written):
            assert cli.main([*arguments, "--store", str(self.store.root)]) == code
        return written.getvalue()

    def asked(self, *arguments: str, code: int = 0) -> Any:
        """What a command tells as JSON."""
        return json.loads(self.command(*arguments, "--json", code=code))

    def copy(self, folder: Path) -> "Little":
        """The same config on a copy of the store."""
        shutil.copytree(self.store.root, folder / "store")
        return Little(self.config, Store(folder / "store"))


@pytest.fixture(scope="session")
def little(tmp_path_factory: pytest.TempPathFactory) -> Little:
    """The corpus, milled once; tests that change it take a copy."""
    folder = tmp_path_factory.mktemp("little")
    rows = [json.dumps({"url": url, "text": text}) for url, text in PAGES.items()]
    (folder / "pages.jsonl").write_text("\n".join(rows))
    (folder / "little.toml").write_text(CONFIG.format(folder=folder))
    made = Little(folder / "little.toml", Store(folder / "store"))
    made.run()
    return made


@pytest.fixture
def copied(little: Little, tmp_path: Path) -> Little:
    """A copy of it."""
    return little.copy(tmp_path)
