import sys

import pytest

from model.config import TrainingError
from model.training.trackers import check_packages, open_trackers

LINES = [
    {"step": 1, "loss": 5.5, "mfu": None, "skipped": False},
    {"step": 2, "loss": None, "mfu": None, "skipped": True},
    {"step": 2, "val_loss": 4.5, "final": True},
]


def events(folder):
    """Curves by name, as TensorBoard reads them: (step, value)."""
    accumulator = pytest.importorskip("tensorboard.backend.event_processing.event_accumulator")
    read = accumulator.EventAccumulator(str(folder))
    read.Reload()
    return {name: [(e.step, e.value) for e in read.Scalars(name)] for name in read.Tags()["scalars"]}


def test_tensorboard_reads_back_every_number(tmp_path):
    pytest.importorskip("tensorboard")
    (tracker,) = open_trackers(["tensorboard"], tmp_path, "run", {}, 0)
    for line in LINES:
        tracker.log(line)
    tracker.close()
    assert events(tmp_path / "tensorboard") == {
        "loss": [(1, 5.5)],
        "skipped": [(1, 0.0), (2, 1.0)],
        "val_loss": [(2, 4.5)],
    }


def test_tensorboard_shows_each_step_once_after_a_resume(tmp_path):
    pytest.importorskip("tensorboard")
    for resumed_at, values in ((0, [5.0, 4.0, 3.0]), (1, [4.5, 3.5])):
        (tracker,) = open_trackers(["tensorboard"], tmp_path, "run", {}, resumed_at)
        for number, value in enumerate(values, resumed_at + 1):
            tracker.log({"step": number, "loss": value})
        tracker.close()
    assert events(tmp_path / "tensorboard") == {"loss": [(1, 5.0), (2, 4.5), (3, 3.5)]}


@pytest.mark.parametrize("name", ["tensorboard", "wandb", "trackio"])
def test_a_missing_package_is_one_sentence(name, tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, name, None)
    with pytest.raises(TrainingError, match=rf'"{name}", which is not installed: pip install "gptmill\[{name}\]"'):
        open_trackers([name], tmp_path, "run", {}, 0)


@pytest.mark.parametrize("name", ["tensorboard", "wandb", "trackio"])
def test_a_missing_package_is_known_before_a_tracker_is_opened(name, monkeypatch):
    monkeypatch.setitem(sys.modules, name, None)
    with pytest.raises(TrainingError, match=rf'"{name}", which is not installed'):
        check_packages([name])
    check_packages([])


def test_no_tracker_is_imported_unless_asked_for(tmp_path, monkeypatch):
    for name in ("tensorboard", "wandb", "trackio"):
        monkeypatch.setitem(sys.modules, name, None)
    assert open_trackers([], tmp_path, "run", {}, 0) == []
