"""Policy: which documents the corpus wants, each refusal with one reason. All cut-offs live here.

Nothing is measured here: reasons come from the url indexes, the tombstones and the ledgers, so a change of mind costs
only this stage and what follows it. The first reason that applies, in a fixed order, is the one given.
"""

from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Annotated, Any, Literal

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray
from pydantic import BeforeValidator, Field

from pipeline.config import Config
from pipeline.documents import DOC_ID, read_table, write_table
from pipeline.quality_rules import C4, FINEWEB, FLAGS, GOPHER_QUALITY, GOPHER_REPETITION, SCORES
from pipeline.tombstones import NONE, Tombstones, copies, hosts, read_tombstones, taken_down
from pipeline.versions import Standing, part_places, standings

SELECT_FILE = "select.arrow"

LEDGER = pa.schema([("doc_id", DOC_ID), ("keep", pa.bool_()), ("reason", pa.string()), ("detail", pa.string())])
"""`reason` is null where `keep` is true; `detail` says of a contaminated document with which item of which set."""

RuleGroup = Literal["gopher_quality", "gopher_repetition", "c4", "fineweb"]

RULES: dict[RuleGroup, tuple[str, ...]] = {
    "gopher_quality": GOPHER_QUALITY,
    "gopher_repetition": GOPHER_REPETITION,
    "c4": C4,
    "fineweb": FINEWEB,
}
"""The groups of quality rules and their columns, in the order in which they are asked."""

REASONS = (
    "superseded",
    "gone",
    "taken_down",
    "copy_of_takedown",
    "language",
    "language_score",
    *(f"quality:{column}" for columns in RULES.values() for column in columns),
    "contaminated",
)
"""Every reason there is, in the order in which they are tried."""

LARGEST_HOSTS = 20
STOP_WORDS_LANGUAGE = "en"
"""Gopher's stop words are English: they say nothing of a document in another language."""


def _off(value: Any) -> Any:
    return None if value is False else value


Share = Annotated[float | None, Field(ge=0, le=1, strict=True), BeforeValidator(_off)]
"""A cut-off between 0 and 1; `false` (TOML has no null) switches it off."""
Ratio = Annotated[float | None, Field(ge=0, strict=True), BeforeValidator(_off)]
Count = Annotated[int | None, Field(ge=0, strict=True), BeforeValidator(_off)]


class PolicyConfig(Config):
    """Which documents are kept. Every `min_` and `max_` can be switched off with `false`; the bound itself is allowed.

    `min_X` and `max_X` bound the column X of the quality ledger. Defaults are the published ones: Gopher's from
    arXiv:2112.11446 (A1.1 and table A1), C4's from arXiv:1910.10683 (2.2), FineWeb's from arXiv:2406.17557 (3.6).
    """

    min_language_score: Share = 0.65
    """Probability of the language label under which a document counts as in no wanted language (FineWeb's)."""
    max_contamination: Share = 0.5
    """Share of an evaluation item's n-grams above which a document is withheld."""
    withhold_copies: bool = True
    """Also withhold documents elsewhere with the payload or the normalised text of what was taken down."""
    rules: tuple[RuleGroup, ...] = ("gopher_quality", "gopher_repetition", "c4", "fineweb")
    """Groups of quality rules that apply; the cut-offs of the others are without effect."""

    min_gopher_words: Count = 50
    """Words."""
    max_gopher_words: Count = 100_000
    """Words."""
    min_gopher_word_length: Ratio = 3.0
    """Mean length of a word in characters."""
    max_gopher_word_length: Ratio = 10.0
    """Mean length of a word in characters."""
    max_gopher_hashes: Ratio = 0.1
    """"#" per word."""
    max_gopher_ellipses: Ratio = 0.1
    """Ellipses per word."""
    max_gopher_bullet_lines: Share = 0.9
    """Share of lines that start with a bullet."""
    max_gopher_ellipsis_lines: Share = 0.3
    """Share of lines that end with an ellipsis."""
    min_gopher_alphabetic_words: Share = 0.8
    """Share of words with a letter."""
    min_gopher_stop_words: Count = 2
    """Different stop words, of eight English ones; asked of English documents alone."""

    max_gopher_duplicate_lines: Share = 0.3
    """Share of lines that occurred before."""
    max_gopher_duplicate_line_characters: Share = 0.2
    """Share of characters in them."""
    max_gopher_duplicate_paragraphs: Share = 0.3
    """Share of paragraphs that occurred before."""
    max_gopher_duplicate_paragraph_characters: Share = 0.2
    """Share of characters in them."""
    max_gopher_top_2_gram: Ratio = 0.2
    """Share of characters in the most frequent run of 2 words."""
    max_gopher_top_3_gram: Ratio = 0.18
    """The same, 3 words."""
    max_gopher_top_4_gram: Ratio = 0.16
    """The same, 4 words."""
    max_gopher_duplicate_5_grams: Ratio = 0.15
    """Share of characters in runs of 5 words that occurred before."""
    max_gopher_duplicate_6_grams: Ratio = 0.14
    """The same, 6 words."""
    max_gopher_duplicate_7_grams: Ratio = 0.13
    """The same, 7 words."""
    max_gopher_duplicate_8_grams: Ratio = 0.12
    """The same, 8 words."""
    max_gopher_duplicate_9_grams: Ratio = 0.11
    """The same, 9 words."""
    max_gopher_duplicate_10_grams: Ratio = 0.1
    """The same, 10 words."""

    min_c4_sentences: Count = 5
    """Sentences in the lines that C4 keeps."""
    drop_c4_lorem_ipsum: bool = True
    """Withhold what holds "lorem ipsum"."""
    drop_c4_curly_bracket: bool = True
    """Withhold what holds a curly bracket."""

    min_fineweb_terminal_lines: Share = 0.12
    """Share of lines that end with a terminal mark."""
    max_fineweb_short_lines: Share = 0.67
    """Share of lines of at most 30 characters."""
    max_fineweb_duplicate_line_characters: Share = 0.01
    """Share of characters in lines that occurred before."""
    max_fineweb_newlines: Ratio = 0.3
    """Newlines per word."""


