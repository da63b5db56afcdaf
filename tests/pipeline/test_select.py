"""Policy: one reason for each refusal, in a fixed order, from url indexes, tombstones and ledgers."""

import json
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pyarrow as pa
import pytest
from pydantic import ValidationError

from pipeline.config import BadInput
from pipeline.documents import DOCUMENTS, doc_id, read_table, write_table
from pipeline.quality import QUALITY
from pipeline.quality_rules import COUNTS, FLAGS, SCORES
from pipeline.select import REASONS, RULES, PolicyConfig, select
from pipeline.shingles import text_hash

GOOD = {"gopher_words": 200, "gopher_word_length": 5.0, "gopher_alphabetic_words": 0.9, "gopher_stop_words": 6}
GOOD |= {"c4_sentences": 9, "fineweb_terminal_lines": 0.8}


class Visit(NamedTuple):
    """One row of a url index, and its document's facts where there is one."""

    url: str
    status: int = 200
    outcome: str = "stored"
    document: bool = True
    text: str = "some text"
    payload_digest: str | None = None
    language: tuple[str, float, bool] = ("en", 0.99, True)
    scores: dict[str, float] | None = {}  # noqa: RUF012
    overlap: float = 0.0


def not_there(url: str, status: int = 0, outcome: str = "error") -> Visit:
    return Visit(url, status, outcome, document=False)


def run(
    folder: Path,
    snapshots: dict[str, list[Visit]],
    config: PolicyConfig | None = None,
    tombstones: list[dict[str, str]] | None = None,
    part_rows: int = 1000,
) -> tuple[dict[tuple[str, str], str | None], dict[str, Any]]:
    """Run the stage over snapshots by "source/sequence"; the reason (None: kept) of each (snapshot, url), and stats."""
    folders, parts, order = [], [], []
    for name, visits in snapshots.items():
        snapshot = folder / "snapshots" / name
        snapshot.mkdir(parents=True)
        folders.append(snapshot)
        index = {field: [getattr(visit, field) for visit in visits] for field in ("url", "outcome", "payload_digest")}
        schema = pa.schema([(field, pa.string()) for field in index] + [("status", pa.int32())])
        write_table(pa.table(index | {"status": [v.status for v in visits]}, schema), snapshot / "urls.arrow")
        rows = [visit for visit in visits if visit.document]
        for first in range(0, len(rows), part_rows):
            (snapshot / f"part-{first:05d}").mkdir()
            parts.append(write_part(folder / f"ledgers-{len(parts)}", rows[first : first + part_rows]))
            order += [(name, visit.url) for visit in rows[first : first + part_rows]]
    stones = None
    if tombstones is not None:
        stones = folder / "tombstones.jsonl"
        stones.write_text("".join(json.dumps(row) + "\n" for row in tombstones))
    out = folder / "out"
    out.mkdir()
    stats = select(
        out=out, config=config or PolicyConfig(), snapshots=folders, documents=parts, language=parts, quality=parts,
        contamination=parts, tombstones=stones,
    )  # fmt: skip
    rows = [row for path in sorted(out.glob("part-*/select.arrow")) for row in read_table(path).to_pylist()]
    assert len(list(out.glob("part-*"))) == len(parts)
    assert all(row["keep"] == (row["reason"] is None) for row in rows)
    assert stats["rows"] == len(rows) == stats["kept"] + sum(stats["reasons"].values())
    return dict(zip(order, (row["reason"] for row in rows), strict=True)), stats


def write_part(where: Path, rows: list[Visit]) -> Path:
    where.mkdir()
    ids = [doc_id(row.url, row.text) for row in rows]
    columns = {name: [None] * len(rows) for name in DOCUMENTS.names}
    columns |= {"doc_id": ids, "url": [row.url for row in rows], "text": [row.text for row in rows]}
    write_table(pa.table(columns, DOCUMENTS), where / "documents.arrow")
    language, score, wanted = zip(*(row.language for row in rows), strict=True)
    labels = {"doc_id": ids, "language": language, "score": pa.array(score, pa.float32()), "wanted": wanted}
    write_table(pa.table(labels), where / "language.arrow")
    found = [None if row.scores is None or not row.language[2] else GOOD | row.scores for row in rows]
    scores = {
        name: pa.array([each and each.get(name, 0) for each in found], pa.float64()).cast(QUALITY.field(name).type)
        for name in SCORES
    }
    write_table(pa.table({"doc_id": ids} | scores), where / "quality.arrow")
    overlap = pa.array([row.overlap for row in rows], pa.float32())
    item = {"set": ["quiz"] * len(rows), "item": range(len(rows)), "id": [None] * len(rows)}
    write_table(pa.table({"doc_id": ids, "overlap": overlap, **item}), where / "contamination.arrow")
    return where


