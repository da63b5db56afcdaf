"""The report: everything that was measured is on one self-contained page, and counts that disagree stop it."""

import copy
import json
import math
import re
from html.parser import HTMLParser
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipeline.charts import loss_curve, stretches, ticks
from pipeline.counts import CountsDisagree, check_counts, funnel
from pipeline.documents import write_table
from pipeline.report import ReportConfig, report, summary
from pipeline.shards import INDEX, index_path

STATS: dict[str, dict[str, Any]] = {
    "scrape": {
        "rows": 571,
        "urls": 640,
        "outcomes": {"stored": 571, "http_404": 31, "redirect": 24, "robots": 9, "not_html": 5},
    },
    "extract": {"rows": 563, "rejected": {"empty": 6, "undecodable": 2}, "bytes_in": 18_900_000},
    "language": {
        "rows": 563,
        "wanted": 551,
        "languages": {"en": 551, "de": 3, "fr": 2, "es": 2, "ja": 2, "pl": 1, "ru": 1, "it": 1},
    },
    "quality": {"rows": 563},
    "signatures": {"rows": 563, "shingles": 812_345, "empty": 0},
    "contamination": {"rows": 563, "with_overlap": 4},
    "select": {
        "rows": 563,
        "kept": 498,
        "languages": {"en": {"rows": 551, "kept": 498}, "de": {"rows": 3, "kept": 0}},
        "host_count": 40,
        "hosts": {f"host-{number}.example": {"rows": number, "kept": number // 2} for number in range(33)},
        "reasons": {"language": 12, "gopher_word_count": 31, "gopher_duplicate_lines": 14, "c4_too_short": 8},
    },
    "deduplicate": {
        "rows": 563,
        "selected": 498,
        "kept": 472,
        "duplicates": {"exact": 8, "near": 18},
        "largest_clusters": [
            {"doc_id": "00", "url": "http://pydoc/os.html", "size": 5, "example": "http://pydoc/posix.html"},
            {"doc_id": "01", "url": "http://pydoc/ast.html", "size": 3, "example": "http://mirror/ast.html"},
        ],
        "warnings": ["host mirror.example loses 14 of 20 documents as duplicates"],
    },
    "tokenizer": {"rows": 4_096, "trained_bytes": 7_021_334, "bytes_per_token": 3.4421},
    "tokenize": {"rows": 563, "documents": 551, "tokens": 2_104_331, "bytes": 7_243_222},
    "pack": {
        "rows": 471,
        "documents": {"train": 447, "val": 24},
        "tokens": {"train": 1_804_112, "val": 96_340},
        "bytes": {"train": 6_210_020, "val": 331_009},
    },
    "pretrain": {
        "rows": 3_276_800,
        "steps": 1_600,
        "parameters": 3_348_672,
        "val_loss": 2.198,
        "epochs": 1.82,
        "hardware": {"device": "cpu", "name": "x86_64, 2 threads", "dtype": "bfloat16", "compiled": True},
        "seconds": {"compile": 14.2, "train": 181.4},
    },
    "evaluate": {"rows": 376},
}
SECONDS = {"scrape": 34.1, "extract": 5.2, "select": 0.21, "tokenizer": 1.9, "pretrain": 196.0, "evaluate": 9.4}

EVALUATION = {
    "parameters": 3_348_672,
    "samples": [
        {
            "prompt": "",
            "seed": 1,
            "ended": True,
            "text": "class Path(PurePath)\n |  A <script>alert(1)</script>\n |  method",
        },
        {
            "prompt": "Return the ",
            "text": "number of items in the list & raise ValueError\nif the value is not present.\n" * 6,
        },
    ],
    "validation": {
        "val_loss": 2.1984,
        "token_perplexity": 9.0106,
        "word_perplexity": 221.42,
        "bits_per_byte": 0.9231,
        "bits_per_byte_interval": [0.9011, 0.9459],
        "byte_unigram_bits_per_byte": 4.7112,
        "token_unigram_bits_per_byte": 2.0912,
        "xz_bits_per_byte": 1.3127,
        "tokens": 96_340,
        "bytes": 331_009,
        "words": 39_774,
        "documents": 24,
        "calibration_error": 0.0123,
    },
}


def manifests_of(stats: dict[str, dict[str, Any]]) -> dict[str, dict[str, Any]]:
    """A manifest a stage, each made from the one before."""
    manifests: dict[str, dict[str, Any]] = {}
    for number, (stage, facts) in enumerate(stats.items()):
        before = list(manifests.values())[-2:]
        manifests[stage] = {
            "stage": stage,
            "key": f"{number:02d}" * 16,
            "digest": f"{number + 40:02d}" * 32,
            "key_document": {
                "config": {"wanted": ["en"], "threshold": 0.8}
                if stage == "language"
                else {"field": number, "flag": True},
                "code": {},
                "tools": {"pyarrow": "22.0"},
                "inputs": {},
            },
            "tools": {"pyarrow": "22.0", "tiktoken": "0.14.0"},
            "inputs": {each["stage"]: {k: each[k] for k in ("stage", "key", "digest")} for each in before},
            "files": {"part-00000/documents.arrow": {"size": 1_234_567 * (number + 1), "sha256": "0" * 64}},
            "rows": facts["rows"],
            "stats": facts,
            "run": {
                "seconds": SECONDS.get(stage, 1.1),
                "started": f"2025-06-01T12:{number:02d}:00Z",
                "host": "mill",
                "machine": "x86_64",
                "python": "3.11.7",
            },
        }
    manifests["pretrain"]["inputs"]["tokens"] = {"files": ["/data/list.txt"], "digest": "f" * 64}
    return manifests


def metrics() -> list[dict[str, Any]]:
    noise = np.random.default_rng(1)
    lines: list[dict[str, Any]] = []
    for step in range(1, 1_601):
        loss = 2.1 + 6.2 * math.exp(-step / 60) + 2.0 * math.exp(-step / 500) + float(noise.normal(0, 0.06))
        lines.append(
            {
                "step": step,
                "loss": None if step == 700 else loss,
                "lr": 8e-3 * min(1.0, step / 100) * (0.5 + 0.5 * math.cos(math.pi * step / 1_600)),
                "grad_norm": 0.4 + 4 / step + float(noise.uniform(0, 0.2)),
                "tokens": step * 2_048,
                "seconds": 7.5 if step == 1 else 0.113,
                "tokens_per_s": 273.0 if step == 1 else float(noise.normal(18_100, 400)),
            }
        )
        if step % 200 == 0:
            lines.append({"step": step, "val_loss": loss + 0.08})
    return lines


def folders_of(root: Path) -> dict[str, Path | list[Path]]:
    (root / "pretrain/report").mkdir(parents=True)
    lines = "".join(json.dumps(line) + "\n" for line in metrics())
    (root / "pretrain/report/metrics.jsonl").write_text(lines)
    (root / "evaluate").mkdir()
    (root / "evaluate/evaluation.json").write_text(json.dumps(EVALUATION))
    parts: list[Path] = []
    for number, n_documents in enumerate((300, 171)):
        parts.append(root / f"pack/part-{number:05d}")
        parts[-1].mkdir(parents=True)
        lengths = np.random.default_rng(number).lognormal(7.4, 1.3, n_documents).astype(np.int64) + 2
        for split, rows in (("train", lengths[:-9]), ("val", lengths[-9:])):
            names = [f"http://pydoc/{row}" for row in range(len(rows))]
            table = pa.table([[b"0" * 16] * len(rows), names, np.cumsum(rows) - rows, rows], INDEX)
            write_table(table, index_path(parts[-1], split))
    return {"pretrain": root / "pretrain", "evaluate": root / "evaluate", "pack": parts}


@pytest.fixture(scope="module")
def page(tmp_path_factory: pytest.TempPathFactory) -> str:
    root = tmp_path_factory.mktemp("report")
    folders = folders_of(root / "in")
    report(root, ReportConfig(title="Python's library"), manifests=manifests_of(STATS), folders=folders)
    return (root / "report.html").read_text(encoding="utf-8")


class Page(HTMLParser):
    """Tags that are open at the end, resources asked for, and all text."""

    VOID = ("meta", "link", "br", "img", "input", "hr")

    def __init__(self) -> None:
        super().__init__()
        self.open: list[str] = []
        self.asked: list[str] = []
        self.ids: list[str] = []
        self.text = ""

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        if tag not in self.VOID:
            self.open.append(tag)
        self.asked += [value or "" for name, value in attrs if name in ("src", "href", "srcset", "action")]
        self.ids += [value or "" for name, value in attrs if name == "id"]

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        self.text += data


def test_the_page_is_well_formed_and_asks_for_nothing_outside_itself(page: str) -> None:
    parsed = Page()
    parsed.feed(page)
    assert parsed.open == []
    assert all(target.startswith("#") and target[1:] in parsed.ids for target in parsed.asked)
    assert not re.search(r"url\(|@import|<script", page)
    assert "default-src 'none'" in page


@pytest.mark.parametrize(
    "shown",
    [
        "0.923",
        "29.7 % below xz -9",
        "gopher word count",
        "near duplicate",
        "no text to encode",
        "1,804,112",
        "host mirror.example loses 14 of 20 documents as duplicates",
        "http://pydoc/posix.html",
        "3,348,672",
        "Perplexity per word",
        "0.9011 to 0.9459",
        "calibration error",
        "Python's library",
        "0.14.0",
        "threshold",
        "host-32.example",
        "31 others311",
        "f" * 12,
    ],
)
def test_what_was_measured_is_on_the_page(page: str, shown: str) -> None:
    parsed = Page()
    parsed.feed(page)
    assert shown in " ".join(parsed.text.split())


def test_text_from_outside_is_shown_and_never_interpreted(page: str) -> None:
    assert "&lt;script&gt;alert(1)&lt;/script&gt;" in page


def test_the_same_facts_give_the_same_bytes(tmp_path: Path) -> None:
    folders = folders_of(tmp_path / "in")
    pages = []
    for name in ("a", "b"):
        (out := tmp_path / name).mkdir()
        report(out, ReportConfig(), manifests=manifests_of(STATS), folders=folders)
        pages.append((out / "report.html").read_bytes())
    assert pages[0] == pages[1]


def test_a_run_without_model_or_documents_is_reported_as_far_as_it_went(tmp_path: Path) -> None:
    stats = {stage: STATS[stage] for stage in ("scrape", "extract")}
    manifests = manifests_of({**stats, "pretrain": {"rows": 0}})
    del manifests["pretrain"]
    assert report(tmp_path, ReportConfig(), manifests=manifests, folders={}) == {"rows": 2}
    assert "Pages stored" in (tmp_path / "report.html").read_text()


def test_half_a_surrogate_pair_in_a_sample_is_no_error(tmp_path: Path) -> None:
    (tmp_path / "evaluation.json").write_text(json.dumps({"samples": [{"prompt": "", "text": "a\ud800b"}]}))
    report(tmp_path, ReportConfig(), manifests=manifests_of(STATS), folders={"evaluate": tmp_path})
    assert "a?b" in (tmp_path / "report.html").read_text()


def test_the_funnel_gives_each_step_and_what_it_loses() -> None:
    rows = [(row.name, row.count, sum(row.lost.values())) for row in funnel(manifests_of(STATS))]
    assert rows == [
        ("URLs met", 640, 69),
        ("Pages stored", 571, 8),
        ("Documents", 563, 65),
        ("Selected", 498, 26),
        ("Unique", 472, 1),
        ("Packed", 471, 0),
    ]
    for (_, count, lost), (_, following, _) in pairwise(rows):
        assert count - lost == following


@pytest.mark.parametrize(
    ("stage", "change", "said"),
    [
        ("scrape", {"urls": 641}, "at scrape: 640 URLs with an outcome, but 641 expected"),
        ("extract", {"rejected": {"empty": 7}}, "at extract: 570 documents and rejects, but 571 expected"),
        ("language", {"rows": 1}, "at language: 1 rows, but 563 expected"),
        ("tokenize", {"rows": 562}, "at tokenize: 562 rows"),
        ("select", {"kept": 400}, "at select: 465 documents kept or dropped for a reason, but 563 expected"),
        ("deduplicate", {"duplicates": 25}, "at deduplicate: 497 documents kept or found duplicate, but 498 expected"),
        ("pack", {"rows": 470}, "at pack: 471 documents in both splits, but 470 expected"),
        ("pack", {"rows": 473, "documents": {"train": 473}}, "at pack: 473 documents, but 472 expected"),
    ],
)
def test_counts_that_do_not_add_up_are_named(stage: str, change: dict[str, Any], said: str) -> None:
    stats = copy.deepcopy(STATS)
    stats[stage].update(change)
    with pytest.raises(CountsDisagree, match=said):
        check_counts(manifests_of(stats))


def test_a_summary_ranks_reasons_and_keeps_cells_apart() -> None:
    manifest = manifests_of(STATS)["select"]
    manifest["stats"] = {**manifest["stats"], "odd|name": {"a|b": 1}}
    text = summary(manifest)
    assert text.startswith("## select\n\n563 rows · 0.21 s · digest `464646464646`\n")
    assert text.index("| gopher word count | 31 |") < text.index("| language | 12 |")
    assert "| kept | 498 |" in text
    assert "| languages | rows | kept |\n| :-- | --: | --: |\n| en | 551 | 498 |\n| de | 3 | 0 |" in text
    assert "| host-32.example | 32 | 16 |" in text
    assert "and 3 more" in text
    assert "| a\\|b | 1 |" in text


def test_a_summary_tells_clusters_and_warnings() -> None:
    text = summary(manifests_of(STATS)["deduplicate"])
    assert "| 00 | http://pydoc/os.html | 5 | http://pydoc/posix.html |" in text
    assert "- host mirror.example loses 14 of 20 documents as duplicates" in text


@given(st.lists(st.tuples(st.integers(0, 10**9), st.floats(1e-3, 20)), max_size=700))
def test_a_curve_is_drawn_through_everything_within_its_frame(points: list[tuple[float, float]]) -> None:
    points = sorted(points)
    drawn = loss_curve(points, points[-1:])
    assert (drawn == "") == (points == [])
    lines = " ".join(re.findall(r'points="([^"]*)"', drawn))
    places = [place.split(",") for place in lines.split()]
    assert all(0 <= float(x) <= 960 and 0 <= float(y) <= 360 for x, y in places)
    grouped = stretches(points, 50)
    assert len(grouped) <= 50
    if points:
        assert min(s.low for s in grouped) == min(y for _, y in points)


@given(st.floats(-1e9, 1e9), st.floats(1e-6, 1e9))
def test_ticks_are_few_and_lie_within_their_range(low: float, spread: float) -> None:
    found = ticks(low, low + spread)
    assert len(found) <= 8
    assert all(low - 1e-6 * spread <= tick <= low + spread * (1 + 1e-6) for tick in found) or spread < 1e-9 * abs(low)
