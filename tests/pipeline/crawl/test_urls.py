import json
import re
from pathlib import Path
from typing import Any
from urllib.parse import unquote_to_bytes, urlsplit

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipeline.crawl.urls import canonical_url, is_loopback, netloc_of

WPT = Path(__file__).parents[4] / "shared/data/url/urltestdata.json"


@pytest.mark.parametrize(
    ("given_url", "canonical"),
    [
        ("HTTP://Example.COM:80", "http://example.com/"),
        ("https://example.com:443/a/../b/./c#top", "https://example.com/b/c"),
        ("http://example.com:8080/?", "http://example.com:8080/"),
        ("http://example.com/%7euser/%c3%a9?q=%2f", "http://example.com/~user/%C3%A9?q=%2F"),
        ("http://example.com/é x", "http://example.com/%C3%A9%20x"),
        ("http://example.com/?q='a'", "http://example.com/?q=%27a%27"),
        ("  http://example.com/a\nb ", "http://example.com/ab"),
        ("http://example.com/100%", "http://example.com/100%25"),
        ("http://[::1]:80/", "http://[::1]/"),
        ("http:\\\\example.com\\a", "http://example.com/a"),
        ("http://:@example.com:0080/", "http://example.com/"),
    ],
)
def test_equivalent_spellings_become_one(given_url: str, canonical: str) -> None:
    assert canonical_url(given_url) == canonical


@pytest.mark.parametrize(
    "url",
    ["http://example.com/a//b/", "http://example.com/a", "http://www.example.com/a/", "http://example.com/a;v=1/b?c;d"],
)
def test_what_may_be_another_page_is_left_alone(url: str) -> None:
    assert canonical_url(url) == url


@pytest.mark.parametrize(
    "url", ["mailto:a@b.c", "javascript:void(0)", "ftp://a/", "http://", "http://a:x/", "http://u:p@a/", "http://a b/"]
)
def test_what_cannot_be_crawled_has_no_canonical_url(url: str) -> None:
    assert canonical_url(url) is None


def test_parameters_are_sorted_by_name_and_those_of_one_name_keep_their_order() -> None:
    assert canonical_url("http://h/?b=2&a=9&&b=1&a=3&") == "http://h/?a=9&a=3&b=2&b=1"


@pytest.mark.parametrize(
    "parameter",
    [
        "utm_source=x",
        "UTM_Medium=y",
        "utm%5Fid=1",
        "gclid=1",
        "fbclid=",
        "_ga=2.1",
        "PHPSESSID=0a",
        "ASPSESSIONIDQQAB=C",
    ],
)
def test_trackers_and_sessions_are_stripped(parameter: str) -> None:
    assert canonical_url(f"http://h/p?{parameter}") == "http://h/p"
    assert canonical_url(f"http://h/p?z=1&{parameter}&a=2") == "http://h/p?a=2&z=1"


def test_a_session_in_the_path_is_stripped() -> None:
    assert canonical_url("http://h/a;jsessionid=1F.node2/b;JSESSIONID=3?c") == "http://h/a/b?c"


@pytest.mark.parametrize(
    ("host", "ascii_host"),
    [
        ("bücher.example.", "xn--bcher-kva.example"),
        ("BÜCHER.example", "xn--bcher-kva.example"),
        ("faß.example", "xn--fa-hia.example"),  # IDNA 2003 made ss of it: another site
        ("例え。テスト", "xn--r8jz45g.xn--zckzah"),
        ("%E2%98%83.example", "xn--n3h.example"),
    ],
)
def test_names_in_other_scripts_are_spelled_for_dns(host: str, ascii_host: str) -> None:
    assert canonical_url(f"http://{host}/") == f"http://{ascii_host}/"


@pytest.mark.parametrize("host", ["\u00ad", "a\u200db", "xn--", "xn--pokxncvks", "ü" * 300, "א1א.a\u05d0b", "\u0300a"])
def test_names_that_dns_cannot_spell_are_none(host: str) -> None:
    assert canonical_url(f"http://{host}/") is None


@pytest.mark.parametrize(
    "host", ["127.1", "0x7f.1", "0X7F.0.0x0.1", "2130706433", "017700000001", "0x7f000001", "127.0.0.1.", "１２７.1"]
)
def test_every_notation_of_an_address_is_seen_as_that_address(host: str) -> None:
    assert canonical_url(f"http://{host}/") == "http://127.0.0.1/"


