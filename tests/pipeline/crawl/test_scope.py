import pytest

from pipeline.crawl.scope import Scope, checked_pattern


def scope(
    *hosts: str, paths: list[str] | None = None, include: list[str] | None = None, exclude: list[str] | None = None
) -> Scope:
    return Scope(list(hosts or ("h.example",)), paths or [], include or [], exclude or [])


def test_a_host_covers_its_pages_by_either_scheme() -> None:
    assert all(map(scope().covers, ["http://h.example/", "https://h.example/a?b"]))


@pytest.mark.parametrize(
    "url",
    [
        "http://www.h.example/",
        "http://h.example:8080/",
        "http://h.example.org/",
        "http://xh.example/",
        "http://o/h.example",
    ],
)
def test_a_host_covers_no_other(url: str) -> None:
    assert not scope().covers(url)


def test_a_port_is_part_of_a_host() -> None:
    assert scope("h.example:8080").covers("http://h.example:8080/")
    assert not scope("h.example:8080").covers("http://h.example/")


@pytest.mark.parametrize(
    ("url", "covered"),
    [
        ("http://example.org/", True),
        ("http://a.example.org/", True),
        ("http://a.b.example.org/", True),
        ("http://notexample.org/", False),
        ("http://example.org.evil/", False),
        ("http://a.example.org:81/", False),
        ("http://org/", False),
    ],
)
def test_a_wildcard_covers_a_domain_and_all_below_it(url: str, covered: bool) -> None:
    assert scope("h.example", "*.example.org").covers(url) == covered


def test_without_hosts_nothing_is_covered() -> None:
    assert not Scope([], [], [], []).covers("http://h.example/")


def test_one_of_the_paths_must_begin_the_path() -> None:
    covers = scope(paths=["/docs/", "/wiki"]).covers
    assert all(map(covers, ["http://h.example/docs/a", "http://h.example/wiki", "http://h.example/wiki/a?b"]))
    assert not any(map(covers, ["http://h.example/", "http://h.example/docs", "http://h.example/a/docs/"]))


def test_paths_may_be_spelled_as_people_do() -> None:
    assert scope(paths=["/über uns/"]).covers("http://h.example/%C3%BCber%20uns/a")
    assert scope(paths=["docs/"]).covers("http://h.example/docs/a")


def test_one_include_must_match_somewhere_in_the_url() -> None:
    covers = scope(include=[r"\.html$", r"^http://h\.example/$"]).covers
    assert covers("http://h.example/a.html")
    assert covers("http://h.example/")
    assert not covers("http://h.example/a.html?b")


def test_no_exclude_may_match() -> None:
    covers = scope(include=["/a"], exclude=[r"[?&]print=", "/private/"]).covers
    assert covers("http://h.example/a?b=print")
    assert not covers("http://h.example/a?b=1&print=1")
    assert not covers("http://h.example/private/a")


def test_a_pattern_is_checked() -> None:
    assert checked_pattern(r"\.html$") == r"\.html$"


@pytest.mark.parametrize("pattern", ["(", "*.html", "a{2,1}", "[z-a]"])
def test_a_bad_pattern_is_one_sentence(pattern: str) -> None:
    with pytest.raises(ValueError, match=r"is no regular expression: .+") as raised:
        checked_pattern(pattern)
    assert repr(pattern) in str(raised.value)
    assert "\n" not in str(raised.value)
