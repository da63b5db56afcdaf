"""How well and how fast main content is found: our extractors beside plain resiliparse, on pages with known segments.

    python benchmarks/extract.py [FOLDER] [--rounds N] [--json]

FOLDER (`../shared/data/extraction` beside the project, where none is given) holds `evaldata.json`: for every page of
`html/` the segments that its text must have (`with`) and must not have (`without`). A segment is found where it is in
the text, blanks collapsed in both; precision, recall and F1 are over all segments of all pages.

Pages/s are by the CPU time of this one process, from the decoded markup to the text (parsing included, reading and
decoding not): a round gives all pages to each extractor in turn, the figure is the median of the rounds.
`x_speed` is fast over accurate, which is trafilatura.
"""

import argparse
import gc
import json
import sys
import time
from collections.abc import Callable
from pathlib import Path
from statistics import median
from typing import Any

ROOT = Path(__file__).resolve().parents[1]
FOLDER = ROOT.parent / "shared" / "data" / "extraction"


def main() -> int:
    """Read, judge, time, print."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("folder", nargs="?", type=Path, default=FOLDER, metavar="FOLDER")
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--json", action="store_true", help="the figures as one JSON object on the last line")
    options = parser.parse_args()
    if not (options.folder / "evaldata.json").is_file():
        print(f"{options.folder} has no evaldata.json, the pages' known segments.", file=sys.stderr)
        return 2
    sys.path[0] = str(ROOT)  # this script's own folder has a pipeline.py too
    figures = measure(*read(options.folder), options.rounds)
    print_page(figures)
    if options.json:
        print(json.dumps(figures))
    return 0


def read(folder: Path) -> tuple[list[str], list[tuple[list[str], list[str]]]]:
    """The pages as decoded markup, and their segments, wanted and unwanted."""
    from pipeline.extraction.charset import decode

    pages, segments = [], []
    for entry in json.loads((folder / "evaldata.json").read_text(encoding="utf-8")).values():
        markup = decode((folder / "html" / entry["file"]).read_bytes(), None, markup=True)
        if markup is None:
            raise ValueError(f"{entry['file']} is no text in any charset")
        pages.append(markup)
        segments.append((entry["with"], entry["without"]))
    return pages, segments


def extractors() -> dict[str, Callable[[str], str]]:
    """From markup to text, as the extract stage calls them behind its first pages, and resiliparse by itself."""
    import trafilatura
    from resiliparse.extract.html2text import extract_plain_text
    from resiliparse.parse.html import HTMLTree

    from pipeline.extraction.block_kernels import cut
    from pipeline.extraction.main_content import main_content

    return {
        "fast": lambda markup: main_content(HTMLTree.parse(markup), cut=cut),
        "accurate": lambda markup: trafilatura.extract(markup, include_comments=False, deduplicate=False) or "",
        "resiliparse": lambda markup: extract_plain_text(
            HTMLTree.parse(markup),
            preserve_formatting=True,
            main_content=True,
            alt_texts=False,
            comments=False,
            post_meta=False,
        ),
    }


def measure(pages: list[str], segments: list[tuple[list[str], list[str]]], rounds: int) -> dict[str, Any]:
    """Precision, recall, F1 and pages/s of every extractor, and the keys that are promised."""
    functions = extractors()
    figures: dict[str, Any] = {"pages": len(pages)}
    for name, function in functions.items():  # also the rounds' warm-up
        precision, recall = quality([function(page) for page in pages], segments)
        figures |= {f"precision_{name}": precision, f"recall_{name}": recall}
        figures[f"f1_{name}"] = 2 * precision * recall / (precision + recall) if precision + recall else 0.0
    seconds: dict[str, list[float]] = {name: [] for name in functions}
    for _ in range(rounds):
        for name, function in functions.items():
            gc.collect()
            start = time.process_time()
            for page in pages:
                function(page)
            seconds[name].append(time.process_time() - start)
    figures |= {f"pages_s_{name}": len(pages) / median(times) for name, times in seconds.items()}
    return figures | {"x_speed": figures["pages_s_fast"] / figures["pages_s_accurate"]}


def quality(texts: list[str], segments: list[tuple[list[str], list[str]]]) -> tuple[float, float]:
    """Precision and recall over all segments."""
    right = wrong = missing = 0
    for text, (wanted, unwanted) in zip(texts, segments, strict=True):
        text = " ".join(text.split())
        found = sum(" ".join(segment.split()) in text for segment in wanted)
        right += found
        missing += len(wanted) - found
        wrong += sum(" ".join(segment.split()) in text for segment in unwanted)
    return right / max(right + wrong, 1), right / max(right + missing, 1)


def print_page(figures: dict[str, Any]) -> None:
    """The figures for people."""
    print(f"{figures['pages']} pages\n\n{'extractor':<14}{'precision':>10}{'recall':>10}{'F1':>10}{'pages/s':>10}")
    for name in ("fast", "accurate", "resiliparse"):
        shares = "".join(f"{figures[f'{figure}_{name}']:>10.3f}" for figure in ("precision", "recall", "f1"))
        print(f"{name:<14}{shares}{figures[f'pages_s_{name}']:>10,.0f}")
    print(f"\nfast over accurate: {figures['x_speed']:.1f} times the pages/s")


if __name__ == "__main__":
    sys.exit(main())
