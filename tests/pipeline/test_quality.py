"""quality: the kernels compute the published rules, for any text, and the ledgers keep the documents' rows."""

import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pipeline.documents import DOCUMENTS, read_table, write_table
from pipeline.quality import C4_SPANS, QUALITY, QualityConfig, quality, text_buffers
from pipeline.quality_kernels import score
from pipeline.quality_reference import c4, reference_scores
from pipeline.quality_rules import SCORES
from pipeline.words.reference import reference_words
from pipeline.words.tables import TABLE_SIZE, kinds_table, symbols

any_text = st.text(st.characters(codec="utf-8"), max_size=300)
PIECES = (  # noqa: SIM905 - pieces are read as a line
    "the of and Be don't It’s U.S. e.g. x. 3.14 10% +3 a--b well-known … ... .... . ? ! \" ' • - # { [1] [edit] [12 "
    "JavaScript http://a.b/c-d me@x.org www.a.b 日本語 。 привет 😀 é ß $5 5$ a,b a/b:c ²."
).split(" ")
BLANKS = ("\n", "\n\n", "\n\n\n", "\r\n", "\u2028", "\x85", " ", "\u3000", "\t", "\0")
PHRASES = ("[citation needed]", "lorem ipsum", "Lorem Ipsum", "cookie policy", "Terms of Use", "x" * 1001)
LINES = ("The same line again.", "\nThe same line again.\n")
web_like = st.lists(st.sampled_from([*PIECES, *BLANKS, *PHRASES, *LINES]), max_size=60).map("".join)
repetitive = st.lists(st.sampled_from(["the", "cat", "sat", ".", "\n"]), max_size=120).map(" ".join)


def kernel(texts: list[str]) -> tuple[list[dict[str, float]], list[str]]:
    """Scores by name, and the text that C4's spans keep, of each text."""
    scores, spans, counts = score(*text_buffers(pa.chunked_array([pa.array(texts, pa.string())])))
    bounds = np.concatenate([[0], np.cumsum(counts)])
    kept = [
        b"".join(text.encode()[start:end] for start, end in spans[bounds[i] : bounds[i + 1]]).decode()
        for i, text in enumerate(texts)
    ]
    return [dict(zip(SCORES, row, strict=True)) for row in scores.tolist()], kept


@settings(deadline=None, max_examples=200)
@given(st.lists(any_text | web_like | repetitive, min_size=1, max_size=4))
def test_kernels_equal_the_plain_python_reference(texts: list[str]) -> None:
    scores, kept = kernel(texts)
    for text, found, lines in zip(texts, scores, kept, strict=True):
        assert found == reference_scores(text)
        assert lines == c4(text)[1]


def test_the_character_table_reaches_every_letter_space_and_mark() -> None:
    beyond = [chr(code) for code in range(TABLE_SIZE, 0x110000)]
    assert not any(c.isalpha() or c.isspace() or c in symbols() for c in beyond)
    assert len(kinds_table()) == TABLE_SIZE


def test_each_rule_measures_what_it_is_named_for() -> None:
    text = "The cat sat on the mat.\n- a bullet…\nThe cat sat on the mat.\n# {curly} lines end here, with words!"
    [found], [kept] = kernel([text])
    assert found["gopher_stop_words"] == 2
    assert found["gopher_bullet_lines"] == 0.25
    assert found["gopher_ellipsis_lines"] == 0.25
    assert found["gopher_duplicate_lines"] == 0.25
    assert found["gopher_duplicate_line_characters"] == len("The cat sat on the mat.") / len(text)
    assert found["fineweb_terminal_lines"] == 0.75
    assert found["fineweb_short_lines"] == 0.75
    assert found["fineweb_newlines"] == 3 / len(reference_words(text))
    assert (found["c4_lines"], found["c4_lines_kept"], found["c4_sentences"]) == (4, 3, 3)
    assert found["c4_curly_bracket"] == 1
    assert kept == text.replace("- a bullet…\n", "")


def test_c4_drops_citations_and_lines_and_keeps_the_rest_byte_for_byte() -> None:
    text = (
        "Ein schöner Satz steht hier.[1]\nnavigation\n  Enable JavaScript to go on.\nAnd [citation needed] it ends. \n"
    )
    assert kernel([text])[1] == ["Ein schöner Satz steht hier.\nAnd  it ends."]


def test_a_wide_gap_behind_a_final_mark_ends_a_sentence_for_c4() -> None:
    assert kernel(['He said it all.  " " Done it is."'])[0][0]["c4_sentences"] == 2
    assert kernel(['He said it all.  "'])[0][0]["c4_sentences"] == 2
    assert kernel(['He said it all. "'])[0][0]["c4_sentences"] == 1


def write_documents(folder: Path, texts: list[str]) -> Path:
    folder.mkdir(parents=True)
    rows = [{"doc_id": bytes([i]) * 16, "url": f"http://a/{i}", "source": "s", "text": t} for i, t in enumerate(texts)]
    write_table(pa.Table.from_pylist(rows, DOCUMENTS), folder / "documents.arrow", compression="zstd")
    return folder


