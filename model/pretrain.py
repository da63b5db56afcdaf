"""Pretraining: the stage that turns token shards into a checkpoint, in one process or in those of torchrun."""

from collections.abc import Iterator
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

from model.config import PretrainConfig, TrainingError
from model.training.data import Batch, Windows, data_digest, scoring_windows
from model.training.distributed import joined
from model.training.hardware import choose, reproducible
from model.training.launch import launch
from model.training.metrics import stop_signals
from model.training.run import Progress, complete, silent
from model.training.step import Training
from pipeline.shards import TokenShards, end_of_text, load_encoding

VAL_BATCH_TOKENS = 4096
"""Tokens in each batch of a validation: enough to keep two cores busy, few enough for their logits to fit anywhere."""


def pretrain(
    *,
    out: Path,
    config: PretrainConfig,
    shards: list[Path],
    tokenizer: Path,
    work: Path,
    progress: Progress = silent,
) -> dict[str, Any]:
    """Train a GPT on the shards' training split and write its checkpoint and `report/metrics.jsonl` into `out`.

    `work` holds checkpoints and metrics on the way; a run that finds some there goes on from the newest. Raises
    `TrainingError` where there is too little data, where the loss stays non-finite, or on SIGTERM and SIGINT, which
    save a checkpoint first.
    """
    if config.processes == 1:
        return train(out=out, config=config, shards=shards, tokenizer=tokenizer, work=work, tell=progress)
    arguments = {
        "out": str(out),
        "config": config.model_dump(mode="json"),
        "shards": [str(part) for part in shards],
        "tokenizer": str(tokenizer),
        "work": str(work),
    }
    stats: dict[str, Any] = launch(config.processes, "model.pretrain:train_in_process", arguments, progress)
    return stats


def train_in_process(
    *, out: str, config: dict[str, Any], shards: list[str], tokenizer: str, work: str, tell: Progress
) -> dict[str, Any]:
    """`train` in one of several processes, from plain JSON values."""
    return train(
        out=Path(out),
        config=PretrainConfig.model_validate(config),
        shards=[Path(part) for part in shards],
        tokenizer=Path(tokenizer),
        work=Path(work),
        tell=tell,
    )


def train(
    *, out: Path, config: PretrainConfig, shards: list[Path], tokenizer: Path, work: Path, tell: Progress
) -> dict[str, Any]:
    """What `pretrain` does, in this process and with those that torchrun's agent started; the first alone writes."""
    hardware = choose(config)
    encoding = load_encoding(tokenizer)
    windows = Windows(
        TokenShards.open(shards, "train", encoding.n_vocab),
        config.context,
        config.seed,
        within_documents=config.within_documents,
        boundary_labels=config.boundary_labels,
    )
    val = TokenShards.open(shards, "val", encoding.n_vocab)
    work.mkdir(parents=True, exist_ok=True)
    digest, end = data_digest(shards, tokenizer), end_of_text(encoding)
    with (
        stop_signals() as stopped,
        joined(hardware.device, config.processes) as processes,
        reproducible(processes.device),
    ):
        here = replace(hardware, device=processes.device)
        start = partial(Training.start, config, encoding.n_vocab, here, processes, windows, digest)
        # The training lives in the call alone. What holds the processes' connections must be gone before them: torch
        # can hang where DistributedDataParallel is what drops them, as it then waits for a thread that waits for it.
        try:
            return complete(start(), partial(held_out, val, end, config), out, work, stopped, tell)
        except TrainingError as error:
            raise error.with_traceback(None)  # noqa: B904  the same error, but for the frames that hold the training


def held_out(val: TokenShards, end: int, config: PretrainConfig, most: int = 0) -> tuple[Iterator[Batch], int]:
    """Batches that score the validation split, or `most` > 0 of its windows, and how many tokens that is."""
    context = config.context
    windows = scoring_windows(
        val.window,
        len(val),
        end,
        context=context,
        stride=context,
        batch_size=max(1, VAL_BATCH_TOKENS // context),
        most=most,
        starts=val.index()["start"].to_numpy() if config.within_documents else None,
    )
    return windows, min(len(val), most * context) if most else len(val)
