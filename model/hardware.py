"""Where and how a model runs: device, precision, threads, and whether compiling pays.

Nothing here changes what is computed, only how it rounds and how long it takes; what was chosen is part of a run's
record.
"""

import importlib.util
import logging
import os
import shutil
import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torch._dynamo.exc import TorchDynamoException
from torch._inductor.exc import CppCompileError, InvalidCxxCompiler

from model.config import PretrainConfig, TrainingError
from model.gpt import GPT

log = logging.getLogger(__name__)

Loss = Callable[[Tensor, Tensor, int], Tensor]
"""`GPT.loss`, perhaps compiled."""

COMPILE_PAYS_TOKENS = 1_000_000
"""Tokens of training from which compiling pays: on two cores it takes about 25 s and saves a third of 73 us a token."""


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

    def facts(self, compiled: bool) -> dict[str, Any]:
        """What a run says of itself."""
        on_gpu = self.device.type == "cuda"
        name = torch.cuda.get_device_name(self.device) if on_gpu else torch.cpu.get_capabilities().get("cpu_name", "")
        return {
            "device": self.device.type,
            "name": str(name),
            "dtype": "bfloat16" if self.bfloat16 else "float32",
            "compiled": compiled,
            "threads": self.threads,
            "torch": torch.__version__,
        }


def choose(config: PretrainConfig) -> Hardware:
    """The hardware that `config` asks for, and the thread count put in force; raises `TrainingError`."""
    device = choose_device(config.device)
    on_gpu = device.type == "cuda"
    tokens = config.steps * config.batch_size * config.context
    automatic = tokens >= COMPILE_PAYS_TOKENS and has_compiler(on_gpu)
    return Hardware(
        device=device,
        bfloat16=has_bfloat16(on_gpu) if config.dtype == "auto" else config.dtype == "bfloat16",
        compile=automatic if config.compile == "auto" else config.compile == "yes",
        threads=use_threads(config.threads),
    )


@contextmanager
def reproducible(device: torch.device) -> Iterator[None]:
    """On a CPU, the same bytes at the same number of threads.

    Compiled code would else add up an embedding's gradients in whatever order its threads come.
    """
    before = torch.are_deterministic_algorithms_enabled()
    torch.use_deterministic_algorithms(before or device.type == "cpu")
    try:
        yield
    finally:
        torch.use_deterministic_algorithms(before)


def choose_device(name: str) -> torch.device:
    """The device `auto`, `cpu` or `cuda`; raises `TrainingError` where there is none."""
    if name == "cuda" and not torch.cuda.is_available():
        raise TrainingError('The configuration asks for device = "cuda" but torch finds none: use "auto" or "cpu".')
    return torch.device("cuda" if name != "cpu" and torch.cuda.is_available() else "cpu")


def use_threads(threads: int) -> int:
    """Put so many threads in force, or one for each core that this process may use; returns their number."""
    # Not every system can say which cores a process may use.
    mine = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    count = threads or mine or 1
    torch.set_num_threads(count)
    return count


def has_bfloat16(on_gpu: bool) -> bool:
    """Whether the processor multiplies bfloat16 matrices itself (AMX, AVX-512 BF16); emulation loses to float32."""
    if on_gpu:
        return torch.cuda.is_bf16_supported(including_emulation=False)
    capabilities = torch.cpu.get_capabilities()
    return any(capabilities.get(name, False) for name in ("amx_bf16", "avx512_bf16"))


def has_compiler(on_gpu: bool) -> bool:
    """Whether what torch.compile needs seems to be there: Triton on a GPU, a C++ compiler on a CPU."""
    if on_gpu:
        return importlib.util.find_spec("triton") is not None
    return any(shutil.which(name) for name in (os.environ.get("CXX", "g++"), "g++", "clang++"))


def compiled_loss(model: GPT, config: PretrainConfig, hardware: Hardware) -> tuple[Loss, float]:
    """The model's loss, compiled if the hardware says so, and the seconds that took.

    A compiler that turns out not to work is an error only where compiling was asked for by name.
    """
    if not hardware.compile:
        return model.loss, 0.0
    began = time.perf_counter()
    compiled: Loss = torch.compile(model.loss)
    # Forward and backward are compiled when first run, so they are run here, on a batch that trains nothing.
    ids = torch.zeros(config.batch_size // config.micro_batches, config.context, dtype=torch.long)
    try:
        with hardware.autocast():
            loss = compiled(ids.to(hardware.device), ids.to(hardware.device), config.loss_chunk)
        loss.backward()
    except (TorchDynamoException, CppCompileError, InvalidCxxCompiler) as error:
        reason = str(error).strip().splitlines()[0]
        if config.compile == "yes":
            raise TrainingError(f'The model cannot be compiled ({reason}): set pretrain.compile to "no".') from error
        log.warning("training without torch.compile, which does not work here: %s", reason)
        compiled = model.loss
    model.zero_grad(set_to_none=True)
    return compiled, time.perf_counter() - began
