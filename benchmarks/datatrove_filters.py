"""What datatrove's own quality filters say of texts: the peer's half of `quality.py`.

    PYTHON benchmarks/datatrove_filters.py TEXTS.json ANSWERS.json

Run by a Python that has datatrove; imports nothing of gptmill. Each filter is asked twice: as it stands, which is
timed, and with each of its rules alone.
"""

import json
import sys
import time
from collections import Counter
from pathlib import Path
from typing import Any

from datatrove.data import Document
from datatrove.pipeline.filters import (
    C4QualityFilter,
    FineWebQualityFilter,
    GopherQualityFilter,
    GopherRepetitionFilter,
)
from datatrove.utils import text as words
from datatrove.utils.word_tokenizers import load_word_tokenizer

QUALITY_OFF: dict[str, Any] = dict.fromkeys(
    (
        "min_doc_words", "max_doc_words", "min_avg_word_length", "max_avg_word_length", "max_symbol_word_ratio",
        "max_bullet_lines_ratio", "max_ellipsis_lines_ratio", "max_non_alpha_words_ratio", "min_stop_words",
    )
)  # fmt: skip
REPETITION_OFF: dict[str, Any] = {
    **dict.fromkeys(("dup_line_frac", "dup_para_frac", "dup_line_char_frac", "dup_para_char_frac")),
    "top_n_grams": (),
    "dup_n_grams": (),
}
FINEWEB_OFF = {"line_punct_thr": 0, "short_line_thr": 1e9, "char_duplicates_ratio": 1e9, "new_line_ratio": 1e9}


def main() -> None:
    """Answer for every text, and say what it cost."""
    texts = json.loads(Path(sys.argv[1]).read_text(encoding="utf-8"))
    filters = {
        "gopher_quality": GopherQualityFilter(),
        "gopher_repetition": GopherRepetitionFilter(),
        "c4": C4QualityFilter(),
        "fineweb": FineWebQualityFilter(),
    }
    load_word_tokenizer("en").word_tokenize("Loads the tokenizer.")
    seconds = {name: alone(filter_, texts) for name, filter_ in filters.items()}
    start = time.process_time()
    for text in texts:  # one after the other on a text: the words are split once for all of them
        for filter_ in filters.values():
            ask(filter_, text)
    seconds["together"] = time.process_time() - start
    every = rules()
    answers = [
        {
            "reasons": {name: ask(filter_, text)[0] for name, filter_ in filters.items()},
            "rules": {name: ask(rule, text)[0] for name, rule in every.items()},
            "c4": c4(text),
        }
        for text in texts
    ]
    Path(sys.argv[2]).write_text(json.dumps({"seconds": seconds, "answers": answers}), encoding="utf-8")


def alone(filter_: Any, texts: list[str]) -> float:
    """CPU seconds of one filter over all texts."""
    words.split_into_parts.cache_clear()
    start = time.process_time()
    for text in texts:
        ask(filter_, text)
    return time.process_time() - start


def ask(filter_: Any, text: str) -> tuple[str | None, str]:
    """The reason to drop `text`, None where it stays, `error: …` where the filter fails; and the text left over."""
    document = Document(text=text, id="0")
    try:
        answer = filter_.filter(document)
    except Exception as problem:  # a filter that fails is a finding
        return f"error: {type(problem).__name__}", text
    return (None if answer is True else answer[1]), document.text


def rules() -> dict[str, Any]:
    """Filters with a single rule each; names say filter, rule and, of n-grams, n."""
    found: dict[str, Any] = {}
    for name, value in (
        ("min_doc_words", 50), ("max_doc_words", 100_000), ("min_avg_word_length", 3), ("max_avg_word_length", 10),
        ("max_symbol_word_ratio", 0.1), ("max_bullet_lines_ratio", 0.9), ("max_ellipsis_lines_ratio", 0.3),
        ("max_non_alpha_words_ratio", 0.8), ("min_stop_words", 2),
    ):  # fmt: skip
        found[f"gopher_quality {name}"] = GopherQualityFilter(**{**QUALITY_OFF, name: value})
    for name, value in (
        ("dup_line_frac", 0.3), ("dup_para_frac", 0.3), ("dup_line_char_frac", 0.2), ("dup_para_char_frac", 0.2),
    ):  # fmt: skip
        found[f"gopher_repetition {name}"] = GopherRepetitionFilter(**{**REPETITION_OFF, name: value})
    for n, share in ((2, 0.2), (3, 0.18), (4, 0.16)):
        found[f"gopher_repetition top {n}"] = GopherRepetitionFilter(**{**REPETITION_OFF, "top_n_grams": ((n, share),)})
    for n, share in ((5, 0.15), (6, 0.14), (7, 0.13), (8, 0.12), (9, 0.11), (10, 0.10)):
        found[f"gopher_repetition dup {n}"] = GopherRepetitionFilter(**{**REPETITION_OFF, "dup_n_grams": ((n, share),)})
    for name, value in (
        ("line_punct_thr", 0.12), ("short_line_thr", 0.67), ("char_duplicates_ratio", 0.01), ("new_line_ratio", 0.3),
    ):  # fmt: skip
        found[f"fineweb {name}"] = FineWebQualityFilter(**{**FINEWEB_OFF, name: value})
    return found


def c4(text: str) -> dict[str, Any]:
    """What C4's line rules do to a text, whatever its document rules say: what became of its lines, and the rest."""
    lines: Counter[str] = Counter()
    filter_ = C4QualityFilter(min_num_sentences=0, filter_lorem_ipsum=False, filter_curly_bracket=False)
    filter_.stat_update = lambda *labels, **_: lines.update(labels)
    reason, kept = ask(filter_, text)
    return {"reason": reason, "kept": kept, "lines": dict(lines)}


if __name__ == "__main__":
    main()
