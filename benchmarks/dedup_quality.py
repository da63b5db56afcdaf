"""Recall and precision of near-duplicate detection along the similarity curve, ours and with datatrove's bands.

    python benchmarks/dedup_quality.py [FOLDER] [--seeds N] [--json]

FOLDER (../shared/data/dedup) has Bible versions (`bible_*.jsonl`, chapters of which are alike to every degree) and
articles with planted pairs (`*.train`, `*.truth`). Every two versions are a corpus, and every file of articles is.
Truth is the exact Jaccard similarity of 5-word shingles, in plain Python. Ours: the stages `signatures` and
`deduplicate` with the defaults that we ship; a pair is found if one is removed for the other. datatrove: its 14 bands
of 8 rows over signatures made by its formula, whose clusters are whatever candidates link, unverified; a pair is found
if both are in one cluster. Figures are means over seeds of the permutations, as luck has a part in so few pairs.
Recall at 80 is the share found of the pairs at least 0.8 alike, precision at 80 the share of those found that are.
"""

import argparse
import json
import re
import sys
import tempfile
from collections import defaultdict
from collections.abc import Iterator
from itertools import combinations, pairwise
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pyarrow as pa

sys.path[0] = str(Path(__file__).parents[1])  # not this folder, whose pipeline.py would hide the package

from pipeline.deduplicate import DeduplicateConfig, deduplicate  # noqa: E402
from pipeline.documents import DOCUMENTS, read_table, write_table  # noqa: E402
from pipeline.shingles import ngram_hashes  # noqa: E402
from pipeline.signatures import SignaturesConfig, signatures  # noqa: E402

SHARED = Path(__file__).parents[1] / ".." / "shared" / "data" / "dedup"
EDGES = (0.3, 0.4, 0.5, 0.6, 0.7, 0.75, 0.8, 0.85, 0.9, 0.95, 1.0)
POINTS = (0.5, 0.6, 0.7, 0.8, 0.9)
BANDS, ROWS = 14, 8  # datatrove's defaults (MinhashConfig)
MERSENNE = np.uint64((1 << 61) - 1)

Pair = tuple[int, int]


class Corpus(NamedTuple):
    """Texts, the similarity of each pair that is somewhat alike, and the planted pairs, if it has any."""

    name: str
    texts: list[str]
    jaccard: dict[Pair, float]
    planted: set[Pair]


def main() -> None:
    """Read the corpora, find pairs in both ways, compare with the truth, print."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("folder", nargs="?", type=Path, default=SHARED)
    parser.add_argument("--seeds", type=int, default=5)
    parser.add_argument("--json", action="store_true", help="the figures as one JSON object on the last line")
    options = parser.parse_args()
    corpora = [*bibles(options.folder), *articles(options.folder)]
    if not corpora:
        print(f"There are no Bible versions or articles with planted pairs in {options.folder}.", file=sys.stderr)
        sys.exit(2)
    seeds = range(1, options.seeds + 1)
    found = {
        "ours": [[ours(corpus, seed) for seed in seeds] for corpus in corpora],
        "datatrove": [[datatrove(corpus, seed) for seed in seeds] for corpus in corpora],
    }
    figures = {**measure(corpora, found["ours"]), **measure(corpora, found["datatrove"], "datatrove_")}
    print_page(corpora, figures)
    if options.json:
        print(json.dumps(figures))


def bibles(folder: Path) -> Iterator[Corpus]:
    """Every two versions of the Bible."""
    versions = [
        [json.loads(line)["text"] for line in path.read_text().splitlines()]
        for path in sorted(folder.glob("bible_*.jsonl"))
    ]
    names = [path.name.split("_")[1] for path in sorted(folder.glob("bible_*.jsonl"))]
    for (one, left), (other, right) in combinations(zip(names, versions, strict=True), 2):
        yield Corpus(f"{one} and {other}", left + right, similarities(left + right), set())


def articles(folder: Path) -> Iterator[Corpus]:
    """Every file of articles."""
    for path in sorted(folder.glob("*.train")):
        rows = [line.split(" ", 1) for line in path.read_text(errors="replace").splitlines() if " " in line]
        numbers = {name: number for number, (name, _) in enumerate(rows)}
        pairs = [line.split() for line in path.with_suffix(".truth").read_text().splitlines() if line.strip()]
        planted = {tuple(sorted((numbers[a], numbers[b]))) for a, b in pairs}
        texts = [text for _, text in rows]
        yield Corpus(path.stem, texts, similarities(texts), planted)


def similarities(texts: list[str]) -> dict[Pair, float]:
    """The exact Jaccard similarity of all pairs with a shingle of 5 words in common."""
    sets = [set(ngram_hashes(text, 5)) for text in texts]
    holders = defaultdict(list)
    for number, shingles in enumerate(sets):
        for shingle in shingles:
            holders[shingle].append(number)
    both: dict[Pair, int] = defaultdict(int)
    for numbers in holders.values():
        for pair in combinations(numbers, 2):
            both[pair] += 1
    return {(a, b): count / (len(sets[a]) + len(sets[b]) - count) for (a, b), count in both.items()}


def ours(corpus: Corpus, seed: int) -> set[Pair]:
    """Pairs of which one document is removed for the other by the stages as they ship."""
    with tempfile.TemporaryDirectory() as folder:
        part = Path(folder)
        count = len(corpus.texts)
        columns: dict[str, Any] = {name: [None] * count for name in DOCUMENTS.names}
        columns |= {"doc_id": [number.to_bytes(16, "big") for number in range(count)], "text": corpus.texts}
        columns["url"] = [f"https://www.example/{number:09}" for number in range(count)]
        write_table(pa.table(columns, DOCUMENTS), part / "documents.arrow")
        write_table(pa.table({"keep": [True] * count}), part / "select.arrow")
        signatures(out=part, config=SignaturesConfig(seed=seed), documents=part)
        snapshot = part / "snapshots" / "source" / "0000"
        (snapshot / "part-00000").mkdir(parents=True)
        parts = [part]
        deduplicate(
            out=part, config=DeduplicateConfig(), documents=parts, signatures=parts, select=parts, snapshots=[snapshot]
        )
        originals = read_table(part / "part-00000" / "deduplicate.arrow")["duplicate_of"].to_pylist()
    return {(int.from_bytes(original, "big"), number) for number, original in enumerate(originals) if original}


def datatrove(corpus: Corpus, seed: int) -> set[Pair]:
    """Pairs in one cluster, as datatrove's four MinHash steps make them: min of (a·h + b) mod 2^61-1, in 64 bits."""
    generator = np.random.RandomState(seed)
    a = generator.randint(1, int(MERSENNE), BANDS * ROWS, dtype=np.uint64)
    b = generator.randint(0, int(MERSENNE), BANDS * ROWS, dtype=np.uint64)
    cluster = list(range(len(corpus.texts)))

    def head(number: int) -> int:
        while cluster[number] != number:
            number = cluster[number]
        return number

    first: dict[tuple[int, bytes], int] = {}
    for number, text in enumerate(corpus.texts):
        shingles = np.array(ngram_hashes(re.sub(r"\d+", "0", text), 5), np.uint64)  # it writes 0 for every number
        if not len(shingles):
            continue
        signature = ((shingles[:, None] * a + b) % MERSENNE).min(axis=0).reshape(BANDS, ROWS)
        for band, values in enumerate(signature):
            other = head(first.setdefault((band, values.tobytes()), number))
            own = head(number)
            cluster[max(own, other)] = min(own, other)
    groups = defaultdict(list)
    for number in range(len(cluster)):
        groups[head(number)].append(number)
    return {pair for group in groups.values() for pair in combinations(group, 2)}


