import json
import time
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipeline.crawl.robots import MAX_LINE_BYTES, MAX_ROBOTS_BYTES, parse_robots, product_token, training_preference

SHARED = Path(__file__).parents[4] / "shared/data/robots"

CONTRADICTS_RFC_9309 = {
    # 2.2.2: octets outside ASCII in the URI are percent-encoded before they are compared.
    ("ID_Encoding", "/foo/bar/ツ", "http://foo.bar/foo/bar/ツ"),
    ("ID_Encoding", "/foo/bar/%E3%83%84", "http://foo.bar/foo/bar/ツ"),
    # 2.2.2 and its table: escapes of unreserved characters are undone before they are compared.
    ("ID_Encoding", "/foo/bar/%62%61%7A", "http://foo.bar/foo/bar/baz"),
}
"""Google's cases, by test, path of the last rule and URL, that expect what the RFC says otherwise.

Google's parser takes URLs that are escaped already. Canonical URLs are, with no more escapes than needed, so for those
a rule with other escapes could never match if this went by Google.
"""


def google_cases() -> list[Any]:
    file = SHARED / "google_cases_part.json"
    if not file.exists():
        return [pytest.param({}, id="none", marks=pytest.mark.skip(reason=f"{file} is not there"))]
    cases = json.loads(file.read_text())
    return [pytest.param(case, id=f"{case['test']}-{number}") for number, case in enumerate(cases)]


@pytest.mark.parametrize("case", google_cases())
def test_google_case(case: dict[str, Any]) -> None:
    path = case["robots_txt"].rstrip().rpartition(": ")[2]
    contradicts = (case["test"], path, case["url"]) in CONTRADICTS_RFC_9309
    robots = parse_robots(case["robots_txt"].encode())
    assert robots.allows(case["url"], case["user_agent"]) == (case["allowed"] != contradicts)


def allows(rules: str | bytes, path: str, agent: str = "gptmill/0.1 (+me@example.org)") -> bool:
    body = rules if isinstance(rules, bytes) else f"User-agent: *\n{rules}".encode()
    return parse_robots(body).allows(f"http://h.example{path}", agent)


@pytest.mark.parametrize(
    ("rules", "allowed", "refused"),
    [
        ("Disallow: /fish", ["/Fish", "/x/fish"], ["/fish", "/fish.html", "/fishes", "/fish/", "/fish?id=1"]),
        ("Disallow: /fish/", ["/fish", "/fish.html"], ["/fish/", "/fish/a", "/fish/?id=1"]),
        ("Disallow: /*.php", ["/", "/x.PHP"], ["/a.php", "/a.php?x", "/a.php/", "/a/b.php5"]),
        ("Disallow: /*.php$", ["/a.php?x", "/a.php/", "/a.php5"], ["/a.php", "/a.php.php"]),
        ("Disallow: /fish*.php", ["/Fish.php"], ["/fish.php", "/fishheads/catfish.php?x"]),
        ("Disallow: /a*b*c$", ["/abcd", "/acb"], ["/abc", "/a/b/c", "/abcbc"]),
        ("Disallow: *$", [], ["/", "/a"]),
        ("Disallow: /$\nDisallow: /a$b", ["/x", "/a"], ["/", "/a$b", "/a%24bc"]),
        ("Disallow: /a-%2A\nDisallow: /b-%24", ["/a-x", "/b-"], ["/a-*", "/a-%2a", "/b-$"]),
        ("Disallow: fish", ["/fish"], []),
    ],
)
def test_patterns_are_prefixes_with_stars_and_an_end(rules: str, allowed: list[str], refused: list[str]) -> None:
    assert {path: allows(rules, path) for path in allowed + refused} == {
        **dict.fromkeys(allowed, True),
        **dict.fromkeys(refused, False),
    }


@pytest.mark.parametrize(
    ("rule", "path"),
    [
        ("/foo/bar?baz=quz", "/foo/bar?baz=quz"),
        ("/foo/bar?baz=https://foo.bar", "/foo/bar?baz=https%3A%2F%2Ffoo.bar"),
        ("/foo/bar/ツ", "/foo/bar/%e3%83%84"),
        ("/foo/bar/%E3%83%84", "/foo/bar/ツ"),
        ("/foo/bar/%62%61%7A", "/foo/bar/baz"),
        ("/100%", "/100%25"),
        ("/a b", "/a%20b"),
        ("/*u=http%3A%2F%2Fx", "/?u=http%3a%2f%2fx"),
        ("/*u=http://x", "/?u=http%3a%2f%2fx"),
    ],
)
def test_paths_are_compared_whatever_their_escapes(rule: str, path: str) -> None:
    assert not allows(f"Disallow: {rule}", path)


def test_an_escaped_slash_in_a_path_is_no_slash() -> None:
    assert allows("Disallow: /a/b", "/a%2Fb")
    assert allows("Disallow: /a%2Fb", "/a/b")


