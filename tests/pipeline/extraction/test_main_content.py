"""Main content: what of a page goes and what stays, on small pages, and the gate on the shared ones."""

import importlib.util
import time
from itertools import count
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from resiliparse.parse.html import HTMLTree

from pipeline.extraction.block_kernels import cut
from pipeline.extraction.block_reference import reference_blocks
from pipeline.extraction.main_content import PLAIN_PAGES, Cut, main_content

ROOT = Path(__file__).parents[3]
EXTRACTION = ROOT.parent / "shared" / "data" / "extraction"

PROSE = "Plain words stand here in a sentence, one of several, that a reader came to the page to read. " * 2
PARAGRAPHS = "".join(f"<p>Paragraph {number}. {PROSE}</p>" for number in range(4))
LINKS = "".join(f'<li><a href="/{number}">Elsewhere {number}</a></li>' for number in range(12))


def text_of(body: str, comments: bool = False) -> str:
    return main_content(HTMLTree.parse(f"<!doctype html><html><body>{body}</body></html>"), comments=comments)


@pytest.mark.parametrize(
    "furniture",
    [
        "<nav><a href=/>Furniture</a></nav>",
        "<footer>Furniture</footer>",
        "<aside><p>Furniture</p></aside>",
        "<div class=sidebar><p>Furniture</p></div>",
        "<div id=siteNav><div>Furniture</div></div>",
        "<ul class='breadcrumbs'><li>Furniture</li></ul>",
        "<div role=navigation>Furniture</div>",
        "<div class='entry-meta'>Furniture</div>",
        "<div class='cookie-notice'><p>Furniture</p></div>",
        "<p hidden>Furniture</p>",
        "<div style='display: none'>Furniture</div>",
        "<script>Furniture</script><style>Furniture</style><noscript>Furniture</noscript>",
        "<!-- <p>Furniture</p> -->",
        "<button>Furniture</button><select><option>Furniture</select>",
    ],
)
def test_furniture_goes(furniture: str) -> None:
    text = text_of(f"<div><h1>Headline</h1>{furniture}{PARAGRAPHS}{furniture}</div>")
    assert "Furniture" not in text
    assert text.count(PROSE.strip()) == 4


def test_a_list_of_links_beside_an_article_goes() -> None:
    text = text_of(f"<div class=content>{PARAGRAPHS}<ul>{LINKS}</ul></div><ul>{LINKS}</ul>")
    assert "Elsewhere" not in text
    assert text.count(PROSE.strip()) == 4


def test_a_short_notice_goes_and_a_sentence_that_begins_like_one_stays() -> None:
    sentence = "Related news links, as this long sentence shows, are no notice where they begin what a reader reads."
    text = text_of(f"<article>{PARAGRAPHS}<p>You might also like</p><p>{sentence}</p><p>© 2020 Nobody</p></article>")
    assert "also like" not in text
    assert "Nobody" not in text
    assert sentence in text


def test_what_names_itself_furniture_but_makes_up_the_page_stays() -> None:
    assert text_of(f"<div class='page sidebar'>{PARAGRAPHS}</div>").count(PROSE.strip()) == 4


def test_a_posts_tags_in_its_class_do_not_remove_it() -> None:
    other = "".join(f"<div class=part><p>{PROSE}</p></div>" for _ in range(6))
    assert "The post" in text_of(f"<div class='post hentry tags author'><p>The post. {PROSE}</p></div>{other}")


@pytest.mark.parametrize("name", ["elementor-widget elementor-widget-text-editor", "alert alert-info", "shareholders"])
def test_names_that_content_also_has_remove_nothing(name: str) -> None:
    note = f"<div class='{name}'><p>Content like any other.</p></div>"
    assert text_of(f"<article>{PARAGRAPHS}{note}{PARAGRAPHS}</article>").count("Content like any other.") == 1


def test_headline_and_lead_before_the_container_stay() -> None:
    lead = "The lead of an article often stands in a header of its own, outside of what themes call the body."
    page = f"<div><header><h2>Head</h2><p>{lead}</p></header><div class=entry-content>{PARAGRAPHS}</div></div>"
    assert lead in text_of(page)


