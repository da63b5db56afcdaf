"""What snapshots say beyond the pages that they store: enough to know whether any document's standing changed."""

import tempfile
from pathlib import Path

import pyarrow as pa
from hypothesis import given, settings
from hypothesis import strategies as st

from pipeline.documents import write_table
from pipeline.versions import part_places, standings, unstored

STORED = (200, "stored")
ANSWERS = (
    STORED, (200, "not_html"), (200, "broken"), (304, "revisit"), (404, "http_404"), (410, "http_410"), (301, "moved"),
    (0, "error"), (200, "no_ai"), (0, "robots"),
)  # fmt: skip
URLS = ("http://a/", "http://b/")

visits = st.dictionaries(st.sampled_from(URLS), st.sampled_from(ANSWERS))
"""What one crawl met at each URL; where there is nothing, it was not reached."""
quiet = st.dictionaries(st.sampled_from(URLS), st.sampled_from(ANSWERS[1:]), min_size=1)
"""A crawl that stores nothing."""


def write(folder, snapshots):
    """The snapshots of one source, and the URLs of each part of documents."""
    folders, parts = [], []
    for number, answers in enumerate(snapshots):
        snapshot = folder / "source" / f"{number:04d}"
        snapshot.mkdir(parents=True)
        rows = sorted(answers.items())
        columns = {
            "url": [url for url, _ in rows],
            "status": pa.array([status for _, (status, _) in rows], pa.int32()),
            "outcome": pa.array([outcome for _, (_, outcome) in rows], pa.string()),
            "part": pa.array([0 if answer == STORED else None for _, answer in rows], pa.int32()),
        }
        write_table(pa.table(columns | {"url": pa.array(columns["url"], pa.string())}), snapshot / "urls.arrow")
        stored = [url for url, answer in rows if answer == STORED]
        if stored:
            (snapshot / "part-00000").mkdir()
            parts.append(stored)
        folders.append(snapshot)
    return folders, parts


def said(snapshots):
    """What the snapshots say beyond what they store, and what becomes of every document, part by part."""
    with tempfile.TemporaryDirectory() as folder:
        folders, parts = write(Path(folder), snapshots)
        columns = [pa.chunked_array([pa.array(urls, pa.string())]) for urls in parts]
        told = standings(folders, part_places(folders, len(parts)), columns)
        return unstored(folders), [(each.superseded.tolist(), each.gone.tolist()) for each in told]


@settings(max_examples=300, deadline=None)
@given(
    first=visits, crawls=st.lists(st.one_of(visits, quiet), max_size=3), more=st.lists(quiet, min_size=1, max_size=3)
)
def test_crawls_that_store_nothing_say_something_exactly_where_a_document_stands_otherwise(first, crawls, more):
    before, stood = said([first, *crawls])
    after, stands = said([first, *crawls, *more])
    assert (before == after) == (stood == stands)


def test_a_page_found_as_it_was_says_nothing_and_neither_does_one_that_was_never_stored():
    first = {"http://a/": STORED, "http://b/": (404, "http_404")}
    again = {"http://a/": (304, "revisit"), "http://b/": (404, "http_404")}
    assert said([first, again, again])[0] == ""
    gone = {"http://a/": (410, "http_410")}
    assert said([first, gone])[0] not in ("", said([first, {"http://a/": (200, "not_html")}])[0])
    assert said([first, gone, again])[0] == ""
