import json
import shutil

import pytest
import torch

from model import checkpoint
from model.config import GPTConfig, PretrainConfig, TrainingError
from model.generate import load
from model.gpt import GPT
from model.optim import build_optimizers, optimizer_state, restore_optimizer_state


def state(step=0):
    return checkpoint.State(
        step=step, position=4 * step, skipped=0, skipped_in_a_row=0, data_digest="d", rng=checkpoint.rng_state()
    )


def trained(model, config):
    """A model and its optimizers after one step on a sum of weights."""
    optimizers = build_optimizers(model, config)
    model.loss(torch.arange(8)[None], torch.arange(8)[None]).backward()
    for optimizer in optimizers.values():
        optimizer.step()
    return optimizers


@pytest.fixture
def saved(model, tmp_path):
    optimizers = trained(model, PretrainConfig())
    checkpoint.write(tmp_path, model, {}, optimizer_state(model, optimizers), state())
    return tmp_path


def test_a_checkpoint_gives_back_the_very_weights(model, saved):
    loaded = load(saved)
    assert loaded.config == model.config
    for mine, theirs in zip(model.parameters(), loaded.parameters(), strict=True):
        assert torch.equal(mine, theirs)


def test_the_same_state_gives_the_same_bytes(model, saved, tmp_path):
    other = tmp_path / "other"
    other.mkdir()
    optimizers = build_optimizers(model, PretrainConfig())
    restore_optimizer_state(model, optimizers, checkpoint.load_tensors(saved)[1])
    checkpoint.write(other, model, {}, optimizer_state(model, optimizers), checkpoint.verify(saved))
    for name in (*checkpoint.HASHED, checkpoint.STATE):
        assert (saved / name).read_bytes() == (other / name).read_bytes()


def test_a_tied_matrix_is_stored_once(model, saved):
    weights, _ = checkpoint.load_tensors(saved)
    assert ("head.weight" in weights) == (not model.config.tied)


@pytest.mark.parametrize("name", [*checkpoint.HASHED, checkpoint.STATE])
def test_a_flipped_byte_is_refused(saved, name):
    content = bytearray((saved / name).read_bytes())
    content[len(content) // 2] ^= 0x80
    (saved / name).write_bytes(content)
    with pytest.raises(TrainingError, match=name):
        load(saved)


@pytest.mark.parametrize("name", [*checkpoint.HASHED, checkpoint.STATE])
def test_a_missing_file_is_refused(saved, name):
    (saved / name).unlink()
    with pytest.raises(TrainingError, match=name):
        load(saved)


def test_weights_of_another_shape_are_refused(saved):
    other = GPT(GPTConfig(layers=1, heads=1, width=8, context=4, vocab_size=9))
    with pytest.raises(TrainingError, match="another shape"):
        checkpoint.load_weights(other, checkpoint.load_tensors(saved)[0])


def test_random_state_goes_on_where_it_was():
    states = json.loads(json.dumps(checkpoint.rng_state()))
    expected = torch.rand(3)
    checkpoint.restore_rng(states)
    assert torch.equal(torch.rand(3), expected)


def test_a_folder_that_cannot_be_written_is_one_sentence(model, tmp_path):
    with pytest.raises(TrainingError, match="cannot be written"):
        checkpoint.write(tmp_path / "missing", model, {}, {}, state())


def test_the_last_few_are_kept_and_a_save_cut_short_leaves_no_trace(model, tmp_path):
    for step in (1, 2, 3):
        (tmp_path / f"{checkpoint.ASIDE}cut-short").mkdir()
        checkpoint.save(tmp_path, model, {}, {}, state(step), keep=2)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["step-000000002", "step-000000003"]


def test_the_newest_intact_checkpoint_is_found_and_damaged_ones_are_put_aside(model, tmp_path):
    for step in (1, 2):
        checkpoint.save(tmp_path, model, {}, {}, state(step), keep=5)
    (tmp_path / "step-000000002" / checkpoint.WEIGHTS).write_bytes(b"")
    folder, complaints = checkpoint.newest(tmp_path)
    assert folder == tmp_path / "step-000000001"
    assert len(complaints) == 1
    assert checkpoint.WEIGHTS in complaints[0]
    assert (tmp_path / "damaged-step-000000002").is_dir()
    shutil.rmtree(folder)
    assert checkpoint.newest(tmp_path) == (None, [])
