"""The dedup rule: an earlier kept match or nothing, whatever the parts, and exact after every addition and removal."""

import json
import shutil
import tempfile
from itertools import combinations
from pathlib import Path
from random import Random
from typing import Any, NamedTuple

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import ValidationError

from pipeline.config import BadInput
from pipeline.dedup.reference import band_hashes, leaders, shared_buckets
from pipeline.dedup.stats import CHARACTERS_BEFORE, EXCERPT_CHARACTERS, excerpts
from pipeline.deduplicate import DeduplicateConfig, deduplicate
from pipeline.documents import DOCUMENTS, doc_id, read_table, write_table
from pipeline.pii import PiiConfig, replace_pii
from pipeline.shingles import ngram_hashes, normalise, permutations
from pipeline.signatures import SignaturesConfig, signatures

SMALL = SignaturesConfig(num_perm=16, shingle_words=2)
LOOSE = DeduplicateConfig(threshold=0.5, bands=8, rows=2)


class Page(NamedTuple):
    """One selected document: `sequence` is the place of its snapshot in its source."""

    source: str
    sequence: int
    url: str
    text: str


class Decision(NamedTuple):
    keep: bool
    duplicate_of: bytes | None
    similarity: float | None


def identity(page: Page) -> bytes:
    return doc_id(page.url, page.source + str(page.sequence) + page.text)


def run(
    pages: list[Page],
    config: DeduplicateConfig = LOOSE,
    signing: SignaturesConfig = SMALL,
    part_rows: int = 1000,
    unselected: frozenset[Page] = frozenset(),
    chance: Random | None = None,
) -> tuple[dict[Page, Decision], dict[str, Any]]:
    """Lay out snapshots, documents and ledgers as a store does, cut into parts of `part_rows`, and deduplicate.

    Parts are signed in an order that `chance` draws, as workers come to them.
    """
    root = Path(tempfile.mkdtemp())
    documents, signed, selected, order = [], [], [], []
    snapshots = sorted({(page.source, page.sequence) for page in pages})
    folders = [root / "snapshots" / source / f"{sequence:04d}" for source, sequence in snapshots]
    for (source, sequence), folder in zip(snapshots, folders, strict=True):
        rows = sorted((p for p in pages if p[:2] == (source, sequence)), key=lambda page: page.url)
        folder.mkdir(parents=True)
        for first in range(0, len(rows), part_rows):
            part = rows[first : first + part_rows]
            (folder / f"part-{first // part_rows:05d}").mkdir()
            where = root / f"documents-{len(documents)}"
            where.mkdir()
            columns = {name: [None] * len(part) for name in DOCUMENTS.names}
            columns |= {
                "doc_id": [identity(page) for page in part],
                "url": [page.url for page in part],
                "source": [page.source for page in part],
                "text": [page.text for page in part],
            }
            write_table(pa.table(columns, DOCUMENTS), where / "documents.arrow")
            keep = pa.table({"doc_id": columns["doc_id"], "keep": [page not in unselected for page in part]})
            write_table(keep, where / "select.arrow")
            documents.append(where)
            signed.append(where)
            selected.append(where)
            order += part
    for where in chance.sample(documents, len(documents)) if chance else documents:
        signatures(out=where, config=signing, documents=where)
    out = root / "out"
    out.mkdir()
    stats = deduplicate(
        out=out, config=config, documents=documents, signatures=signed, select=selected, snapshots=folders
    )
    ledgers = [read_table(path) for path in sorted(out.glob("part-*/deduplicate.arrow"))]
    assert len(ledgers) == len(documents)
    rows = [row for ledger in ledgers for row in ledger.to_pylist()]
    assert [row["doc_id"] for row in rows] == [identity(page) for page in order]
    shutil.rmtree(root)
    decisions = {
        page: Decision(row["keep"], row["duplicate_of"], row["similarity"])
        for page, row in zip(order, rows, strict=True)
    }
    return decisions, stats


