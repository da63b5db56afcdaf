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
CAPITAL_A, CAPITAL_Z, LETTER_A, LETTER_Z = map(ord, "AZaz")
CITATION_MARKS = ("[edit]", "[citation needed]")
CITATIONS = len(CITATION_MARKS)
LOREM_IPSUM, JAVASCRIPT = 1 << CITATIONS, 2 << CITATIONS

compiled = kernel(__file__, *WORD_SOURCES, quality_rules.__file__)


def phrase_codes() -> tuple[Codes, Codes]:
    """What C4 looks for, laid end to end: citation marks in words, lorem ipsum, javascript, the policy phrases."""
    every = (*CITATION_MARKS, "lorem ipsum", "javascript", *POLICY_PHRASES)
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
    for m in range(CITATIONS):
        mark = phrases[bounds[m] : bounds[m + 1]]
        k = 0
        while k < len(mark) and i + k < end and codes[i + k] == mark[k]:
            k += 1
        if k == len(mark):
            return k
    return 0


@compiled
def _phrases_in(line: Codes, phrases: Codes, bounds: Codes) -> int:
    """Which of the phrases behind the citation marks stand in `line`, whatever the case there, as a bit for each."""
    initials = found = 0
    for p in range(CITATIONS, len(bounds) - 1):
        initials |= 1 << (phrases[bounds[p]] - LETTER_A)
    for i in range(len(line)):
        initial = line[i] | CASE
        if not LETTER_A <= initial <= LETTER_Z or not initials >> (initial - LETTER_A) & 1:
            continue
        for p in range(CITATIONS, len(bounds) - 1):
            size = bounds[p + 1] - bounds[p]
            k = 0
            while k < size and i + k < len(line):
                c = line[i + k]
                if (c | CASE if CAPITAL_A <= c <= CAPITAL_Z else c) != phrases[bounds[p] + k]:
                    break
                k += 1
            found |= (k == size) << p
    return found


@compiled
def _sentences(line: Codes, kinds: Kinds, starts: Codes, ends: Codes, first: int, last: int) -> int:
    """Sentences of a line's words: one more begins behind a final mark, at a proper word or at a wide gap."""
    sentences = 1
    final = False
    for w in range(first, last):
        gap = starts[w] - ends[w - 1] if w > first else 0
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
def _without_citations(
    codes: Codes, kinds: Kinds, start: int, end: int, phrases: Codes, bounds: Codes, line: Codes, origin: Codes
) -> int:
    """Write `codes[start:end]` without citation marks, and where each character was; returns how many there are."""
    n = 0
    i = start
    while i < end:
        size = _citation(codes, kinds, i, end, phrases, bounds) if codes[i] == OPEN else 0
        if size == 0:
            line[n] = codes[i]
            origin[n] = i
            n += 1
            size = 1
        i += size
    return n


@compiled
def c4_rules(
    codes: Codes, kinds: Kinds, places: Codes, length: int, starts: Codes, ends: Codes, n_words: int, table: Kinds,
    known: Hashes, phrases: Codes, bounds: Codes, own: tuple[Codes, Kinds, Codes, Codes, Codes], spans: Codes,
    n_spans: int, scores: NDArray[np.float64],
) -> int:  # fmt: skip
    """C4's rules (Raffel et al. 2020) into `scores` in the order of `C4`; returns the new number of `spans`.

    A line's words are those of the document, unless citation marks were taken out of it: `own` are arrays for such a
    line's characters, what they are, where they were, and its words' starts and ends.
    """
    own_line, own_kinds, origin, own_starts, own_ends = own
    scores[:] = 0
    first_span = n_spans
    break_from = break_to = -1
    word = ZERO
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
        cited = False
        for j in range(i, b):
            run = 0 if kinds[j] & SPACE else run + 1
            n_chunks += run == 1
            longest = max(longest, run)
            cited = cited or codes[j] == OPEN
        if longest > MAX_C4_WORD:
            scores[5] += 1
            continue
        line = codes[i:b]
        if cited:
            line = own_line[: _without_citations(codes, kinds, i, b, phrases, bounds, own_line, origin)]
            cited = len(line) < b - i
        n = len(line)
        last = line[n - 1] if n else 0
        if last not in (DOT, QUESTION, EXCLAMATION, QUOTE, APOSTROPHE) or (
            n >= 3 and last == DOT and line[n - 2] == DOT and line[n - 3] == DOT
        ):
            scores[6] += 1
            continue
        if n_chunks < MIN_C4_WORDS:
            scores[7] += 1
            continue
        found = _phrases_in(line, phrases, bounds)
        if found & LOREM_IPSUM:
            scores[1] = 1
        if found & JAVASCRIPT:
            scores[8] += 1
            continue
        for j in range(n):
            if line[j] == BRACE:
                scores[2] = 1
        if found >= 2 * JAVASCRIPT:
            scores[9] += 1
            continue
        scores[4] += 1
        if n_spans > first_span:
            n_spans = _add_span(spans, first_span, n_spans, places[break_from], places[break_to])
        if cited:
            classify(line, n, table, own_kinds)
            count = find_words(line, own_kinds, n, known, own_starts, own_ends)
            scores[0] += _sentences(line, own_kinds, own_starts, own_ends, ZERO, count)
            j = ZERO
            while n_spans == first_span and own_kinds[j] & SPACE:
                j += 1
            while j < n:
                first = j
                while j + 1 < n and origin[j + 1] == origin[j] + 1:
                    j += 1
                n_spans = _add_span(spans, first_span, n_spans, places[origin[first]], places[origin[j] + 1])
                j += 1
        else:
            while word < n_words and starts[word] < i:
                word += 1
            first = word
            while word < n_words and starts[word] < b:
                word += 1
            scores[0] += _sentences(codes, kinds, starts, ends, first, word)
            n_spans = _add_span(spans, first_span, n_spans, places[i], places[b])
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
