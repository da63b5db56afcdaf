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
from pipeline.words import (
    ABBREVIATIONS,
    APOSTROPHES,
    CURRENCY,
    FIRST_MARKS,
    MARKS,
    QUOTES,
    symbols,
    terminals,
)

CITATION = re.compile(r"\[\d*]|\[edit]|\[citation needed]")
ENDINGS = ("n't", "'ll", "'re", "'ve", "'s", "'m", "'d")
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
    """How many sentences a line holds, by its final marks."""
    count, final = 1, False
    for word in reference_words(line):
        if word in terminals():
            final = True
        elif final and not all(map(is_punctuation, word)):
            count += 1
            final = False
    return count


def reference_words(text: str) -> list[str]:
    """The words of `text`, as `pipeline.words` defines them."""
    words: list[str] = []
    for chunk in text.split():
        rest, behind = chunk, []
        while rest and not _is_whole(rest) and (size := _prefix_size(rest)):
            words.append(rest[:size])
            rest = rest[size:]
        while rest and not _is_whole(rest) and (size := _suffix_size(rest)):
            behind.append(rest[-size:])
            rest = rest[:-size]
        if rest and (_is_whole(rest) or _is_address(rest)):
            words.append(rest)
        else:
            words.extend(_inner_words(rest))
        words.extend(reversed(behind))
    return words


def _inner_words(rest: str) -> list[str]:
    words, i = [], 0
    while i < len(rest):
        if size := _infix_size(rest, i):
            words += [piece for piece in (rest[:i], rest[i : i + size]) if piece]
            rest, i = rest[i + size :], 0
        else:
            i += 1
    return words + [rest] * bool(rest)


def _is_mark(character: str) -> bool:
    return character in MARKS or unicodedata.category(character) == "So"


def _is_lower(character: str) -> bool:
    return character.isalpha() and not character.isupper()


def _is_upper(character: str) -> bool:
    return character.isalpha() and not character.islower()


def _is_digit(character: str) -> bool:
    return character in set("0123456789")


def _is_whole(word: str) -> bool:
    single = len(word) == 2 and word[0].isalpha() and not _is_upper(word[0]) and word[1] == "."
    return single or word in ABBREVIATIONS


def _is_address(word: str) -> bool:
    return (word.startswith("www.") and len(word) > 4) or "@" in word[1:-1] or "://" in word[1:]


def _prefix_size(rest: str) -> int:
    if _is_mark(rest[0]) or rest[0] in FIRST_MARKS:
        return 1
    if rest[0] == "+":
        return 0 if _is_digit(rest[1:2]) else 1
    run = len(rest) - len(rest.lstrip("."))
    return run if run >= 2 else 0


def _suffix_size(rest: str) -> int:
    for ending in ENDINGS:
        body, tail = rest[: -len(ending)], rest[-len(ending) :]
        straight = "".join("'" if character in APOSTROPHES else character for character in tail)
        if body[-1:].isalpha() and lower_ascii(straight) == ending:
            return len(ending)
    last, before = rest[-1], rest[-2:-1]
    if _is_mark(last):
        return 1
    if not before:
        return 0
    if last == ".":
        run = len(rest) - len(rest.rstrip("."))
        if run >= 2:
            return run
        if _is_digit(before) or _is_lower(before) or _is_mark(before) or before in "%²-+":
            return 1
        return int(len(rest) >= 3 and _is_upper(before) and _is_upper(rest[-3]))
    return int(_is_digit(before) and (last in CURRENCY or last in "+%"))


def _infix_size(rest: str, i: int) -> int:
    mark, before, after = rest[i], rest[i - 1 : i], rest[i + 1 : i + 2]
    run = len(rest) - i - len(rest[i:].lstrip(mark))
    if mark == ".":
        if run >= 2:
            return run
        if not before or not after:
            return 0
        return int((_is_lower(before) or before in QUOTES) and (_is_upper(after) or after in QUOTES))
    if mark == "…" or unicodedata.category(mark) == "So":
        return 1
    if not before:
        return 0
    if mark in "+-*^" and _is_digit(before) and after and (_is_digit(after) or after == "-"):
        return 1
    if mark == ",":
        return int(before.isalpha() and after.isalpha())
    if before.isalpha() or _is_digit(before):
        if mark in "-–—~":
            longest = {"-": 3, "—": 2}.get(mark, 1)
            return run if run <= longest and rest[i + run : i + run + 1].isalpha() else 0
        return int(mark in ":<>=/" and after.isalpha())
    return 0


def is_punctuation(character: str) -> bool:
    """Whether Unicode counts the character as punctuation (categories P*)."""
    return unicodedata.category(character).startswith("P")


def lower_ascii(text: str) -> str:
    """`text` with the letters A to Z in lower case, and all others as they were."""
    return "".join(character.lower() if character.isascii() else character for character in text)
