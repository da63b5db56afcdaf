"""What of a page is no content by its tag or its name: navigation, footers, adverts, share buttons, readers' comments.

Names are judged word by word (`siteNav`, `nav-bar` and `role=navigation` all say it), and never alone: an element with
much of the page's text is content whatever it is called, because themes also put such words on what is around it all.
"""

import re
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from resiliparse.parse.html import ElementNode

UNREAD = "script, style, noscript, template, iframe, svg, select, button, textarea, object, audio, video"
"""Elements whose text no reader sees as such. With the raw-text ones gone, what is left is plain markup."""

LANDMARKS = "nav, footer, aside"
FURNITURE_TAGS = frozenset({"nav", "footer", "aside", "form", "address", "dialog", "figcaption"})
"""Elements that HTML itself sets apart from the content."""

NEVER_FURNITURE = frozenset({"article", "main", "a", "br", "hr"})

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

TEASER = "teaser"
"""A box that says so in its attributes is furniture only if there is a link in it."""

MAX_SPARED = 200
"""After so many elements that have such a name but too much text, no more are looked at: a page of them is hostile."""

FURNITURE_SHARE = 0.4
CONTENT_FURNITURE_SHARE = 0.1
"""The share of a page's text above which a box is no furniture, whatever its name says; the lower one holds for boxes
that also have a content word."""

_NAMES = re.compile(r' (?:class|id|role|itemprop)="([^"]*)"')
_WORD = re.compile(r"[A-Z]?[a-z]+|[A-Z]+(?![a-z])")
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


def words_of(attributes: str) -> set[str]:
    """The words of an element's class, id, role and itemprop, `camelCase` taken apart."""
    return set(" ".join(_WORD.findall(" ".join(_NAMES.findall(attributes)))).lower().split())
