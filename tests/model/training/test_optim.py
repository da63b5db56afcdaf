import pytest
import torch

from model.config import PretrainConfig
from model.training.optim import build_optimizers, optimizer_state, parameter_groups, restore_optimizer_state, set_lr


def test_groups_hold_every_parameter_exactly_once(model):
    grouped = [name for group in parameter_groups(model).values() for name in group]
    assert sorted(grouped) == sorted(name for name, _ in model.named_parameters())


@pytest.mark.parametrize("optimizer", ["muon", "adamw"])
def test_optimizers_hold_every_parameter_exactly_once(model, optimizer):
    optimizers = build_optimizers(model, PretrainConfig(optimizer=optimizer))
    held = [id(weight) for each in optimizers.values() for group in each.param_groups for weight in group["params"]]
    assert sorted(held) == sorted(id(weight) for weight in model.parameters())


def test_muon_has_hidden_matrices_only(model):
    optimizers = build_optimizers(model, PretrainConfig(optimizer="muon"))
    names = {weight: name for name, weight in model.named_parameters()}
    muon = [names[weight] for group in optimizers["muon"].param_groups for weight in group["params"]]
    assert all(name.startswith("blocks.") and "norm" not in name for name in muon)
    assert len(muon) == sum(weight.ndim == 2 and name.startswith("blocks.") for weight, name in names.items())


@pytest.mark.parametrize("optimizer", ["muon", "adamw"])
def test_matrices_and_embeddings_are_decayed_and_nothing_else(model, optimizer):
    for each in build_optimizers(model, PretrainConfig(optimizer=optimizer)).values():
        for group in each.param_groups:
            assert all((weight.ndim == 2) == (group["weight_decay"] > 0) for weight in group["params"])


@pytest.mark.parametrize("optimizer", ["muon", "adamw"])
def test_without_gradients_decay_alone_shrinks_each_decayed_weight_once(model, optimizer):
    """A tied matrix too: it is one parameter."""
    config = PretrainConfig(optimizer=optimizer, lr=0.1, muon_lr=0.1, weight_decay=0.5)
    before = {name: weight.detach().clone() for name, weight in model.named_parameters()}
    optimizers = build_optimizers(model, config)
    for weight in model.parameters():
        weight.grad = torch.zeros_like(weight)
    for each in optimizers.values():
        each.step()
    for name, weight in model.named_parameters():
        shrunk = before[name] * (1 - 0.1 * 0.5) if weight.ndim == 2 else before[name]
        torch.testing.assert_close(weight.detach(), shrunk)


def test_rates_are_shares_of_each_optimizers_peak(model):
    optimizers = build_optimizers(model, PretrainConfig(lr=0.008, muon_lr=0.03))
    set_lr(optimizers, 0.5)
    assert {group["lr"] for group in optimizers["muon"].param_groups} == {0.015}
    assert {group["lr"] for group in optimizers["adamw"].param_groups} == {0.004}


def test_beta2_is_that_of_the_config(model):
    optimizers = build_optimizers(model, PretrainConfig(beta2=0.99))
    assert {group["betas"] for group in optimizers["adamw"].param_groups} == {(0.9, 0.99)}


@pytest.mark.parametrize("optimizer", ["muon", "adamw"])
def test_restored_state_is_all_there_is(model, optimizer):
    config = PretrainConfig(optimizer=optimizer)
    optimizers = build_optimizers(model, config)
    model.loss(torch.arange(8)[None], torch.arange(8)[None]).backward()
    for each in optimizers.values():
        each.step()
    saved = optimizer_state(model, optimizers)
    assert {tensor.dtype for tensor in saved.values()} == {torch.float32}
    others = build_optimizers(model, config)
    restore_optimizer_state(model, others, saved)
    for name, each in optimizers.items():
        for weight, quantities in each.state.items():
            for quantity, tensor in quantities.items():
                assert torch.equal(others[name].state[weight][quantity], tensor)