U = "https://a.example/u"
NOTHING: dict[str, list[Path]] = {
    name: [] for name in ("snapshots", "documents", "language", "quality", "contamination")
}


def history(folder: Path, *visits: Visit | None) -> list[str | None]:
    """The reasons of the documents of one URL over the snapshots of its source."""
    snapshots = {f"s/{i:04d}": [visit] if visit else [] for i, visit in enumerate(visits)}
    snapshots["s/0000"].append(Visit("https://a.example/other"))
    found, _ = run(folder, snapshots)
    assert found.pop(("s/0000", "https://a.example/other")) is None
    return list(found.values())


def test_the_newest_200_supersedes_older_versions(tmp_path: Path) -> None:
    assert history(tmp_path, Visit(U), Visit(U), Visit(U)) == ["superseded", "superseded", None]


def test_a_200_supersedes_even_where_it_gives_no_document(tmp_path: Path) -> None:
    assert history(tmp_path, Visit(U), not_there(U, 200, "not_html")) == ["superseded"]


def test_a_purged_version_does_not_bring_back_the_one_before_it(tmp_path: Path) -> None:
    assert history(tmp_path, Visit(U), not_there(U, 200, "purged")) == ["superseded"]


def test_a_200_supersedes_even_where_it_is_then_filtered(tmp_path: Path) -> None:
    assert history(tmp_path, Visit(U), Visit(U, language=("de", 0.9, False))) == ["superseded", "language"]


@pytest.mark.parametrize(
    "withdrawal",
    [
        not_there(U, 410, "http_410"),
        not_there(U, 301, "redirect"),
        not_there(U, 308, "redirect"),
        not_there(U, 0, "robots"),
        not_there(U, 200, "noindex"),
        not_there(U, 200, "no_ai"),
        not_there(U, 304, "tdm_reserved"),
    ],
)
def test_gone_moved_and_forbidden_pages_are_withdrawn_at_once(tmp_path: Path, withdrawal: Visit) -> None:
    assert history(tmp_path, Visit(U), withdrawal) == ["gone"]


@pytest.mark.parametrize(
    "silence",
    [not_there(U), not_there(U, 500, "http_500"), not_there(U, 302, "redirect"), not_there(U, 200, "error"), None,
     not_there(U, 304, "unchanged")],
)  # fmt: skip
def test_errors_and_pages_not_reached_keep_the_old_version(tmp_path: Path, silence: Visit | None) -> None:
    assert history(tmp_path, Visit(U), silence, silence) == [None]


@pytest.mark.parametrize(
    ("later", "expected"),
    [
        ((404,), None),
        ((404, 404), "gone"),
        ((404, 0, 404), None),
        ((404, 404, 0), "gone"),
        ((404, 304, 404), None),
        ((404, 404, 304), None),
    ],
)
def test_a_404_withdraws_when_two_snapshots_in_a_row_say_so(
    tmp_path: Path, later: tuple[int, ...], expected: str | None
) -> None:
    assert history(tmp_path, Visit(U), *(not_there(U, status, "x") for status in later)) == [expected]


@pytest.mark.parametrize("status", [200, 304])
def test_a_page_found_unchanged_keeps_the_version_that_stands(tmp_path: Path, status: int) -> None:
    assert history(tmp_path, Visit(U), Visit(U), not_there(U, status, "revisit")) == ["superseded", None]


@pytest.mark.parametrize("status", [200, 304])
def test_a_withdrawn_page_comes_back_where_it_is_found_unchanged(tmp_path: Path, status: int) -> None:
    assert history(tmp_path, Visit(U), not_there(U, 410), not_there(U, status, "revisit")) == [None]


