import json

import pytest

from model.training.metrics import Metrics


def step(number):
    return {"step": number, "loss": 1.0 / number, "seconds": 0.5}


def written(path):
    return [json.loads(line) for line in path.read_text().splitlines()]


@pytest.fixture
def path(tmp_path):
    return tmp_path / "metrics.jsonl"


def test_a_line_is_in_the_file_when_write_returns(path):
    with Metrics(path, 0) as metrics:
        metrics.write(step(1))
        assert written(path) == [step(1)]


def test_a_resumed_file_forgets_what_came_after_the_checkpoint(path):
    """The validation of step 2 came after its checkpoint, so it is made again."""
    lines = [step(1), {"step": 1, "val_loss": 3.0}, step(2), {"step": 2, "val_loss": 2.0}, step(3)]
    with Metrics(path, 0) as metrics:
        for line in lines:
            metrics.write(line)
    with Metrics(path, 2) as metrics:
        assert written(path) == lines[:3]
        assert metrics.seconds == 1.0


def test_the_result_is_scored_again_after_a_resume(path):
    with Metrics(path, 0) as metrics:
        for line in (step(1), step(2), {"step": 1, "val_loss": 2.0, "final": True}):
            metrics.write(line)
    with Metrics(path, 2):
        assert written(path) == [step(1), step(2)]


def test_a_line_that_a_kill_cut_off_is_dropped(path):
    path.write_text(json.dumps(step(1)) + '\n{"step": 2, "lo')
    with Metrics(path, 5):
        assert written(path) == [step(1)]


def test_trackers_hear_of_new_lines_only(path):
    class Heard(list):
        log, closed = list.append, False

        def close(self):
            self.closed = True

    path.write_text(json.dumps(step(1)) + "\n")
    heard = Heard()
    with Metrics(path, 1, [heard]) as metrics:
        metrics.write(step(2))
    assert heard == [step(2)]
    assert heard.closed


def test_processes_but_the_first_write_nothing(tmp_path):
    with Metrics(None, 0) as metrics:
        metrics.write(step(1))
    assert list(tmp_path.iterdir()) == []
