import pytest
import torch

from model.config import PretrainConfig
from model.optim import build_optimizers, lr_at, parameter_groups, set_lr


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


def test_norms_and_biases_are_not_decayed(model):
    for group in build_optimizers(model, PretrainConfig(optimizer="adamw"))["adamw"].param_groups:
        assert all((weight.ndim == 2) == (group["weight_decay"] > 0) for weight in group["params"])


def test_schedule_at_named_steps():
    def at(step):
        return lr_at(step, steps=110, warmup=10, final=0.1)

    assert at(0) == pytest.approx(0.1)
    assert at(4) == pytest.approx(0.5)
    assert at(9) == 1.0
    assert at(59) == pytest.approx(0.55)
    assert at(109) == pytest.approx(0.1)
    assert all(at(step) >= at(step + 1) for step in range(9, 109))
    assert lr_at(0, steps=10, warmup=0, final=0.0) < 1.0


def test_rates_are_shares_of_each_optimizers_peak(model):
    optimizers = build_optimizers(model, PretrainConfig(lr=0.008, muon_lr=0.03))
    set_lr(optimizers, 0.5)
    assert {group["lr"] for group in optimizers["muon"].param_groups} == {0.015}
    assert {group["lr"] for group in optimizers["adamw"].param_groups} == {0.004}


def test_an_undecayed_vector_without_gradient_does_not_move(model):
    weight = model.norm.weight
    before = weight.detach().clone()
    optimizers = build_optimizers(model, PretrainConfig(optimizer="adamw"))
    weight.grad = torch.zeros_like(weight)
    optimizers["adamw"].step()
    torch.testing.assert_close(weight.detach(), before, rtol=0, atol=0)
