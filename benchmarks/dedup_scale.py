"""What deduplication costs at scale: seconds and peak memory for 1 and 4 million documents, and for two hard cases.

    python benchmarks/dedup_scale.py [--documents N] [--memory-mib M] [--rounds N] [--folder FOLDER] [--json]

Synthetic documents of about 1 kB, in the files that a store has, from a fixed seed: 70 % unlike all others but for
what pages of a host share, 10 % copies, 20 % copies with up to a quarter of their words changed; the sizes of clusters
follow a power law. Deduplicated in a process of its own, whose peak of resident memory counts the interpreter and
libraries, from files that were read before; the cases take turns, and each shows its fastest round. The hard cases: a
crowd of near-duplicates of one another, and documents that share a bucket and no more.
"""

import argparse
import json
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
from numba import njit

sys.path[0] = str(Path(__file__).parents[1])  # not this folder, whose pipeline.py would hide the package

from pipeline.deduplicate import DeduplicateConfig, deduplicate  # noqa: E402
from pipeline.documents import DOC_ID, DOCUMENTS, read_table, write_table  # noqa: E402
from pipeline.signatures import SignaturesConfig, signatures  # noqa: E402

PART_ROWS = 20_000
CROWD = 100_000
UNLIKE = 4_000
MAX_WORDS = 512
VOCABULARY = 1 << 16


