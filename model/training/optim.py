"""Who updates which weight, and how fast: parameter groups, optimizers, and their state by name.

Every parameter is in exactly one of three groups: `matrix` (hidden two-dimensional weights), `embedding` (token
and position embeddings, head), `vector` (norms and biases). Matrices and embeddings are decayed, vectors never. A tied
matrix is one parameter: an embedding, updated and decayed once a step. Moments are float32, as the weights are.
"""

import torch
from torch import Tensor, nn

from model.config import PretrainConfig
from model.gpt import GPT
from model.training.distributed import cut_like, is_shards, whole

ADAM_BETA1 = 0.9
"""Decay of the first moment (GPT-3, Brown et al. 2020, appendix B)."""

ADAM_EPS = 1e-8
"""Added to the root of the second moment (GPT-3, appendix B)."""

MUON_MOMENTUM = 0.95
"""Nesterov momentum of Muon (Jordan et al. 2024, https://kellerjordan.github.io/posts/muon/)."""


def parameter_groups(model: GPT) -> dict[str, dict[str, nn.Parameter]]:
    """Group name to parameter name to parameter; a tied matrix appears once, as an embedding."""
    groups: dict[str, dict[str, nn.Parameter]] = {"matrix": {}, "embedding": {}, "vector": {}}
    for name, weight in model.named_parameters():
        hidden = name.startswith("blocks.")
        kind = "vector" if weight.ndim < 2 else "matrix" if hidden else "embedding"
        groups[kind][name] = weight
    return groups


def build_optimizers(model: GPT, config: PretrainConfig) -> dict[str, torch.optim.Optimizer]:
    """The optimizers by name: `adamw` alone, or `muon` for matrices and `adamw` for the rest.

    Each parameter group of torch carries `peak`, the rate that `set_lr` scales. Vectors are not decayed.
    A model that is to be sharded must be so already.
    """
    groups = parameter_groups(model)
    optimizers: dict[str, torch.optim.Optimizer] = {}
    decayed = list(groups["embedding"].values())
    if config.optimizer == "muon":
        sharded = any(is_shards(weight) for weight in groups["matrix"].values())
        optimizers["muon"] = (_sharded_muon() if sharded else torch.optim.Muon)(
            [{"params": list(groups["matrix"].values()), "peak": config.muon_lr}],
            lr=config.muon_lr,
            momentum=MUON_MOMENTUM,
            weight_decay=config.weight_decay,
        )
    else:
        decayed = list(groups["matrix"].values()) + decayed
    optimizers["adamw"] = torch.optim.AdamW(
        [
            {"params": decayed, "peak": config.lr, "weight_decay": config.weight_decay},
            {"params": list(groups["vector"].values()), "peak": config.lr, "weight_decay": 0.0},
        ],
        lr=config.lr,
        betas=(ADAM_BETA1, config.beta2),
        eps=ADAM_EPS,
        fused=True,
    )
    return optimizers


def set_lr(optimizers: dict[str, torch.optim.Optimizer], share: float) -> None:
    """Give every parameter group `share` of its peak learning rate."""
    for optimizer in optimizers.values():
        for group in optimizer.param_groups:
            group["lr"] = group["peak"] * share


def _sharded_muon() -> type[torch.optim.Muon]:
    from model.training.sharded import ShardedMuon

    return ShardedMuon


def optimizer_state(model: GPT, optimizers: dict[str, torch.optim.Optimizer]) -> dict[str, Tensor]:
    """All optimizer state as whole tensors on the CPU, named `optimizer/parameter/quantity`; asked of every process."""
    names: dict[Tensor, str] = {weight: name for name, weight in model.named_parameters()}
    return {
        f"{kind}/{names[weight]}/{quantity}": whole(tensor)
        for kind, optimizer in optimizers.items()
        for weight, state in optimizer.state.items()
        for quantity, tensor in state.items()
    }


def restore_optimizer_state(
    model: GPT, optimizers: dict[str, torch.optim.Optimizer], tensors: dict[str, Tensor]
) -> None:
    """Put back what `optimizer_state` gave; a step count stays where its optimizer keeps it."""
    weights = dict(model.named_parameters())
    for key, tensor in tensors.items():
        kind, name, quantity = key.split("/")
        weight = weights[name]
        optimizers[kind].state[weight][quantity] = cut_like(tensor.clone(), weight)
