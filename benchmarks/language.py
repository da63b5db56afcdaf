"""Language identification beside plain fasttext-langdetect with the same model: accuracy, and documents/s on pages.

    python benchmarks/language.py [PATH …] [--rounds N] [--json]

Accuracy is over the labelled sentences of ../shared/data/langid in the languages that the model knows. Speed is over
the text of pages: those of ../shared/data and of every PATH (HTML or plain text files, or folders of them). Both take
turns on the same texts, one core, processor time; a figure is the median of the rounds.
"""

import argparse
import json
import os
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from statistics import median
from typing import Any

sys.path[0] = str(Path(__file__).parents[1])  # not this folder, whose pipeline.py would hide the package

from resiliparse.extract.html2text import extract_plain_text  # noqa: E402

from pipeline.language import UNDETERMINED, default_model, identify, labels  # noqa: E402
from pipeline.language_codes import model_code  # noqa: E402

SHARED = Path(__file__).parents[1] / ".." / "shared" / "data"
SENTENCES = SHARED / "langid" / "sentences_75x40.tsv"
PAGES = ("sites", "extraction")


def main() -> None:
    """Measure, print."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("paths", nargs="*", type=Path, help="more pages: files or folders")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--json", action="store_true", help="the figures as one JSON object on the last line")
    options = parser.parse_args()
    if not SENTENCES.is_file():
        print(f"The labelled sentences are missing: {SENTENCES}.", file=sys.stderr)
        raise SystemExit(2)
    texts = [text for text in texts_of([SHARED / name for name in PAGES] + options.paths) if text.strip()]
    figures = accuracies() | speeds(texts, options.rounds)
    print(f"{figures['sentences']:,} sentences in {figures['languages']} languages, {figures['documents']:,} pages\n")
    print(f"{'':<28}{'accuracy':>10}{'documents/s':>14}")
    print(f"{'plain fasttext-langdetect':<28}{figures['accuracy_plain']:>10.4f}{figures['documents_s_plain']:>14,.0f}")
    print(f"{'gptmill':<28}{figures['accuracy']:>10.4f}{figures['documents_s']:>14,.0f}")
    print(f"\n{figures['x_plain']:.1f} times as fast; {figures['same_label']:.1%} of the pages have the same label")
    if options.json:
        print(json.dumps(figures))


def texts_of(places: list[Path]) -> Iterator[str]:
    """The text of every page in `places`, without navigation where it is HTML."""
    for place in places:
        for path in sorted(place.rglob("*")) if place.is_dir() else [place]:
            if path.suffix in {".html", ".htm", ".txt", ".md"}:
                text = path.read_bytes().decode("utf-8", "replace")
                yield extract_plain_text(text, main_content=True) if path.suffix in {".html", ".htm"} else text


def ours(text: str) -> str:
    """Our label."""
    return identify(text, default_model())[0]


def plain(text: str) -> str:
    """The peer's label, from the model that we use."""
    os.environ["FTLANG_CACHE"] = str(default_model().parent)
    from ftlangdetect import detect

    return str(detect(text, low_memory=True)["lang"]) if text.strip() else UNDETERMINED


def accuracies() -> dict[str, Any]:
    """Share of the labelled sentences that each gets right, in languages that the model can name."""
    rows = [line.split("\t", 1) for line in SENTENCES.read_text(encoding="utf-8").splitlines()]
    known = [(model_code(code), text) for code, text in rows if model_code(code) in labels(default_model())]
    return {
        "sentences": len(known),
        "languages": len({code for code, _ in known}),
        "accuracy": sum(ours(text) == code for code, text in known) / len(known),
        "accuracy_plain": sum(plain(text) == code for code, text in known) / len(known),
    }


def speeds(texts: list[str], rounds: int) -> dict[str, Any]:
    """Documents/s of each on `texts`."""
    seconds: dict[Callable[[str], str], list[float]] = {ours: [], plain: []}
    for _ in range(rounds):
        for way, taken in seconds.items():
            start = time.process_time()
            for text in texts:
                way(text)
            taken.append(time.process_time() - start)
    rates = {way: len(texts) / median(taken) for way, taken in seconds.items()}
    return {
        "documents": len(texts),
        "documents_s": rates[ours],
        "documents_s_plain": rates[plain],
        "x_plain": rates[ours] / rates[plain],
        "same_label": sum(ours(text) == plain(text) for text in texts) / len(texts),
    }


if __name__ == "__main__":
    main()
