"""Parts begun ahead of their stage's turn: made once, found by it, and their failures told by it."""

import pytest

from pipeline.config import StageFailed
from pipeline.engine.execute import begin_part, execute
from pipeline.engine.executor import Workers
from pipeline.engine.store import Store
from tests.pipeline.engine.conftest import UPPER, Bench


def begun_ahead(bench, workers, *texts, **config):
    """The map stage's request on `texts`, each of its parts begun by itself."""
    for index, text in enumerate(texts):
        begin_part(bench.store, bench.request(UPPER, {"documents": bench.documents(text)}, **config), workers, index)
    return bench.request(UPPER, {"documents": bench.documents(*texts)}, **config)


def test_parts_begun_ahead_are_made_once_and_found_by_their_stage(bench, tmp_path):
    expected, _ = Bench(Store(tmp_path / "other"), tmp_path).upper("one", "two")
    bench.calls()
    with Workers(2) as workers:
        workers.start()
        request = begun_ahead(bench, workers, "one", "two")
        artifact, found = execute(bench.store, request, workers, lambda *_: None)
    assert bench.calls() == ["upper one", "upper two"]
    assert (artifact.digest, artifact.key, found.status) == (expected.digest, expected.key, "run")
    assert artifact.manifest["run"]["parts_made"] == 2
    assert list((bench.store.root / "work").iterdir()) == []


def test_what_a_part_begun_ahead_failed_with_is_told_at_its_stages_turn(bench):
    with Workers(2) as workers:
        workers.start()
        request = begun_ahead(bench, workers, "one", "two", fail="two")
        with pytest.raises(StageFailed, match="part-00001: ValueError: cannot take two"):
            execute(bench.store, request, workers, lambda *_: None)


def test_a_worker_that_died_at_a_part_begun_ahead_is_told_in_one_sentence(bench):
    with Workers(2) as workers:
        workers.start()
        request = begun_ahead(bench, workers, "one", "two", "three", fail="die one")
        with pytest.raises(StageFailed, match="A worker was killed at upper"):
            execute(bench.store, request, workers, lambda *_: None)
        begun_ahead(bench, workers, "four")


def test_a_part_that_is_there_is_not_begun_ahead(bench):
    bench.upper("one")
    with Workers(2) as workers:
        workers.start()
        begun_ahead(bench, workers, "one")
    assert bench.calls() == ["upper one"]


def test_each_part_is_told_of_once_it_is_there(bench):
    told = {}
    request = bench.request(UPPER, {"documents": bench.documents("one", "two", "one")})
    with Workers(2) as workers:
        artifact, _ = execute(bench.store, request, workers, lambda *_: None, on_part=told.__setitem__)
    assert [told[index] for index in range(3)] == list(artifact.parts)