def ledgers(folder: Path, texts: list[str], wanted: list[bool] | None = None) -> tuple[pa.Table, pa.Table, dict]:
    """Scores, spans and stats of a part of these documents, written in a new folder."""
    part = write_documents(folder, texts)
    flags = pa.array(wanted or [True] * len(texts), pa.bool_())
    ids = read_table(part / "documents.arrow", ["doc_id"])["doc_id"]
    write_table(pa.table({"doc_id": ids, "wanted": flags}), part / "language.arrow")
    stats = quality(out=part, config=QualityConfig(), documents=part, language=part)
    return read_table(part / "quality.arrow"), read_table(part / "c4_spans.arrow"), stats


def test_ledgers_have_the_documents_rows_and_the_same_bytes_every_time(tmp_path: Path) -> None:
    texts = ["The first text is here. It has words.\n", "", "Zweiter Text, auch schön. Und fertig ist er."]
    for name in ("one", "two"):
        scores, spans, stats = ledgers(tmp_path / name, texts)
    assert scores.schema == QUALITY
    assert spans.schema == C4_SPANS
    ids = read_table(tmp_path / "one" / "documents.arrow", ["doc_id"])["doc_id"]
    assert scores["doc_id"] == ids == spans["doc_id"]
    for row, text in zip(scores.to_pylist(), texts, strict=True):
        assert {name: float(row[name]) for name in SCORES} == reference_scores(text)
    assert spans["spans"].to_pylist() == [[{"start": 0, "end": 37}], [], [{"start": 0, "end": 45}]]
    assert stats["rows"] == stats["scored"] == 3
    assert stats["c4_bytes_kept"] == 82
    for name in ("quality.arrow", "c4_spans.arrow"):
        assert (tmp_path / "one" / name).read_bytes() == (tmp_path / "two" / name).read_bytes()


texts_and_wanted = st.lists(st.tuples(any_text | web_like, st.booleans()), max_size=6)


@settings(deadline=None, max_examples=30)
@given(texts_and_wanted)
def test_documents_in_wanted_languages_are_scored_as_if_there_were_no_others_and_the_others_are_null(
    tmp_path_factory: pytest.TempPathFactory, rows: list[tuple[str, bool]]
) -> None:
    folder = tmp_path_factory.mktemp("quality")
    wanted = [flag for _, flag in rows]
    found = ledgers(folder / "all", [text for text, _ in rows], wanted)
    alone = ledgers(folder / "wanted", [text for text, flag in rows if flag])
    for ledger, other in zip(found[:2], alone[:2], strict=True):
        assert ledger.schema == other.schema
        assert ledger["doc_id"].to_pylist() == [bytes([number]) * 16 for number in range(len(rows))]
        scored = ledger.drop_columns("doc_id")
        assert scored.filter(pa.array(wanted, pa.bool_())).to_pylist() == other.drop_columns("doc_id").to_pylist()
        for row, flag in zip(scored.to_pylist(), wanted, strict=True):
            assert flag or set(row.values()) == {None}
    assert {**found[2], "rows": 0} == {**alone[2], "rows": 0}
    assert (found[2]["rows"], found[2]["scored"]) == (len(rows), sum(wanted))


def test_what_stands_in_a_document_that_is_not_wanted_changes_no_byte(tmp_path: Path) -> None:
    for name, text in (("one", "Ein Text, der nicht gewollt ist. Er endet hier."), ("two", "")):
        ledgers(tmp_path / name, [text, "This one is wanted, and it ends here.", text * 2], [False, True, False])
    for name in ("quality.arrow", "c4_spans.arrow"):
        assert (tmp_path / "one" / name).read_bytes() == (tmp_path / "two" / name).read_bytes()


def test_an_empty_part_gives_empty_ledgers(tmp_path: Path) -> None:
    scores, spans, stats = ledgers(tmp_path / "part", [])
    assert stats["rows"] == 0
    assert scores.schema == QUALITY
    assert spans.schema == C4_SPANS


def test_scores_do_not_depend_on_the_other_documents_of_a_part() -> None:
    texts = ["One text. " * 30, "x", "Another\n" * 50]
    together = kernel(texts)
    for i, text in enumerate(texts):
        scores, kept = kernel([text])
        assert (scores[0], kept[0]) == (together[0][i], together[1][i])


def test_a_kernel_is_compiled_anew_when_a_helper_or_constant_in_another_file_changes(tmp_path: Path) -> None:
    (tmp_path / "own.py").write_text(
        "import other\nfrom pipeline.kernels import kernel\n"
        "@kernel(__file__, other.__file__)\ndef value():\n    return other.NUMBER\n"
    )
    code = "import own; print(own.value(), sum(own.value.stats.cache_hits.values()))"
    answers = []
    for number in (1, 1, 2):
        (tmp_path / "other.py").write_text(f"NUMBER = {number}\n")
        run = subprocess.run(
            [sys.executable, "-c", code],
            env={
                **os.environ,
                "PYTHONPATH": os.pathsep.join([str(tmp_path), *sys.path]),
                "PYTHONDONTWRITEBYTECODE": "1",
            },
            capture_output=True,
            text=True,
            check=True,
        )
        answers.append(run.stdout.split())
    assert answers == [["1", "0"], ["1", "1"], ["2", "0"]]