def test_octets_that_are_no_utf8_are_compared_as_octets() -> None:
    assert not allows(b"User-agent: *\nDisallow: /caf\xe9", "/caf%E9")


def test_the_longest_match_decides_and_of_equals_the_permission() -> None:
    rules = "Disallow: /\nAllow: /p\nDisallow: /page\nAllow: /page"
    assert not allows(rules, "/x")
    assert allows(rules, "/p")
    assert allows(rules, "/page")


def test_the_length_is_that_of_the_pattern_and_not_of_what_it_matched() -> None:
    assert not allows("Allow: /page\nDisallow: /*.htm", "/page.htm")


def test_robots_txt_itself_is_always_allowed() -> None:
    assert allows("Disallow: /", "/robots.txt")
    assert not allows("Disallow: /", "/robots.txt.gz")


def test_empty_rules_allow() -> None:
    assert allows("Disallow:\nAllow:", "/x")
    assert parse_robots(b"").allows("http://h.example/", "gptmill")


def test_groups_of_one_agent_are_one() -> None:
    body = b"User-agent: gptmill\nDisallow: /a\n\nUser-agent: *\nDisallow: /\n\nUser-agent: GPTMill/2\nDisallow: /b\n"
    assert [allows(body, path) for path in ("/a", "/b", "/c")] == [False, False, True]


def test_a_group_of_its_own_frees_an_agent_from_the_general_one() -> None:
    assert allows(b"User-agent: gptmill\n\nUser-agent: gptmill\n\nSitemap: /s\n", "/x")
    assert allows(b"User-agent: *\nDisallow: /\nUser-agent: gptmill\n", "/x")


def test_agents_above_one_rule_share_it_whatever_else_stands_between() -> None:
    body = b"User-agent: a\nCrawl-delay: 3\nSitemap: /s\nUser-agent: gptmill\nUnknown: x\nDisallow: /\n"
    assert not allows(body, "/x")
    assert not allows(body, "/x", "a")


@pytest.mark.parametrize("line_end", ["\n", "\r", "\r\n", "\n\n", "\n\r\n"])
def test_any_line_end_ends_a_line(line_end: str) -> None:
    assert not allows(line_end.join(["user-agent: *", "disallow: /x", "allow: /"]).encode(), "/x")


@pytest.mark.parametrize("mark", [b"\xef\xbb\xbf", b"\xef\xbb", b"\xef"])
def test_a_byte_order_mark_is_skipped(mark: bytes) -> None:
    assert not allows(mark + b"User-agent: *\nDisallow: /", "/x")


@pytest.mark.parametrize(
    "line",
    [
        "disallow /",
        "DISALLOW : /",
        " disallow:/ # all",
        "disalow: /",
        "dissallow: /",
        "disallow:\t/\t",
        "Disallowed: /",
    ],
)
def test_lines_are_read_as_googles_parser_reads_them(line: str) -> None:
    assert not allows(line, "/x")


@pytest.mark.parametrize("line", ["disallow / x", "#disallow: /", "disallow", "x-disallow: /", "no disallow: /"])
def test_lines_that_are_no_rule_are_skipped(line: str) -> None:
    assert allows(line, "/x")


def test_a_permission_for_the_index_page_is_one_for_its_folder() -> None:
    rules = "Disallow: /\nAllow: /a/index.html"
    assert allows(rules, "/a/")
    assert not allows(rules, "/a/b")


@pytest.mark.parametrize(
    ("agent", "token"),
    [
        ("gptmill/0.1 (+me@example.org)", "gptmill"),
        ("GPTmill", "gptmill"),
        ("my-bot_x (+me@example.org)", "my-bot_x"),
        ("mybot +https://example.org", "mybot"),
        ("Foo Bar", ""),
        ("", ""),
    ],
)
def test_the_product_token_is_the_first_product(agent: str, token: str) -> None:
    assert product_token(agent) == token


def test_a_long_line_is_cut() -> None:
    rule = "Disallow: /x/"
    path = "/x/" + "a" * (MAX_LINE_BYTES - len(rule))
    assert not allows(rule + "a" * (MAX_LINE_BYTES - len(rule)) + "/qux", path + "/fux")


def test_the_first_500_kib_are_read_and_no_half_line() -> None:
    filler = b"#" * (MAX_ROBOTS_BYTES - len(b"User-agent: *\n\nDisallow: /a\nDisallow: /"))
    body = b"User-agent: *\n" + filler + b"\nDisallow: /a\nDisallow: /b\n"
    assert not allows(body, "/a")
    assert allows(body, "/c")


def test_crawl_delay_is_that_of_the_agent_it_was_said_to() -> None:
    robots = parse_robots(
        b"User-agent: a\nCrawl-delay: 10\nUser-agent: b\nCrawl-delay: 2.5 # s\nDisallow: /\n"
        b"User-agent: *\nCrawl-delay: x"
    )
    assert [robots.crawl_delay(agent) for agent in ("a/1.0", "B", "c")] == [10.0, 2.5, None]


