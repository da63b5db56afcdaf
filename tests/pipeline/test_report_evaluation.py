"""The report's evaluation: every score stands beside its interval and beside what knows nothing."""

import json
import re
from collections.abc import Callable
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import pytest

from pipeline.report import ReportConfig, report

VALIDATION = {
    "val_loss": 2.1984,
    "bits_per_byte": 0.9231,
    "bits_per_byte_interval": [0.9011, 0.9459],
    "ngram_bits_per_byte": 0.8719,
    "ngram_tokens": 1_804_112,
    "xz_bits_per_byte": 1.3127,
    "token_unigram_bits_per_byte": 2.0912,
}
ESSAYS = {
    "documents": 200,
    "tokens": 15_220,
    "bytes": 66_404,
    "bits_per_byte": 2.4471,
    "bits_per_byte_interval": [2.3512, 2.5433],
}
QUESTIONS = {
    "task": "multiple_choice",
    "items": 1_172,
    "acc": 0.3129,
    "acc_interval": [0.2861, 0.3398],
    "uniform_acc": 0.2242,
    "acc_norm": 0.3411,
    "acc_norm_interval": [0.3133, 0.3691],
    "uniform_acc_norm": 0.2666,
    "chance": 0.2502,
    "answer_bits_per_byte": 1.1877,
}
LAST_WORDS = {
    "task": "lambada",
    "items": 5_153,
    "acc": 0.0617,
    "acc_interval": [0.0551, 0.0682],
    "uniform_acc": 0.0001,
    "perplexity": 1_234.6,
    "perplexity_interval": [1_101.25, 1_400.75],
    "uniform_perplexity": None,
    "chance": 0.0001,
    "answer_bits_per_byte": 2.0313,
}
MEMORISED = {
    "train": {"prompt": 50, "continuation": 40, "samples": 500, "rate": 0.258, "interval": [0.221, 0.299]},
    "val": {"prompt": 50, "continuation": 40, "samples": 481, "rate": 0.124, "interval": [0.094, 0.156]},
}
HOSTS = [
    {"host": "a.example", "documents": 13, "tokens": 61_340, "bytes": 209_331, "loss": 2.05, "bits_per_byte": 0.8667},
    {"host": "", "documents": 9, "tokens": 30_000, "bytes": 111_009, "loss": 2.4, "bits_per_byte": 0.9357},
    {"host": "b.example", "documents": 1, "tokens": 1, "bytes": 0, "loss": 2.4, "bits_per_byte": None},
    {"host": None, "documents": 2, "tokens": 5_000, "bytes": 10_669, "loss": 3.3333, "bits_per_byte": 2.2537},
]


class Page(HTMLParser):
    """A well-formed page: its text, and its tables by row and cell."""

    def __init__(self, html: str) -> None:
        super().__init__()
        self.html = html
        self.open: list[str] = []
        self.rows: list[list[str]] = []
        self.pieces: list[str] = []
        self.feed(html)
        assert self.open == []
        self.text = " ".join(" ".join(self.pieces).split())

    def handle_starttag(self, tag: str, _attrs: list[tuple[str, str | None]]) -> None:
        if tag not in {"meta", "br"}:
            self.open.append(tag)
        if tag == "tr":
            self.rows.append([])
        elif tag == "td":
            self.rows[-1].append("")

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        self.pieces.append(data)
        if "td" in self.open:
            self.rows[-1][-1] = " ".join([*self.rows[-1][-1].split(), *data.split()])


@pytest.fixture
def page(tmp_path: Path) -> Callable[..., Page]:
    def of(**evaluation: Any) -> Page:
        (tmp_path / "evaluation.json").write_text(json.dumps({"validation": VALIDATION, **evaluation}))
        report(tmp_path, ReportConfig(), manifests={}, folders={"evaluate": tmp_path})
        return Page((tmp_path / "report.html").read_text(encoding="utf-8"))

    return of


def test_the_headline_has_an_interval_and_says_what_is_better_and_worse(page: Callable[..., Page]) -> None:
    text = page().text
    assert "95 % interval 0.901 to 0.946, 5.9 % above a 5-gram model, 29.7 % below xz -9," in text
    assert "this model 0.923 a 5-gram model 0.872 xz -9 1.313 unigram tokens 2.091" in text


def test_a_score_stands_beside_its_interval_chance_and_a_model_that_knows_nothing(page: Callable[..., Page]) -> None:
    rows = page(tasks={"q.jsonl": QUESTIONS}).rows
    name = "q.jsonl multiple choice, 1,172 items right answers: 1.188 bits per byte"
    assert [name, "acc", "31.3 %", "28.6 % to 34.0 %", "25.0 %", "22.4 %", ""] in rows
    assert ["acc_norm", "34.1 %", "31.3 % to 36.9 %", "25.0 %", "26.7 %", ""] in rows


def test_a_perplexity_is_no_share_and_may_be_beyond_numbers(page: Callable[..., Page]) -> None:
    rows = page(tasks={"words.jsonl": LAST_WORDS}).rows
    assert ["perplexity", "1,235", "1,101 to 1,401", "", "beyond numbers", ""] in rows


def test_a_score_is_drawn_where_it_lies_between_0_and_100(page: Callable[..., Page]) -> None:
    html = page(tasks={"q.jsonl": QUESTIONS}).html
    drawn = re.findall(r'class="(whisker|dot|line)" style="left:([\d.]+)%(?:;width:([\d.]+)%)?"', html)
    assert ("whisker", "28.61", "5.37") in drawn
    assert ("dot", "31.29", "") in drawn
    assert ("line", "25.02", "") in drawn


def test_a_set_of_texts_has_bits_per_byte_with_an_interval(page: Callable[..., Page]) -> None:
    assert ["e.jsonl", "200", "15,220", "66.4 kB", "2.447", "2.351 to 2.543"] in page(sets={"e.jsonl": ESSAYS}).rows


def test_what_is_memorised_stands_beside_what_can_be_guessed(page: Callable[..., Page]) -> None:
    shown = page(memorisation=MEMORISED)
    assert ["training", "500", "25.8 %", "22.1 % to 29.9 %", ""] in shown.rows
    assert ["held out", "481", "12.4 %", "9.4 % to 15.6 %", ""] in shown.rows
    assert "after 50 tokens of the text, the likeliest continuation is the text's next 40 tokens exactly" in shown.text


def test_memorisation_that_was_not_measured_has_its_reason(page: Callable[..., Page]) -> None:
    assert "Not looked for: it does not fit." in page(memorisation={"skipped": "it does not fit."}).text
    short = {**MEMORISED["val"], "samples": 0, "rate": None, "interval": None}
    assert ["held out", "0", "no text is long enough", "", ""] in page(memorisation={**MEMORISED, "val": short}).rows
    assert "Memorisation" not in page(memorisation={}).text


def test_hosts_have_their_losses_and_the_rest_is_one_row(page: Callable[..., Page]) -> None:
    rows = page(hosts=HOSTS).rows
    assert ["a.example", "13", "61,340", "209 kB", "2.05", "0.8667", ""] in rows
    assert ["no host", "9", "30,000", "111 kB", "2.4", "0.9357", ""] in rows
    assert ["b.example", "1", "1", "0 B", "2.4", "no text", ""] in rows
    assert ["all others", "2", "5,000", "10.7 kB", "3.333", "2.254", ""] in rows
