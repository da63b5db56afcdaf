"""A tiny corpus as `pack` would leave it, a byte tokenizer, and the smallest models of both shapes."""

import base64
import json
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest
import torch

from model.config import GPTConfig, PretrainConfig
from model.gpt import GPT
from model.presets import GPT2, MODERN
from pipeline.documents import write_table
from pipeline.shards import INDEX, dtype_for

END = 256
VOCAB = 257
WORDS = ["the", "mill", "turns", "a", "river", "of", "words", "into", "flour", "and", "bread"]


@pytest.fixture(autouse=True)
def _one_thread():
    """Bits depend on the number of threads, and tests share the machine."""
    torch.set_num_threads(1)


@pytest.fixture(scope="session")
def tokenizer(tmp_path_factory) -> Path:
    """A tokenizer whose first 256 ids are the bytes."""
    folder = tmp_path_factory.mktemp("tokenizer")
    lines = [b"%s %d\n" % (base64.b64encode(bytes([byte])), byte) for byte in range(256)]
    (folder / "ranks.tiktoken").write_bytes(b"".join(lines))
    facts = {"name": "bytes", "pattern": r"\w+|\W+", "special_tokens": {"<|endoftext|>": END}, "vocab_size": VOCAB}
    (folder / "tokenizer.json").write_text(json.dumps(facts))
    return folder


def text(seed: int) -> str:
    """A few sentences that a tiny model can learn something of."""
    return " ".join(np.random.default_rng(seed).choice(WORDS, size=60)) + " é.\n"


def write_split(folder: Path, split: str, texts: list[str]) -> None:
    ids, starts, lengths = [], [], []
    for document in texts:
        tokens = [*document.encode(), END]
        starts.append(len(ids))
        lengths.append(len(tokens))
        ids += tokens
    np.array(ids, dtype=dtype_for(VOCAB)).tofile(folder / f"{split}.bin")
    names = [f"{split}{row:015}"[:16].encode() for row in range(len(texts))]
    columns = [names, [f"http://x/{row}" for row in range(len(texts))], starts, lengths]
    table = pa.table([pa.array(column, field.type) for column, field in zip(columns, INDEX, strict=True)], schema=INDEX)
    write_table(table, folder / f"{split}.arrow")


@pytest.fixture(scope="session")
def shards(tmp_path_factory) -> list[Path]:
    """Two part folders, the second of them without validation documents."""
    root = tmp_path_factory.mktemp("pack")
    parts = [root / "part-00000", root / "part-00001"]
    for number, part in enumerate(parts):
        part.mkdir()
        write_split(part, "train", [text(10 * number + row) for row in range(6)])
        write_split(part, "val", [text(100 + row) for row in range(0 if number else 3)])
    return parts


@pytest.fixture
def config() -> PretrainConfig:
    """A training of 24 steps that takes about a second."""
    return PretrainConfig(
        layers=2, heads=2, width=32, context=32, steps=24, warmup=4 / 24, batch_tokens=4 * 32, val_every=8,
        val_windows=4, checkpoint_every=5, compile="no", threads=1, device="cpu",
    )  # fmt: skip


@pytest.fixture(params=[MODERN, GPT2], ids=["modern", "gpt2"])
def shape(request) -> GPTConfig:
    return GPTConfig(layers=2, heads=2, width=32, context=16, vocab_size=VOCAB, **request.param)


@pytest.fixture
def model(shape) -> GPT:
    torch.manual_seed(0)
    return GPT(shape)