def select(
    *,
    out: Path,
    config: PolicyConfig,
    snapshots: list[Path],
    documents: list[Path],
    language: list[Path],
    quality: list[Path],
    contamination: list[Path],
    tombstones: Path | None = None,
) -> dict[str, Any]:
    """Write `part-*/select.arrow` for every part: doc_id, keep, reason (one of `REASONS`), detail.

    Stats: rows, kept, reasons (rows by reason), contaminated (rows withheld for it, by set), languages (rows and kept
    by label), host_count, hosts (rows and kept of the largest). Raises `BadInput` where tombstones cannot be read, or
    the parts are not those of the snapshots.
    """
    places = part_places(snapshots, len(documents))
    tables = [read_table(part / "documents.arrow", ["doc_id", "url"]) for part in documents]
    stones = NONE if tombstones is None else read_tombstones(tombstones)
    standing = standings(snapshots, places, [table["url"] for table in tables])
    reasons: Counter[str] = Counter()
    contaminated: Counter[str] = Counter()
    labels, seen_hosts, kept = [], [], []
    for index, table in enumerate(tables):
        labelled = read_table(language[index] / "language.arrow")
        overlapping = read_table(contamination[index] / "contamination.arrow")
        verdict = np.full(len(table), len(REASONS))
        for reason, applies in (
            *_standing_reasons(standing[index]),
            *_takedown_reasons(config, snapshots[places[index].snapshot], documents[index], stones),
            *_language_reasons(config, labelled),
            *_quality_reasons(config, read_table(quality[index] / "quality.arrow"), labelled),
            ("contaminated", _contaminated(config, overlapping)),
        ):
            verdict = np.minimum(verdict, np.where(applies, REASONS.index(reason), len(REASONS)))
        keep = verdict == len(REASONS)
        folder = out / f"part-{index:05d}"
        folder.mkdir()
        named = pa.array(REASONS).take(pa.array(verdict, mask=keep))
        details, sets = _details(verdict == REASONS.index("contaminated"), overlapping)
        write_table(pa.table([table["doc_id"], pa.array(keep), named, details], LEDGER), folder / SELECT_FILE)
        contaminated.update(sets)
        reasons.update(value for value in named.to_pylist() if value is not None)
        labels.append(labelled["language"])
        seen_hosts.append(hosts(table["url"]))
        kept.append(keep)
    by_host = _counts(seen_hosts, kept)
    by_language = _counts(labels, kept)
    wanted = {label for labelled in language for label in _wanted_labels(labelled)}
    largest = sorted(by_host, key=lambda name: (-by_host[name]["rows"], name))[:LARGEST_HOSTS]
    return {
        "rows": sum(map(len, kept)),
        "kept": int(sum(keep.sum() for keep in kept)),
        "reasons": {reason: reasons[reason] for reason in REASONS if reasons[reason]},
        "contaminated": dict(sorted(contaminated.items())),
        "languages": by_language,
        "host_count": len(by_host),
        "hosts": {name: by_host[name] for name in largest},
        "warnings": [
            f"of {by_language[label]['rows']:,} documents in {label}, which is wanted, none is kept"
            for label in sorted(wanted)
            if not by_language[label]["kept"]
        ],
    }