@pytest.mark.parametrize("outcome", ["broken", "timeout", "bad_headers", "error"])
def test_an_answer_that_went_wrong_says_nothing_whatever_its_status(tmp_path: Path, outcome: str) -> None:
    assert history(tmp_path, Visit(U), not_there(U, 200, outcome)) == [None]


def test_a_page_that_redirects_to_itself_has_not_moved(tmp_path: Path) -> None:
    assert history(tmp_path, Visit(U), not_there(U, 301, "redirect_loop")) == [None]


def test_a_withdrawn_page_comes_back_with_the_next_200(tmp_path: Path) -> None:
    assert history(tmp_path, Visit(U), not_there(U, 410), Visit(U)) == ["superseded", None]


def test_sources_do_not_supersede_one_another(tmp_path: Path) -> None:
    found, _ = run(tmp_path, {"s/0000": [Visit(U)], "t/0000": [Visit(U)], "t/0001": [not_there(U, 410)]})
    assert found == {("s/0000", U): None, ("t/0000", U): "gone"}


def test_the_answer_does_not_depend_on_how_documents_are_cut_into_parts(tmp_path: Path) -> None:
    visits = [Visit(f"https://a.example/{i}", overlap=i / 10, language=("en", i / 9, i % 2 == 0)) for i in range(10)]
    again = [Visit(visit.url) for visit in visits[:5]]
    answers = []
    for part_rows in (1, 3, 100):
        (tmp_path / str(part_rows)).mkdir()
        answers.append(run(tmp_path / str(part_rows), {"s/0": visits, "s/1": again}, part_rows=part_rows))
    assert answers[0] == answers[1] == answers[2]


def test_what_a_tombstone_names_is_taken_down_and_its_copies_withheld(tmp_path: Path) -> None:
    visits = [
        Visit("https://a.example/1", text="Secret words"),
        Visit("https://b.example/1", text="secret - words!"),
        Visit("https://b.example/2", text="other", payload_digest="ab" * 32),
        Visit("https://c.example:8080/1"),
        Visit("https://cc.example/1"),
    ]
    tombstones = [
        {"url": "https://a.example/1", "text_hash": text_hash("Secret words").hex(), "reason": "asked to"},
        {"payload_digest": "AB" * 32},
        {"host": "C.example"},
    ]
    found, _ = run(tmp_path, {"s/0000": visits}, tombstones=tombstones)
    assert list(found.values()) == ["taken_down", "copy_of_takedown", "copy_of_takedown", "taken_down", None]


def test_copies_of_a_takedown_stay_where_the_policy_says_so(tmp_path: Path) -> None:
    tombstones = [{"url": "https://a.example/1", "text_hash": text_hash("some text").hex()}]
    visits = [Visit("https://a.example/1"), Visit("https://b.example/1")]
    found, _ = run(tmp_path, {"s/0000": visits}, PolicyConfig(withhold_copies=False), tombstones)
    assert list(found.values()) == ["taken_down", None]


@pytest.mark.parametrize("row", ['{"reason": "none named"}', "[]", '{"url": 3}', '{"url": ', '{"host": ""}'])
def test_a_tombstone_that_cannot_be_read_stops_the_run(tmp_path: Path, row: str) -> None:
    (tmp_path / "tombstones.jsonl").write_text(f"\n{row}\n")
    with pytest.raises(BadInput, match=r"tombstones\.jsonl, line 2"):
        select(out=tmp_path, config=PolicyConfig(), tombstones=tmp_path / "tombstones.jsonl", **NOTHING)


def test_a_missing_list_of_tombstones_stops_the_run(tmp_path: Path) -> None:
    with pytest.raises(BadInput, match="There is no list of tombstones"):
        select(out=tmp_path, config=PolicyConfig(), tombstones=tmp_path / "none.jsonl", **NOTHING)


