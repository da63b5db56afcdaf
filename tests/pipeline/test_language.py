"""language: labels and scores of the named model, from a bounded sample, without network."""

import os
from pathlib import Path

import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipeline.config import BadInput
from pipeline.documents import DOCUMENTS, read_table, write_table
from pipeline.language import (
    LANGUAGE,
    SAMPLE_CHARACTERS,
    LanguageConfig,
    default_model,
    identify,
    labels,
    language,
    sample,
)
from pipeline.language_codes import PARTS, SAME, agree

SENTENCES = Path(__file__).resolve().parents[3] / "shared" / "data" / "langid" / "sentences_75x40.tsv"

ENGLISH = "The quick brown fox jumps over the lazy dog, and nobody knows the reason why."
GERMAN = "Der schnelle braune Fuchs springt über den faulen Hund, und niemand weiß warum."


def ledger(folder: Path, rows: list[tuple[str, str | None]], wanted: list[str]) -> tuple[list[dict], dict]:
    documents, out = folder / "documents", folder / "out"
    documents.mkdir(parents=True)
    out.mkdir()
    table = [
        {"doc_id": bytes([i]) * 16, "url": f"http://a/{i}", "source": "s", "text": text, "language_declared": declared}
        for i, (text, declared) in enumerate(rows)
    ]
    write_table(pa.Table.from_pylist(table, DOCUMENTS), documents / "documents.arrow")
    stats = language(out=out, config=LanguageConfig(wanted=wanted), documents=documents, model=default_model())
    result = read_table(out / "language.arrow")
    assert result.schema == LANGUAGE
    assert result["doc_id"].to_pylist() == [row["doc_id"] for row in table]
    return result.to_pylist(), stats


def test_documents_are_labelled_and_counted(tmp_path: Path) -> None:
    rows, stats = ledger(tmp_path, [(ENGLISH, "en"), (GERMAN, "en"), (GERMAN, None), ("", None)], ["en"])
    assert [row["language"] for row in rows] == ["en", "de", "de", "und"]
    assert [row["wanted"] for row in rows] == [True, False, False, False]
    assert rows[0]["score"] > 0.8
    assert stats == {
        "rows": 4,
        "wanted": 1,
        "languages": {"de": 2, "en": 1, "und": 1},
        "declared": 2,
        "declared_unknown": 0,
        "declared_disagrees": 1,
    }


@pytest.mark.parametrize("code", ["de", "deu", "ger"])
def test_a_language_declared_by_another_code_does_not_disagree(tmp_path: Path, code: str) -> None:
    stats = ledger(tmp_path, [(GERMAN, code)], ["en"])[1]
    assert (stats["declared"], stats["declared_disagrees"]) == (1, 0)


@pytest.mark.parametrize("code", ["und", "mul", "zxx"])
def test_a_page_that_declares_no_language_declares_none(tmp_path: Path, code: str) -> None:
    assert ledger(tmp_path, [(GERMAN, code)], ["en"])[1]["declared"] == 0


def test_a_declared_language_that_the_model_cannot_name_is_counted_apart(tmp_path: Path) -> None:
    stats = ledger(tmp_path, [(GERMAN, "tlh")], ["en"])[1]
    assert (stats["declared_unknown"], stats["declared_disagrees"]) == (1, 0)


@pytest.mark.parametrize(
    ("declared", "label", "same"),
    [
        ("iw", "he", True),
        ("in", "id", True),
        ("nb", "no", True),
        ("no", "nn", True),
        ("zh", "yue", True),
        ("cmn", "zh", True),
        ("sh", "sr", True),
        ("hr", "sr", False),
        ("fil", "tl", True),
        ("en", "de", False),
    ],
)
def test_a_declared_code_agrees_with_the_label_of_the_same_or_the_containing_language(
    declared: str, label: str, *, same: bool
) -> None:
    assert agree(declared, label) is same


def test_every_code_of_the_tables_leads_to_a_label_of_the_model() -> None:
    known = labels(default_model())
    assert set(SAME.values()) | set(PARTS.values()) <= known
    assert not set(SAME) & known


def test_several_languages_may_be_wanted(tmp_path: Path) -> None:
    assert ledger(tmp_path, [(ENGLISH, None), (GERMAN, None)], ["de", "en"])[1]["wanted"] == 2


def test_an_empty_part_gives_an_empty_ledger(tmp_path: Path) -> None:
    assert ledger(tmp_path, [], ["en"])[1]["rows"] == 0


def test_a_language_that_the_model_does_not_know_is_refused_in_one_sentence(tmp_path: Path) -> None:
    with pytest.raises(BadInput, match=r'language\.wanted: "english" is none of the 176 languages'):
        ledger(tmp_path, [(ENGLISH, None)], ["english"])


@pytest.mark.parametrize(("code", "label"), [("nb", "no"), ("zh-Hant", "zh"), ("ger", "de"), ("pt_BR", "pt")])
def test_a_wanted_language_that_the_model_calls_otherwise_is_refused_with_its_name(
    tmp_path: Path, code: str, label: str
) -> None:
    with pytest.raises(BadInput, match=f'calls "{code}" {label}: write "{label}"'):
        ledger(tmp_path, [(ENGLISH, None)], [code])


def test_a_file_that_is_no_model_is_refused(tmp_path: Path) -> None:
    broken = tmp_path / "model.ftz"
    broken.write_bytes(b"no model")
    with pytest.raises(BadInput, match="cannot be loaded"):
        labels(broken)


def test_prose_gets_the_label_and_score_that_fasttext_langdetect_gives(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("FTLANG_CACHE", os.fspath(default_model().parent))
    from ftlangdetect import detect

    for text in (ENGLISH, GERMAN, ENGLISH + "\n\n  " + GERMAN):
        answer = detect(text, low_memory=True)
        assert identify(text, default_model()) == (answer["lang"], answer["score"])


def test_the_sample_spreads_over_the_text_and_is_bounded() -> None:
    words = [chr(97 + i // 676 % 26) + chr(97 + i // 26 % 26) + chr(97 + i % 26) for i in range(10_000)]
    found = sample(" ".join(words)).split()
    assert found[0] == words[0]
    assert found[-1] == words[-1]
    assert any(word in words[4000:6000] for word in found)


@given(st.text(st.characters(codec="utf-8"), max_size=3 * SAMPLE_CHARACTERS))
def test_any_text_has_a_label_and_a_probability(text: str) -> None:
    line = sample(text)
    assert len(line) <= SAMPLE_CHARACTERS
    assert "\n" not in line
    code, score = identify(text, default_model())
    assert code in labels(default_model()) | {"und"}
    assert 0 <= score <= 1


@pytest.mark.skipif(not SENTENCES.is_file(), reason="the shared language sentences are not beside the project")
def test_shared_sentences_are_labelled_as_well_as_by_the_plain_model() -> None:
    rows = [line.split("\t", 1) for line in SENTENCES.read_text(encoding="utf-8").splitlines()]
    known = [(code, text) for code, text in rows if code in labels(default_model())]
    right = sum(identify(text, default_model())[0] == code for code, text in known)
    assert right / len(known) >= 0.8971  # the model's own accuracy on them, measured with fasttext-langdetect
