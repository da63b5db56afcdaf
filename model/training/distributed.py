"""Several processes that train one model together; the model never hears of it.

Each process takes its rows of every batch. Losses are divided by the count of targets in the whole batch, so gradients
are *summed* over processes, not averaged: then one process or eight differ in rounding only (and in the numbers that
dropout draws, of which each process has its own). Every process comes to the same loss and gradient norm, and so to the
same decisions.

`ddp` keeps the whole model in each process (DistributedDataParallel). `fsdp` keeps a part of every weight, gradient
and moment in each and gathers a block's weights when they are needed (FSDP2, `fully_shard`). Checkpoints know neither:
they hold whole tensors, and any number of processes can take them up.
"""

import os
from collections.abc import Callable, Iterable, Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

import torch
from torch import Tensor, distributed, nn
from torch.nn.parallel import DistributedDataParallel

from model.config import TrainingError
from model.cross_entropy import IGNORED
from model.training.data import Batch
from model.training.launch import MEETING

if TYPE_CHECKING:
    from model.gpt import GPT

Loss = Callable[..., Tensor]
"""`GPT.loss`, or what takes its place."""


@dataclass(frozen=True)
class Processes:
    """One process among those that train together; with a device and nothing else, the only one."""

    device: torch.device
    """Where this process computes."""
    rank: int = 0
    """Which process this is; the first, rank 0, alone writes files and speaks to the outside."""
    count: int = 1
    """How many there are."""

    def rows(self, size: int) -> slice:
        """The rows that are this process's of a batch of `size` windows, which must be a multiple of `count`."""
        share = size // self.count
        return slice(self.rank * share, (self.rank + 1) * share)

    def share(self, batch: Batch) -> Batch:
        """The windows that are this process's of a batch of any size; one without targets if there are none.

        Processes that hold parts of a model must go through it equally often.
        """
        mine = batch[slice(self.rank, None, self.count)]
        if len(mine.inputs):
            return mine
        first = batch[slice(0, 1)]
        return Batch(first.inputs, first.targets * 0 + IGNORED, first.documents)

    def total(self, tensor: Tensor) -> Tensor:
        """The sum of every process's `tensor`, the same bits in each."""
        if self.count > 1:
            distributed.all_reduce(tensor)
        return tensor

    def any(self, flag: bool) -> bool:
        """Whether `flag` is set in any process: all decide alike."""
        return bool(self.total(torch.tensor(int(flag))))

    def agreed(self, value: Any) -> Any:
        """What the first process has for `value`: a reading of the clock, say, that all must act on alike."""
        if self.count == 1:
            return value
        values = [value]
        distributed.broadcast_object_list(values)
        return values[0]

    def wait(self) -> None:
        """Go on when every process has come here."""
        self.any(False)


@contextmanager
def joined(device: torch.device, count: int = 1) -> Iterator[Processes]:
    """The place of this process among `count` that `launch` started, which leave each other in order at the end.

    Raises `TrainingError` where there are not so many, or fewer GPUs than processes.
    """
    if count == 1:
        yield Processes(device)
        return
    rank, world, local = (int(os.environ.get(name, "-1")) for name in ("RANK", "WORLD_SIZE", "LOCAL_RANK"))
    if world != count:
        raise TrainingError(
            f"{count} processes were asked for, but {max(1, world)} started: train with `pretrain`, which starts them."
        )
    on_gpu = device.type == "cuda"
    if on_gpu and local >= torch.cuda.device_count():
        raise TrainingError(
            f"There are {torch.cuda.device_count()} GPUs for {count} processes: lower pretrain.processes, or set device"
            ' = "cpu".'
        )
    mine = torch.device("cuda", local) if on_gpu else device
    if on_gpu:
        torch.cuda.set_device(mine)
    # Flags and objects are on the CPU even where tensors are not.
    distributed.init_process_group(
        "cpu:gloo,cuda:nccl" if on_gpu else "gloo",
        init_method=f"file://{os.environ[MEETING]}",
        rank=rank,
        world_size=count,
        device_id=mine if on_gpu else None,
    )
    try:
        yield Processes(mine, rank, count)
    finally:
        # Gloo aborts a process that leaves with its connections open.
        distributed.destroy_process_group()


