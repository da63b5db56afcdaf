"""Work ahead: what follows a part is begun as soon as the part is there, and nothing that is not wanted."""

import pytest

from flows import stages
from flows.config import load_config
from flows.display import Display
from flows.plan import Mill
from flows.session import Selection, Session
from pipeline.engine.resolve import shard_keys
from pipeline.engine.store import Store

CONFIG = """
[scrape]
segment_bytes = 1
[[scrape.sources]]
name = "texts"
paths = ["{folder}/*.txt"]
[evaluate]
sets = []
[pretrain]
"""


@pytest.fixture
def mill(tmp_path):
    for name in ("one", "two", "three"):
        (tmp_path / f"{name}.txt").write_text(f"This is the text of the file that is called {name}, and no other.\n")
    (tmp_path / "mill.toml").write_text(CONFIG.format(folder=tmp_path))
    return Mill(Store(tmp_path / "store"), load_config(tmp_path / "mill.toml"))


def session_of(mill, jobs=2, **selection):
    return Session(mill, Selection(mill, **selection), jobs, Display())


def begun(session, stage, section, **inputs):
    """Which parts of a map stage have been begun ahead."""
    request = session.mill.request(stage, section, getattr(session.mill.config, section), inputs)
    return [session.workers.has_begun(stage.name, key) for key in shard_keys(request)]


def extracted(session):
    pages, _, _ = session.do(stages.SCRAPE, "scrape", session.mill.config.scrape, {})
    return session.do(stages.EXTRACT, "extract", session.mill.config.extract, {"pages": pages})[0]


def test_stages_are_done_while_prefect_starts_and_each_is_told_at_its_turn(mill):
    with session_of(mill, until="signatures") as session:
        session.use_wait(lambda: True)
        assert list(session.artifacts) == ["scrape", "extract", "signatures"]
        _, status, reasons = session.do(stages.SCRAPE, "scrape", mill.config.scrape, {})
        assert (status, reasons) == ("run", ["never run: source texts has no sealed snapshot"])
        assert session.ran == 3


def test_once_prefect_has_started_no_stage_is_done_before_its_turn(mill):
    answers = iter([True, False])
    with session_of(mill, until="signatures") as session:
        session.use_wait(lambda: next(answers))
        assert list(session.artifacts) == ["scrape"]


def test_training_has_its_turn_though_prefect_still_starts(mill, tmp_path):
    settings = ["policy.rules=[]", "policy.min_language_score=false", "tokenizer.kind=bytes", "pack.val_fraction=0.5"]
    for number in range(20):
        (tmp_path / f"{number}.txt").write_text(f"Here is another text, and it is number {number} of all the texts.\n")
    mill = Mill(
        mill.store, load_config(tmp_path / "mill.toml", [*settings, "deduplicate.threshold=1.0", "pretrain.steps=1"])
    )
    with session_of(mill, jobs=1) as session:
        session.use_wait(lambda: True)
        assert stages.PACK.name in session.artifacts
        assert stages.PRETRAIN.name not in session.artifacts


def test_the_parts_of_later_stages_are_begun_as_those_before_come_in(mill):
    with session_of(mill) as session:
        documents = extracted(session)
        inputs = {"documents": documents, "model": mill.language_model}
        assert begun(session, stages.SIGNATURES, "signatures", documents=documents) == [True] * 3
        assert begun(session, stages.LANGUAGE, "language", **inputs) == [True] * 3
        language, _, _ = session.do(stages.LANGUAGE, "language", mill.config.language, inputs)
        assert begun(session, stages.QUALITY, "quality", documents=documents, language=language) == [True] * 3


def test_a_stage_that_is_not_wanted_or_forced_is_not_begun_ahead(mill):
    with session_of(mill, until="contamination", force="contamination") as session:
        inputs = {"documents": extracted(session)}
        assert begun(session, stages.SIGNATURES, "signatures", **inputs) == [False] * 3
        inputs["sets"] = mill.evaluation_sets
        assert begun(session, stages.CONTAMINATION, "contamination", **inputs) == [False] * 3


def test_one_job_begins_nothing_ahead(mill):
    with session_of(mill, jobs=1) as session:
        session.use_wait(lambda: not session.artifacts)
        assert begun(session, stages.SIGNATURES, "signatures", documents=extracted(session)) == [False] * 3


def test_files_that_cannot_be_read_fail_at_their_turn(mill, tmp_path):
    for path in tmp_path.glob("*.txt"):
        path.write_bytes(b"")
    with session_of(mill) as session:
        session.use_wait(lambda: True)
        with pytest.raises(Exception, match="hold no page or text"):
            session.do(stages.SCRAPE, "scrape", mill.config.scrape, {})
