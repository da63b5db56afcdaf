import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipeline.crawl.permissions import MAX_SAID_LENGTH, Permissions, TdmRep, parse_tdmrep, read_permissions


def from_header(*values: str, name: str = "X-Robots-Tag") -> Permissions:
    return read_permissions([(name, value) for value in values], [], "gptmill/0.1 (+me@example.org)")


def from_meta(content: str, name: str = "robots") -> Permissions:
    return read_permissions([], [(name, content)])


def test_a_page_that_says_nothing_permits_everything() -> None:
    assert read_permissions([("Content-Type", "text/html")], [("viewport", "noindex")]) == Permissions()


@pytest.mark.parametrize(
    "text", ["noindex", "NoIndex, follow", "index,noindex", "none", "noarchive noindex", " noindex "]
)
def test_noindex_is_read_from_header_and_meta(text: str) -> None:
    assert from_header(text).noindex
    assert from_meta(text).noindex


@pytest.mark.parametrize("text", ["nofollow", "noindex, nofollow", "none", "NOFOLLOW"])
def test_nofollow_is_read_from_header_and_meta(text: str) -> None:
    assert from_header(text).nofollow
    assert from_meta(text).nofollow


@pytest.mark.parametrize("text", ["noai", "noai, noimageai", "index, NOAI", "noml"])
def test_refusals_of_training_are_read_from_header_and_meta(text: str) -> None:
    assert from_header(text).noai
    assert from_meta(text).noai


@pytest.mark.parametrize(
    "text",
    [
        "all",
        "index, follow",
        "noimageai",
        "max-image-preview: none",
        "max-snippet: 20, max-video-preview:-1",
        "unavailable_after: 25 Jun 2010 15:00:00 PST",
        "unavailable_after: Friday, 25-Jun-10 15:00:00 GMT",
        "noindexed",
    ],
)
def test_other_directives_have_no_effect_and_are_recorded(text: str) -> None:
    assert from_header(text) == from_meta(text) == Permissions(said=text)


def test_directives_after_those_with_values_are_read() -> None:
    said = from_header("unavailable_after: 25 Jun 2030 15:00:00 PST, noai, max-snippet: 20, nofollow")
    assert said.noai
    assert said.nofollow


def test_a_header_to_another_agent_is_not_for_us() -> None:
    assert from_header("otherbot: noindex, nofollow") == Permissions(said="otherbot: noindex, nofollow")


@pytest.mark.parametrize("text", ["gptmill: noai", "GPTMill : noai", "*: noai", "gptmill: nofollow, noai"])
def test_a_header_to_us_is_for_us(text: str) -> None:
    assert from_header(text).noai


def test_all_headers_of_the_name_count() -> None:
    said = from_header("otherbot: noindex", "gptmill: noai", "nofollow")
    assert said == Permissions(nofollow=True, noai=True, said="otherbot: noindex, gptmill: noai, nofollow")


def test_headers_joined_on_the_way_keep_whom_they_are_for() -> None:
    said = from_header("nofollow, otherbot: noindex, noai, gptmill: noarchive")
    assert (said.nofollow, said.noindex, said.noai) == (True, False, False)


def test_meta_elements_to_us_and_to_all_robots_count() -> None:
    assert from_meta("noai", "GPTmill").noai
    assert from_meta("noai", "Robots").noai
    assert not from_meta("noai", "otherbot").noai


@pytest.mark.parametrize(
    ("name", "value", "refused"),
    [
        ("Content-Usage", "train-ai=n", True),
        ("Content-Usage", "search=y, train-ai=y", False),
        ("Content-Signal", "search=yes, ai-train=no", True),
        ("content-signal", "ai-train=yes", False),
        ("Content-Usage", "search=n", False),
    ],
)
def test_preferences_in_headers_are_read_and_recorded(name: str, value: str, refused: bool) -> None:
    said = from_header(value, name=name)
    assert said.noai == refused
    assert said.said == f"{name.lower()}: {value}"


