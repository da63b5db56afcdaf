"""Who does the tasks: threads of this process while there is little to do, processes for more."""

import signal
import threading
import time
from dataclasses import replace

import pytest

from pipeline.engine import engines, executor
from pipeline.engine.execute import begin_part, execute
from pipeline.engine.executor import LITTLE_BYTES, Workers, run_shard
from pipeline.engine.resolve import shard_keys
from tests.pipeline.engine.conftest import ASLEEP, UPPER

TEXTS = ("one", "two", "three", "four")


DONE_BY = {}


def run(task):
    """As `run_shard`, noting the thread."""
    DONE_BY[task.part] = threading.current_thread()
    return run_shard(task)


@pytest.fixture
def ran(monkeypatch):
    """By part, the thread of this process that did it."""
    monkeypatch.setattr(executor, "run_shard", run)
    DONE_BY.clear()
    return DONE_BY


@pytest.fixture
def _no_processes(monkeypatch):
    monkeypatch.setattr(engines, "start", lambda *_: pytest.fail("processes were started"))


def do(bench, workers, stage=UPPER, texts=TEXTS, **config):
    """The artifact of a map stage."""
    request = bench.request(stage, {"documents": bench.documents(*texts)}, **config)
    return execute(bench.store, request, workers, lambda *_: None)[0]


@pytest.mark.usefixtures("_no_processes")
def test_little_work_is_shared_by_threads(bench, ran):
    with Workers(2) as workers:
        assert do(bench, workers).manifest["rows"] == len(TEXTS)
    assert set(ran) == set(range(len(TEXTS)))
    assert threading.main_thread() not in ran.values()


@pytest.mark.usefixtures("_no_processes")
def test_one_job_needs_no_thread(bench, ran):
    with Workers(1) as workers:
        do(bench, workers)
    assert set(ran.values()) == {threading.main_thread()}


@pytest.mark.usefixtures("processes", "_no_processes")
def test_one_part_alone_is_made_where_it_can_be_interrupted(bench, ran):
    with Workers(2) as workers:
        do(bench, workers, texts=("one",))
    assert set(ran.values()) == {threading.main_thread()}


def interrupted(bench, stage, **config):
    """Seconds until a stage has ended that is interrupted when two of its parts have begun."""

    def interrupt():
        while not bench.trace.exists() or len(bench.trace.read_text().splitlines()) < 2:
            time.sleep(0.01)
        signal.pthread_kill(threading.main_thread().ident, signal.SIGINT)

    before = signal.signal(signal.SIGINT, signal.default_int_handler)  # libraries change it, and leave it so
    begun = time.monotonic()
    try:
        with pytest.raises(KeyboardInterrupt), Workers(2) as workers:  # noqa: PT012
            threading.Thread(target=interrupt).start()
            do(bench, workers, stage, **config)
    finally:
        signal.signal(signal.SIGINT, before)
    assert len(bench.calls()) == 2
    return time.monotonic() - begun


def test_threads_that_wait_for_children_end_with_the_run(bench):
    assert interrupted(bench, ASLEEP) < 30


def test_an_interrupted_run_does_not_wait_for_a_thread_that_nothing_can_end(bench):
    assert interrupted(bench, UPPER, sleep=6.0) < 5


@pytest.mark.usefixtures("processes", "_no_processes")
def test_brief_parts_need_no_processes_however_many(bench, ran):
    with Workers(2) as workers:
        do(bench, workers, replace(UPPER, brief=True))
    assert set(ran) == set(range(len(TEXTS)))


def test_more_work_is_for_processes(bench, ran):
    (bench.folder / "documents" / "one").mkdir(parents=True)
    with (bench.folder / "documents" / "one" / "more.txt").open("wb") as file:
        file.truncate(LITTLE_BYTES)
    with Workers(2) as workers:
        assert do(bench, workers).manifest["rows"] == len(TEXTS)
    assert not ran


def test_threads_begin_parts_ahead_as_long_as_it_is_little(bench, ran):
    (bench.folder / "documents" / "two").mkdir(parents=True)
    with (bench.folder / "documents" / "two" / "more.txt").open("wb") as file:
        file.truncate(LITTLE_BYTES)
    with Workers(2) as workers:
        do(bench, workers, texts=("zero", "and"))
        ran.clear()
        for index, text in enumerate(TEXTS):
            request = bench.request(UPPER, {"documents": bench.documents(text)})
            begin_part(bench.store, request, workers, index)
            assert workers.has_begun("upper", *shard_keys(request)) == (text != "two")
        do(bench, workers)
    assert set(ran) == set(range(len(TEXTS)))
    assert bench.calls() == sorted(f"upper {text}" for text in ("zero", "and", *TEXTS))
