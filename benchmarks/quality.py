"""Our quality rules beside datatrove's filters: decisions rule by rule, C4's kept lines as text, documents/s per core.

    python benchmarks/quality.py --datatrove-python PYTHON [PATH …] [--mutations N] [--json]

PYTHON is the interpreter of an environment of its own that has datatrove and spaCy (`pip install datatrove spacy`); its
fastText would displace ours. Texts come from ../shared/data and from every PATH (pages, plain text, JSON lines with a
field "text", or folders of them); N more are made of them by random edits. Every disagreement is listed.
"""

import argparse
import gzip
import json
import random
import subprocess
import sys
import tempfile
import time
import zipfile
from collections.abc import Iterator
from pathlib import Path
from statistics import median
from typing import Any

import numpy as np
import pyarrow as pa

sys.path[0] = str(Path(__file__).parents[1])  # not this folder, whose pipeline.py would hide the package

from pipeline.quality import text_buffers  # noqa: E402
from pipeline.quality_kernels import score  # noqa: E402
from pipeline.quality_rules import SCORES  # noqa: E402
from pipeline.select import PolicyConfig  # noqa: E402
from pipeline.words.special import special_words  # noqa: E402

SHARED = Path(__file__).parents[1] / ".." / "shared" / "data"
FOLDERS = ("sites", "extraction", "text", "dedup", "langid")
PEER = Path(__file__).with_name("datatrove_filters.py")
DOCUMENT_CHARACTERS = 20_000
"""Long texts are cut into documents of about this many characters, at empty lines."""
DOCUMENTS_OF_A_FILE = 200
ROUNDS = 5

QUALITY = {
    "gopher_short_doc": "min_gopher_words",
    "gopher_long_doc": "max_gopher_words",
    "gopher_below_avg_threshold": "min_gopher_word_length",
    "gopher_above_avg_threshold": "max_gopher_word_length",
    "gopher_too_many_hashes": "max_gopher_hashes",
    "gopher_too_many_ellipsis": "max_gopher_ellipses",
    "gopher_too_many_bullets": "max_gopher_bullet_lines",
    "gopher_too_many_end_ellipsis": "max_gopher_ellipsis_lines",
    "gopher_below_alpha_threshold": "min_gopher_alphabetic_words",
    "gopher_enough_stop_words": "min_gopher_stop_words",
}
REPETITION = {
    "dup_para_frac": "max_gopher_duplicate_paragraphs",
    "dup_para_char_frac": "max_gopher_duplicate_paragraph_characters",
    "dup_line_frac": "max_gopher_duplicate_lines",
    "dup_line_char_frac": "max_gopher_duplicate_line_characters",
    **{f"top_{n}_gram": f"max_gopher_top_{n}_gram" for n in (2, 3, 4)},
    **{f"duplicated_{n}_n_grams": f"max_gopher_duplicate_{n}_grams" for n in range(5, 11)},
}
C4 = {
    "lorem_ipsum": "drop_c4_lorem_ipsum",
    "curly_bracket": "drop_c4_curly_bracket",
    "too_few_sentences": "min_c4_sentences",
}
FINEWEB = {
    "line_punct_ratio": "min_fineweb_terminal_lines",
    "short_line_ratio": "max_fineweb_short_lines",
    "char_dup_ratio": "max_fineweb_duplicate_line_characters",
    "list_ratio": "max_fineweb_newlines",
}
REASONS = {"gopher_quality": QUALITY, "gopher_repetition": REPETITION, "c4": C4, "fineweb": FINEWEB}
"""datatrove's reasons in the order in which its filters ask, and the cut-off of ours for each."""
C4_LINES = {
    "line-total": "c4_lines",
    "line-kept": "c4_lines_kept",
    "line-filter-too_long_word": "c4_lines_long_word",
    "line-filter-no_terminal_punc": "c4_lines_no_terminal_mark",
    "line-filter-too_few_words": "c4_lines_few_words",
    "line-filter-javascript": "c4_lines_javascript",
    "line-filter-policy": "c4_lines_policy",
}
PIECES = (  # noqa: SIM905 - pieces are read as a line
    "the of and http://www.example.org/a-b me@example.org 10.0.0.1 8.8.8.8:80 3.14 1,000 end.Next e-mail O'Neil "
    "日本語。 Привет.Мир العربية، हिन्दी 😀 © 25°C. €5 US$5 10km 100% C++. a--b a----b — .. ... … [1] [edit] { } "
    "[citation needed] # - • ' \" ’ ” ! ? . , ; : ( ) JavaScript lorem ipsum cookie policy Terms of Use"
).split()
BLANKS = ("", " ", "  ", "\n", "\n\n", "\n\n\n", "\t", "\u3000", "\u2028", "\r\n", "\x85")


