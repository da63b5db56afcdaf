"""A packed corpus in the files that nanoGPT and llm.c train on: all shards one after another, ids of two bytes.

    nanoGPT   train.bin and val.bin, nothing but ids (its data/openwebtext/prepare.py)
    llm.c     train_000000.bin, ... and val_000000.bin, ..., a header of 256 int32 before the ids of each:
              20240520, version 1, number of ids, zeros (its dev/data/data_common.py)

nanoGPT reads how many ids there are from a pickle beside the files (meta.pkl), and takes 50,304 where there is none.
Pickles can run any code, so none is written here.
"""

from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from pipeline.config import BadInput
from pipeline.shards import SPLITS, Split, dtype_for, ids_path, read_ids

IDS = np.dtype("<u2")
"""The one item type that both read."""

NANOGPT_VOCABULARY = 50_304
"""Ids of the model that nanoGPT's train.py builds where no meta.pkl stands beside the data."""

LLMC_VOCABULARY = 50_257
"""Ids of the models that llm.c's train_gpt2 builds from a descriptor such as d12."""

LLMC_MAGIC, LLMC_VERSION, LLMC_HEADER = 20_240_520, 1, 256

LLMC_FILE_IDS = 10**8
"""Most ids in a file, as many as llm.c's own corpora have (dev/data/fineweb.py). It needs a batch from each file, so
files are of equal size rather than full but for the last."""

COPIED_AT_ONCE = 2**24
"""Ids in memory while copying."""


def nanogpt(parts: list[Path], vocab_size: int, out: Path) -> dict[Split, int]:
    """Write the shards in these folders as `train.bin` and `val.bin`; tells the number of ids of each.

    Raises `BadInput` where ids have four bytes, or where a split is empty.
    """
    written: dict[Split, int] = {}
    for split, arrays in _splits(parts, vocab_size, "nanoGPT").items():
        with (out / f"{split}.bin").open("wb") as file:
            for array in arrays:
                _copy(array, file)
        written[split] = sum(map(len, arrays))
    return written


def llmc(parts: list[Path], vocab_size: int, out: Path, file_ids: int = LLMC_FILE_IDS) -> dict[Split, int]:
    """Write the shards in these folders as llm.c's files of at most `file_ids` ids; tells the ids of each split.

    Raises `BadInput` where ids have four bytes, or where a split is empty.
    """
    written: dict[Split, int] = {}
    for split, arrays in _splits(parts, vocab_size, "llm.c").items():
        total = sum(map(len, arrays))
        n_files = -(-total // file_ids)
        borders = [total * number // n_files for number in range(n_files + 1)]
        for number in range(n_files):
            start, end = borders[number], borders[number + 1]
            header = np.zeros(LLMC_HEADER, "<i4")
            header[:3] = LLMC_MAGIC, LLMC_VERSION, end - start
            with (out / f"{split}_{number:06d}.bin").open("wb") as file:
                file.write(header.tobytes())
                for array in _between(arrays, start, end):
                    _copy(array, file)
        written[split] = total
    return written


def _splits(parts: list[Path], vocab_size: int, reader: str) -> dict[Split, list[npt.NDArray[Any]]]:
    """The ids of each split, a mapped array a shard."""
    dtype = dtype_for(vocab_size)
    if dtype != IDS:
        raise BadInput(
            f"{reader} reads ids of two bytes, and a vocabulary of {vocab_size:,} needs four: "
            "choose tokenizer.vocab_size up to 65,536."
        )
    splits = {split: [read_ids(ids_path(part, split), dtype) for part in parts] for split in SPLITS}
    for split, arrays in splits.items():
        if not sum(map(len, arrays)):
            raise BadInput(f"The {split} split is empty, and {reader} needs both: change pack.val_fraction.")
    return splits


def _between(arrays: list[npt.NDArray[Any]], start: int, end: int) -> list[npt.NDArray[Any]]:
    """Ids `start` to `end` of the arrays laid end to end, without a copy."""
    pieces, place = [], 0
    for array in arrays:
        pieces.append(array[max(0, start - place) : max(0, end - place)])
        place += len(array)
    return pieces


def _copy(array: npt.NDArray[Any], file: Any) -> None:
    for start in range(0, len(array), COPIED_AT_ONCE):
        file.write(array[start : start + COPIED_AT_ONCE].tobytes())
