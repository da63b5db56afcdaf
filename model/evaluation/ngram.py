"""An n-gram model of our own training tokens: what counting reaches, for the neural model to be held against.

Interpolated modified Kneser-Ney smoothing (Chen and Goodman 1998, sections 2.7 and 3): an n-gram seen c times loses a
discount that depends on c, and what is taken from the n-grams of a context goes to the distribution after one token
less. A shorter n-gram counts the different tokens seen before it instead of how often it came. The shortest falls back
to all tokens alike, so every token has a probability after every context, and they sum to 1.

All is sorting. An n-gram is named by the number of its first n - 1 tokens and its last token, joined in one integer,
and is numbered by its place among the sorted names; so its name also tells the number of its context.
"""

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from model.training.data import Ints
from model.training.score import Floats
from pipeline.shards import TokenShards

UNSEEN = -1
"""The number of an n-gram that is not there."""

LEAST_DISCOUNT = 0.1
"""So that every context leaves something to tokens that were never seen after it."""

STRETCHES = 64
"""Pieces, evenly spread, that a part of a corpus is taken in."""


@dataclass(frozen=True)
class Level:
    """The n-grams of one length, by number.

    names: int64, sorted. gains: the discounted count over that of all n-grams of the same context. spared: by the
    number of a context, the share of probability left to shorter n-grams, 1 where nothing was seen after it.
    """

    names: Ints
    gains: Floats
    spared: Floats

    @classmethod
    def of(cls, names: Ints, counts: Ints, vocab_size: int, n_contexts: int) -> "Level":
        """The level of n-grams with these counts."""
        contexts = names // vocab_size
        taken = np.minimum(counts, discounts(counts)[np.minimum(counts, 3)])
        totals = np.bincount(contexts, weights=counts, minlength=n_contexts)
        lost = np.bincount(contexts, weights=taken, minlength=n_contexts)
        spared = np.divide(lost, totals, out=np.ones(n_contexts), where=totals > 0)
        return cls(names, (counts - taken) / np.maximum(1, totals)[contexts], spared)


class NGram:
    """Probabilities of tokens after the `order` - 1 before them."""

    def __init__(self, levels: list[Level], vocab_size: int) -> None:
        self.levels, self.vocab_size = levels, vocab_size

    @classmethod
    def fit(cls, ids: Ints, vocab_size: int, order: int = 5) -> "NGram":
        """Count a stream of at least one id, each below `vocab_size`."""
        levels: list[Level] = []
        numbers, names, counts = np.zeros(len(ids) + 1, np.int64), np.zeros(1, np.int64), np.zeros(1, np.int64)
        n_contexts = 1
        for length in range(1, min(order, len(ids)) + 1):
            longer = numbers[:-1] * vocab_size + ids[length - 1 :]
            longer_names, places, longer_numbers, longer_counts = _numbered(longer)
            if length > 1:
                counts = np.bincount(numbers[places + 1], minlength=len(names))
                levels.append(Level.of(names, counts, vocab_size, n_contexts))
                n_contexts = len(names)
            numbers, names, counts = longer_numbers, longer_names, longer_counts
        levels.append(Level.of(names, counts, vocab_size, n_contexts))
        return cls(levels, vocab_size)

    def nats(self, ids: Ints, before: int) -> Floats:
        """The negative log-probability of each id of a stream that follows the id `before`, in nats."""
        stream = np.concatenate([[before], ids])
        chances = np.full(len(stream), 1 / self.vocab_size)
        contexts = np.zeros(len(stream), np.int64)
        for level in self.levels:
            known = contexts != UNSEEN
            names = np.where(known, contexts * self.vocab_size + stream, UNSEEN)
            places = np.minimum(np.searchsorted(level.names, names), len(level.names) - 1)
            seen = level.names[places] == names
            longer = np.where(seen, level.gains[places], 0) + level.spared[contexts] * chances
            chances = np.where(known, longer, chances)
            contexts = np.concatenate([[UNSEEN], np.where(seen, places, UNSEEN)[:-1]])
        losses: Floats = -np.log(chances[1:])
        return losses


def _numbered(names: Ints) -> tuple[Ints, Ints, Ints, Ints]:
    """The distinct names in order, a place of each, for each place the number of its name, and how often each comes."""
    order = np.argsort(names)
    ordered = names[order]
    begins = np.flatnonzero(np.concatenate([[True], ordered[1:] != ordered[:-1]]))
    counts = np.diff(begins, append=len(names))
    numbers = np.empty(len(names), np.int64)
    numbers[order] = np.repeat(np.arange(len(begins)), counts)
    return ordered[begins], order[begins], numbers, counts


def discounts(counts: npt.NDArray[np.integer]) -> Floats:
    """What an n-gram seen 0, 1, 2, and 3 or more times loses (Chen and Goodman 1998, equation 26).

    Half a count, where the text is too short or its n-grams too frequent to tell.
    """
    once, twice, thrice, four = (int(np.count_nonzero(counts == count)) for count in (1, 2, 3, 4))
    if not (once and twice and thrice and four):
        return np.array([0, 0.5, 0.5, 0.5])
    share = once / (once + 2 * twice)
    found = [1 - 2 * share * twice / once, 2 - 3 * share * thrice / twice, 3 - 4 * share * four / thrice]
    return np.array([0, *np.maximum(LEAST_DISCOUNT, found)])


def spread(shards: TokenShards, most: int) -> Ints:
    """All ids of a split, or at most so many, in evenly spread pieces."""
    if len(shards) <= most:
        return shards.window(0, len(shards))
    size = max(1, most // STRETCHES)
    starts = np.linspace(0, len(shards) - size, most // size).astype(np.int64)
    return np.concatenate([shards.window(int(start), size) for start in starts])