@pytest.mark.parametrize(
    "host", ["256.1.1.1", "1.2.3.4.5", "08.1", "4294967296", "1.2.3.0x100", "a.09", "1_0.1", "[::1%25l]", "[1]"]
)
def test_what_ends_like_an_address_and_is_none_is_refused(host: str) -> None:
    assert canonical_url(f"http://{host}/") is None


def test_links_are_resolved_against_their_page() -> None:
    assert canonical_url("../c?x#f", "http://h.localhost/a/b/d") == "http://h.localhost/a/c?x"
    assert canonical_url("//other.localhost", "http://h.localhost/") == "http://other.localhost/"
    assert canonical_url("?b", "http://h.localhost/p?a") == "http://h.localhost/p?b"
    assert canonical_url("#f", "http://h.localhost/p?a") == "http://h.localhost/p?a"


PIECES = st.sampled_from(
    [
        "..",
        ".",
        "/",
        "\\",
        "%2e",
        "%",
        "%25",
        "%3b",
        ";jsessionid=",
        "&",
        "?",
        "=",
        "utm_a",
        "#",
        ":",
        "@",
        "é",
        "\ud800",
        "0x1",
    ]
)


@given(st.one_of(st.text(), st.lists(PIECES).map("".join)), st.sampled_from(["http://h/", "http://h/a/b?c", "http://"]))
def test_a_canonical_url_is_its_own_canonical_form(text: str, base: str) -> None:
    for url in (canonical_url(text, base), canonical_url(base + text)):
        if url is not None:
            assert url.isascii()
            assert "#" not in url
            assert canonical_url(url) == url
            assert canonical_url("", url) == url


def platform_cases() -> list[dict[str, Any]]:
    """The cases of web-platform-tests whose result is an http(s) URL, or a failure."""
    if not WPT.exists():
        pytest.skip(f"{WPT} is not there")
    cases = [case for case in json.loads(WPT.read_text()) if isinstance(case, dict)]
    return [case for case in cases if case.get("failure") or case["protocol"] in ("http:", "https:")]


def refusal(case: dict[str, Any]) -> str | None:
    """Why a URL that the standard admits is none for a crawler."""
    if case["username"] or case["password"]:
        return "credentials are for one visitor"
    labels = case["hostname"].split(".")
    if not case["hostname"].startswith("[") and not all(re.fullmatch("[a-z0-9_-]+", label) for label in labels):
        return "no such name can be in DNS"
    return None


def test_what_the_url_standard_refuses_is_refused() -> None:
    for case in platform_cases():
        if case.get("failure"):
            assert canonical_url(case["input"], case["base"]) is None, case


def test_what_the_url_standard_admits_is_admitted_unless_it_cannot_be_asked_for() -> None:
    for case in platform_cases():
        if not case.get("failure"):
            assert (canonical_url(case["input"], case["base"]) is None) == (refusal(case) is not None), case


def test_links_lead_where_the_url_standard_says() -> None:
    for case in platform_cases():
        url = canonical_url(case["input"], case["base"])
        if url is None or case.get("failure"):
            continue
        assert url == canonical_url(case["href"]), case
        assert netloc_of(url) == case["host"], case
        # Escapes have one spelling here and are kept as written there: the octets must be the same.
        parts = urlsplit(url)
        assert unquote_to_bytes(parts.path) == unquote_to_bytes(case["pathname"]), case
        # Parameters are sorted here, and the empty ones dropped.
        pieces = sorted(filter(None, case["search"][1:].split("&")), key=lambda piece: piece.partition("=")[0])
        assert unquote_to_bytes(parts.query) == unquote_to_bytes("&".join(pieces)), case


def test_loopback_is_localhost_and_below() -> None:
    assert all(map(is_loopback, ["localhost", "a.localhost", "127.0.0.1", "127.9.9.9", "[::1]", "::1"]))
    assert not any(map(is_loopback, ["localhost.example", "example.com", "10.0.0.1"]))


def test_loopback_in_the_clothes_of_ipv6_is_loopback() -> None:
    assert is_loopback("[::ffff:7f00:1]")
    assert not is_loopback("[::ffff:a00:1]")