def test_sitemaps_are_listed_as_written_wherever_they_stand() -> None:
    robots = parse_robots(
        b"Sitemap: https://h.example/s.xml\nUser-agent: a\nsite-map: /t.xml.gz\nSitemap:\nsitemap http://h/\n"
    )
    assert robots.sitemaps == ("https://h.example/s.xml", "/t.xml.gz", "http://h/")


@pytest.mark.parametrize(
    ("value", "preference"),
    [
        ("train-ai=n", False),
        ("train-ai=y", True),
        ("search=y, train-ai=n;v=1", False),
        ("train-ai=n, train-ai=y", True),
        ("train-ai=y, train-genai=n", False),
        ('train-ai="n"', None),
        ("train-ai", None),
        ("search=n", None),
        ("search=yes,ai-train=no", False),
        ("ai-train=yes, ai-input=no", True),
        ("", None),
    ],
)
def test_training_preferences_are_read(value: str, preference: bool | None) -> None:
    assert training_preference(value) is preference


def test_training_is_refused_by_path_and_by_group() -> None:
    robots = parse_robots(
        b"User-Agent: *\nAllow: /\nDisallow: /never/\nContent-Usage: train-ai=n\nContent-Usage: /ok/ train-ai=y\n\n"
        b"User-Agent: ExampleBot\nAllow: /\nContent-Usage: train-ai=y\n"
    )
    assert robots.refuses_training("http://h.example/test", "gptmill")
    assert not robots.refuses_training("http://h.example/ok/test", "gptmill")
    assert not robots.refuses_training("http://h.example/test", "ExampleBot")


def test_of_equal_paths_the_refusal_counts() -> None:
    robots = parse_robots(b"User-agent: *\nContent-Usage: /a train-ai=y\nContent-Usage: /a train-ai=n\n")
    assert robots.refuses_training("http://h.example/a", "gptmill")
    assert not robots.refuses_training("http://h.example/b", "gptmill")


def test_each_vocabulary_is_asked() -> None:
    body = b"User-agent: *\nContent-Signal: search=yes, ai-train=no\nContent-Usage: /a train-ai=y\nAllow: /\n"
    assert parse_robots(body).refuses_training("http://h.example/a", "gptmill")


def test_a_file_that_says_nothing_of_training_refuses_nothing() -> None:
    assert not parse_robots(b"User-agent: *\nDisallow: /\n").refuses_training("http://h.example/", "gptmill")


TOKENS = st.sampled_from(
    [
        b"user-agent:",
        b"disallow",
        b":",
        b"/",
        b"*",
        b"$",
        b"%",
        b"%zz",
        b"\n",
        b"\r",
        b"#",
        b" ",
        b"\xff",
        b"\x00",
        b"gptmill",
        b"content-usage: ",
        b"train-ai=n",
        b"crawl-delay:",
        b"9e9",
    ]
)


@given(st.one_of(st.binary(), st.lists(TOKENS).map(b"".join)), st.text(), st.text())
def test_no_bytes_are_an_error(body: bytes, url: str, agent: str) -> None:
    robots = parse_robots(body)
    assert robots.allows(url, agent) in (True, False)
    assert robots.refuses_training(url, agent) in (True, False)
    assert robots.crawl_delay(agent) is None or robots.crawl_delay(agent) >= 0


@pytest.mark.parametrize(
    "body",
    [
        b"user-agent:*\n" + b"disallow:/" + b"*a" * 8000 + b"$\n",
        b"user-agent:*\n" + (b"disallow:/" + b"*a" * 500 + b"b\n") * 500,
        b"user-agent:*\n" + b"allow:/*b\n" * 50_000,
        b"".join(
            b"user-agent:%b%b\n" % (bytes([97 + i % 26]) * (i // 26 % 99 + 1), b"x" * (i % 7)) for i in range(15_000)
        )
        + b"disallow:/\ncontent-usage:train-ai=n\n" * 6_000,
        b"user-agent:gptmill\ncrawl-delay:1\n" * 8_000 + b"disallow:/b\n" * 15_000,
        b"\n" * MAX_ROBOTS_BYTES,
    ],
    ids=["one pattern of stars", "many of them", "many rules", "many agents", "one agent often", "blank lines"],
)
def test_hostile_files_take_bounded_time(body: bytes) -> None:
    started = time.perf_counter()
    robots = parse_robots(body)
    robots.allows("http://h.example/" + "a" * 2000, "gptmill/0.1")
    robots.refuses_training("http://h.example/" + "a" * 2000, "gptmill/0.1")
    assert time.perf_counter() - started < 5


def test_real_files_are_read() -> None:
    if not SHARED.exists():
        pytest.skip(f"{SHARED} is not there")
    for file in sorted((SHARED / "real").iterdir()):
        robots = parse_robots(file.read_bytes())
        assert robots.allows(f"http://{file.name}/robots.txt", "gptmill/0.1")
        assert all(robots.sitemaps)
