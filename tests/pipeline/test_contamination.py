"""Overlap with evaluation sets: the share of the worst-hit item's n-grams, by name, as plain Python counts it."""

import json
import time
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any
from unicodedata import normalize

import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pipeline.config import BadInput
from pipeline.contamination import ContaminationConfig, contamination, read_passages, read_set
from pipeline.documents import DOCUMENTS, doc_id, read_table, write_table

NOTHING = {"overlap": 0.0, "set": None, "item": None, "id": None}
PASSAGE = " ".join(f"word{i}" for i in range(25))  # 13 n-grams of 13 words


def measure(
    folder: Path, rows: list[str], sets: dict[str, str], config: ContaminationConfig | None = None
) -> list[dict[str, Any]]:
    """Write the documents and the sets, run the stage, and give the ledger's rows without their ids."""
    ids = [doc_id(f"https://example.org/{i}", text) for i, text in enumerate(rows)]
    columns = {name: [None] * len(rows) for name in DOCUMENTS.names} | {"doc_id": ids, "text": rows}
    write_table(pa.table(columns, DOCUMENTS), folder / "documents.arrow")
    for name, content in sets.items():
        (folder / name).write_text(content, encoding="utf-8")
    paths = [folder / name for name in sets]
    stats = contamination(out=folder, config=config or ContaminationConfig(), documents=folder, sets=paths)
    ledger = read_table(folder / "contamination.arrow").to_pylist()
    assert [row.pop("doc_id") for row in ledger] == ids
    for row in ledger:
        worst = max(row["hits"], key=lambda hit: hit["overlap"], default=NOTHING)
        assert {name: row[name] for name in NOTHING} == worst
    found = [hit["set"] for row in ledger for hit in row["hits"]]
    assert stats == {
        "rows": len(rows),
        "with_overlap": sum(row["overlap"] > 0 for row in ledger),
        "sets": {path.stem: found.count(path.stem) for path in paths},
    }
    return [{name: row[name] for name in ("overlap", "set", "item")} for row in ledger]


def hits(folder: Path) -> list[list[tuple[str, int, str | None, float]]]:
    """What the ledger in a folder says each document hits."""
    rows = read_table(folder / "contamination.arrow")["hits"].to_pylist()
    return [[(hit["set"], hit["item"], hit["id"], hit["overlap"]) for hit in row] for row in rows]


def lines(*rows: Any) -> str:
    return "".join(json.dumps(row) + "\n" for row in rows)


def test_a_document_that_holds_an_item_overlaps_it_whole_whatever_its_case_and_punctuation(tmp_path: Path) -> None:
    (row,) = measure(
        tmp_path, [f"Before, {PASSAGE.upper().replace(' ', ' - ')}; after"], {"quiz.jsonl": lines({"text": PASSAGE})}
    )
    assert row == {"overlap": 1.0, "set": "quiz", "item": 0}


def test_the_overlap_is_the_share_of_the_items_ngrams(tmp_path: Path) -> None:
    part = " ".join(PASSAGE.split()[:17])  # 5 of the 13
    (row,) = measure(tmp_path, [part], {"quiz.txt": PASSAGE})
    assert row["overlap"] == pytest.approx(5 / 13)


def test_ngrams_met_twice_in_a_document_count_once(tmp_path: Path) -> None:
    part = " ".join(PASSAGE.split()[:13])
    (row,) = measure(tmp_path, [f"{part} and {part}"], {"quiz.txt": PASSAGE})
    assert row["overlap"] == pytest.approx(1 / 13)


def test_the_worst_hit_item_is_named_and_the_first_of_equals(tmp_path: Path) -> None:
    other = PASSAGE.replace("word", "term")
    sets = {"a.jsonl": lines({"text": "nothing of this kind"}, {"text": PASSAGE}), "b.txt": f"{other}\n\n{PASSAGE}\n"}
    rows = measure(tmp_path, [PASSAGE, other, "neither"], sets)
    assert rows == [
        {"overlap": 1.0, "set": "a", "item": 1},
        {"overlap": 1.0, "set": "b", "item": 0},
        {"overlap": 0.0, "set": None, "item": None},
    ]