def test_a_body_in_several_parts_stays_whole() -> None:
    parts = "".join(f"<div class='text-block'><p>Part {number}. {PROSE}</p></div>" for number in range(5))
    page = f"<div class='text-block'>{PARAGRAPHS * 4}</div>{parts}"
    assert [f"Part {number}." in text_of(page) for number in range(5)] == [True] * 5


def test_prose_beside_an_unnamed_box_stays() -> None:
    text = text_of(f"<p>Before. {PROSE}</p><div>{PARAGRAPHS * 3}</div><p>After. {PROSE}</p>")
    assert "Before." in text
    assert "After." in text


def test_documentation_loses_no_text() -> None:
    body = (
        "<h1>module</h1><p>What it is for.</p><ul><li><a href=#a>first</a></li><li><a href=#b>second</a></li></ul>"
        f"<h2>first(a, b)</h2><p>{PROSE}</p><dl><dt>a</dt><dd>the left one</dd><dt>b</dt><dd>the right one</dd></dl>"
    )
    text = text_of(body)
    assert all(line in text for line in ("module", "What it is for.", "first", "second", "first(a, b)", "right one"))


def test_a_page_of_links_alone_keeps_them() -> None:
    assert text_of(f"<ul>{LINKS}</ul>").count("Elsewhere") == 12


@pytest.mark.parametrize("page", ["It works!", "<p>It works!</p>", "<nav>It works!</nav>", "<div class=menu>It works!"])
def test_a_short_page_is_not_emptied(page: str) -> None:
    assert text_of(page) == "It works!"


def test_preformatted_text_keeps_lines_and_indentation() -> None:
    code = "def f(a):\n    if a &lt; 2:\n\n        return <b>a</b> &amp;&amp; 1"
    assert text_of(f"<p>Code:</p><pre><code>{code}</code></pre><p>End.</p>") == (
        "Code:\n\ndef f(a):\n    if a < 2:\n\n        return a && 1\n\nEnd."
    )


def test_lists_have_bullets_numbers_and_indentation() -> None:
    body = "<ol><li>one<li><p>two</p><ul><li>inner</ul><li>three</ol><p>after"
    assert text_of(body) == "  1. one\n\n  2. two\n\n    • inner\n  3. three\n\nafter"


def test_table_rows_are_lines_and_cells_are_parted_by_tabs() -> None:
    body = "<table><thead><tr><th>a<th>b</thead><tr><td>1<td>2</table>"
    assert text_of(body) == "a\tb\n1\t2"


def test_words_are_joined_only_where_the_page_joins_them() -> None:
    assert text_of("<p>one <b>two</b>three<br>four <a href=x>five</a> <i>six</i>\n seven&nbsp;eight</p>") == (
        "one twothree\nfour five six seven eight"
    )


@pytest.mark.parametrize(
    "sentence",
    ["これは本文の段落です。言葉の間に空白はありません。", "هذه فقرة من النص الرئيسي للصفحة.", "นี่คือย่อหน้าของเนื้อหาหลัก"],
)
def test_a_script_without_spaces_or_from_right_to_left_is_read_like_any_other(sentence: str) -> None:
    body = "".join(f"<p>{sentence * 5}</p>" for _ in range(5))
    text = text_of(
        f"<div><ul>{LINKS}</ul></div><div class=entry-content>{body}</div><div class=footer>{sentence}</div>"
    )
    assert text == "\n\n".join([sentence * 5] * 5)


COMMENTS = f"<div id=comments><p>A reader says: {PROSE}</p></div>"


def test_comments_go_by_default() -> None:
    assert "A reader says" not in text_of(f"<div class=entry-content>{PARAGRAPHS}</div>{COMMENTS}")


def test_comments_stay_where_they_are_asked_for() -> None:
    assert "A reader says" in text_of(f"<div class=entry-content>{PARAGRAPHS}</div>{COMMENTS}", comments=True)