def test_either_vocabulary_may_refuse() -> None:
    assert read_permissions([("Content-Usage", "train-ai=y"), ("Content-Signal", "ai-train=no")], []).noai


def test_what_was_said_is_recorded_up_to_a_length() -> None:
    assert from_meta("x" * 10**6).said == "x" * MAX_SAID_LENGTH


@pytest.mark.parametrize(("value", "reserved"), [("1", True), (" 0 ", False), ("2", None), ("true", None), ("", None)])
def test_reservations_are_read_from_header_and_meta(value: str, reserved: bool | None) -> None:
    assert from_header(value, name="TDM-Reservation").tdm_reserved is reserved
    assert from_meta(value, "tdm-reservation").tdm_reserved is reserved


def test_of_two_values_the_reservation_counts() -> None:
    assert from_header("0", "1", name="tdm-reservation").tdm_reserved
    assert from_header("0, 1", name="tdm-reservation").tdm_reserved


FILE = parse_tdmrep(b'[{"location": "/", "tdm-reservation": 1}]')


def test_the_header_supersedes_the_file_and_meta_both() -> None:
    page = "http://h.example/page"
    header, meta = [("tdm-reservation", "0")], [("tdm-reservation", "1")]
    assert read_permissions([], []).with_tdm_file(FILE, page).tdm_reserved
    assert not read_permissions(header, []).with_tdm_file(FILE, page).tdm_reserved
    assert read_permissions(header, meta).with_tdm_file(FILE, page).tdm_reserved


def test_a_word_that_is_none_supersedes_nothing() -> None:
    said = read_permissions([("tdm-reservation", "1")], [("tdm-reservation", "yes")])
    assert said.tdm_reserved


def test_the_first_rule_that_matches_decides() -> None:
    rules = [
        {"location": "/open/*.html$", "tdm-reservation": 0},
        {"location": "/open/", "tdm-reservation": 1, "tdm-policy": "https://h.example/policy"},
        {"location": "/odd/", "tdm-reservation": 7},
        {"location": "/a%20b/", "tdm-reservation": "1"},
    ]
    file = parse_tdmrep(json.dumps(rules).encode())
    paths = ["/open/a.html", "/open/a.html?x", "/odd/a", "/a b/", "/"]
    assert [file.reserved(f"https://h.example{path}") for path in paths] == [False, True, None, True, None]


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"<html>",
        b'{"location": "/", "tdm-reservation": 1}',
        b"[" * 100_000,
        b"[1, null, [], {}]",
        b'[{"location": 5, "tdm-reservation": 1}]',
        b'[{"tdm-reservation": 1}]',
        b'[{"location": "/", "tdm-reservation": 1}',
        b'[{"location": "/", "tdm-reservation": 1}]' + b" " * 1_000_000,
        b"\xff\xfe\x00",
        b"1" * 10_000,
    ],
)
def test_a_file_that_is_none_says_nothing(body: bytes) -> None:
    assert parse_tdmrep(body) == TdmRep()


def test_a_byte_order_mark_and_lone_surrogates_are_no_error() -> None:
    file = parse_tdmrep(
        b'\xef\xbb\xbf[{"location": "/\\ud800", "tdm-reservation": 1}, {"location": "/", "tdm-reservation": 0}]'
    )
    assert file.reserved("http://h.example/a") is False


@given(st.binary())
def test_no_bytes_are_an_error(body: bytes) -> None:
    assert parse_tdmrep(body).reserved("http://h.example/") in (True, False, None)


@given(st.lists(st.tuples(st.sampled_from(["X-Robots-Tag", "tdm-reservation", "Content-Usage"]), st.text())))
def test_no_header_is_an_error(headers: list[tuple[str, str]]) -> None:
    assert read_permissions(headers, [(name, value) for value, name in headers]).noindex in (True, False)
