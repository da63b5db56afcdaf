"""Two snapshots side by side: pages gained, lost, changed and kept, and what became of those lost."""

from collections import Counter
from itertools import pairwise
from pathlib import Path
from typing import Any

import pyarrow as pa
from hypothesis import given
from hypothesis import strategies as st

from pipeline.corpus import Corpus
from pipeline.crawl.seal import INDEX, URL_INDEX
from pipeline.diff import _newest, _piece, figures, snapshots
from pipeline.documents import DOCUMENTS, doc_id, write_table
from pipeline.engine.store import Artifact, Part


def snapshot(folder: Path, rows: dict[str, tuple[str, str | None]]) -> Path:
    """A url index with these URLs, each with its outcome and payload digest."""
    folder.mkdir(parents=True)
    full = [
        dict.fromkeys(URL_INDEX.names) | {"url": url, "outcome": outcome, "payload_digest": digest, "status": 200}
        for url, (outcome, digest) in sorted(rows.items())
    ]
    write_table(pa.Table.from_pylist(full, URL_INDEX), folder / INDEX)
    return folder


def compared(folder: Path, before: dict[str, Any], after: dict[str, Any]) -> dict[str, Any]:
    return snapshots(snapshot(folder / "s" / "0000", before), snapshot(folder / "s" / "0001", after), None)


def test_pages_are_gained_lost_changed_or_kept_and_the_lost_say_why(tmp_path: Path) -> None:
    a, b = "http://a.example", "http://b.example"
    before = {
        f"{a}/1": ("stored", "1"),
        f"{a}/2": ("stored", "2"),
        f"{a}/3": ("stored", "3"),
        f"{a}/4": ("stored", "4"),
    }
    after = {f"{a}/1": ("revisit", "1"), f"{a}/2": ("stored", "new"), f"{a}/3": ("http_404", None), b: ("stored", "5")}
    told = compared(tmp_path, before, after)
    sizes = {name: told[name]["documents"] for name in ("before", "after", "gained", "lost", "changed", "unchanged")}
    assert sizes == {"before": 4, "after": 3, "gained": 1, "lost": 2, "changed": 1, "unchanged": 1}
    assert told["lost_because"] == {"http_404": 1, "not met": 1}
    assert (told["hosts_gained"], told["hosts_lost"]) == (["b.example"], [])
    assert told["hosts_moved"][0] == {"host": "a.example", "before": 4, "after": 2}


def corpus(folder: Path, *parts: dict[str, str]) -> Corpus:
    """A run that saw a part of each snapshot of the source `s`, with the texts of these URLs."""
    seen = []
    for number, texts in enumerate(parts):
        at = folder / f"part-{number}"
        at.mkdir()
        rows = [
            dict.fromkeys(DOCUMENTS.names) | {"doc_id": doc_id(url, text), "url": url, "source": "s", "text": text}
            for url, text in texts.items()
        ]
        write_table(pa.Table.from_pylist(rows, DOCUMENTS), at / "documents.arrow")
        seen.append(Part(at, "", f"s/{number:04d}", "s"))
    return Corpus({"extract": Artifact("extract", "", "", folder, tuple(seen))}, ())


def test_a_document_is_gone_where_the_page_was_stored_anew_and_gave_none(tmp_path: Path) -> None:
    gone, kept, new = (f"http://a.example/{name}" for name in ("gone", "kept", "new"))
    before = snapshot(tmp_path / "s/0000", {gone: ("stored", "1"), kept: ("stored", "2")})
    between = snapshot(tmp_path / "s/0001", {gone: ("stored", "3"), kept: ("revisit", "2"), new: ("stored", "4")})
    after = snapshot(tmp_path / "s/0002", {gone: ("revisit", "3"), kept: ("revisit", "2"), new: ("revisit", "4")})
    seen = corpus(tmp_path, {gone: "Some text.", kept: "Other text."}, {new: "New text."}, {})
    for later in (between, after):
        told = snapshots(before, later, seen)
        sizes = {name: told[name]["documents"] for name in ("before", "after", "gained", "lost", "unchanged")}
        assert sizes == {"before": 2, "after": 2, "gained": 1, "lost": 1, "unchanged": 1}


indexes = st.dictionaries(
    st.sampled_from([f"http://{host}.example/{page}" for host in "abc" for page in range(3)]),
    st.tuples(st.sampled_from(["stored", "revisit", "http_404", "robots"]), st.sampled_from(["1", "2"])),
)


@given(before=indexes, after=indexes)
def test_the_other_way_round_gained_is_lost_and_the_counts_add_up(
    before: Any, after: Any, tmp_path_factory: Any
) -> None:
    there = compared(tmp_path_factory.mktemp("there"), before, after)
    back = compared(tmp_path_factory.mktemp("back"), after, before)
    for one, other in (("gained", "lost"), ("before", "after"), ("changed", "changed"), ("unchanged", "unchanged")):
        assert there[one] == back[other]
    assert there["hosts_gained"] == back["hosts_lost"]
    size = {name: there[name]["documents"] for name in ("before", "after", "gained", "lost", "changed", "unchanged")}
    assert size["before"] == size["lost"] + size["changed"] + size["unchanged"]
    assert size["after"] == size["gained"] + size["changed"] + size["unchanged"]
    assert sum(there["lost_because"].values()) == size["lost"]


@given(before=indexes, after=indexes)
def test_the_counts_are_those_of_the_sets_of_urls(before: Any, after: Any, tmp_path_factory: Any) -> None:
    told = compared(tmp_path_factory.mktemp("pages"), before, after)
    old, new = (
        {url: row[1] for url, row in rows.items() if row[0] in ("stored", "revisit")} for rows in (before, after)
    )
    assert told["gained"]["documents"] == len(new.keys() - old.keys())
    assert told["unchanged"]["documents"] == len(old.items() & new.items())
    assert told["lost_because"] == Counter(after.get(url, ("not met",))[0] for url in old.keys() - new.keys())
    counts = [Counter(url[7:].partition("/")[0] for url in pages) for pages in (old, new)]
    moved = [(host, *(each[host] for each in counts)) for host in {*counts[0], *counts[1]}]
    moved = sorted((row for row in moved if row[1] != row[2]), key=lambda row: (-abs(row[1] - row[2]), row[0]))
    assert [tuple(row.values()) for row in told["hosts_moved"]] == moved


@given(
    rows=st.lists(st.tuples(st.sampled_from("abcd"), st.integers(0, 9)), max_size=9), cuts=st.lists(st.integers(0, 9))
)
def test_of_several_documents_at_one_url_the_last_counts_however_they_lie_in_parts(rows: Any, cuts: Any) -> None:
    numbers: dict[str, int] = {}
    pieces = [
        _piece(pa.array([url for url, _ in piece], pa.string()), [b"-"] * len(piece), [n for _, n in piece], numbers)
        for start, stop in pairwise([0, *sorted(cuts), len(rows)])
        if (piece := rows[start:stop])
    ]
    assert sorted(_newest(pieces)["tokens"]) == sorted(dict(rows).values())


def test_only_figures_that_both_have_and_that_moved_are_told() -> None:
    before = {"validation": {"bits_per_byte": 1.5, "documents": 5, "interval": [1, 2]}, "only_here": 1}
    after = {"validation": {"bits_per_byte": 1.4, "documents": 5, "interval": [1, 3]}, "only_there": 1}
    assert figures(before, after) == [{"name": "validation.bits_per_byte", "before": 1.5, "after": 1.4}]
