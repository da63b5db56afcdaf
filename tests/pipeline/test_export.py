"""A corpus for nanoGPT and llm.c: the same ids, in files that they can read, or a sentence."""

import numpy as np
import pytest

from pipeline.config import BadInput
from pipeline.export import LLMC_HEADER, llmc, nanogpt
from pipeline.shards import dtype_for, ids_path


def shards(root, sizes, vocab_size=1_000):
    """One folder a shard, with so many ids in train and in val; and the ids of train, end to end."""
    ids = np.random.default_rng(0).integers(1_000, size=sum(train for train, _ in sizes))
    parts, place = [], 0
    for number, (train, val) in enumerate(sizes):
        part = root / f"part-{number:05d}"
        part.mkdir(parents=True)
        ids[place : place + train].astype(dtype_for(vocab_size)).tofile(ids_path(part, "train"))
        np.ones(val, dtype_for(vocab_size)).tofile(ids_path(part, "val"))
        parts.append(part)
        place += train
    return parts, ids


def test_a_large_corpus_is_cut_into_files_of_equal_size_for_llmc(tmp_path):
    parts, ids = shards(tmp_path, [(500, 3), (0, 4), (533, 1)])
    assert llmc(parts, 1_000, tmp_path, file_ids=100) == {"train": 1_033, "val": 8}
    files = sorted(tmp_path.glob("train_*.bin"))
    counts = [int(np.fromfile(file, "<i4", count=3)[2]) for file in files]
    assert len(files) == 11
    assert set(counts) == {93, 94}
    written = [np.fromfile(file, "<u2", offset=4 * LLMC_HEADER) for file in files]
    assert [len(each) for each in written] == counts
    assert (np.concatenate(written) == ids).all()


@pytest.mark.parametrize("export", [nanogpt, llmc])
def test_ids_of_four_bytes_are_refused(tmp_path, export):
    parts, _ = shards(tmp_path, [(10, 10)], vocab_size=70_000)
    with pytest.raises(BadInput, match="ids of two bytes, and a vocabulary of 70,000 needs four"):
        export(parts, 70_000, tmp_path)


@pytest.mark.parametrize("export", [nanogpt, llmc])
def test_an_empty_split_is_refused(tmp_path, export):
    parts, _ = shards(tmp_path, [(10, 0), (5, 0)])
    with pytest.raises(BadInput, match="The val split is empty"):
        export(parts, 1_000, tmp_path)