def measure(corpora: list[Corpus], found: list[list[set[Pair]]], prefix: str = "") -> dict[str, Any]:
    """Recall and precision at the points of the curve, the share found between its edges, and of the planted pairs."""
    similar, hits = [], []  # of each pair and seed, whether it was found
    planted, planted_found, extra = 0, 0, 0
    for corpus, by_seed in zip(corpora, found, strict=True):
        for pairs in by_seed:
            if corpus.planted:
                planted += len(corpus.planted)
                planted_found += len(pairs & corpus.planted)
                extra += sum(corpus.jaccard.get(pair, 0.0) < DeduplicateConfig().threshold for pair in pairs)
                continue
            for pair in corpus.jaccard.keys() | pairs:
                similar.append(corpus.jaccard.get(pair, 0.0))
                hits.append(pair in pairs)
    jaccard, hit = np.array(similar), np.array(hits, np.bool_)
    figures: dict[str, Any] = {}
    for point in POINTS:
        alike = jaccard >= point
        name = f"{round(100 * point)}"
        figures[f"{prefix}recall_at_{name}"] = share(hit[alike])
        figures[f"{prefix}precision_at_{name}"] = share(alike[hit])
    edges = pairwise(EDGES)
    figures[f"{prefix}curve"] = [
        {"from": low, "pairs": int(inside.sum()) // max(len(found[0]), 1), "found": share(hit[inside])}
        for low, high in edges
        for inside in [(jaccard >= low) & ((jaccard < high) | (high == 1.0))]
    ]
    if planted:
        figures[f"{prefix}planted_recall"] = planted_found / planted
        figures[f"{prefix}planted_precision"] = planted_found / max(planted_found + extra, 1)
    return figures


def share(values: Any) -> float | None:
    """The share of true ones, if there are any at all."""
    return float(np.mean(values)) if len(values) else None


def print_page(corpora: list[Corpus], figures: dict[str, Any]) -> None:
    """The figures for people, on one page."""

    def shown(value: float | None) -> str:
        return f"{'–' if value is None else f'{value:.3f}':>11}"

    print(f"\n{len(corpora)} corpora: {', '.join(corpus.name for corpus in corpora)}\n")
    print(f"{'similarity':<14}{'pairs':>7}{'found: ours':>13}{'datatrove':>11}")
    for row, theirs in zip(figures["curve"], figures["datatrove_curve"], strict=True):
        print(f"{'from':<6}{row['from']:<8.2f}{row['pairs']:>7}  {shown(row['found'])}{shown(theirs['found'])}")
    print(f"\n{'':<14}{'recall':>11}{'datatrove':>11}{'precision':>13}{'datatrove':>11}")
    for point in POINTS:
        name = f"{round(100 * point)}"
        recall, precision = f"recall_at_{name}", f"precision_at_{name}"
        print(
            f"{'at ' + name:<14}{shown(figures[recall])}{shown(figures['datatrove_' + recall])}"
            f"  {shown(figures[precision])}{shown(figures['datatrove_' + precision])}"
        )
    if "planted_recall" in figures:
        print(
            f"{'planted':<14}{shown(figures['planted_recall'])}{shown(figures['datatrove_planted_recall'])}"
            f"  {shown(figures['planted_precision'])}{shown(figures['datatrove_planted_precision'])}"
        )


if __name__ == "__main__":
    main()
