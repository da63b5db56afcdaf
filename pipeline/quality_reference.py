"""The quality rules and the words they count, in plain Python: what the kernels must compute, for any text.

Slow and obvious on purpose. It reads as the definition of the rules; the tests compare the kernels with it.
"""

import re
import unicodedata
from collections import Counter

from pipeline.quality_rules import (
    BULLETS,
    CHARACTERS_OF_SHORT_LINE,
    MAX_C4_WORD,
    MIN_C4_WORDS,
    POLICY_PHRASES,
    REPEATED_N_GRAMS,
    SCORES,
    STOP_WORDS,
    TOP_N_GRAMS,
)
from pipeline.words.reference import reference_words
from pipeline.words.tables import symbols, terminals

CITATION = re.compile(r"\[\d*]|\[edit]|\[citation needed]")
C4_TERMINALS = (".", "?", "!", '"', "'")


def reference_scores(text: str) -> dict[str, float]:
    """Every score of `text`, in the order of `SCORES`."""
    words = reference_words(text)
    found = gopher_quality(text, words) | gopher_repetition(text, words) | c4(text)[0] | fineweb(text, words)
    return {name: float(found.get(name, 0)) for name in SCORES}


def gopher_quality(text: str, words: list[str]) -> dict[str, float]:
    """Gopher's quality rules."""
    proper = [word for word in words if not set(word) <= symbols()]
    lines = text.splitlines()
    n_words, n_lines = max(len(words), 1), max(len(lines), 1)
    return {
        "gopher_words": len(proper),
        "gopher_word_length": sum(map(len, proper)) / max(len(proper), 1),
        "gopher_hashes": text.count("#") / n_words,
        "gopher_ellipses": (text.count("...") + text.count("…")) / n_words,
        "gopher_bullet_lines": sum(line.lstrip().startswith(BULLETS) for line in lines) / n_lines,
        "gopher_ellipsis_lines": sum(line.rstrip().endswith(("...", "…")) for line in lines) / n_lines,
        "gopher_alphabetic_words": sum(any(map(str.isalpha, word)) for word in words) / n_words,
        "gopher_stop_words": len(set(STOP_WORDS) & set(words)),
    }


def gopher_repetition(text: str, words: list[str]) -> dict[str, float]:
    """Gopher's repetition rules. The first of equally frequent n-grams is the top one."""
    total = max(len(text), 1)
    lines, paragraphs = re.split("\n+", text), re.split("\n{2,}", text.strip())
    (n_lines, in_lines), (n_paragraphs, in_paragraphs) = repeated(lines), repeated(paragraphs)
    scores = {
        "gopher_duplicate_lines": n_lines / len(lines),
        "gopher_duplicate_line_characters": in_lines / total,
        "gopher_duplicate_paragraphs": n_paragraphs / len(paragraphs),
        "gopher_duplicate_paragraph_characters": in_paragraphs / total,
    }
    for n in TOP_N_GRAMS:
        grams = Counter(tuple(words[i : i + n]) for i in range(len(words) - n + 1))
        if grams:
            gram, count = grams.most_common(1)[0]
            scores[f"gopher_top_{n}_gram"] = len(" ".join(gram)) * count / total
    for n in REPEATED_N_GRAMS:
        seen: set[tuple[str, ...]] = set()
        characters = i = 0
        while i < len(words) - n + 1:
            gram = tuple(words[i : i + n])
            again = gram in seen
            seen.add(gram)
            characters += len("".join(gram)) * again
            i += n if again else 1
        scores[f"gopher_duplicate_{n}_grams"] = characters / total
    return scores


def repeated(pieces: list[str]) -> tuple[int, int]:
    """How many of `pieces` occurred before, and their characters."""
    seen: set[str] = set()
    count = characters = 0
    for piece in pieces:
        if piece in seen:
            count += 1
            characters += len(piece)
        seen.add(piece)
    return count, characters


def fineweb(text: str, words: list[str]) -> dict[str, float]:
    """FineWeb's own rules."""
    lines = [line for line in text.split("\n") if line.strip()]
    n_lines = max(len(lines), 1)
    return {
        "fineweb_terminal_lines": sum(line.endswith(tuple(terminals())) for line in lines) / n_lines,
        "fineweb_short_lines": sum(len(line) <= CHARACTERS_OF_SHORT_LINE for line in lines) / n_lines,
        "fineweb_duplicate_line_characters": repeated(lines)[1] / max(len(text.replace("\n", "")), 1),
        "fineweb_newlines": text.count("\n") / max(len(words), 1),
    }


def c4(text: str) -> tuple[dict[str, float], str]:
    """C4's rules, and the text that its line rules keep. Kept lines stay apart by the line break they had."""
    scores: Counter[str] = Counter()
    kept: list[tuple[str, str]] = []
    for full in text.splitlines(keepends=True):
        ending = full[len("".join(full.splitlines())) :]
        line = full.strip()
        words = line.split()
        scores["c4_lines"] += 1
        if any(len(word) > MAX_C4_WORD for word in words):
            scores["c4_lines_long_word"] += 1
            continue
        line = CITATION.sub("", line)
        lower = lower_ascii(line)
        if not line.endswith(C4_TERMINALS) or line.endswith("..."):
            scores["c4_lines_no_terminal_mark"] += 1
            continue
        if len(words) < MIN_C4_WORDS:
            scores["c4_lines_few_words"] += 1
            continue
        scores["c4_lorem_ipsum"] |= "lorem ipsum" in lower
        if "javascript" in lower:
            scores["c4_lines_javascript"] += 1
            continue
        scores["c4_curly_bracket"] |= "{" in line
        if any(phrase in lower for phrase in POLICY_PHRASES):
            scores["c4_lines_policy"] += 1
            continue
        scores["c4_sentences"] += sentences(line)
        scores["c4_lines_kept"] += 1
        kept.append((line, ending))
    joined = "".join(line + ending for line, ending in kept[:-1]) + "".join(line for line, _ in kept[-1:])
    return dict(scores), joined.lstrip()


def sentences(line: str) -> int:
    """How many sentences a line holds, by its final marks. White space but a single blank ends one too."""
    count, final = 1, False
    for chunk in re.split(r"(?<=\S) (?=\S)|(\s+)", line):
        for word in ["\n"] if chunk and chunk.isspace() else reference_words(chunk or ""):
            if word in terminals():
                final = True
            elif final and not all(map(is_punctuation, word)):
                count += 1
                final = False
    return count


def is_punctuation(character: str) -> bool:
    """Whether Unicode counts the character as punctuation (categories P*)."""
    return unicodedata.category(character).startswith("P")


def lower_ascii(text: str) -> str:
    """`text` with the letters A to Z in lower case, and all others as they were."""
    return "".join(character.lower() if character.isascii() else character for character in text)