@dataclass(frozen=True)
class Parallel:
    """How the processes' gradients come together."""

    loss: Loss
    """`GPT.loss` over this process's rows; after `backward`, gradients are sums over all processes."""
    sync: Callable[[bool], AbstractContextManager[Any]]
    """`with sync(last)` goes around forward and backward of a micro-batch: gradients meet at the last one only."""


def parallelise(model: "GPT", kind: Literal["ddp", "fsdp"], processes: Processes) -> Parallel:
    """Let `model` be trained by all processes; its parameters stay those that an optimizer is to be built for.

    With `fsdp` they become shards in place, so optimizers are built afterwards. Every process must hold the same
    weights.
    """
    if processes.count == 1:
        return Parallel(model.loss, lambda _last: nullcontext())
    if kind == "ddp":
        return _replicated(model)
    from model.training.sharded import parallelise_sharded

    sync = parallelise_sharded(model, processes.device, processes.count)
    return Parallel(model.loss, sync)  # a loss that gathers weights by now


class _LossOf(nn.Module):
    """`GPT.loss` as a `forward`, the one method at which DistributedDataParallel watches a module."""

    def __init__(self, model: "GPT") -> None:
        super().__init__()
        self.model = model

    def forward(self, *arguments: Any) -> Tensor:
        return self.model.loss(*arguments)


def _replicated(model: "GPT") -> Parallel:
    whole_model = DistributedDataParallel(_LossOf(model), gradient_as_bucket_view=True)
    whole_model.register_comm_hook(None, _summed)
    return Parallel(whole_model, lambda last: nullcontext() if last else whole_model.no_sync())


def _summed(
    _state: None,
    bucket: distributed.GradBucket,  # type: ignore[name-defined] # torch insists on it, and has no types for it
) -> torch.futures.Future[Tensor]:
    """Sum a bucket of gradients over processes, where DistributedDataParallel by itself would average."""
    work = distributed.all_reduce(bucket.buffer(), async_op=True)
    return work.get_future().then(lambda future: future.value()[0])


def clip_gradients(weights: Iterable[nn.Parameter], limit: float) -> Tensor:
    """Scale gradients down so that their norm, over all processes, is at most `limit`; returns the norm before."""
    norm = torch.nn.utils.clip_grad_norm_(weights, limit)
    return _gathered(norm)


def whole(tensor: Tensor) -> Tensor:
    """A tensor on the CPU, gathered where it is shards: then every process must ask for it at once.

    Only the first process gets it, the others an empty one: it alone writes, and one copy in memory is enough.
    """
    gathered = _gathered(tensor.detach())
    if distributed.is_initialized() and distributed.get_rank():
        return torch.empty(0)
    return gathered.cpu().contiguous()


def cut_like(tensor: Tensor, weight: Tensor) -> Tensor:
    """A whole tensor as `weight` is: on its device and, if it is shards and of the same shape, this process's part."""
    here = tensor.to(weight.device)
    if not is_shards(weight) or tensor.shape != weight.shape:
        return here
    from model.training.sharded import cut

    return cut(here, weight)


def is_shards(tensor: Tensor) -> bool:
    """Whether a tensor is torch's DTensor, whose module takes a second to import: here it is known by its method."""
    return hasattr(tensor, "full_tensor")


def _gathered(tensor: Tensor) -> Tensor:
    """The whole of a tensor that may be shards."""
    whole_tensor: Tensor = tensor.full_tensor() if is_shards(tensor) else tensor  # type: ignore[attr-defined]
    return whole_tensor
