"""words: the kernels split as the reference does, for any text, and both as spaCy's English tokenizer."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pipeline.words.kernels import find_words, lexicon
from pipeline.words.reference import reference_words
from pipeline.words.special import MAX_SPECIAL, MAX_UNIT, UNITS, special_words
from pipeline.words.tables import TABLE_SIZE, classify, icons, kinds_table

PIECES = (  # noqa: SIM905 - pieces are read as a line
    "The of well known U.S.A. 3.14 10km 5m² 100% 25°C. US$5 5US$ C$ +3 5+ end.Next foo.bar e-mail a--b a---b a----b "
    "€5 a—b a——b 1-2 1--2 a:b x=y a/b … …… .. ... .... . , ; ! ? ' ’ \" ” ( ) [ ] { } < > - – — ~ * ^ # § % = | "
    "@ 日本語。 語.語 Привет.Мир العربية، 😀 © ° ™ ʔ.A ไทย www.x.org http://x.org/a-b me@x.org 8.8.8.8:80 10.0.0.1 "
    "01.1.1.1 1.02.3.4"
).split(" ")
special = st.sampled_from(sorted(special_words()))
chunks = st.lists(st.sampled_from(PIECES) | special | st.characters(codec="utf-8"), max_size=5).map("".join)
texts = st.lists(st.tuples(chunks, st.sampled_from(["", " ", " ", "  ", "\n", "\t", "\u3000"])), max_size=20).map(
    lambda pairs: "".join(map("".join, pairs))
)


def words(text: str) -> list[str]:
    codes = np.array([*map(ord, text)], np.int32)
    kinds = np.zeros(len(codes), np.uint32)
    classify(codes, len(codes), kinds_table(), kinds)
    starts, ends = np.zeros(len(codes) + 1, np.int32), np.zeros(len(codes) + 1, np.int32)
    count = find_words(codes, kinds, len(codes), lexicon(), starts, ends)
    return [text[start:end] for start, end in zip(starts[:count], ends[:count], strict=True)]


@settings(deadline=None, max_examples=500)
@given(texts)
def test_the_kernel_splits_as_the_reference_does(text: str) -> None:
    assert words(text) == reference_words(text)


@settings(deadline=None)
@given(texts)
def test_words_hold_every_character_but_white_space(text: str) -> None:
    assert "".join(words(text)) == "".join(text.split())


@pytest.mark.parametrize(
    ("text", "found"),
    [
        ('He said, "well-known".', ["He", "said", ",", '"', "well", "-", "known", '"', "."]),
        ("Mr. Smith's dogs don't.", ["Mr.", "Smith", "'s", "dogs", "do", "n't", "."]),
        ("I'm sure they’ll cannot", ["I", "'m", "sure", "they", "’ll", "can", "not"]),
        ("Smith'll", ["Smith'll"]),  # no such ending but behind a pronoun or the like
        ("pi=3.14... and 10%", ["pi=3.14", "...", "and", "10", "%"]),
        ("10km, 5US$ and US$5", ["10", "km", ",", "5", "US$", "and", "US$", "5"]),
        ("at 25°C. Next", ["at", "25", "°", "C", ".", "Next"]),
        ("end.Next end.next", ["end", ".", "Next", "end.next"]),
        ("(see below): :-)", ["(", "see", "below", "):", ":-)"]),  # an emoticon, as the tokenizer sees it
        ("fine:) Fine: )", ["fine", ":)", "Fine", ":", ")"]),
        ("see http://x.org/c-d, or me@x.org", ["see", "http://x.org/c-d", ",", "or", "me@x.org"]),
        ("8.8.8.8 10.0.0.1-a", ["8.8.8.8", "10.0.0.1", "-", "a"]),
        ("__init__(self)", ["_", "_", "init__(self", ")"]),
        ("日本語。次", ["日本語。次"]),
    ],
)
def test_words_are_split_as_spacy_splits_them(text: str, found: list[str]) -> None:
    assert words(text) == found
    assert reference_words(text) == found


def test_special_words_fit_their_bounds_and_are_their_pieces() -> None:
    assert max(map(len, special_words())) <= MAX_SPECIAL <= 16
    assert max(map(len, UNITS.split())) <= MAX_UNIT
    assert all("".join(pieces) == word for word, pieces in special_words().items())


def test_no_symbol_is_missed_beyond_the_character_table() -> None:
    assert max(map(ord, icons())) < TABLE_SIZE
