"""What of a page is no content by its tag or its name: navigation, footers, adverts, share buttons, readers' comments.

Names are judged word by word (`siteNav`, `nav-bar` and `role=navigation` all say it), and never alone: an element with
much of the page's text is content whatever it is called, because themes also put such words on what is around it all.
"""

import re
from typing import TYPE_CHECKING

from pipeline.extraction.blocks import BREAK

if TYPE_CHECKING:
    from resiliparse.parse.html import ElementNode

UNREAD = "script, style, noscript, template, iframe, svg, select, button, textarea, object, audio, video"
"""Elements whose text no reader sees as such. With the raw-text ones gone, what is left is plain markup."""

LANDMARKS = "nav, footer, aside"
FURNITURE_TAGS = frozenset({"nav", "footer", "aside", "form", "address", "dialog", "figcaption"})
"""Elements that HTML itself sets apart from the content."""

MAX_LANDMARKS = 64
LANDMARKS_SHARE = 0.9
"""The landmarks are large and go before the page is cut, which saves time, unless there are more, or they make up more
of the text: then they are judged like other boxes."""

FURNITURE_WORDS = frozenset(
    """
    ad ads adv advert advertisement advertising sponsor sponsored sponsors promo banner abo
    nav navbar navi navigation navlist menu menubar mainmenu submenu topmenu toolbar sidebar sidebars complementary
    breadcrumb breadcrumbs crumbs pager pagenav paging pagination search login signup popup modal dialog
    foot footer contentinfo cookie cookies consent gdpr newsletter newsletters subscribe subscription subscriptions
    addthis share sharebar sharedaddy shares shariff sharing sociable social socials rating ratings
    widgets textwidget related relatedposts recommend recommendation recommendations recommended teaser teasers
    author authors biography byline meta metadata postmeta postmetadata taglist tagcloud tags
    """.split()  # noqa: SIM905 - a word list is read as words
)
"""Words of a class, id or role that call an element furniture: what themes and content systems the world over write.

Not here: `widget`, which page builders call every paragraph, and `alert`, which documentation calls its notes.
"""

COMMENT_WORDS = frozenset({"comment", "comments", "commentlist", "disqus", "respond", "replies"})

CONTENT_WORDS = frozenset({"article", "body", "content", "entry", "hentry", "main", "node", "post", "story"})
"""Beside one of these a furniture word counts for less: WordPress writes a post's tags and author into its class."""

MAX_SPARED = 200
"""After so many elements that have such a name but too much text, no more are looked at: a page of them is hostile."""

FURNITURE_SHARE = 0.4
CONTENT_FURNITURE_SHARE = 0.1
"""The share of a page's text above which a box is no furniture, whatever its name says; the lower one holds for boxes
that also have a content word."""

_NAMES = re.compile(r' (?:class|id|role|itemprop)="([^"]*)"')
_WORD = re.compile(r"[A-Z]?[a-z]+|[A-Z]+(?![a-z])")
_HIDDEN = re.compile(r'hidden="(?:true|hidden)?"|display:\s*none')
_NEVER_FURNITURE = frozenset({"article", "main", "a", "br", "hr"})
_LANDMARKS = frozenset(LANDMARKS.split(", "))


def remove_unread(body: "ElementNode") -> None:
    """Take `UNREAD` elements out of the tree, and landmarks too where they are few and not the page."""
    landmarks = []
    for element in body.query_selector_all(f"{UNREAD}, {LANDMARKS}").values():
        if element.tag in _LANDMARKS:
            landmarks.append(element)
        else:
            element.remove()
    if 0 < len(landmarks) <= MAX_LANDMARKS:
        whole = _letters(body)
        counts = [_letters(element) for element in landmarks]
        if sum(counts) < LANDMARKS_SHARE * whole:
            for element, count in zip(landmarks, counts, strict=True):
                if count <= FURNITURE_SHARE * whole:
                    element.remove()


def _letters(element: "ElementNode") -> int:
    text = element.text or ""
    return len(text) - text.count(" ") - text.count("\n") - text.count("\t")


def without_furniture(tokens: list[str], comments: bool) -> list[str]:
    """The tokens less those of elements whose tag or name says that they are not content."""
    tags, attributes, texts = tokens[1::3], tokens[2::3], tokens[3::3]
    words = FURNITURE_WORDS if comments else FURNITURE_WORDS | COMMENT_WORDS
    shares: dict[str, float] = {}
    whole = sum(map(len, texts))
    kept: list[str] = []
    position = done = spared = 0
    for index, (tag, names) in enumerate(zip(tags, attributes, strict=True)):
        if index < done or not (names or tag in FURNITURE_TAGS) or tag in _NEVER_FURNITURE or spared > MAX_SPARED:
            continue
        share = FURNITURE_SHARE if tag in FURNITURE_TAGS else shares.get(names)
        if share is None:
            share = shares[names] = _furniture_share(names, words)
        if not share:
            continue
        end = _end(tags, index)
        # A teaser without a link leads nowhere else: it is the article's own first paragraph.
        if sum(map(len, texts[index:end])) > share * whole or ("teaser" in names and "a" not in tags[index:end]):
            spared += 1
        else:
            kept += (*tokens[position : 3 * index + 1], BREAK, "")
            position, done = 3 * end + 3, end + 1
    return kept + tokens[position:]


def _end(tags: list[str], start: int) -> int:
    """Where the element ends that starts there; at its start where nothing ends it, as happens in raw text only."""
    tag, depth, position = tags[start], 1, start + 1
    while depth:
        try:
            end = tags.index("/" + tag, position)
        except ValueError:
            return start
        depth += tags[position:end].count(tag) - 1
        position = end + 1
    return end


def _furniture_share(attributes: str, words: frozenset[str]) -> float:
    """The share of a page's text that a box of these attributes may have and still be furniture."""
    names = words_of(attributes)
    if not words.isdisjoint(names):
        return FURNITURE_SHARE if CONTENT_WORDS.isdisjoint(names) else CONTENT_FURNITURE_SHARE
    return FURNITURE_SHARE if _HIDDEN.search(attributes) else 0.0


def words_of(attributes: str) -> set[str]:
    """The words of an element's class, id, role and itemprop, `camelCase` taken apart."""
    return set(" ".join(_WORD.findall(" ".join(_NAMES.findall(attributes)))).lower().split())