def by_brute_force(pages: list[Page], config: DeduplicateConfig, signing: SignaturesConfig) -> dict[Page, Decision]:
    """The rule as `design.md` states it, every pair compared in plain Python."""
    age: dict[tuple[str, str], int] = {}
    for page in pages:
        key = (page.source, page.url)
        age[key] = min(age.get(key, page.sequence), page.sequence)
    a, b = (values.tolist() for values in permutations(signing.num_perm, signing.seed))
    order = sorted(pages, key=lambda page: (age[page.source, page.url], page.url, page.source, page.sequence))
    shingles = {page: set(ngram_hashes(page.text, signing.shingle_words)) for page in pages}

    def mix(h: int) -> int:
        h = (h ^ (h >> 16)) * 0x85EBCA6B & 0xFFFFFFFF
        h = (h ^ (h >> 13)) * 0xC2B2AE35 & 0xFFFFFFFF
        return h ^ (h >> 16)

    def bands(page: Page) -> set[tuple[int, ...]]:
        mixed = [mix(h & 0xFFFFFFFF) for h in shingles[page]]
        values = [min((x * h + y) & 0xFFFFFFFF for h in mixed) for x, y in zip(a, b, strict=True)]
        return {(i, *values[i * config.rows : (i + 1) * config.rows]) for i in range(config.bands)}

    kept: list[Page] = []
    found = {}
    for page in order:
        for earlier in kept if shingles[page] else []:
            if not shingles[earlier]:
                continue
            both, either = (len(f(shingles[page], shingles[earlier])) for f in (set.intersection, set.union))
            same = normalise(page.text) == normalise(earlier.text)
            if same or (bands(page) & bands(earlier) and both / either >= config.threshold):
                found[page] = Decision(False, identity(earlier), float(np.float32(both / either)))
                break
        else:
            kept.append(page)
            found[page] = Decision(True, None, None)
    return found


windows = st.tuples(st.integers(0, 5), st.integers(6, 8)).map(lambda w: " ".join("abcdefghijklm"[w[0] : sum(w)]))
words = st.one_of(windows, windows, st.lists(st.sampled_from("abcdef"), max_size=9).map(" ".join))
addresses = st.sampled_from([f"https://{host}.example/{path}" for host in ("one", "two") for path in "abcdefgh"])
corpora = st.lists(
    st.builds(Page, st.sampled_from(["s", "t"]), st.integers(0, 2), addresses, words),
    max_size=24,
    unique_by=lambda page: page[:3],
).map(lambda pages: [*pages, Page("s", 0, "https://zero.example/", "x y z")])
"""Few words, and windows on one text: likenesses of every degree abound, and chains of them."""


def renumbered(pages: list[Page]) -> list[Page]:
    """The same pages with each source's snapshots numbered without gaps."""
    numbers = {source: sorted({p.sequence for p in pages if p.source == source}) for source in ("s", "t", "u")}
    return [page._replace(sequence=numbers[page.source].index(page.sequence)) for page in pages]


@given(corpora.map(renumbered), st.integers(1, 5), st.randoms())
@settings(max_examples=50)
def test_the_fast_path_gives_what_the_rule_says_whatever_the_parts_and_whichever_is_done_first(
    pages: list[Page], part_rows: int, chance: Random
) -> None:
    found, stats = run(pages, part_rows=part_rows, chance=chance)
    assert found == by_brute_force(pages, LOOSE, SMALL)
    assert stats["rows"] == len(pages) == stats["kept"] + sum(stats["duplicates"].values())


@given(corpora.map(renumbered), st.data())
@settings(max_examples=30)
def test_documents_at_new_urls_of_a_later_snapshot_change_no_earlier_decision(pages: list[Page], data: Any) -> None:
    before, _ = run(pages)
    sequence, source = max((page.sequence, page.source) for page in pages)
    new = st.builds(
        Page, st.just(source), st.just(sequence + 1), st.integers(0, 9).map("https://new.example/{}".format), words
    )
    added = data.draw(st.lists(new, max_size=6, unique_by=lambda page: page.url))
    after, _ = run(pages + added)
    assert {page: after[page] for page in pages} == before