def test_a_right_answer_counts_however_many_wrong_ones_are_missing(tmp_path: Path) -> None:
    question = {"question": "too short", "endings": [PASSAGE.replace("word", x) for x in "abc"], "meta": {"gold": 1}}
    (row,) = measure(tmp_path, [question["endings"][1]], {"quiz.jsonl": lines(question)})
    assert row == {"overlap": 1.0, "set": "quiz", "item": 0}


def test_a_short_item_is_one_ngram_and_a_very_short_one_is_not_looked_for(tmp_path: Path) -> None:
    ten, seven = " ".join("abcdefghij"), " ".join("tuvwxyz")
    rows = measure(tmp_path, [f"x {ten} x", f"x {seven} x", ten[:-2]], {"quiz.jsonl": lines({"q": ten}, {"q": seven})})
    assert [row["overlap"] for row in rows] == [1.0, 0.0, 0.0]


def test_an_item_in_two_sets_is_named_in_both_by_its_own_id(tmp_path: Path) -> None:
    sets = {
        "a.jsonl": lines({"id": "first", "text": "nothing of this kind"}, {"id": "lantern", "text": PASSAGE}),
        "b.jsonl": lines({"id": 40, "text": PASSAGE + " and more"}),
        "c.txt": "nothing either",
    }
    measure(tmp_path, [PASSAGE, "no such text"], sets)
    assert hits(tmp_path) == [[("a", 1, "lantern", 1.0), ("b", 0, "40", pytest.approx(13 / 15))], []]


def test_two_chinese_characters_weigh_as_one_word(tmp_path: Path) -> None:
    short, long = "中华人民共和国中央人民政府", "春眠不觉晓处处闻啼鸟夜来风雨声花落知多少"
    rows = measure(
        tmp_path, [f"这是{short}的网站。", f"诗云:{long}。"], {"quiz.jsonl": lines({"q": short}, {"q": long})}
    )
    assert [(row["overlap"], row["item"]) for row in rows] == [(0.0, None), (1.0, 1)]


def test_accents_composed_by_the_document_match_those_of_the_set(tmp_path: Path) -> None:
    passage = " ".join(f"é{i}" for i in range(15))
    (row,) = measure(tmp_path, [passage], {"quiz.jsonl": lines({"text": normalize("NFD", passage)})})
    assert row["overlap"] == 1.0


def test_two_sets_of_one_name_are_refused(tmp_path: Path) -> None:
    with pytest.raises(BadInput, match="names two sets quiz"):
        measure(tmp_path, [PASSAGE], {"quiz.txt": PASSAGE, "quiz.jsonl": lines({"text": PASSAGE})})


def test_ten_thousand_items_with_one_beginning_are_looked_for_in_seconds(tmp_path: Path) -> None:
    head = " ".join(f"read{i}" for i in range(20))
    items = [{"text": f"{head} {' '.join(f'w{i}x{j}' for j in range(30))}"} for i in range(10_000)]
    rows = [item["text"] for item in items[::500]] + [f"{head} and something else"] * 1_000
    began = time.perf_counter()
    found = measure(tmp_path, rows, {"quiz.jsonl": lines(*items)})
    assert time.perf_counter() - began < 20
    assert [row["item"] for row in found[:20]] == list(range(0, 10_000, 500))
    assert all(row["overlap"] < 0.5 for row in found[20:])


