"""Where and how a model runs: device, precision, threads, and whether compiling pays.

Nothing here changes what is computed, only how it rounds and how long it takes; what was chosen is part of a run's
record.
"""

import importlib.util
import os
import resource
import shutil
import sys
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

from model.config import PretrainConfig, TrainingError
from model.training.data import Ints

COMPILE_PAYS_TOKENS = {"cpu": 1_000_000, "cuda": 30_000_000}
"""Tokens of training from which compiling pays: on two cores it takes about 25 s and saves a third of 73 us a token,
on a GPU about a minute and saves 2 us a token (nanoGPT's README: 250 ms become 135 for 491,520 tokens on 8 A100)."""

COMPILE_PAYS_MINUTES = 2.0
"""Minutes of training from which it pays, by the same figures."""

MIB = 2**20


@dataclass(frozen=True)
class Hardware:
    """What a training runs on."""

    device: torch.device
    bfloat16: bool
    compile: bool
    threads: int

    def autocast(self) -> AbstractContextManager[Any]:
        """Matrix products in bfloat16 where that was chosen; weights, norms, softmax and loss stay float32."""
        return torch.autocast(self.device.type, dtype=torch.bfloat16) if self.bfloat16 else nullcontext()

    @property
    def name(self) -> str:
        """The device as its maker calls it, as far as torch knows."""
        if on_gpu(self.device):
            return str(torch.cuda.get_device_name(self.device))
        return str(torch.cpu.get_capabilities().get("cpu_name", ""))

    def tensor(self, array: Ints) -> Tensor:
        """The array on the device; a GPU takes it from pinned memory while it is still at work."""
        tensor = torch.from_numpy(np.ascontiguousarray(array))  # else a copy would be made that is not pinned
        return tensor.pin_memory().to(self.device, non_blocking=True) if on_gpu(self.device) else tensor

    def wait(self) -> None:
        """Until the device has done all that it was told."""
        if on_gpu(self.device):
            torch.cuda.synchronize(self.device)

    def memory_mib(self) -> float:
        """The most memory so far: allocated on the GPU, or resident in this process."""
        if on_gpu(self.device):
            return torch.cuda.max_memory_allocated(self.device) / MIB
        # macOS counts in bytes, everyone else in KiB.
        unit = 1 if sys.platform == "darwin" else 1024
        return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit / MIB

    def facts(self, compiled: bool) -> dict[str, Any]:
        """What a run says of itself."""
        return {
            "device": self.device.type,
            "name": self.name,
            "dtype": "bfloat16" if self.bfloat16 else "float32",
            "compiled": compiled,
            "threads": self.threads,
            "torch": torch.__version__,
        }


def choose(config: PretrainConfig) -> Hardware:
    """The hardware that `config` asks for, and the thread count put in force; raises `TrainingError`."""
    device = choose_device(config.device)
    automatic = long_enough(config, device) and has_compiler(on_gpu(device))
    return Hardware(
        device=device,
        bfloat16=has_bfloat16(on_gpu(device)) if config.dtype == "auto" else config.dtype == "bfloat16",
        compile=automatic if config.compile == "auto" else config.compile == "yes",
        threads=use_threads(config.threads, config.processes),
    )


def on_gpu(device: torch.device) -> bool:
    """Whether this is a CUDA device, numbered or not."""
    return device.type == "cuda"


def long_enough(config: PretrainConfig, device: torch.device) -> bool:
    """Whether a training is so long that compiling pays."""
    steps = config.step_budget
    tokens = COMPILE_PAYS_TOKENS[device.type]
    enough_steps = steps is None or steps * config.batch_tokens >= tokens
    return enough_steps and (config.minutes is None or config.minutes >= COMPILE_PAYS_MINUTES)


@contextmanager
def reproducible(device: torch.device) -> Iterator[None]:
    """On a CPU, the same bytes at the same number of threads; float32 products are float32 everywhere, never TF32.

    Compiled code would else add up an embedding's gradients in whatever order its threads come.
    """
    before = torch.are_deterministic_algorithms_enabled(), torch.get_float32_matmul_precision()
    torch.use_deterministic_algorithms(before[0] or not on_gpu(device))
    torch.set_float32_matmul_precision("highest")
    try:
        yield
    finally:
        torch.use_deterministic_algorithms(before[0])
        torch.set_float32_matmul_precision(before[1])


def choose_device(name: str) -> torch.device:
    """The device `auto`, `cpu` or `cuda`; raises `TrainingError` where there is none."""
    if name == "cuda" and not torch.cuda.is_available():
        raise TrainingError('The configuration asks for device = "cuda" but torch finds none: use "auto" or "cpu".')
    return torch.device("cuda" if name != "cpu" and torch.cuda.is_available() else "cpu")


def use_threads(threads: int, processes: int = 1) -> int:
    """Put so many threads in force, or this process's share of the cores that it may use; returns their number."""
    # Not every system can say which cores a process may use.
    mine = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    count = threads or max(1, (mine or 1) // processes)
    torch.set_num_threads(count)
    return count


def has_bfloat16(gpu: bool) -> bool:
    """Whether the processor multiplies bfloat16 matrices itself (AMX, AVX-512 BF16); emulation loses to float32."""
    if gpu:
        return torch.cuda.is_bf16_supported(including_emulation=False)
    capabilities = torch.cpu.get_capabilities()
    return any(capabilities.get(name, False) for name in ("amx_bf16", "avx512_bf16"))


def compiler_errors() -> tuple[type[Exception], ...]:
    """What a compiler that is missing or broken raises when compiled code is first called."""
    # Imported where compiling is at hand, since it takes a second.
    from torch._dynamo.exc import TorchDynamoException
    from torch._inductor.exc import CppCompileError, InvalidCxxCompiler

    return TorchDynamoException, CppCompileError, InvalidCxxCompiler


def has_compiler(gpu: bool) -> bool:
    """Whether what torch.compile needs seems to be there: Triton on a GPU, a C++ compiler on a CPU."""
    if gpu:
        return importlib.util.find_spec("triton") is not None
    return any(shutil.which(name) for name in (os.environ.get("CXX", "g++"), "g++", "clang++"))