@given(corpora.map(renumbered))
@settings(max_examples=40)
def test_nothing_is_removed_for_resembling_a_removed_document(pages: list[Page]) -> None:
    found, _ = run(pages)
    kept = {identity(page) for page, decision in found.items() if decision.keep}
    assert all(decision.keep or decision.duplicate_of in kept for decision in found.values())


@given(corpora.map(renumbered), st.data())
@settings(max_examples=30)
def test_a_removed_original_brings_its_copies_back(pages: list[Page], data: Any) -> None:
    gone = data.draw(st.sampled_from(pages))
    found, _ = run(pages, unselected=frozenset([gone]))
    assert found[gone] == Decision(False, None, None)
    # What is not selected still dates its URL, so the order of the rest is as before.
    ages = {(p.source, p.url): min(q.sequence for q in pages if q[0] == p[0] and q[2] == p[2]) for p in pages}
    if ages[gone.source, gone.url] == gone.sequence and sum(p.url == gone.url for p in pages) > 1:
        return
    rest = [page for page in pages if page != gone]
    assert {page: found[page] for page in rest} == by_brute_force(rest, LOOSE, SMALL)


def test_a_chain_of_likenesses_keeps_both_ends() -> None:
    numbers = [f"w{i}" for i in range(300)]
    chain = [Page("s", 0, f"https://a.example/{i}", " ".join(numbers[i * 25 : i * 25 + 200])) for i in range(3)]
    found, _ = run(chain, DeduplicateConfig(threshold=0.7, bands=64, rows=2), SignaturesConfig())
    assert [found[page].keep for page in chain] == [True, False, True]


def test_an_exact_copy_of_a_near_duplicate_shares_its_fate() -> None:
    base = [f"w{i}" for i in range(100)]
    pages = [
        Page("s", 0, "https://a.example/1", " ".join(base)),
        Page("s", 0, "https://a.example/2", " ".join([*base, "end"])),
        Page("s", 0, "https://a.example/3", " ".join([*base, "END!"])),
        Page("s", 0, "https://a.example/4", " ".join(base).upper()),
    ]
    found, stats = run(pages, DeduplicateConfig(), SignaturesConfig())
    assert [found[page].duplicate_of for page in pages] == [None, *[identity(pages[0])] * 3]
    assert found[pages[3]].similarity == 1.0
    assert found[pages[1]].similarity == found[pages[2]].similarity == float(np.float32(96 / 97))
    assert stats["duplicates"] == {"exact": 1, "near": 2}


def test_documents_without_words_match_nothing() -> None:
    pages = [Page("s", 0, f"https://a.example/{i}", text) for i, text in enumerate(["", "", "...", "!", "one"])]
    found, _ = run(pages, DeduplicateConfig(), SignaturesConfig())
    assert all(decision.keep for decision in found.values())


def test_a_url_keeps_its_place_when_its_page_changes() -> None:
    pages = [
        Page("s", 0, "https://a.example/z", "old words that stood here before"),
        Page("s", 1, "https://a.example/b", "a fine text about dogs and cats"),
        Page("s", 1, "https://a.example/z", "A fine text about dogs and cats."),
    ]
    found, _ = run(pages, unselected=frozenset(pages[:1]))
    assert [found[page].keep for page in pages] == [False, False, True]


def test_estimates_from_signatures_can_stand_in_for_texts() -> None:
    base = [f"w{i}" for i in range(400)]
    pages = [Page("s", 0, f"https://a.example/{i}", " ".join([*base, f"end{i}"])) for i in range(5)]
    found, _ = run(pages, DeduplicateConfig(verify="signature"), SignaturesConfig())
    assert [found[page].keep for page in pages] == [True, False, False, False, False]


def test_many_near_duplicates_of_one_another_cost_one_comparison_each() -> None:
    words = [f"w{i}" for i in range(300)]
    pages = [
        Page("s", 0, f"https://a.example/{i:04}", " ".join([*words[: i % 300], f"x{i}", *words[i % 300 :]]))
        for i in range(1000)
    ]
    found, stats = run(pages, DeduplicateConfig(), SignaturesConfig(), part_rows=300)
    assert [page.url for page in pages if found[page].keep] == [pages[0].url]
    assert stats["comparisons"] == 999
    assert stats["most_kept_in_a_bucket"] == 1


