import json
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipeline.crawl.urls import canonical_url, is_loopback

WPT = Path(__file__).parents[4] / "shared/data/url/urltestdata.json"


@pytest.mark.parametrize(
    ("given_url", "canonical"),
    [
        ("HTTP://Example.COM:80", "http://example.com/"),
        ("https://example.com:443/a/../b/./c#top", "https://example.com/b/c"),
        ("http://example.com:8080/?", "http://example.com:8080/"),
        ("http://example.com/%7euser/%c3%a9?q=%2f&a=1", "http://example.com/~user/%C3%A9?q=%2F&a=1"),
        ("http://example.com/é x", "http://example.com/%C3%A9%20x"),
        ("http://bücher.example./", "http://xn--bcher-kva.example/"),
        ("  http://example.com/a\nb ", "http://example.com/ab"),
        ("http://example.com/100%", "http://example.com/100%25"),
        ("http://[::1]:80/", "http://[::1]/"),
        ("http://example.com/a//b/", "http://example.com/a//b/"),
    ],
)
def test_equivalent_spellings_become_one(given_url: str, canonical: str) -> None:
    assert canonical_url(given_url) == canonical


@pytest.mark.parametrize(
    "url", ["mailto:a@b.c", "javascript:void(0)", "ftp://a/", "http://", "http://a:x/", "http://u:p@a/", "http://a b/"]
)
def test_what_cannot_be_crawled_has_no_canonical_url(url: str) -> None:
    assert canonical_url(url) is None


def test_links_are_resolved_against_their_page() -> None:
    assert canonical_url("../c?x#f", "http://h.localhost/a/b/d") == "http://h.localhost/a/c?x"
    assert canonical_url("//other.localhost", "http://h.localhost/") == "http://other.localhost/"


@given(st.text(), st.sampled_from(["http://h/", "http://h/a/b?c", "https://é.example:8443/"]))
def test_a_canonical_url_is_its_own_canonical_form(text: str, base: str) -> None:
    url = canonical_url(text, base)
    if url is not None:
        assert url.isascii()
        assert "#" not in url
        assert canonical_url(url) == url


def test_canonical_form_is_stable_over_the_platform_tests() -> None:
    if not WPT.exists():
        pytest.skip(f"{WPT} is not there")
    for case in json.loads(WPT.read_text()):
        if isinstance(case, dict):
            url = canonical_url(case["input"], case.get("base"))
            assert url is None or canonical_url(url) == url


def test_loopback_is_localhost_and_below() -> None:
    assert all(map(is_loopback, ["localhost", "a.localhost", "127.0.0.1", "127.9.9.9", "[::1]", "::1"]))
    assert not any(map(is_loopback, ["localhost.example", "example.com", "10.0.0.1"]))
