"""The kernels find in any markup what the plain reference finds."""

from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import example, given
from hypothesis import strategies as st
from resiliparse.parse.html import HTMLTree

from pipeline.extraction.block_kernels import cut
from pipeline.extraction.block_reference import reference_blocks
from pipeline.extraction.blocks import BLOCK_TAGS, Blocks
from pipeline.extraction.furniture import COMMENT_WORDS, CONTENT_WORDS, FURNITURE_WORDS

PAGES = Path(__file__).parents[4] / "shared" / "data" / "extraction"

NAMES = st.sampled_from(
    [*sorted(FURNITURE_WORDS | COMMENT_WORDS | CONTENT_WORDS), "plain", "x1", "teaser-box", "HTMLNav"]
)
ATTRIBUTES = st.one_of(
    st.just(""),
    st.builds(' {}="{}"'.format, st.sampled_from(["class", "id", "role", "itemprop", "href", "style", "="]), NAMES),
    st.builds(' class="{}{}_{}"'.format, NAMES, NAMES.map(str.title), NAMES.map(str.upper)),
    st.sampled_from(
        [' hidden=""', ' hidden="true"', ' hidden="no"', ' style="display:\u2003none"', ' title=" class="']
    ),
    st.sampled_from([' ="x"', ' =a="x"', ' ="x" b="nav"', " broken", ' a="', ' b=c="d"', ' x="nav" y=" id="']),
)
TAGS = st.builds(
    "<{}{}{}>".format, st.sampled_from(["", "", "/"]), st.sampled_from([*BLOCK_TAGS, "b", "h7", ""]), ATTRIBUTES
)
TEXTS = st.one_of(
    st.sampled_from(
        [" ", "\n", "&nbsp;", "\u00a0\u00a0", "\u3000", "\x1c", "\u2028", "\x85", "&amp;lt;", "&gt;", "&", "<"]
    ),
    st.sampled_from(["words of prose, ", "日本語の文。", "é", "<!-- gone -->", "<!-", "-->", "\ud800", "\u2000", "\t"]),
    st.text(max_size=8),
)
MARKUP = st.lists(st.one_of(TAGS, TEXTS), max_size=60).map("".join)


def both(markup: str, *, furniture: bool, comments: bool) -> tuple[list[object], list[object]]:
    """What the kernels find and what the reference finds."""
    cuts = (each(markup, furniture=furniture, comments=comments) for each in (cut, reference_blocks))
    compiled, plain = map(columns, cuts)
    return compiled, plain


def columns(blocks: Blocks) -> list[object]:
    boxes = blocks.boxes
    attributes = [boxes.attributes(box) for box in range(len(boxes.tags))]
    return [replace(blocks, boxes=replace(boxes, attributes=str)), attributes]


@given(MARKUP, st.booleans(), st.booleans())
@example('<p title=" class=">nav</p>', False, False)
@example('<div class="teaser"><p class="nav">a</p></div>' + "b" * 40, False, True)
@example("<ol><ol><li>a<li>b</ol></ol></ol>" + "<ul>" * 20 + "<li>c", False, False)
@example("</pre><br>x<br>", True, False)
def test_any_markup_gives_the_blocks_of_the_reference(markup: str, furniture: bool, comments: bool) -> None:
    compiled, plain = both(markup, furniture=furniture, comments=comments)
    assert compiled == plain


@given(st.text(st.sampled_from("<>/=\"' \n&;!-apdivulxmp\u00a0")), st.booleans())
def test_any_characters_give_the_blocks_of_the_reference(markup: str, furniture: bool) -> None:
    compiled, plain = both(markup, furniture=furniture, comments=False)
    assert compiled == plain


def test_more_elements_with_names_than_are_looked_at_are_spared_alike() -> None:
    markup = '<p class="nav">' + "word " * 50 + "</p>" + '<div class="nav">' * 300 + "word"
    compiled, plain = both(markup, furniture=False, comments=False)
    assert compiled == plain


@pytest.mark.skipif(not PAGES.is_dir(), reason="the shared pages with known segments are not beside the project")
def test_the_shared_pages_give_the_blocks_of_the_reference() -> None:
    for path in sorted(PAGES.rglob("*.htm*")):
        tree = HTMLTree.parse(path.read_bytes().decode("utf-8", "replace"))
        assert tree.body is not None
        for furniture, comments in ((False, False), (False, True), (True, False)):
            compiled, plain = both(tree.body.inner_html, furniture=furniture, comments=comments)
            assert compiled == plain
