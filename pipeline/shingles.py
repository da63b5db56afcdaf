"""Normalised text, its words, and the hashes of their n-grams: the definitions, in plain Python.

Two texts count as the same when their normalised texts are the same; how alike they are is the Jaccard similarity of
their sets of n-gram hashes. Everything that compares texts (exact and near duplicates, copies of what was taken down,
overlap with evaluation sets) rests on this page. `pipeline/shingle_kernels.py` computes the same from Arrow buffers at
full speed and takes its tables from here; the tests hold the two equal.

Normalisation: a text is a sequence of words, joined by one space. Letters, digits, marks and `_` make words; white
space, punctuation and symbols part them and vanish. Letters up to U+07FF (Latin, Greek, Cyrillic, Armenian) are
lower-cased where that is one code point for one; scripts further up hardly know case. Chinese and Japanese put no
space between words, so there each character is a word. Thai, Lao, Khmer and Burmese put none either, but their single
characters say too little: what stands between two spaces is taken as one word.
"""

import hashlib

import numpy as np
from numpy.typing import NDArray

BREAK, WORD, ALONE = 0, 1, 2
"""What a code point does: parts words, belongs to a word, or is a word by itself."""

_BREAKS = (
    (0x00, 0x2F), (0x3A, 0x40), (0x5B, 0x5E), (0x60, 0x60), (0x7B, 0xA9), (0xAB, 0xB4), (0xB6, 0xB9), (0xBB, 0xBF),
    (0xD7, 0xD7), (0xF7, 0xF7),  # the signs of multiplication and division amid Latin-1's letters
    (0x055A, 0x055F), (0x0589, 0x058A), (0x05BE, 0x05BE), (0x05F3, 0x05F4),  # Armenian, Hebrew
    (0x0609, 0x060D), (0x061B, 0x061F), (0x066A, 0x066D), (0x06D4, 0x06D4),  # Arabic
    (0x0964, 0x0965), (0x0E4F, 0x0E4F), (0x0E5A, 0x0E5B), (0x104A, 0x104F), (0x1361, 0x1368),  # danda, Thai, Burmese, …
    (0x1680, 0x1680), (0x17D4, 0x17D6), (0x17D8, 0x17DA), (0x1800, 0x180A),  # Ogham space, Khmer, Mongolian
    (0x2000, 0x206F), (0x20A0, 0x20CF), (0x2190, 0x2BFF), (0x2E00, 0x2E7F),  # punctuation, currency, arrows to dingbats
    (0x3000, 0x3004), (0x3008, 0x3020), (0x3030, 0x3030), (0x303D, 0x303F), (0x30FB, 0x30FB),  # CJK punctuation
    (0xE000, 0xF8FF),  # private use
    (0xFE10, 0xFE1F), (0xFE30, 0xFE6F), (0xFEFF, 0xFEFF), (0xFF00, 0xFF0F), (0xFF1A, 0xFF20), (0xFF3B, 0xFF40),
    (0xFF5B, 0xFF65), (0xFFE0, 0xFFFF),  # small and full-width forms, and what is no character
    (0x1F000, 0x1FAFF),  # pictographs
)  # fmt: skip
"""Inclusive ranges of code points that part words; blocks of Unicode 15, whose assignments never change."""

_ALONE = (
    (0x3005, 0x3007), (0x3021, 0x3029), (0x3041, 0x30FA), (0x30FC, 0x30FF), (0x31F0, 0x31FF),  # marks, kana
    (0x3400, 0x4DBF), (0x4E00, 0x9FFF), (0xF900, 0xFAFF), (0x20000, 0x323AF),  # ideographs
)  # fmt: skip
"""Inclusive ranges of code points that are a word each."""

LOWER_END = 0x800
"""Code points below this are lower-cased: those of one or two bytes, whose lower case then has as many."""

_MASK = (1 << 64) - 1
_FNV_BASIS, _FNV_PRIME = 0xCBF29CE484222325, 0x100000001B3  # FNV-1a, 64 bits (RFC 9923)
_NGRAM_BASE = 0x9E3779B97F4A7C15  # odd; 2^64 over the golden ratio
_FMIX64 = (0xFF51AFD7ED558CCD, 0xC4CEB9FE1A85EC53)  # MurmurHash3's 64-bit finaliser


def _class_table() -> NDArray[np.uint8]:
    table = np.full(0x110000, WORD, np.uint8)
    for ranges, value in ((_BREAKS, BREAK), (_ALONE, ALONE)):
        for first, last in ranges:
            table[first : last + 1] = value
    return table


def _lower_table() -> NDArray[np.uint16]:
    """Unicode promises that case pairs never change, so this is the same table in every Python."""
    table = np.arange(LOWER_END, dtype=np.uint16)
    for code in range(LOWER_END):
        lowered = chr(code).lower()
        if len(lowered) == 1 and len(lowered.encode()) == len(chr(code).encode()):
            table[code] = ord(lowered)
    return table


CLASSES = _class_table()
"""uint8[0x110000]: BREAK, WORD or ALONE for each code point."""

LOWER = _lower_table()
"""uint16[0x800]: the lower case of each code point below `LOWER_END`, with as many UTF-8 bytes."""


def words(text: str) -> list[str]:
    """The words of `text` in order, normalised."""
    found: list[str] = []
    word = ""
    for character in text:
        code = ord(character)
        kind = CLASSES[code]
        if kind == WORD:
            word += chr(LOWER[code]) if code < LOWER_END else character
            continue
        if word:
            found.append(word)
            word = ""
        if kind == ALONE:
            found.append(character)
    return [*found, word] if word else found


def normalise(text: str) -> str:
    """The words of `text`, joined by one space."""
    return " ".join(words(text))


def text_hash(text: str) -> bytes:
    """16 bytes (BLAKE2b) that are the same for texts with the same normalised text."""
    return hashlib.blake2b(normalise(text).encode(), digest_size=16).digest()


def mix64(value: int) -> int:
    """MurmurHash3's finaliser: a bijection of 64-bit numbers that spreads every bit over all."""
    value = (value ^ (value >> 33)) * _FMIX64[0] & _MASK
    value = (value ^ (value >> 33)) * _FMIX64[1] & _MASK
    return value ^ (value >> 33)


def word_hash(word: str) -> int:
    """64-bit hash of a word: FNV-1a over its UTF-8 bytes, then mixed."""
    value = _FNV_BASIS
    for byte in word.encode():
        value = ((value ^ byte) * _FNV_PRIME) & _MASK
    return mix64(value)


def ngram_hashes(text: str, n: int) -> list[int]:
    """64-bit hashes of the runs of `n` words of `text` in order, repeats included.

    A text with fewer than `n` words has one n-gram, all of them; one without words has none.
    """
    hashes = [word_hash(word) for word in words(text)]
    windows = [hashes[i : i + n] for i in range(max(len(hashes) - n, 0) + 1)] if hashes else []
    grams = []
    for window in windows:
        value = 0
        for hashed in window:
            value = (value * _NGRAM_BASE + hashed) & _MASK
        grams.append(mix64(value))
    return grams


def permutations(num_perm: int, seed: int) -> tuple[NDArray[np.uint32], NDArray[np.uint32]]:
    """The `a` and `b` (uint32[num_perm]) of datasketch 2.0's scheme `affine32`: h → a·h + b mod 2^32, a odd."""
    generator = np.random.RandomState(seed)
    a = generator.randint(0, 1 << 31, num_perm, dtype=np.uint32) * np.uint32(2) + np.uint32(1)
    b = generator.randint(0, 1 << 32, num_perm, dtype=np.uint32)
    return a, b