def main() -> None:
    """Ask both, compare, print."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("paths", nargs="*", type=Path, help="more texts: files or folders")
    parser.add_argument(
        "--datatrove-python", default="", metavar="PYTHON", help="a Python that has datatrove and spaCy"
    )
    parser.add_argument("--mutations", type=int, default=1_000, metavar="N", help="texts made by random edits")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--json", action="store_true", help="the figures as one JSON object on the last line")
    options = parser.parse_args()
    refuse_without_datatrove(options.datatrove_python)
    named = [*texts_of([SHARED / name for name in FOLDERS] + options.paths)]
    named += mutations(named, options.mutations, random.Random(options.seed))
    figures = measure(named, options.datatrove_python)
    print_page(figures)
    if options.json:
        del figures["table"]
        print(json.dumps(figures))


def refuse_without_datatrove(python: str) -> None:
    """Exit 2 with one sentence where there is nothing to compare with."""
    try:
        subprocess.run([python, "-c", "import datatrove, spacy"], check=True, capture_output=True)
    except (OSError, subprocess.CalledProcessError):
        print(
            "Nothing to compare with: make an environment with `pip install datatrove spacy` and name its Python with "
            "--datatrove-python.",
            file=sys.stderr,
        )
        raise SystemExit(2) from None


def texts_of(places: list[Path]) -> Iterator[tuple[str, str]]:
    """(name, text) of every document in `places`."""
    for place in places:
        for path in sorted(place.rglob("*")) if place.is_dir() else [place]:
            if path.is_file():
                documents = [text for text in read(path) if text.strip()]
                step = max(1, len(documents) // DOCUMENTS_OF_A_FILE)
                for number, text in enumerate(documents[::step]):
                    yield f"{path.name}:{number * step}", text


def read(path: Path) -> Iterator[str]:
    """The documents of one file, by its name; none of a file of another kind."""
    if path.suffix in {".html", ".htm"}:
        from resiliparse.extract.html2text import extract_plain_text

        yield extract_plain_text(path.read_bytes().decode("utf-8", "replace"), main_content=True)
    elif path.suffix == ".jsonl":
        for line in path.read_text(encoding="utf-8").splitlines():
            yield str(json.loads(line).get("text", ""))
    elif path.suffix in {".train", ".tsv"}:
        yield from path.read_text(encoding="utf-8", errors="replace").splitlines()
    elif path.suffix == ".zip":
        with zipfile.ZipFile(path) as archive:
            for name in archive.namelist():
                yield from cut(archive.read(name).decode("utf-8", "replace"))
    elif path.suffix in {".txt", ".md", ".rst", ".xml"}:
        yield from cut(path.read_text(encoding="utf-8", errors="replace"))
    elif path.suffix == ".gz":
        yield from cut(gzip.decompress(path.read_bytes()).decode("utf-8", "replace"))


def cut(text: str) -> Iterator[str]:
    """`text` in documents of about `DOCUMENT_CHARACTERS`."""
    while len(text) > DOCUMENT_CHARACTERS:
        end = text.find("\n\n", DOCUMENT_CHARACTERS)
        end = end if 0 <= end < 2 * DOCUMENT_CHARACTERS else DOCUMENT_CHARACTERS
        yield text[:end]
        text = text[end:].lstrip("\n")
    yield text


def mutations(named: list[tuple[str, str]], count: int, chance: random.Random) -> list[tuple[str, str]]:
    """`count` texts that are stretches of `named` with pieces put in, taken out and repeated, or pieces alone."""
    pieces = [*PIECES, *special_words()]
    made = []
    for number in range(count):
        source = chance.choice(named)[1]
        start = chance.randrange(len(source))
        parts = [*source[start : start + chance.randint(0, 3_000)]] if number % 4 else []
        for _ in range(chance.randint(0, 80)):
            place = chance.randrange(len(parts) + 1)
            edit = chance.random()
            if edit < 0.6:
                parts[place:place] = [chance.choice(BLANKS), chance.choice(pieces), chance.choice(BLANKS)]
            elif edit < 0.8:
                del parts[place : place + chance.randint(1, 30)]
            else:
                parts[place:place] = parts[max(0, place - chance.randint(1, 200)) : place]
        made.append((f"mutation:{number}", "".join(parts).encode("utf-8", "ignore").decode() or "."))
    return made


def measure(named: list[tuple[str, str]], python: str) -> dict[str, Any]:
    """Ask both about the same texts: figures, and a row for each disagreement."""
    texts = [text for _, text in named]
    data, offsets = text_buffers(pa.chunked_array([pa.array(texts, pa.string())]))
    score(data, offsets[:2])  # compiles
    costs = [ours_costs(data, offsets) for _ in range(ROUNDS)]
    with tempfile.TemporaryDirectory() as folder:
        question, answer = Path(folder) / "texts.json", Path(folder) / "answers.json"
        question.write_text(json.dumps(texts), encoding="utf-8")
        subprocess.run([python, "-W", "ignore", str(PEER), str(question), str(answer)], check=True)
        theirs = json.loads(answer.read_text(encoding="utf-8"))
    costs += [ours_costs(data, offsets) for _ in range(ROUNDS)]
    scores, spans, counts = score(data, offsets)
    bounds = np.concatenate([[0], np.cumsum(counts)])
    table = []
    for i, (name, text) in enumerate(named):
        raw = text.encode()
        kept = b"".join(raw[start:end] for start, end in spans[bounds[i] : bounds[i + 1]]).decode()
        row = dict(zip(SCORES, scores[i].tolist(), strict=True))
        table += [(name, *difference) for difference in differences(text, row, kept, theirs["answers"][i])]
    ours = median(costs)
    together = theirs["seconds"].pop("together")
    return {
        "documents": len(texts),
        "mb": (offsets[-1] - offsets[0]) / 1e6,
        "disagreements": len(table),
        "x_datatrove": together / ours,
        "documents_s": len(texts) / ours,
        "documents_s_datatrove": len(texts) / together,
        "documents_s_datatrove_alone": {name: len(texts) / s for name, s in theirs["seconds"].items()},
        "mb_s": (offsets[-1] - offsets[0]) / 1e6 / ours,
        "rules_compared": len(texts) * (len(theirs["answers"][0]["rules"]) + len(REASONS) + len(C4_LINES) + 1),
        "table": table,
    }


def ours_costs(data: np.ndarray, offsets: np.ndarray) -> float:
    """CPU seconds of all our rules over all texts."""
    start = time.process_time()
    score(data, offsets)
    return time.process_time() - start


def differences(text: str, row: dict[str, float], kept: str, theirs: dict[str, Any]) -> Iterator[tuple[str, Any, Any]]:
    """(what, ours, theirs) wherever the two do not say the same of one text."""
    broken = {reason: beyond(row, bound) for reasons in REASONS.values() for reason, bound in reasons.items()}
    for name, reasons in REASONS.items():
        ours = next((reason for reason in reasons if broken[reason]), None)
        peer = theirs["reasons"][name]
        # C4's two document rules are asked line by line: the first line with either decides which of them is named.
        same = broken.get(peer, False) if name == "c4" and peer else ours == peer
        # datatrove calls a text without any line empty; for our rules it is one that breaks a bound.
        if not same and not (peer == "empty" and ours):
            yield name, ours, peer
    for name, peer in theirs["rules"].items():
        reasons = RULES[name]
        if peer in {"empty", None} or not peer.startswith("error"):
            ours_broken = any(broken[reason] for reason in reasons)
            if ours_broken != (peer is not None) and not unanswerable(name, text, row):
                yield name, {bound: row[column_of(REASON_BOUNDS[bound])] for bound in reasons}, peer
    if "error" not in (theirs["c4"]["reason"] or ""):
        for label, column in C4_LINES.items():
            if row[column] != theirs["c4"]["lines"].get(label, 0):
                yield f"c4 {label}", row[column], theirs["c4"]["lines"].get(label, 0)
        if "\n".join(kept.splitlines()) != theirs["c4"]["kept"]:
            yield "c4 kept lines", kept, theirs["c4"]["kept"]


def unanswerable(name: str, text: str, row: dict[str, float]) -> bool:
    """Whether a rule alone divides by nothing in datatrove: a text without a proper word, or without a line."""
    return (name.startswith("gopher_quality") and not row["gopher_words"]) or not text.strip()


def beyond(row: dict[str, float], bound: str) -> bool:
    """Whether the scores `row` break the cut-off `bound` of the shipped policy."""
    value, limit = row[column_of(bound)], getattr(PolicyConfig(), bound)
    if bound.startswith("drop_"):
        return bool(value)
    return value < limit if bound.startswith("min_") else value > limit


def column_of(bound: str) -> str:
    """The score that a cut-off bounds."""
    return bound.partition("_")[2]


REASON_BOUNDS = {reason: bound for reasons in REASONS.values() for reason, bound in reasons.items()}
RULES = {
    "gopher_quality min_doc_words": ("gopher_short_doc",),
    "gopher_quality max_doc_words": ("gopher_long_doc",),
    "gopher_quality min_avg_word_length": ("gopher_below_avg_threshold",),
    "gopher_quality max_avg_word_length": ("gopher_above_avg_threshold",),
    "gopher_quality max_symbol_word_ratio": ("gopher_too_many_hashes", "gopher_too_many_ellipsis"),
    "gopher_quality max_bullet_lines_ratio": ("gopher_too_many_bullets",),
    "gopher_quality max_ellipsis_lines_ratio": ("gopher_too_many_end_ellipsis",),
    "gopher_quality max_non_alpha_words_ratio": ("gopher_below_alpha_threshold",),
    "gopher_quality min_stop_words": ("gopher_enough_stop_words",),
    **{f"gopher_repetition {name}": (name,) for name in REPETITION if name.endswith("frac")},
    **{f"gopher_repetition top {n}": (f"top_{n}_gram",) for n in (2, 3, 4)},
    **{f"gopher_repetition dup {n}": (f"duplicated_{n}_n_grams",) for n in range(5, 11)},
    "fineweb line_punct_thr": ("line_punct_ratio",),
    "fineweb short_line_thr": ("short_line_ratio",),
    "fineweb char_duplicates_ratio": ("char_dup_ratio",),
    "fineweb new_line_ratio": ("list_ratio",),
}
"""Our reasons for each of datatrove's rules alone, as `datatrove_filters.py` names them."""


def print_page(figures: dict[str, Any]) -> None:
    """The figures for people, and every disagreement."""
    print(
        f"{figures['documents']:,} documents, {figures['mb']:.1f} MB; {figures['rules_compared']:,} answers compared\n"
    )
    print(f"{'CPU seconds on one core':<44}{'documents/s':>12}")
    for name, rate in figures["documents_s_datatrove_alone"].items():
        print(f"{'datatrove ' + name + ' alone':<44}{rate:>12,.1f}")
    print(f"{'datatrove, the four on each text':<44}{figures['documents_s_datatrove']:>12,.1f}")
    print(
        f"{'gptmill, all rules':<44}{figures['documents_s']:>12,.1f}   {figures['mb_s']:.1f} MB/s, "
        f"{figures['x_datatrove']:.1f} times datatrove\n"
    )
    print(f"{figures['disagreements']} disagreements")
    for name, what, ours, theirs in figures["table"]:
        print(f"  {name:<32} {what:<40} ours {ours!r:.120}  datatrove {theirs!r:.120}")


if __name__ == "__main__":
    main()