def main() -> None:
    """Make the documents, deduplicate them, print."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--documents", type=int, default=4_000_000, help="and a quarter of them, to compare with")
    parser.add_argument("--memory-mib", type=int, default=DeduplicateConfig().memory_mib)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument(
        "--folder", type=Path, help="where the documents are made, and found again; temporary if not given"
    )
    parser.add_argument("--json", action="store_true", help="the figures as one JSON object on the last line")
    parser.add_argument("--measure", type=Path, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.measure:
        print(json.dumps(measured(options.measure, options.memory_mib)))
        return
    with tempfile.TemporaryDirectory() as temporary:
        print_page(figures := compare(options.folder or Path(temporary), options))
    if options.json:
        print(json.dumps(figures))


def compare(folder: Path, options: argparse.Namespace) -> dict[str, Any]:
    """Seconds and peaks of all cases."""
    documents = options.documents
    cases = {
        "warm-up": (1_000, "mixed"),  # compiles
        short(documents // 4): (documents // 4, "mixed"),
        short(documents): (documents, "mixed"),
        f"{short(CROWD // 2)} alike": (CROWD // 2, "alike"),
        f"{short(CROWD)} alike": (CROWD, "alike"),
        f"{short(UNLIKE // 2)} unlike": (UNLIKE // 2, "unlike"),
        f"{short(UNLIKE)} unlike": (UNLIKE, "unlike"),
    }
    fastest: dict[str, dict[str, Any]] = {}
    for number in range(options.rounds):
        for name, (count, kind) in cases.items():
            where = folder / f"{kind}-{count}"
            if not (where / "made").exists():
                print(f"making {name} …", flush=True)
                make(where, count, kind)
            command = [sys.executable, __file__, "--measure", str(where), "--memory-mib", str(options.memory_mib)]
            done = subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True)
            row = {"case": name, **json.loads(done.stdout.splitlines()[-1])}
            if number == 0 or row["seconds"] < fastest[name]["seconds"]:
                fastest[name] = row
    _, *rows = fastest.values()
    quarter, whole, half_crowd, crowd, half_unlike, unlike = rows
    return {
        "memory_mib": options.memory_mib,
        "peak_mib": max(quarter["peak_mib"], whole["peak_mib"]),
        f"seconds_{quarter['case']}": quarter["seconds"],
        f"seconds_{whole['case']}": whole["seconds"],
        "growth": whole["seconds"] / (4 * quarter["seconds"]),
        "alike_growth": crowd["seconds"] / (2 * half_crowd["seconds"]),
        "unlike_ns": 1e9
        * (unlike["seconds"] - half_unlike["seconds"])
        / (unlike["comparisons"] - half_unlike["comparisons"]),
        "cases": rows,
    }


def short(count: int) -> str:
    """1m for a million, 100k for a hundred thousand."""
    for unit, name in ((1_000_000, "m"), (1_000, "k")):
        if count >= unit and count % unit == 0:
            return f"{count // unit}{name}"
    return str(count)


def measured(folder: Path, memory_mib: int) -> dict[str, Any]:
    """Deduplicate the documents in a folder, in this process, and say what it took."""
    parts = sorted(folder.glob("documents/part-*"))
    for path in folder.glob("documents/part-*/*"):
        path.read_bytes()
    with tempfile.TemporaryDirectory() as out:
        start, cpu = time.perf_counter(), time.process_time()
        stats = deduplicate(
            out=Path(out),
            config=DeduplicateConfig(memory_mib=memory_mib),
            documents=parts,
            signatures=parts,
            select=parts,
            snapshots=[folder / "snapshots/synthetic/0000"],
        )
        seconds, cpu = time.perf_counter() - start, time.process_time() - cpu
    # Of this process alone: what getrusage calls the peak starts with that of the process that started this one.
    peak = next(line for line in Path("/proc/self/status").read_text().splitlines() if line.startswith("VmHWM"))
    names = ("selected", "kept", "comparisons", "largest_bucket", "most_kept_in_a_bucket")
    return {
        "seconds": seconds,
        "cpu_s": cpu,
        "peak_mib": int(peak.split()[1]) / 1024,
        **{name: stats[name] for name in names},
    }


def make(folder: Path, count: int, kind: str) -> None:
    """Write parts of `count` documents of a kind with their ledgers, as a store has them."""
    rng = np.random.default_rng(1)
    lengths = rng.integers(2, 10, VOCABULARY)
    letters = rng.integers(97, 123, (VOCABULARY, 10), dtype=np.uint8)
    for first in range(0, count, PART_ROWS):
        rows = min(PART_ROWS, count - first)
        part = folder / f"documents/part-{first // PART_ROWS:05d}"
        part.mkdir(parents=True)
        (folder / f"snapshots/synthetic/0000/{part.name}").mkdir(parents=True)
        data, offsets = np.empty(rows * MAX_WORDS * 10, np.uint8), np.zeros(rows + 1, np.int32)
        write_texts(first, count, kind == "alike", kind == "unlike", letters, lengths, data, offsets)
        texts = pa.StringArray.from_buffers(rows, pa.py_buffer(offsets), pa.py_buffer(data[: offsets[-1]]))
        numbers = range(first, first + rows)
        ids = pa.array([number.to_bytes(16, "big") for number in numbers], DOC_ID)
        urls = [f"https://www.host{number // 500:06d}.example/articles/{number:09d}.html" for number in numbers]
        columns = {name: pa.nulls(rows, pa.string()) for name in DOCUMENTS.names}
        columns |= {"doc_id": ids, "url": pa.array(urls), "source": pa.array(["synthetic"] * rows), "text": texts}
        write_table(pa.table(columns, DOCUMENTS), part / "documents.arrow")
        signatures(out=part, config=SignaturesConfig(), documents=part)
        if kind == "unlike":
            share_a_band(part / "signatures.arrow")
        write_table(pa.table({"doc_id": ids, "keep": pa.array([True] * rows)}), part / "select.arrow")
    (folder / "made").touch()


def share_a_band(path: Path) -> None:
    """Put all documents of a part into one bucket, whatever they are like."""
    table = read_table(path)
    values = table["signature"].combine_chunks().flatten().to_numpy().reshape(len(table), -1).copy()
    values[:, : DeduplicateConfig().rows] = 0
    column = pa.FixedSizeListArray.from_arrays(pa.array(values.reshape(-1)), values.shape[1])
    table = table.set_column(table.schema.get_field_index("signature"), "signature", column)
    path.unlink()
    write_table(table, path)


@njit(cache=True)
def mixed(value):  # type: ignore[no-untyped-def]
    """SplitMix64's finaliser: numbers in, as good as random numbers out."""
    value = np.uint64(value) * np.uint64(0x9E3779B97F4A7C15)
    value = (value ^ (value >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    value = (value ^ (value >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return value ^ (value >> np.uint64(31))


@njit(cache=True)
def share(value):  # type: ignore[no-untyped-def]
    """A number in [0, 1) of a random one."""
    return np.float64(value >> np.uint64(11)) / 2.0**53


@njit(cache=True)
def write_texts(first, count, alike, unlike, letters, lengths, data, offsets):  # type: ignore[no-untyped-def]
    """Write the texts of documents `first` and following of `count`."""
    at = 0
    for row in range(len(offsets) - 1):
        number = first + row
        chance = share(mixed(4 * number))
        base, change = number, 0.0
        if alike:
            base = 0
        elif chance < 0.3 and not unlike:
            base = np.int64(count * share(mixed(4 * number + 1)) ** 3)
            change = 0.0 if chance < 0.1 else 0.25 * share(mixed(4 * number + 2)) ** 2
        words = 290 if alike else 40 + np.int64(250 * share(mixed(1_000_000_007 + base)))
        for word in range(words):
            seed = (np.uint64(base) << np.uint64(10)) + np.uint64(word)
            if word < 15 and not unlike:
                seed = (np.uint64(base // 500) << np.uint64(10)) + np.uint64(
                    word + MAX_WORDS
                )  # what a host's pages share
            changed = (
                change > 0 and share(mixed(np.uint64(number) * np.uint64(MAX_WORDS) + np.uint64(word + 7))) < change
            )
            if changed or (alike and word == number % words):
                seed = (np.uint64(number) << np.uint64(10)) + np.uint64(word) + (np.uint64(1) << np.uint64(50))
            chosen = np.int64(VOCABULARY * share(mixed(seed)) ** 2)
            for i in range(lengths[chosen]):
                data[at] = letters[chosen, i]
                at += 1
            data[at] = 0x20
            at += 1
        offsets[row + 1] = at


def print_page(figures: dict[str, Any]) -> None:
    """The figures for people, on one page."""
    heads = ("seconds", "cpu s", "peak MiB", "kept", "comparisons", "largest bucket")
    print(f"\n{'documents':<14}" + "".join(f"{head:>15}" for head in heads))
    for row in figures["cases"]:
        print(
            f"{row['case']:<14}{row['seconds']:>15.2f}{row['cpu_s']:>15.2f}{row['peak_mib']:>15,.0f}{row['kept']:>15,}"
            f"{row['comparisons']:>15,}{row['largest_bucket']:>15,}"
        )
    print(
        f"\n4 times the documents take 4 x {figures['growth']:.2f} the time, a crowd twice as large "
        f"2 x {figures['alike_growth']:.2f};\na bucket of unlike documents costs {figures['unlike_ns']:.0f} ns "
        "for each two of them"
    )


if __name__ == "__main__":
    main()