def test_what_a_bucket_of_unlike_documents_costs_is_told() -> None:
    pages = [Page("s", 0, f"https://a.example/{i:02}", f"common{i % 2} w{i} x{i}") for i in range(40)]
    # Of one word each: whoever shares one of two words shares a bucket in about one of these bands.
    found, stats = run(pages, DeduplicateConfig(bands=16, rows=1), SignaturesConfig(num_perm=16, shingle_words=1))
    assert all(decision.keep for decision in found.values())
    assert stats["comparisons"] > 100
    assert 10 < stats["most_kept_in_a_bucket"] <= stats["largest_bucket"] <= 20


def test_neither_memory_nor_parts_change_an_answer() -> None:
    """1 MiB has room for some 100,000 shingles at a time, half of those here."""
    words = [f"w{i}" for i in range(5000)]
    pages = [
        Page(
            "st"[i % 2],
            0,
            f"https://a.example/{i * 7919 % 1000:04}",
            " ".join([f"x{i}"] * (i % 40) + words[i % 10 * 7 :][:200]),
        )
        for i in range(1000)
    ]
    tight = DeduplicateConfig(memory_mib=1, bands=64, rows=2)
    answers = [
        run(pages, config, SignaturesConfig(), part_rows)
        for config, part_rows in ((tight, 1000), (tight, 77), (tight.model_copy(update={"memory_mib": 1024}), 210))
    ]
    assert answers[0] == answers[1] == answers[2]
    assert answers[0][1]["duplicates"]["near"] > 100
    assert answers[0][1]["comparisons"] > 1000


@given(st.lists(st.lists(st.integers(0, 3), min_size=3, max_size=3), max_size=20), st.data())
def test_two_rows_share_a_bucket_where_they_share_a_band(rows: list[list[int]], data: Any) -> None:
    eligible = np.array(data.draw(st.lists(st.booleans(), min_size=len(rows), max_size=len(rows))), np.bool_)
    hashes = np.array(rows, np.uint64).reshape(-1, 3)
    buckets, count = shared_buckets(hashes, eligible)
    assert set(buckets.ravel()) - {-1} == set(range(count))
    for i, j in combinations(np.flatnonzero(eligible), 2):
        assert ((hashes[i] == hashes[j]) == ((buckets[i] == buckets[j]) & (buckets[i] >= 0))).all()
    for row in range(len(rows)):
        others = [o for o in range(len(rows)) if o != row and eligible[o]]
        alone = [not any(hashes[o, band] == hashes[row, band] for o in others) for band in range(3)]
        assert ((buckets[row] == -1) == (np.array(alone) | ~eligible[row])).all()


@given(st.lists(st.tuples(st.integers(0, 2), st.integers(0, 2), st.booleans()), max_size=20))
def test_the_leader_of_a_text_is_its_first_row(rows: list[tuple[int, int, bool]]) -> None:
    hashes = np.array([row[:2] for row in rows], np.uint64).reshape(-1, 2)
    found = leaders(hashes, np.array([row[2] and row[0] == 0 for row in rows], np.bool_))
    for i, row in enumerate(rows):
        assert found[i] == (i if row[2] and row[0] == 0 else next(j for j, r in enumerate(rows) if r[:2] == row[:2]))


def test_bands_are_cut_as_datasketch_cuts_them() -> None:
    one, two = np.arange(128, dtype=np.uint32), np.arange(128, dtype=np.uint32)
    two[[3, 21]] = 0
    hashes = band_hashes(np.stack([one, two]), 16, 8)
    assert np.flatnonzero(hashes[0] != hashes[1]).tolist() == [0, 2]


def test_the_report_names_large_clusters_and_hosts_that_lose_more_than_half() -> None:
    pages = [Page("site", 0, f"https://mirror.example/{i}", "the very same words on each page") for i in range(4)]
    pages.append(Page("site", 0, "https://own.example/", "something else entirely stands right here"))
    _, stats = run(pages, DeduplicateConfig(), SignaturesConfig())
    said = "the very same words on each page"
    assert stats["largest_clusters"] == [
        {
            "doc_id": identity(pages[0]).hex(),
            "url": "https://mirror.example/0",
            "size": 4,
            "example": "https://mirror.example/1",
            "similarity": 1.0,
            "kept_text": said,
            "removed_text": said,
        }
    ]
    assert stats["warnings"] == [
        "host mirror.example loses 3 of 4 documents as duplicates",
        "source site loses 3 of 5 documents as duplicates",
    ]


