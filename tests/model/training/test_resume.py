"""`kill -9` at any moment: the next run goes on, and all ends in the bytes of a run left alone."""

import json
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from model.pretrain import pretrain
from model.training import checkpoint

ROOT = Path(__file__).parents[3]

KILLED = """
import os, signal, sys
from pathlib import Path
import torch
from model.config import PretrainConfig
from model.pretrain import pretrain

what, where, out, work, tokenizer, config, *shards = sys.argv[1:]

def die():
    os.kill(os.getpid(), signal.SIGKILL)

def progress(done, total, text):
    if what == "progress" and f"{done} {text}".startswith(where):
        die()

def audit(event, arguments):
    if event == what and str(arguments[0]).endswith(where):
        die()

sys.addaudithook(audit)
pretrain(out=Path(out), work=Path(work), tokenizer=Path(tokenizer), shards=[Path(part) for part in shards],
         config=PretrainConfig.model_validate_json(config), progress=progress)
"""
"""Training that kills itself at a given word of its progress, or just before a given file is opened or renamed."""

MOMENTS = [
    ("progress", "3 loss"),  # before any checkpoint
    ("open", "writing-step-000000005/config.json"),  # between the files of a save: weights and moments are there
    ("progress", "7 loss"),
    ("progress", "8 validating"),
    ("open", "writing-step-000000010/state.json"),
    ("os.rename", "writing-step-000000010"),  # all written, and not yet a checkpoint
    ("shutil.rmtree", "step-000000010"),  # while old ones are removed
    ("progress", "21 loss"),
    ("progress", "24 validating"),  # the result's own validation
]


def kill(moment, arguments):
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"}
    command = [sys.executable, "-c", KILLED, *moment, *map(str, arguments)]
    ended = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    assert ended.returncode == -signal.SIGKILL, f"{moment}: {ended.returncode} {ended.stderr}"


def told(out):
    """What the metrics say, but for how long it took."""
    measured = {"seconds", "tokens_per_s", "memory_mib", "mfu"}
    lines = map(json.loads, (out / "report" / "metrics.jsonl").read_text().splitlines())
    return [{name: value for name, value in line.items() if name not in measured} for line in lines]


@pytest.mark.slow
def test_a_training_killed_again_and_again_ends_in_the_bytes_of_an_undisturbed_one(config, shards, tokenizer, tmp_path):
    config = config.model_copy(update={"dropout": 0.1, "micro_batch_tokens": 64})

    def folder(name):
        (tmp_path / name).mkdir()
        return tmp_path / name

    for number, moment in enumerate(MOMENTS):
        kill(moment, [folder(f"out-{number}"), tmp_path / "killed", tokenizer, config.model_dump_json(), *shards])
    resumed, undisturbed = folder("resumed"), folder("undisturbed")
    for out, work in ((resumed, "killed"), (undisturbed, "alone")):
        pretrain(out=out, work=tmp_path / work, tokenizer=tokenizer, shards=shards, config=config)
    for file in checkpoint.FILES:
        assert (resumed / file).read_bytes() == (undisturbed / file).read_bytes(), file
    assert told(resumed) == told(undisturbed)