def test_a_page_has_one_text_whatever_was_read_before() -> None:
    page = f"<div class='widget'>Around</div><article>{PARAGRAPHS}{COMMENTS}</article>"
    first = text_of(page)
    text_of(f"<div class='widget entry'>{PARAGRAPHS}</div>", comments=True)
    assert text_of(page) == first


@pytest.mark.parametrize("markup", ["", " ", "<html><frameset><frame></frameset></html>", "<p></p>", "<!-- only -->"])
def test_a_page_without_text_gives_none(markup: str) -> None:
    assert main_content(HTMLTree.parse(markup)) == ""


@given(st.text(st.sampled_from("<>/=\"' \n&;!-apdivulxmp"), max_size=200))
def test_broken_markup_is_read(markup: str) -> None:
    assert isinstance(main_content(HTMLTree.parse(markup)), str)


@given(st.lists(st.sampled_from(["<div class=nav>", "<ul>", "<li>", "</ul>", "<pre>", "</div>", "<td>", "word "])))
def test_no_page_with_text_is_emptied(pieces: list[str]) -> None:
    assert ("word" in "".join(pieces)) == ("word" in main_content(HTMLTree.parse("".join(pieces))))


@pytest.mark.parametrize(
    "markup",
    [
        "<a href=x>link</a> " * 200_000,
        "<div class='nav sidebar'>word " * 2_000,
        "<nav>word " * 2_000,
        "<div class=teaser>word " * 2_000,
        "<div class=entry-content><p>word " * 2_000,
        "<ul><li>word" * 2_000,
        "<xmp>" + "<!--" * 500_000,
        "<plaintext>" + "<p class='nav " * 200_000,
        "<p>" + "word " * 2_000_000,
        '<div class="' + "nav " * 500_000 + '">word</div>',
        '<a href="x"">word</a><p class="y" ">word</p>' * 50_000,
        "x<br>" * 200_000,
    ],
    ids=lambda markup: markup[:24],
)
@pytest.mark.parametrize("cut", [cut, reference_blocks])
def test_a_hostile_page_takes_seconds_at_most(markup: str, cut: Cut) -> None:
    tree = HTMLTree.parse(markup)
    cut("", furniture=True, comments=False)  # kernels are compiled once a machine
    start = time.process_time()
    main_content(tree, comments=True, cut=cut)
    assert time.process_time() - start < 10


def test_pages_beyond_those_read_without_kernels_give_the_same_text(monkeypatch: pytest.MonkeyPatch) -> None:
    page = f"<div class='widget'>Around</div><article>{PARAGRAPHS}{COMMENTS}</article>"
    monkeypatch.setattr("pipeline.extraction.main_content._pages", count(PLAIN_PAGES - 1))
    assert text_of(page) == text_of(page)


@pytest.mark.skipif(not EXTRACTION.is_dir(), reason="the shared pages with known segments are not beside the project")
def test_the_shared_pages_are_extracted_with_an_f1_of_95_percent() -> None:
    specification = importlib.util.spec_from_file_location("extract_benchmark", ROOT / "benchmarks" / "extract.py")
    assert specification is not None
    assert specification.loader is not None
    benchmark = importlib.util.module_from_spec(specification)
    specification.loader.exec_module(benchmark)
    pages, segments = benchmark.read(EXTRACTION)
    precision, recall = benchmark.quality([main_content(HTMLTree.parse(page)) for page in pages], segments)
    assert 2 * precision * recall / (precision + recall) >= 0.95


def test_lines_indented_with_blanks_that_do_not_break_stay_so() -> None:
    body = "<p>def f():<br>&nbsp;&nbsp;return&nbsp;1<br>&nbsp;<br>def g():<br>\n&nbsp;&nbsp;&nbsp;&nbsp;pass<br></p>"
    assert text_of(body) == "def f():\n  return 1\n\ndef g():\n    pass"


def test_a_row_that_begins_with_an_empty_cell_does_not_go_on_with_the_row_before() -> None:
    assert text_of("<table><tr><td>a<td>b<tr><td>&nbsp;<td>c</table>") == "a\tb\nc"
