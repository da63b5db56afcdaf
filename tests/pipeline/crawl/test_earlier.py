"""What earlier snapshots know of a page."""

from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest

from pipeline.crawl.earlier import Earlier
from pipeline.crawl.seal import INDEX, URL_INDEX
from pipeline.documents import write_table

U, V = "http://a.example/u", "http://a.example/v"


def snapshots(folder: Path, *indexes: list[dict[str, Any]]) -> Earlier:
    folders = []
    for number, rows in enumerate(indexes):
        at = datetime(2026, 1, 1 + number, tzinfo=UTC)
        full = [dict.fromkeys(URL_INDEX.names) | {"fetched_at": at, "depth": 0} | row for row in rows]
        folders.append(folder / f"{number:04d}")
        folders[-1].mkdir()
        write_table(pa.Table.from_pylist(sorted(full, key=lambda row: row["url"]), URL_INDEX), folders[-1] / INDEX)
    return Earlier(folders)


def row(url: str, outcome: str, status: int, **facts: Any) -> dict[str, Any]:
    return {"url": url, "outcome": outcome, "status": status, **facts}


def test_a_page_is_known_by_its_latest_validators_and_the_day_it_was_stored(tmp_path: Path) -> None:
    earlier = snapshots(
        tmp_path,
        [row(U, "stored", 200, etag="a", payload_digest="00"), row(V, "stored", 200)],
        [row(U, "revisit", 200, etag="b", payload_digest="00", stored_at=datetime(2026, 1, 1, tzinfo=UTC))],
        [row(U, "timeout", 0)],
    )
    page = earlier.page(U)
    assert page is not None
    assert (page["etag"], page["payload_digest"]) == ("b", "00")
    assert page["stored_at"] == datetime(2026, 1, 1, tzinfo=UTC).timestamp() * 1000
    assert earlier.page("http://a.example/w") is None


@pytest.mark.parametrize("outcome", ["not_html", "purged"])
def test_a_page_that_became_something_else_is_not_asked_for_conditionally(tmp_path: Path, outcome: str) -> None:
    earlier = snapshots(tmp_path, [row(U, "stored", 200)], [row(U, outcome, 200)])
    assert earlier.page(U) is None


def test_two_404_with_a_snapshot_between_that_did_not_ask_are_no_two_in_a_row(tmp_path: Path) -> None:
    missing = row(U, "http_404", 404)
    assert dict(snapshots(tmp_path, [row(U, "stored", 200)], [missing], [], [missing]).live()) == {U: 0}


def test_a_page_that_redirects_to_itself_is_live(tmp_path: Path) -> None:
    assert dict(snapshots(tmp_path, [row(U, "stored", 200)], [row(U, "redirect_loop", 301)]).live()) == {U: 0}


def test_live_pages_are_those_that_the_corpus_may_hold(tmp_path: Path) -> None:
    names = ("back", "error", "forbidden", "gone", "kept", "missed", "missing", "moved", "never", "unreached")
    first = [row(n, "stored", 200, depth=2) for n in names if n != "never"] + [row("never", "http_404", 404)]
    second = [
        row("back", "http_404", 404),
        row("error", "timeout", 0),
        row("forbidden", "no_ai", 200),
        row("gone", "http_410", 410),
        row("kept", "revisit", 304, depth=1),
        row("missed", "http_404", 404),
        row("missing", "http_404", 404),
        row("moved", "redirect", 301),
    ]
    third = [row("back", "revisit", 304, depth=3), row("missing", "http_404", 404), row("missed", "timeout", 0)]
    live = dict(snapshots(tmp_path, first, second, third).live())
    assert live == {"back": 3, "error": 2, "kept": 1, "missed": 2, "unreached": 2}
