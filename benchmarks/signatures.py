"""From text to MinHash signatures, side by side with datasketch and rensa: 5-word shingles, 128 permutations, one core.

    python benchmarks/signatures.py [FILE_OR_FOLDER …] [--rounds N] [--json]

Each of the three gets the same list of strings, cut into documents of about 5,000 characters, in turn, round by round;
a figure is the median of the rounds, by processor time. datasketch: `MinHash.bulk` with its default scheme `affine32`
and CRC-32, which costs less than its SHA-1. rensa: `RMinHash.digest_matrix_from_token_sets`, its full-set MinHash, not
the pipeline that samples tokens. All three sign the same shingles: runs of the words between punctuation, in lower
case. Theirs are made with a regular expression; `str.split`, which leaves punctuation in, makes them a fifth to a third
faster. Without paths: the texts of ../shared/data.
"""

import argparse
import gzip
import json
import os
import re
import statistics
import sys
import tempfile
import time
import zipfile
import zlib
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

os.environ["RAYON_NUM_THREADS"] = "1"
sys.path[0] = str(Path(__file__).parents[1])  # not this folder, whose pipeline.py would hide the package

import pyarrow as pa  # noqa: E402
from datasketch import MinHash  # noqa: E402

from pipeline.documents import DOCUMENTS, write_table  # noqa: E402
from pipeline.shingle_kernels import sign, text_batches  # noqa: E402
from pipeline.shingles import permutations  # noqa: E402
from pipeline.signatures import SignaturesConfig, signatures  # noqa: E402

SHARED = Path(__file__).parents[1] / ".." / "shared" / "data"
PATHS = ("dedup", "text")
PERMUTATIONS, WORDS = 128, 5
DOCUMENT_CHARACTERS = 5_000
WORD = re.compile(r"\w+")


def main() -> None:
    """Read the texts, measure, print."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("paths", nargs="*", type=Path, metavar="FILE_OR_FOLDER")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--json", action="store_true", help="the figures as one JSON object on the last line")
    options = parser.parse_args()
    try:
        import rensa
    except ImportError:
        fail("rensa is not installed: pip install 'gptmill[bench]'.")
    files = list(found(options.paths or [SHARED / name for name in PATHS]))
    texts = [text for path in files for text in documents(path)]
    if not texts:
        fail("There is no text in the files given.")
    figures = measure(texts, rensa, options.rounds)
    print(
        f"\n{len(texts):,} documents, {figures['mb']:.1f} MB of text\n\n{'':<12}{'MB/s of a core':>15}{'ours is':>10}\n"
        f"{'ours':<12}{figures['mb_s_core']:>15.1f}\n"
        f"{'datasketch':<12}{figures['datasketch_mb_s']:>15.1f}{figures['x_datasketch']:>9.1f}x\n"
        f"{'rensa':<12}{figures['rensa_mb_s']:>15.1f}{figures['x_rensa']:>9.1f}x\n\n"
        f"The whole stage, from documents.arrow to signatures.arrow: {figures['stage_mb_s_core']:.1f} MB/s of a core"
    )
    if options.json:
        print(json.dumps(figures))


def fail(sentence: str) -> None:
    """Say what is missing, and end."""
    print(sentence, file=sys.stderr)
    sys.exit(2)


def found(paths: list[Path]) -> Iterator[Path]:
    """The files among `paths` and in folders among them."""
    for path in paths:
        if not path.exists():
            fail(f"There is no {path}: name a file or folder with texts.")
        yield from sorted(p for p in path.rglob("*") if p.is_file()) if path.is_dir() else [path]


def documents(path: Path) -> Iterator[str]:
    """The documents of a file: the texts of JSON lines, or pieces of plain text, which may be compressed."""
    if path.suffix == ".zip":
        with zipfile.ZipFile(path) as archive:
            contents = [archive.read(name) for name in archive.namelist() if not name.endswith("/")]
    else:
        contents = [gzip.decompress(path.read_bytes()) if path.suffix == ".gz" else path.read_bytes()]
    for content in contents:
        text = content.decode("utf-8", "replace")
        whole = [json.loads(line)["text"] for line in text.splitlines()] if path.suffix == ".jsonl" else [text]
        for each in whole:
            yield from (each[i : i + DOCUMENT_CHARACTERS] for i in range(0, len(each), DOCUMENT_CHARACTERS))


def shingles(text: str) -> list[str]:
    """Runs of words as strings, as one makes them for a library that takes tokens."""
    words = WORD.findall(text.lower())
    return [" ".join(words[i : i + WORDS]) for i in range(max(len(words) - WORDS + 1, 1))]


def measure(texts: list[str], rensa: Any, rounds: int) -> dict[str, float]:
    """MB/s of each, and how many times theirs ours is, as medians over the rounds."""
    a, b = permutations(PERMUTATIONS, 1)

    def ours() -> None:
        for batch in text_batches(pa.chunked_array([pa.array(texts, pa.large_string())])):
            sign(batch, WORDS, a, b)

    def datasketch() -> None:
        MinHash.bulk(([s.encode() for s in shingles(t)] for t in texts), num_perm=PERMUTATIONS, hashfunc=zlib.crc32)

    def full_rensa() -> None:
        rensa.RMinHash.digest_matrix_from_token_sets([shingles(t) for t in texts], num_perm=PERMUTATIONS, seed=42)

    megabytes = sum(len(text.encode()) for text in texts) / 1e6
    with tempfile.TemporaryDirectory() as folder:
        stage = whole_stage(Path(folder), texts)
        for each in (ours, stage):
            each()  # compiles
        seconds = [[spent(each) for each in (ours, datasketch, full_rensa, stage)] for _ in range(rounds)]
    median = [statistics.median(column) for column in zip(*seconds, strict=True)]
    return {
        "mb": megabytes,
        "mb_s_core": megabytes / median[0],
        "x_datasketch": statistics.median(row[1] / row[0] for row in seconds),
        "x_rensa": statistics.median(row[2] / row[0] for row in seconds),
        "datasketch_mb_s": megabytes / median[1],
        "rensa_mb_s": megabytes / median[2],
        "stage_mb_s_core": megabytes / median[3],
    }


def whole_stage(folder: Path, texts: list[str]) -> Callable[[], None]:
    """The stage on a part with these texts."""
    columns: dict[str, Any] = {name: [None] * len(texts) for name in DOCUMENTS.names}
    columns |= {"doc_id": [i.to_bytes(16, "big") for i in range(len(texts))], "text": texts}
    write_table(pa.table(columns, DOCUMENTS), folder / "documents.arrow")
    return lambda: signatures(out=folder, config=SignaturesConfig(), documents=folder) and None


def spent(work: Callable[[], None]) -> float:
    """Seconds of processor time."""
    start = time.process_time()
    work()
    return time.process_time() - start


if __name__ == "__main__":
    main()
