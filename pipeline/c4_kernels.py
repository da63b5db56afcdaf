"""C4's rules (Raffel et al. 2020) as a kernel: which lines of a document stay, and what the document-level rules see.

A line is judged without the white space around it and without citation marks. What stays is given as byte spans, so
that the text C4 would keep is the document's own bytes, laid end to end.
"""

import numpy as np
from numpy.typing import NDArray

from pipeline import quality_rules
from pipeline.kernels import Codes, Hashes, Kinds, kernel
from pipeline.quality_rules import MAX_C4_WORD, MIN_C4_WORDS, POLICY_PHRASES
from pipeline.words.kernels import CASE, WORD_SOURCES, find_words
from pipeline.words.tables import DIGIT, PUNCTUATION, SPACE, TERMINAL, ZERO, classify, line_end, next_line

DOT, OPEN, CLOSE, BRACE, QUESTION, EXCLAMATION, QUOTE, APOSTROPHE, BLANK = map(ord, ".[]{?!\"' ")
CAPITAL_A, CAPITAL_Z = map(ord, "AZ")

compiled = kernel(__file__, *WORD_SOURCES, quality_rules.__file__)


def phrase_codes() -> tuple[Codes, Codes]:
    """What C4 looks for, laid end to end: citation marks in words, lorem ipsum, javascript, the policy phrases."""
    every = ("[edit]", "[citation needed]", "lorem ipsum", "javascript", *POLICY_PHRASES)
    codes = np.array([ord(character) for character in "".join(every)], np.int32)
    return codes, np.cumsum([0, *map(len, every)]).astype(np.int32)


@compiled
def _citation(codes: Codes, kinds: Kinds, i: int, end: int, phrases: Codes, bounds: Codes) -> int:
    """Characters of the mark that the bracket at `i` opens, `[12]`, `[]`, `[edit]` or `[citation needed]`; else 0."""
    j = i + 1
    while j < end and kinds[j] & DIGIT:
        j += 1
    if j < end and codes[j] == CLOSE:
        return j + 1 - i
    for m in range(2):
        mark = phrases[bounds[m] : bounds[m + 1]]
        k = 0
        while k < len(mark) and i + k < end and codes[i + k] == mark[k]:
            k += 1
        if k == len(mark):
            return k
    return 0


@compiled
def _contains(line: Codes, length: int, phrase: Codes) -> bool:
    """Whether the lower-case ASCII `phrase` stands in `line[:length]`, whatever the case there."""
    for i in range(length - len(phrase) + 1):
        k = 0
        while k < len(phrase):
            c = line[i + k]
            if (c | CASE if CAPITAL_A <= c <= CAPITAL_Z else c) != phrase[k]:
                break
            k += 1
        if k == len(phrase):
            return True
    return False


@compiled
def _sentences(line: Codes, kinds: Kinds, starts: Codes, ends: Codes, n_words: int) -> int:
    """Sentences of a line: one more begins behind a word that is a final mark, at a proper word or at a wide gap."""
    sentences = 1
    final = False
    for w in range(n_words):
        gap = starts[w] - ends[w - 1] if w else 0
        if final and (gap > 1 or (gap == 1 and line[ends[w - 1]] != BLANK)):
            sentences += 1
            final = False
        terminal = ends[w] - starts[w] == 1 and (kinds[starts[w]] & TERMINAL) != 0
        punctuation = True
        for i in range(starts[w], ends[w]):
            punctuation = punctuation and (kinds[i] & PUNCTUATION) != 0
        if terminal:
            final = True
        elif final and not punctuation:
            sentences += 1
            final = False
    return sentences


@compiled
def c4_rules(
    codes: Codes, kinds: Kinds, places: Codes, length: int, table: Kinds, known: Hashes, phrases: Codes, bounds: Codes,
    line: Codes, line_kinds: Kinds, origin: Codes, starts: Codes, ends: Codes, spans: Codes, n_spans: int,
    scores: NDArray[np.float64],
) -> int:  # fmt: skip
    """C4's rules (Raffel et al. 2020) into `scores` in the order of `C4`; returns the new number of `spans`."""
    scores[:] = 0
    first_span = n_spans
    break_from = break_to = -1
    a = ZERO
    while a < length:
        end = line_end(kinds, a, length)
        after = min(next_line(codes, end, length), length)
        i, b = a, end
        a = after
        scores[3] += 1
        while i < b and kinds[i] & SPACE:
            i += 1
        while b > i and kinds[b - 1] & SPACE:
            b -= 1
        n_chunks = longest = run = 0
        for j in range(i, b):
            run = 0 if kinds[j] & SPACE else run + 1
            n_chunks += run == 1
            longest = max(longest, run)
        if longest > MAX_C4_WORD:
            scores[5] += 1
            continue
        n = 0
        while i < b:
            size = _citation(codes, kinds, i, b, phrases, bounds) if codes[i] == OPEN else 0
            if size == 0:
                line[n] = codes[i]
                origin[n] = i
                n += 1
                size = 1
            i += size
        last = line[n - 1] if n else 0
        if last not in (DOT, QUESTION, EXCLAMATION, QUOTE, APOSTROPHE) or (
            n >= 3 and last == DOT and line[n - 2] == DOT and line[n - 3] == DOT
        ):
            scores[6] += 1
            continue
        if n_chunks < MIN_C4_WORDS:
            scores[7] += 1
            continue
        if _contains(line, n, phrases[bounds[2] : bounds[3]]):
            scores[1] = 1
        if _contains(line, n, phrases[bounds[3] : bounds[4]]):
            scores[8] += 1
            continue
        for j in range(n):
            if line[j] == BRACE:
                scores[2] = 1
        policy = False
        for p in range(4, len(bounds) - 1):
            policy = policy or _contains(line, n, phrases[bounds[p] : bounds[p + 1]])
        if policy:
            scores[9] += 1
            continue
        classify(line, n, table, line_kinds)
        scores[0] += _sentences(line, line_kinds, starts, ends, find_words(line, line_kinds, n, known, starts, ends))
        scores[4] += 1
        j = 0
        if n_spans == first_span:
            while line_kinds[j] & SPACE:
                j += 1
        else:
            n_spans = _add_span(spans, first_span, n_spans, places[break_from], places[break_to])
        while j < n:
            first = j
            while j + 1 < n and origin[j + 1] == origin[j] + 1:
                j += 1
            n_spans = _add_span(spans, first_span, n_spans, places[origin[first]], places[origin[j] + 1])
            j += 1
        break_from, break_to = end, after
    return n_spans


@compiled
def _add_span(spans: Codes, first: int, n: int, start: int, end: int) -> int:
    """Append bytes `start` to `end`, or lengthen the last span where they follow it; returns the number of spans."""
    if n > first and spans[n - 1, 1] == start:
        spans[n - 1, 1] = end
        return n
    spans[n, 0] = start
    spans[n, 1] = end
    return n + 1
