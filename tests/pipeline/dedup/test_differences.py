"""Duplicates side by side: nothing is lost of the texts, and what differs is marked."""

from pathlib import Path
from typing import Any

from hypothesis import given
from hypothesis import strategies as st

from pipeline.dedup.differences import marked
from pipeline.report import ReportConfig, report


@given(st.text("ab é漢.\n", max_size=60), st.text("ab é漢.\n", max_size=60))
def test_the_pieces_are_the_texts_and_those_unmarked_are_common(left: str, right: str) -> None:
    one, other = marked(left, right)
    assert ("".join(text for text, _ in one), "".join(text for text, _ in other)) == (left, right)
    assert [text for text, differs in one if not differs] == [text for text, differs in other if not differs]


def test_only_words_that_differ_are_marked() -> None:
    one, other = marked("The quick fox jumps.", "The slow fox jumps!")
    assert [text for text, differs in one if differs] == ["quick", "."]
    assert [text for text, differs in other if differs] == ["slow", "!"]


def page_with(folder: Path, clusters: list[dict[str, Any]]) -> str:
    stats = {"rows": 3, "selected": 3, "kept": 1, "duplicates": {"exact": 0, "near": 2}, "largest_clusters": clusters}
    manifest = {"stage": "deduplicate", "key": "k", "digest": "d", "rows": 3, "stats": stats, "run": {}}
    report(folder, ReportConfig(), manifests={"deduplicate": manifest}, folders={})
    return (folder / "report.html").read_text()


CLUSTER = {
    "doc_id": "00",
    "url": "https://a.example/?a=1&b=2",
    "size": 3,
    "example": "https://b.example/",
    "similarity": 0.875,
    "kept_text": "words of <script>one</script> kind",
    "removed_text": "words of <script>other</script> kind",
}


def test_the_report_shows_both_texts_side_by_side_escaped_with_their_similarity(tmp_path: Path) -> None:
    page = page_with(tmp_path, [CLUSTER])
    assert "3 documents, these two 87.5 % alike" in page
    assert "words of &lt;script&gt;<mark>one</mark>&lt;/script&gt; kind" in page
    assert "words of &lt;script&gt;<mark>other</mark>&lt;/script&gt; kind" in page
    assert "kept: https://a.example/?a=1&amp;b=2" in page
    assert "<script" not in page


def test_clusters_of_older_runs_have_no_texts_and_are_shown_all_the_same(tmp_path: Path) -> None:
    page = page_with(tmp_path, [{name: CLUSTER[name] for name in ("doc_id", "url", "size", "example")}])
    assert "removed: https://b.example/" in page
