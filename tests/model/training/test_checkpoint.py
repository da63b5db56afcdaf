import json
import math
import shutil

import pytest
import torch

from model.config import GPTConfig, PretrainConfig, TrainingError
from model.generation.generate import load
from model.gpt import GPT
from model.training import checkpoint
from model.training.optim import build_optimizers, optimizer_state, restore_optimizer_state


def content(model, step=0, optimizers=None, **state):
    moments = optimizer_state(model, optimizers) if optimizers else {}
    noted = checkpoint.State(step=step, position=4 * step, steps=100, data_digest="d", **state)
    return checkpoint.Content(model.config, {}, checkpoint.weights_of(model), moments, noted)


def trained(model, config):
    """The model's optimizers after one step."""
    optimizers = build_optimizers(model, config)
    model.loss(torch.arange(8)[None], torch.arange(8)[None]).backward()
    for optimizer in optimizers.values():
        optimizer.step()
    return optimizers


def names(folder):
    return sorted(path.name for path in folder.iterdir())


@pytest.fixture
def saved(model, tmp_path):
    checkpoint.write(tmp_path, content(model, optimizers=trained(model, PretrainConfig())))
    return tmp_path


def test_a_checkpoint_gives_back_the_very_weights_in_float32(model, saved):
    loaded = load(saved)
    assert loaded.config == model.config
    for mine, theirs in zip(model.parameters(), loaded.parameters(), strict=True):
        assert theirs.dtype == torch.float32
        assert torch.equal(mine, theirs)


def test_the_same_state_gives_the_same_bytes(model, saved, tmp_path):
    other = tmp_path / "other"
    other.mkdir()
    optimizers = build_optimizers(model, PretrainConfig())
    restore_optimizer_state(model, optimizers, checkpoint.load_tensors(saved)[1])
    checkpoint.write(other, content(model, optimizers=optimizers))
    for name in checkpoint.FILES:
        assert (saved / name).read_bytes() == (other / name).read_bytes()


def test_numbers_of_the_state_come_back_to_the_last_bit(model, tmp_path):
    losses = [0.1 + 0.2, 1 / 3, 2.0**-1074]
    checkpoint.write(tmp_path, content(model, recent_losses=losses, best_step=0, best_loss=2 / 3))
    state = checkpoint.verify(tmp_path)
    assert (state.recent_losses, state.best_loss) == (losses, 2 / 3)


def test_a_tied_matrix_is_stored_once(model, saved):
    weights, _ = checkpoint.load_tensors(saved)
    assert ("head.weight" in weights) == (not model.config.tied)


@pytest.mark.parametrize("name", checkpoint.FILES)
def test_a_flipped_byte_is_refused(saved, name):
    damaged = bytearray((saved / name).read_bytes())
    damaged[len(damaged) // 2] ^= 1
    (saved / name).write_bytes(damaged)
    with pytest.raises(TrainingError, match=name):
        load(saved)


@pytest.mark.parametrize("name", checkpoint.FILES)
def test_a_missing_file_is_one_sentence(saved, name):
    (saved / name).unlink()
    with pytest.raises(TrainingError, match=name) as error:
        load(saved)
    assert "\n" not in str(error.value)


def test_weights_of_another_shape_are_refused(model, saved):
    weights, _ = checkpoint.load_tensors(saved)
    other = GPT(GPTConfig.model_validate({**model.config.model_dump(), "layers": 3}))
    with pytest.raises(TrainingError, match="another shape"):
        checkpoint.load_weights(other, weights)


def test_nothing_in_a_checkpoint_is_a_pickle(saved):
    assert names(saved) == sorted(checkpoint.FILES)
    for name in (checkpoint.WEIGHTS, checkpoint.OPTIMIZER):
        raw = (saved / name).read_bytes()
        json.loads(raw[8 : 8 + int.from_bytes(raw[:8], "little")])


def test_a_folder_that_cannot_be_written_is_one_sentence(model, tmp_path):
    with pytest.raises(TrainingError, match="cannot be written"):
        checkpoint.write(tmp_path / "missing", content(model))


@pytest.mark.parametrize("bad", [math.nan, math.inf])
def test_weights_that_are_not_finite_are_not_written(model, tmp_path, bad):
    with torch.no_grad():
        model.norm.weight[-1] = bad
    with pytest.raises(TrainingError, match=r"weights are not finite after step 7 and are not saved"):
        checkpoint.write(tmp_path, content(model, 7))
    assert names(tmp_path) == []


def test_the_last_few_are_kept_and_a_save_cut_short_leaves_no_trace(model, tmp_path):
    for step in (1, 2, 3):
        (tmp_path / f"{checkpoint.ASIDE}cut-short").mkdir()
        checkpoint.save(tmp_path, content(model, step), keep=2)
    assert names(tmp_path) == ["step-000000002", "step-000000003"]


def test_the_best_is_kept_beside_the_last_few(model, tmp_path):
    for step in range(1, 7):
        checkpoint.save(tmp_path, content(model, step, best_step=2 if step > 2 else None), keep=2)
    assert names(tmp_path) == ["step-000000002", "step-000000005", "step-000000006"]


def test_a_copy_is_the_whole_checkpoint_and_a_damaged_one_is_not_copied(saved, tmp_path_factory):
    copied = tmp_path_factory.mktemp("copied")
    checkpoint.copy(saved, copied)
    assert checkpoint.verify(copied) == checkpoint.verify(saved)
    (saved / checkpoint.WEIGHTS).write_bytes(b"")
    with pytest.raises(TrainingError, match=checkpoint.WEIGHTS):
        checkpoint.copy(saved, copied)


def test_the_newest_intact_checkpoint_is_found_and_damaged_ones_are_put_aside(model, tmp_path):
    for step in (1, 2):
        checkpoint.save(tmp_path, content(model, step), keep=5)
    (tmp_path / "step-000000002" / checkpoint.WEIGHTS).write_bytes(b"")
    folder, complaints = checkpoint.newest(tmp_path)
    assert folder == tmp_path / "step-000000001"
    assert len(complaints) == 1
    assert checkpoint.WEIGHTS in complaints[0]
    assert (tmp_path / "damaged-step-000000002").is_dir()
    shutil.rmtree(folder)
    assert checkpoint.newest(tmp_path) == (None, [])
