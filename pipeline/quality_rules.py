"""The rules of the published quality filters: what they look for, and the column of scores that each gives."""

STOP_WORDS = ("the", "be", "to", "of", "and", "that", "have", "with")
"""English words of which a document must hold some (Gopher, A1.1)."""
BULLETS = ("-", "•")
TOP_N_GRAMS = (2, 3, 4)
REPEATED_N_GRAMS = (5, 6, 7, 8, 9, 10)
"""n-grams whose repetition Gopher measures (table A1)."""
CHARACTERS_OF_SHORT_LINE = 30
"""A line of at most so many characters is short (FineWeb)."""
MAX_C4_WORD = 1000
MIN_C4_WORDS = 3
"""C4 drops a line with a longer word, or with fewer words (c4_utils.py)."""
POLICY_PHRASES = (
    "terms of use", "privacy policy", "cookie policy", "uses cookies", "use of cookies", "use cookies",
)  # fmt: skip
"""C4 drops a line with one of these."""

GOPHER_QUALITY = (
    "gopher_words",  # words that are more than punctuation
    "gopher_word_length",  # their mean length in characters
    "gopher_hashes",  # "#" a word
    "gopher_ellipses",  # "..." and "…" a word
    "gopher_bullet_lines",  # share of lines that start with a bullet
    "gopher_ellipsis_lines",  # share of lines that end with an ellipsis
    "gopher_alphabetic_words",  # share of words with a letter
    "gopher_stop_words",  # how many of STOP_WORDS occur
)
GOPHER_REPETITION = (
    "gopher_duplicate_lines",  # share of lines that occurred before
    "gopher_duplicate_line_characters",  # share of characters in them
    "gopher_duplicate_paragraphs",
    "gopher_duplicate_paragraph_characters",
    *(f"gopher_top_{n}_gram" for n in TOP_N_GRAMS),  # share of characters in the most frequent n-gram
    *(f"gopher_duplicate_{n}_grams" for n in REPEATED_N_GRAMS),  # share of characters in n-grams that occurred before
)
C4 = (
    "c4_sentences",  # sentences in kept lines
    "c4_lorem_ipsum",  # in a line that passed the rules before
    "c4_curly_bracket",  # likewise
    "c4_lines",
    "c4_lines_kept",
    "c4_lines_long_word",  # lines dropped, each counted under the first rule that drops it
    "c4_lines_no_terminal_mark",
    "c4_lines_few_words",
    "c4_lines_javascript",
    "c4_lines_policy",
)
FINEWEB = (
    "fineweb_terminal_lines",  # share of lines that end with a terminal mark
    "fineweb_short_lines",  # share of lines of at most CHARACTERS_OF_SHORT_LINE
    "fineweb_duplicate_line_characters",  # share of characters in lines that occurred before
    "fineweb_newlines",  # newlines a word
)
SCORES = GOPHER_QUALITY + GOPHER_REPETITION + C4 + FINEWEB

FLAGS = frozenset({"c4_lorem_ipsum", "c4_curly_bracket"})
COUNTS = frozenset({"gopher_words", "gopher_stop_words", *C4}) - FLAGS
