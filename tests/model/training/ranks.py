"""What the processes of test_distributed.py do; each function runs in every rank, and rank 0's result is returned."""

import os
from pathlib import Path

import numpy as np
import torch
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.tensor import DTensor, Shard, distribute_tensor

from model.config import GPTConfig
from model.cross_entropy import IGNORED
from model.gpt import GPT
from model.presets import GPT2, MODERN
from model.training.data import Batch
from model.training.distributed import clip_gradients, cut_like, joined, parallelise
from model.training.sharded import ShardedMuon

CPU = torch.device("cpu")
ROWS, CONTEXT, VOCAB = 8, 16, 67


def fresh(shape):
    torch.set_num_threads(1)
    torch.manual_seed(0)
    # 3 blocks of width 24 over 2 processes: no count of rows is a power of two.
    return GPT(GPTConfig(layers=3, heads=2, width=24, context=CONTEXT, vocab_size=VOCAB, **shape))


def batch():
    """Windows of which the first half has far more targets than the second."""
    random = np.random.default_rng(0)
    ids = random.integers(0, VOCAB, (ROWS, CONTEXT + 1))
    ignored = random.random((ROWS, CONTEXT)) < np.linspace(0, 0.9, ROWS)[:, None]
    return Batch(ids[:, :-1], np.where(ignored, IGNORED, ids[:, 1:]))


def backward(loss, sync, rows, micro_batches, count):
    """Sum of losses over `count`, and its gradient left in the weights."""
    total = torch.zeros(())
    for index, (ids, targets) in enumerate(
        zip(np.split(rows.inputs, micro_batches), np.split(rows.targets, micro_batches), strict=True)
    ):
        with sync(index == micro_batches - 1):
            part = loss(torch.from_numpy(ids.copy()), torch.from_numpy(targets.copy())) / count
            part.backward()
        total += part.detach()
    return total


def gathered(tensor):
    return tensor.full_tensor() if isinstance(tensor, DTensor) else tensor


def relative(mine, other):
    return float((mine - other).norm() / other.norm())


def report(tell):
    """All that is measured of two processes that live to their end."""
    with joined(CPU, 2) as processes:
        tell("joined")
        return {
            "differences": gradients(processes),
            "muon": muon(processes),
            "ports": processes.agreed(listening()),
            "agreed": processes.agreed(f"rank {processes.rank}"),
            "any": [processes.any(processes.rank == 1), processes.any(False)],
        }


def gradients(processes):
    """Differences to one process of loss, gradients and clipped gradients, for each shape and kind."""
    differences = {}
    for name, shape in (("modern", MODERN), ("gpt2", GPT2)):
        everything = batch()
        alone = fresh(shape)
        loss = alone.loss(torch.from_numpy(everything.inputs), torch.from_numpy(everything.targets))
        loss = loss / everything.scored
        loss.backward()
        expected = {key: weight.grad.clone() for key, weight in alone.named_parameters()}
        norm = torch.nn.utils.clip_grad_norm_(alone.parameters(), 0.01)
        for kind in ("ddp", "fsdp"):
            model = fresh(shape)
            parallel = parallelise(model, kind, processes)
            rows = everything[processes.rows(ROWS)]
            total = processes.total(backward(parallel.loss, parallel.sync, rows, 2, everything.scored))
            mine = {key: gathered(weight.grad).clone() for key, weight in model.named_parameters()}
            my_norm = clip_gradients(model.parameters(), 0.01)
            clipped = {key: gathered(weight.grad) for key, weight in model.named_parameters()}
            sharded = {isinstance(weight, DTensor) for weight in model.parameters()}
            differences[f"{name} {kind}"] = {
                "loss": relative(total, loss.detach()),
                "gradient": max(relative(mine[key], expected[key]) for key in expected),
                "norm": relative(my_norm, norm),
                "clipped": max(relative(clipped[key], w.grad) for key, w in alone.named_parameters()),
                "finite": [processes.any(finite) for finite in is_finite(parallel, model, rows, processes)],
                "names": sorted(mine) == sorted(expected),
                "sharded": sharded == {True},
            }
    return differences


def is_finite(parallel, model, rows, processes):
    """What this process thinks of a step in which process 1 alone comes upon an infinite loss: of loss, and of norm."""
    model.zero_grad()
    count = torch.tensor(0.0 if processes.rank else 1.0)
    total = processes.total(backward(parallel.loss, parallel.sync, rows, 1, count))
    return bool(total.isfinite()), bool(clip_gradients(model.parameters(), 1.0).isfinite())


def muon(processes):
    """Whether matrices of several shapes, cut in two, get the very updates that whole ones get, and stay cut."""
    same = {}
    for shape in ((64, 24), (24, 64), (33, 70)):
        torch.manual_seed(0)
        weight, *gradients = torch.randn(4, *shape)
        alone = torch.nn.Parameter(weight.clone())
        mesh = init_device_mesh("cpu", (processes.count,))
        mine = torch.nn.Parameter(distribute_tensor(weight.clone(), mesh, [Shard(0)]))
        one, two = torch.optim.Muon([alone], lr=0.02), ShardedMuon([mine], lr=0.02)
        for gradient in gradients:
            alone.grad, mine.grad = gradient.clone(), cut_like(gradient.clone(), mine)
            one.step()
            two.step()
        moments = one.state[alone]["momentum_buffer"], two.state[mine]["momentum_buffer"]
        same[str(shape)] = {
            "weights": torch.equal(alone, gathered(mine)),
            "moments": torch.equal(moments[0], gathered(moments[1])),
            "cut": moments[1].placements == mine.placements == (Shard(0),),
        }
    return same


def listening():
    """Addresses, in hexadecimal, at which this process or the agent that started it waits for connections."""
    sockets = set()
    for process in (os.getpid(), os.getppid()):
        for file in Path(f"/proc/{process}/fd").iterdir():
            try:
                sockets.add(file.readlink().name)
            except OSError:
                continue  # the listing's own
    rows = [row.split() for name in ("tcp", "tcp6") for row in Path("/proc/net", name).read_text().splitlines()[1:]]
    return sorted({row[1].split(":")[0] for row in rows if row[3] == "0A" and f"socket:[{row[9]}]" in sockets})
