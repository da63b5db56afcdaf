"""Pretraining: the stage that turns token shards into a checkpoint, in one process or in those of torchrun."""

from collections.abc import Iterator
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

from model.config import PretrainConfig, TrainingError
from model.training import checkpoint
from model.training.data import Batch, Windows, data_digest, scoring_windows
from model.training.distributed import joined
from model.training.hardware import choose, reproducible
from model.training.launch import launch
from model.training.metrics import stop_signals
from model.training.run import Progress, complete, silent
from model.training.step import Training, changes
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
    start: Path | None = None,
    progress: Progress = silent,
) -> dict[str, Any]:
    """Train a GPT on the shards' training split and write its checkpoint and `report/metrics.jsonl` into `out`.

    `work` holds checkpoints and metrics on the way; a run that finds some there goes on from the newest. `start` is a
    checkpoint whose weights the training begins with, with a schedule and optimizers of its own. Raises
    `TrainingError` where there is too little data, where the loss stays non-finite, where `start` has another shape,
    or on SIGTERM and SIGINT, which save a checkpoint first.
    """
    if config.processes == 1:
        return train(out=out, config=config, shards=shards, tokenizer=tokenizer, work=work, tell=progress, start=start)
    arguments = {
        "out": str(out),
        "config": config.model_dump(mode="json"),
        "shards": [str(part) for part in shards],
        "tokenizer": str(tokenizer),
        "work": str(work),
        "start": None if start is None else str(start),
    }
    stats: dict[str, Any] = launch(config.processes, "model.pretrain:train_in_process", arguments, progress)
    return stats


def train_in_process(
    *,
    out: str,
    config: dict[str, Any],
    shards: list[str],
    tokenizer: str,
    work: str,
    start: str | None,
    tell: Progress,
) -> dict[str, Any]:
    """`train` in one of several processes, from plain JSON values."""
    return train(
        out=Path(out),
        config=PretrainConfig.model_validate(config),
        shards=[Path(part) for part in shards],
        tokenizer=Path(tokenizer),
        work=Path(work),
        tell=tell,
        start=None if start is None else Path(start),
    )


def train(
    *,
    out: Path,
    config: PretrainConfig,
    shards: list[Path],
    tokenizer: Path,
    work: Path,
    tell: Progress,
    start: Path | None = None,
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
    weights = None
    if start is not None:
        digest = f"{digest} from {checkpoint.verify(start).sha256[checkpoint.WEIGHTS]}"
        refuse_other_shape(start, config)
        weights = checkpoint.load_tensors(start)[0]
    with (
        stop_signals() as stopped,
        joined(hardware.device, config.processes) as processes,
        reproducible(processes.device),
    ):
        here = replace(hardware, device=processes.device)
        begin = partial(Training.start, config, encoding.n_vocab, here, processes, windows, digest, weights)
        # The training lives in the call alone. What holds the processes' connections must be gone before them: torch
        # can hang where DistributedDataParallel is what drops them, as it then waits for a thread that waits for it.
        try:
            return complete(begin(), partial(held_out, val, end, config), out, work, stopped, tell)
        except TrainingError as error:
            raise error.with_traceback(None)  # noqa: B904  the same error, but for the frames that hold the training


def refuse_other_shape(start: Path, config: PretrainConfig) -> None:
    """Raise `TrainingError` where the model of an intact checkpoint is not of the shape that `config` asks for.

    Dropout is no part of a shape: it has no weights, and a model that is used has none.
    """
    theirs = checkpoint.read_settings(start)["model"]
    mine = {**config.gpt(theirs["vocab_size"]).identity(), "dropout": theirs["dropout"]}
    differences = changes(theirs, mine)
    if differences:
        raise TrainingError(
            f"Training cannot go on from {start}, whose model has another shape ({differences}): give [pretrain] its "
            "shape, or start from nothing with --start scratch."
        )


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
