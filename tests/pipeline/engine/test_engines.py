"""Engines: wherever the shards are done, the digests are the same."""

import pytest

from pipeline.config import BadInput
from pipeline.engine import executor
from pipeline.engine.engines import WorkersConfig, start
from pipeline.engine.execute import execute
from pipeline.engine.executor import Workers
from pipeline.engine.store import Store
from tests.pipeline.engine.conftest import UPPER, Bench

TEXTS = ("one", "two", "three", "four", "five")


def digest_on(config, folder):
    """The digest of the toy map stage in a new store, done on that engine."""
    bench = Bench(Store(folder / config.engine), folder)
    request = bench.request(UPPER, {"documents": bench.documents(*TEXTS)})
    with Workers(2, config) as workers:
        return execute(bench.store, request, workers, lambda *_: None)[0].digest


@pytest.fixture
def expected(tmp_path):
    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(executor, "LITTLE_BYTES", -1)
        return digest_on(WorkersConfig(), tmp_path / "processes")


def test_threads_give_the_same_digests(expected, tmp_path):
    assert digest_on(WorkersConfig(), tmp_path) == expected


def test_a_dask_cluster_gives_the_same_digests(expected, tmp_path):
    distributed = pytest.importorskip("distributed", reason="the extra dask is not installed")
    with distributed.LocalCluster(
        n_workers=2, threads_per_worker=1, host="127.0.0.1", dashboard_address=None, silence_logs=50
    ) as cluster:
        assert digest_on(WorkersConfig(engine="dask", address=cluster.scheduler_address), tmp_path) == expected


def test_a_ray_cluster_gives_the_same_digests(expected, tmp_path):
    ray = pytest.importorskip("ray", reason="the extra ray is not installed")
    ray.init(num_cpus=2, include_dashboard=False, _node_ip_address="127.0.0.1", log_to_driver=False)
    assert digest_on(WorkersConfig(engine="ray", address="local"), tmp_path) == expected


def test_a_cluster_without_an_address_is_refused():
    with pytest.raises(BadInput, match="needs workers"):
        start(WorkersConfig(engine="dask"), 2)


def test_a_cluster_that_is_not_there_is_one_sentence():
    config = pytest.importorskip("dask", reason="the extra dask is not installed").config
    with config.set({"distributed.comm.timeouts.connect": "1s"}), pytest.raises(BadInput, match="cannot be reached"):
        start(WorkersConfig(engine="dask", address="tcp://127.0.0.1:9"), 2)
