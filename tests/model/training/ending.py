"""What the processes of test_distributed.py do that come to an end before their work is done."""

import os
import signal
import time
from pathlib import Path

import torch

from model.config import TrainingError
from model.training.distributed import joined


def ending(tell, how, file):
    """Two processes that meet again and again, until one of them leaves in its own way."""
    with joined(torch.device("cpu"), 2) as processes:
        Path(file).with_suffix(f".{processes.rank}").write_text(str(os.getpid()))
        tell("joined")
        while True:
            time.sleep(0.05)
            processes.wait()
            if processes.rank == 1 and how == "error":
                raise TrainingError("Process 1 has a reason.")
            if processes.rank == 1 and how == "defect":
                raise ZeroDivisionError("a defect")
            if processes.rank == 1 and how == "killed":
                os.kill(os.getpid(), signal.SIGKILL)