@pytest.mark.parametrize(
    ("name", "fields"),
    [("pairs", ["sentence_good", "sentence_bad"]), ("choices", ["query", "choices"])],
)
def test_all_that_a_benchmark_asks_is_looked_for(name: str, fields: list[str]) -> None:
    path = Path(__file__).resolve().parents[2] / f"data/demo/{name}.jsonl"
    found = {(passage.id, passage.text) for passage in read_passages(path, read_set(path))}
    items = [json.loads(line) for line in path.read_text().splitlines()]
    for item in items:
        values = [item[field] for field in fields]
        texts = [text for value in values for text in ([value] if isinstance(value, str) else value)]
        assert {(item["id"], text) for text in texts} <= found


def test_a_set_whose_file_has_changed_is_read_again(tmp_path: Path) -> None:
    for content, overlap in ((PASSAGE, 1.0), (PASSAGE[::-1], 0.0), (PASSAGE, 1.0)):
        (row,) = measure(tmp_path, [PASSAGE], {"quiz.txt": content})
        assert row["overlap"] == overlap


def test_without_sets_nothing_overlaps(tmp_path: Path) -> None:
    assert measure(tmp_path, [PASSAGE], {}) == [{"overlap": 0.0, "set": None, "item": None}]


def test_no_documents_give_an_empty_ledger(tmp_path: Path) -> None:
    assert measure(tmp_path, [], {"quiz.txt": PASSAGE}) == []


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("quiz.jsonl", b'{"text": "x"}\n{"text": \n', r"quiz\.jsonl, line 2 is not JSON"),
        ("quiz.csv", b"a,b", r"quiz\.csv is no evaluation set"),
        ("quiz.txt", b"caf\xe9", r"quiz\.txt is not UTF-8 \(byte 3\)"),
    ],
)
def test_a_set_that_cannot_be_read_is_one_clear_sentence(
    tmp_path: Path, name: str, content: bytes, message: str
) -> None:
    (tmp_path / name).write_bytes(content)
    with pytest.raises(BadInput, match=message):
        list(read_passages(tmp_path / name, read_set(tmp_path / name)))


vocabulary = st.lists(st.sampled_from("abc"), max_size=12).map(" ".join)


@given(st.lists(vocabulary, max_size=5), st.lists(vocabulary, max_size=5))
@settings(max_examples=60)
def test_the_ledger_has_the_shares_that_plain_python_counts(rows: list[str], passages: list[str]) -> None:
    config = ContaminationConfig(ngram_words=4, min_words=2)
    with TemporaryDirectory() as folder:
        found = measure(Path(folder), rows, {"quiz.jsonl": lines(*({"text": text} for text in passages))}, config)
    for text, row in zip(rows, found, strict=True):
        shares = []
        for passage in passages:
            n = min(4, len(passage.split()))
            grams = {tuple(passage.split()[i : i + n]) for i in range(len(passage.split()) - n + 1)}
            held = {tuple(text.split()[i : i + n]) for i in range(len(text.split()) - n + 1)}
            shares.append(len(grams & held) / len(grams) if n >= 2 else 0)
        assert row["overlap"] == pytest.approx(max(shares, default=0))
        assert row["item"] == (shares.index(max(shares)) if row["overlap"] else None)


def test_real_evaluation_items_are_found_in_a_page_that_quotes_them(tmp_path: Path) -> None:
    folder = Path(__file__).parents[2] / ".." / "shared" / "data" / "eval"
    if not folder.is_dir():
        pytest.skip("the shared data folder with the evaluation sets is not there")
    items = (folder / "hellaswag_val_first300.jsonl").read_text().splitlines()
    quoted = json.loads(items[7])
    page = f"Some page. {quoted['ctx']} {quoted['endings'][0]} And so on."
    sets = {"hellaswag.jsonl": "\n".join(items), "lambada.jsonl": (folder / "lambada_first200.jsonl").read_text()}
    rows = measure(tmp_path, [page, "A page that has nothing to do with any of it, however long it may go on."], sets)
    assert rows == [{"overlap": 1.0, "set": "hellaswag", "item": 7}, {"overlap": 0.0, "set": None, "item": None}]
