"""Two real processes, started by torchrun's launcher, that meet over gloo; ranks.py and ending.py are what they do."""

import os
import shutil
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from model.config import TrainingError
from model.pretrain import pretrain
from model.training.checkpoint import OPTIMIZER, WEIGHTS
from model.training.distributed import joined
from model.training.launch import launch

pytestmark = pytest.mark.slow

CPU = torch.device("cpu")

SHAPES_AND_KINDS = ["modern ddp", "modern fsdp", "gpt2 ddp", "gpt2 fsdp"]

LAUNCHER = """
import sys
from model.training.launch import launch
launch(2, "tests.model.training.ending:ending", {"how": "never", "file": sys.argv[1]}, print)
"""


def silent(*_told):
    """Hear nothing."""


def relative(mine, other):
    return float((mine - other).norm() / other.norm().clamp(min=1e-12))


def alive(pid):
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    return True


def pids(file):
    """The process ids of both ranks, once they have written them."""
    paths = [file.with_suffix(f".{rank}") for rank in (0, 1)]
    while not all(path.exists() and path.read_text() for path in paths):
        time.sleep(0.05)
    return [int(path.read_text()) for path in paths]


@pytest.fixture(scope="module")
def report():
    told = []
    found = launch(2, "tests.model.training.ranks:report", {}, told.append)
    return {**found, "told": told}


@pytest.mark.parametrize("case", SHAPES_AND_KINDS)
def test_two_processes_have_the_loss_and_gradients_of_one(report, case):
    found = report["differences"][case]
    assert max(found["loss"], found["gradient"]) < 1e-5
    assert found["names"]
    assert found["sharded"] == case.endswith("fsdp")


@pytest.mark.parametrize("case", SHAPES_AND_KINDS)
def test_gradients_are_clipped_by_their_norm_over_all_processes(report, case):
    found = report["differences"][case]
    assert max(found["norm"], found["clipped"]) < 1e-5


@pytest.mark.parametrize("case", SHAPES_AND_KINDS)
def test_a_step_that_is_not_finite_in_one_process_is_so_in_all(report, case):
    assert report["differences"][case]["finite"] == [False, False]


@pytest.mark.parametrize("shape", ["(64, 24)", "(24, 64)", "(33, 70)"])
def test_muon_over_shards_is_muon_over_whole_matrices_bit_for_bit(report, shape):
    assert report["muon"][shape] == {"weights": True, "moments": True, "cut": True}


def test_processes_listen_on_loopback_alone(report):
    if not Path("/proc/net/tcp").exists():
        pytest.skip("there is no /proc to look into")
    assert set(report["ports"]) == {"0100007F"}  # 127.0.0.1


def test_processes_come_to_the_same_decisions(report):
    assert report["any"] == [True, False]
    assert report["agreed"] == "rank 0"


def test_more_processes_than_were_started_are_refused():
    with pytest.raises(TrainingError, match="2 processes were asked for, but 1 started"), joined(CPU, 2):
        pass


def test_the_first_process_alone_is_heard(report):
    assert report["told"] == ["joined"]


@pytest.mark.parametrize("kind", ["ddp", "fsdp"])
def test_what_one_process_began_two_end_as_if_it_had_been_alone(kind, config, shards, tokenizer, tmp_path):
    exact = config.model_copy(update={"dtype": "float32"})
    folders = {name: tmp_path / name for name in ("alone", "together", "work", "other")}
    for folder in folders.values():
        folder.mkdir()
    data = {"shards": shards, "tokenizer": tokenizer}
    stats = pretrain(out=folders["alone"], config=exact, work=folders["work"], **data)
    shutil.copytree(folders["work"] / "step-000000020", folders["other"] / "step-000000020")
    two = exact.model_copy(update={"processes": 2, "parallel": kind})
    together = pretrain(out=folders["together"], config=two, work=folders["other"], **data)
    assert together["val_loss"] == pytest.approx(stats["val_loss"], rel=1e-4)
    for file in (WEIGHTS, OPTIMIZER):
        mine, other = (load_file(folders[name] / file) for name in ("together", "alone"))
        assert mine.keys() == other.keys()
        for name, tensor in mine.items():
            assert relative(tensor, other[name]) < 1e-2, name


def test_the_error_of_one_process_ends_all_and_is_the_sentence(tmp_path):
    with pytest.raises(TrainingError, match=r"^Process 1 has a reason\.$"):
        launch(2, "tests.model.training.ending:ending", {"how": "error", "file": str(tmp_path / "pid")}, silent)
    assert not any(map(alive, pids(tmp_path / "pid")))


def test_a_defect_in_one_process_is_named_though_the_others_are_ended_for_it(tmp_path):
    with pytest.raises(TrainingError, match=r"Process 1 of 2 failed \(ZeroDivisionError: a defect\)"):
        launch(2, "tests.model.training.ending:ending", {"how": "defect", "file": str(tmp_path / "pid")}, silent)


def test_a_killed_process_ends_the_others_within_seconds_and_is_named(tmp_path):
    joined = []
    with pytest.raises(TrainingError, match=r"Process 1 of 2 was ended by SIGKILL.*run again"):
        launch(
            2,
            "tests.model.training.ending:ending",
            {"how": "killed", "file": str(tmp_path / "pid")},
            lambda _word: joined.append(time.monotonic()),
        )
    assert time.monotonic() - joined[0] < 20
    assert not any(map(alive, pids(tmp_path / "pid")))


def test_no_process_outlives_a_killed_launcher(tmp_path):
    environment = {**os.environ, "PYTHONPATH": str(Path(__file__).parents[3])}
    launcher = subprocess.Popen([sys.executable, "-c", LAUNCHER, str(tmp_path / "pid")], env=environment)
    processes = pids(tmp_path / "pid")
    launcher.kill()
    launcher.wait()
    deadline = time.monotonic() + 20
    while any(map(alive, processes)):
        assert time.monotonic() < deadline
        time.sleep(0.05)