def _wanted_labels(part: Path) -> set[str]:
    table = read_table(part / "language.arrow", ["language", "wanted"])
    return set(table["language"].filter(table["wanted"]).to_pylist())


def _standing_reasons(standing: Standing) -> Iterator[tuple[str, NDArray[np.bool_]]]:
    yield "superseded", standing.superseded
    yield "gone", standing.gone


def _takedown_reasons(
    config: PolicyConfig, snapshot: Path, documents: Path, tombstones: Tombstones
) -> Iterator[tuple[str, NDArray[np.bool_]]]:
    if tombstones != NONE:  # else no text need be read
        table = read_table(documents / "documents.arrow", ["url", "text"])
        yield "taken_down", taken_down(table["url"], tombstones)
        if config.withhold_copies:
            yield "copy_of_takedown", copies(snapshot, table["url"], table["text"], tombstones)


def _language_reasons(config: PolicyConfig, language: pa.Table) -> Iterator[tuple[str, NDArray[np.bool_]]]:
    yield "language", ~language["wanted"].to_numpy()
    if config.min_language_score is not None:
        # Scores are float32: so must the cut-off be, for a score equal to it to be equal to it.
        yield "language_score", language["score"].to_numpy() < np.float32(config.min_language_score)


def _quality_reasons(
    config: PolicyConfig, quality: pa.Table, language: pa.Table
) -> Iterator[tuple[str, NDArray[np.bool_]]]:
    """For each bound in force, the rows beyond it: never one that was not scored, which its language drops.

    Raises `ValueError` where a row in a wanted language was not scored: it would pass every rule.
    """
    if pc.any(pc.and_(language["wanted"], quality[SCORES[0]].is_null())).as_py():
        raise ValueError("the quality ledger has no score of a document in a wanted language.")
    english = pc.equal(language["language"], STOP_WORDS_LANGUAGE).to_numpy()
    for rule in config.rules:
        for column in RULES[rule]:
            scores = quality[column]
            if column in FLAGS:
                if getattr(config, f"drop_{column}"):
                    yield f"quality:{column}", _holds(scores)
                continue
            least, most = getattr(config, f"min_{column}", None), getattr(config, f"max_{column}", None)
            if least is not None:
                below = _holds(pc.less(scores, least))
                yield f"quality:{column}", below & english if column == "gopher_stop_words" else below
            if most is not None:
                yield f"quality:{column}", _holds(pc.greater(scores, most))


def _holds(answers: pa.ChunkedArray) -> NDArray[np.bool_]:
    """Where the answer is yes: neither no nor null."""
    return np.asarray(pc.fill_null(answers, False).to_numpy())


def _contaminated(config: PolicyConfig, contamination: pa.Table) -> NDArray[np.bool_]:
    overlap = contamination["overlap"].to_numpy()
    if config.max_contamination is None:
        return np.zeros(len(overlap), np.bool_)
    return np.asarray(overlap > np.float32(config.max_contamination))


def _details(withheld: NDArray[np.bool_], contamination: pa.Table) -> tuple[pa.Array, list[str]]:
    """What the ledger says of the rows that are withheld as contaminated, null elsewhere; and the sets of these."""
    details: list[str | None] = [None] * len(withheld)
    hits = contamination.select(["set", "item", "id", "overlap"]).filter(pa.array(withheld)).to_pylist()
    for row, hit in zip(np.flatnonzero(withheld).tolist(), hits, strict=True):
        name = "" if hit["id"] is None else f" ({hit['id']})"
        details[row] = f"{hit['set']}, item {hit['item']}{name}: {hit['overlap']:.2f} of its n-grams"
    return pa.array(details, pa.string()), [hit["set"] for hit in hits]


def _counts(names: list[pa.ChunkedArray], kept: list[NDArray[np.bool_]]) -> dict[str, dict[str, int]]:
    """Rows and kept rows of each name, sorted by name."""
    flat = pa.chunked_array([chunk for column in names for chunk in column.chunks], pa.string())
    keep = pa.array(np.concatenate([np.zeros(0, np.bool_), *kept]))
    table = pa.table({"name": pc.fill_null(flat, ""), "keep": keep}).group_by("name")
    counted = table.aggregate([("keep", "count"), ("keep", "sum")]).sort_by("name").to_pydict()
    rows = zip(counted["name"], counted["keep_count"], counted["keep_sum"], strict=True)
    return {name: {"rows": count, "kept": total} for name, count, total in rows}
