"""A store with a hand-made artifact of three parts, and requests for toy stages."""

import pytest

from pipeline.engine import code, executor
from pipeline.engine.execute import execute
from pipeline.engine.executor import Workers
from pipeline.engine.keys import content_digest, file_sha256
from pipeline.engine.resolve import Request
from pipeline.engine.stage import Stage
from pipeline.engine.store import Artifact, Part, Store
from tests.pipeline.engine.toy import ToyConfig

UPPER = Stage("upper", "tests.pipeline.engine.toy:upper", "map", parts=("documents",))
ASLEEP = Stage("asleep", "tests.pipeline.engine.toy:asleep", "map", parts=("documents",))
JOIN = Stage("join", "tests.pipeline.engine.toy:join", "whole", parts=("texts",))


@pytest.fixture(autouse=True)
def _tests_are_first_party(monkeypatch):
    monkeypatch.setattr(code, "FIRST_PARTY", (*code.FIRST_PARTY, "tests"))


@pytest.fixture
def processes(monkeypatch):
    """Have the smallest work done by processes."""
    monkeypatch.setattr(executor, "LITTLE_BYTES", -1)


@pytest.fixture
def store(tmp_path):
    return Store(tmp_path / "store")


class Bench:
    """Runs the two toy stages on texts and tells how."""

    def __init__(self, store, folder):
        self.store = store
        self.folder = folder
        self.trace = folder / "trace.txt"

    def documents(self, *texts):
        """An artifact with a part for each text, as if a stage had made it."""
        parts = []
        for text in texts:
            part = self.folder / "documents" / text
            part.mkdir(parents=True, exist_ok=True)
            (part / "text.txt").write_text(text)
            sha256 = file_sha256(part / "text.txt")
            parts.append(Part(part, content_digest([("text.txt", len(text), sha256)]), "abc/0000", "toy"))
        digest = content_digest((f"{i}", 0, part.digest) for i, part in enumerate(parts))
        return Artifact("documents", "k", digest, self.folder, tuple(parts))

    def request(self, stage, inputs, **config):
        return Request.make(self.store, stage, stage.name, ToyConfig(trace=str(self.trace), **config), inputs)

    def upper(self, *texts, jobs=1, force=False, **config):
        """(artifact, resolution) of the map stage."""
        request = self.request(UPPER, {"documents": self.documents(*texts)}, **config)
        with Workers(jobs) as workers:
            return execute(self.store, request, workers, lambda *_: None, force=force)

    def join(self, texts, force=False, **config):
        """(artifact, resolution) of the whole stage on an artifact of the map stage."""
        with Workers(1) as workers:
            request = self.request(JOIN, {"texts": texts}, **config)
            return execute(self.store, request, workers, lambda *_: None, force=force)

    def calls(self):
        """What ran since the last question."""
        lines = self.trace.read_text().splitlines() if self.trace.exists() else []
        self.trace.unlink(missing_ok=True)
        return sorted(lines)


@pytest.fixture
def bench(store, tmp_path):
    return Bench(store, tmp_path)