def test_pages_without_a_host_are_called_so_in_a_warning() -> None:
    pages = [Page("site", 0, f"mill:{i}", "the very same words on each page") for i in range(3)]
    _, stats = run(pages, DeduplicateConfig(), SignaturesConfig())
    assert stats["warnings"][0] == "host (none) loses 2 of 3 documents as duplicates"


@pytest.mark.parametrize("personal", ["ada.private@post.mill.org", "66.102.11.104", "+49 30 1234567"])
def test_no_part_of_personal_data_is_left_at_the_edges_of_an_excerpt(personal: str) -> None:
    placeholder = replace_pii(personal, PiiConfig())[0]
    for inside in range(len(personal) + 1):
        ends_within = " " * 200 + personal + " " * (CHARACTERS_BEFORE - inside)
        begins_within = " " * (EXCERPT_CHARACTERS - inside) + personal + " " * 200
        for shown in (*excerpts(ends_within + "x", ends_within + "y"), excerpts(begins_within, begins_within)[0]):
            whole = inside == len(personal)
            assert shown.strip("… xy") == (placeholder if whole else "")


def test_more_bands_than_the_signatures_have_values_is_one_clear_sentence() -> None:
    with pytest.raises(BadInput, match=r"17 x 8 = 136, but signatures have 128 values"):
        run([Page("s", 0, "https://a.example/", "x")], DeduplicateConfig(bands=17), SignaturesConfig())


def test_parts_that_are_not_those_of_the_snapshots_are_refused(tmp_path: Path) -> None:
    with pytest.raises(BadInput, match="0 parts but there are 1 parts of documents"):
        deduplicate(
            out=tmp_path, config=LOOSE, documents=[tmp_path], signatures=[tmp_path], select=[tmp_path], snapshots=[]
        )


def test_nothing_selected_gives_empty_decisions() -> None:
    page = Page("s", 0, "https://a.example/", "some words")
    found, stats = run([page], unselected=frozenset([page]))
    assert found == {page: Decision(False, None, None)}
    assert stats["kept"] == 0
    assert stats["rows"] == 1


def test_bible_versions_are_told_apart_and_together_as_their_jaccard_says() -> None:
    folder = Path(__file__).parents[2] / ".." / "shared" / "data" / "dedup"
    if not folder.is_dir():
        pytest.skip("the shared data folder with the Bible pairs is not there")
    rows = [json.loads(line) for p in sorted(folder.glob("bible_[ku]*.jsonl")) for line in p.read_text().splitlines()]
    pages = {row["id"]: Page("s", 0, f"https://bible.example/{row['id']}", row["text"]) for row in rows}
    decisions, _ = run(list(pages.values()), DeduplicateConfig(threshold=0.7, bands=32, rows=4), SignaturesConfig())
    alike, found, wrong = 0, 0, 0
    for line in (folder / "bible_pairs_books01-05.tsv").read_text().splitlines()[1:]:
        a, b, jaccard = line.split("\t")
        if {a[:3], b[:3]} != {"kjv", "ukj"}:
            continue
        paired = decisions[pages[max(a, b)]].duplicate_of == identity(pages[min(a, b)])
        alike += float(jaccard) >= 0.71
        found += paired and float(jaccard) >= 0.71
        wrong += paired and float(jaccard) < 0.69
    assert alike > 20
    assert found / alike > 0.98
    assert wrong == 0


@pytest.mark.parametrize("wrong", [{"threshold": 0}, {"threshold": 1.1}, {"bands": 0}, {"verify": "guess"}])
def test_impossible_values_are_refused(wrong: dict[str, Any]) -> None:
    with pytest.raises(ValidationError):
        DeduplicateConfig(**wrong)