@pytest.mark.parametrize(
    ("visit", "reason"),
    [
        (Visit(U, language=("de", 0.99, False)), "language"),
        (Visit(U, language=("en", 0.649, True)), "language_score"),
        (Visit(U, language=("en", 0.65, True)), None),
        (Visit(U, overlap=0.5), None),
        (Visit(U, overlap=0.51), "contaminated"),
        (Visit(U, scores={"gopher_words": 49}), "quality:gopher_words"),
        (Visit(U, scores={"gopher_words": 50}), None),
        (Visit(U, scores={"gopher_words": 100_001}), "quality:gopher_words"),
        (Visit(U, scores={"gopher_stop_words": 1}), "quality:gopher_stop_words"),
        (Visit(U, scores={"gopher_stop_words": 0}, language=("de", 0.9, True)), None),
        (Visit(U, scores={"gopher_alphabetic_words": 0.79}), "quality:gopher_alphabetic_words"),
        (Visit(U, scores={"gopher_top_2_gram": 0.2}), None),
        (Visit(U, scores={"gopher_top_2_gram": 0.21}), "quality:gopher_top_2_gram"),
        (Visit(U, scores={"c4_sentences": 4}), "quality:c4_sentences"),
        (Visit(U, scores={"c4_curly_bracket": 1}), "quality:c4_curly_bracket"),
        (Visit(U, scores={"c4_lines": 10_000}), None),
        (Visit(U, scores={"fineweb_newlines": 0.31}), "quality:fineweb_newlines"),
        (Visit(U, scores={"fineweb_newlines": 0.9, "gopher_words": 1}, overlap=1), "quality:gopher_words"),
    ],
)
def test_the_first_rule_that_a_document_breaks_is_its_reason(tmp_path: Path, visit: Visit, reason: str | None) -> None:
    found, _ = run(tmp_path, {"s/0000": [visit]})
    assert found == {("s/0000", U): reason}


def test_a_document_in_a_wanted_language_without_scores_is_not_taken_for_a_good_one(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="no score of a document in a wanted language"):
        run(tmp_path, {"s/0000": [Visit(U, scores=None)]})


def test_groups_of_rules_and_single_cut_offs_can_be_switched_off(tmp_path: Path) -> None:
    bad = Visit(U, language=("en", 0.1, True), overlap=1, scores={"gopher_words": 1, "c4_sentences": 0})
    lax = PolicyConfig.model_validate(
        {
            "rules": ["gopher_quality"],
            "min_gopher_words": False,
            "min_language_score": False,
            "max_contamination": False,
        }
    )
    assert run(tmp_path, {"s/0000": [bad]}, lax)[0] == {("s/0000", U): None}


def test_every_rule_of_the_quality_ledger_that_is_no_mere_count_has_a_cut_off() -> None:
    bounds = {name.partition("_")[2] for name in PolicyConfig.model_fields if name[:4] in ("min_", "max_", "drop")}
    mere = {column for column in RULES["c4"] if column.startswith("c4_lines")}
    assert bounds - {"language_score", "contamination"} == set(SCORES) - mere
    assert mere <= COUNTS
    assert [reason for reason in REASONS if reason.startswith("quality:")] == [f"quality:{column}" for column in SCORES]


@pytest.mark.parametrize(
    "wrong",
    [
        {"min_language_score": 1.5}, {"min_gopher_words": -1}, {"min_gopher_words": 2.5}, {"rules": ["gopher"]},
        {"max_gopher_hashes": True}, {"max_gopher_hashes": "off"}, {"min_words": 3},
    ],
)  # fmt: skip
def test_impossible_values_are_refused(wrong: dict[str, Any]) -> None:
    with pytest.raises(ValidationError):
        PolicyConfig.model_validate(wrong)


def test_stats_count_languages_and_hosts(tmp_path: Path) -> None:
    visits = [Visit(f"https://{host}.example/{i}") for host in "ab" for i in range(2)]
    visits.append(Visit("https://b.example/9", language=("de", 0.9, False)))
    _, stats = run(tmp_path, {"s/0000": visits})
    assert stats["languages"] == {"de": {"rows": 1, "kept": 0}, "en": {"rows": 4, "kept": 4}}
    assert stats["hosts"] == {"b.example": {"rows": 3, "kept": 2}, "a.example": {"rows": 2, "kept": 2}}
    assert stats["host_count"] == 2
    assert stats["reasons"] == {"language": 1}


def test_the_defaults_of_the_quality_ledger_are_of_the_types_that_are_compared() -> None:
    assert all(np.issubdtype(QUALITY.field(name).type.to_pandas_dtype(), np.number) for name in set(SCORES) - FLAGS)
