"""FSDP2: each process keeps a part of every weight, gradient and moment, and a block's weights meet when needed.

Apart from `model.training.distributed` because torch's module for it takes a second to import.
"""

from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.fsdp import FSDPModule, fully_shard, register_fsdp_forward_method
from torch.distributed.tensor import DTensor, Replicate, distribute_tensor

if TYPE_CHECKING:
    from model.gpt import GPT


def parallelise_sharded(
    model: "GPT", device: torch.device, count: int
) -> Callable[[bool], AbstractContextManager[None]]:
    """Turn the model's weights into shards over `count` processes; returns `Parallel.sync`."""
    mesh = init_device_mesh(device.type, (count,))
    for block in model.blocks:
        fully_shard(block, mesh=mesh)
    # By default the root would stay whole after a forward without a backward, and validation be saved as shards.
    fully_shard(model, mesh=mesh, reshard_after_forward=True)
    register_fsdp_forward_method(model, "loss")
    parts = [module for module in model.modules() if isinstance(module, FSDPModule)]
    for part in parts:
        part.set_gradient_divide_factor(1.0)
        part.set_force_sum_reduction_for_comms(True)  # gloo knows no other reduction

    def sync(last: bool) -> AbstractContextManager[None]:
        for part in parts:
            part.set_requires_gradient_sync(last)
        return nullcontext()

    return sync


def cut(tensor: Tensor, weight: Tensor) -> Tensor:
    """What is this process's of a whole tensor, laid out as `weight`, which is shards of the same shape."""
    assert isinstance(weight, DTensor)
    return distribute_tensor(tensor, weight.device_mesh, weight.placements, src_data_rank=None)


class ShardedMuon(torch.optim.Muon):
    """Muon for weights that are shards: the very update that the whole weights would get.

    A matrix is made orthogonal as a whole, not part by part, so its gradient and momentum are gathered for the time
    of its own update; between steps each process keeps its part. Every process does all of the arithmetic.
    """

    @torch.no_grad()
    def step(self, closure: Any = None) -> None:  # type: ignore[override]
        """Update every weight that has a gradient."""
        assert closure is None, "Muon over shards takes no closure"
        groups = self.param_groups
        try:
            for group in groups:
                for weight in group["params"]:
                    self._update(weight, group)
        finally:
            self.param_groups = groups

    def _update(self, weight: nn.Parameter, group: dict[str, Any]) -> None:
        sharded, state = weight.grad, self.state[weight]
        assert isinstance(sharded, DTensor)
        everywhere = [Replicate()] * sharded.device_mesh.ndim
        weight.grad = sharded.redistribute(placements=everywhere)
        state.update({name: moment.redistribute(placements=everywhere) for name, moment in state.items()})
        self.param_groups = [{**group, "params": [weight]}]
        super().step()
        state.update({name: moment.redistribute(placements=sharded.placements) for name, moment in state.items()})
        weight.grad = sharded
