"""The licence that a page names, as a link."""

import re
from collections.abc import Iterable
from urllib.parse import urljoin

MAX_URL_CHARACTERS = 2048

_CREATIVE_COMMONS = re.compile(
    r"https?://(?:www\.)?creativecommons\.org/(?:licenses|publicdomain)/[a-z]", re.IGNORECASE
)
"""Legal tools of Creative Commons; their overview pages name none."""
_UNPRINTABLE = re.compile(r"[\x00-\x20\x7f-\xa0]+")


def license_link(links: Iterable[tuple[str, str]], base_url: str) -> str | None:
    """The first link with `rel=license`, else the first one to a Creative Commons licence, as an absolute URL.

    `links` are `rel` and `href` of a page's `a`, `area` and `link` elements in its order. None where no link fits.
    """
    named = None
    for relations, href in links:
        try:
            url = urljoin(base_url, _UNPRINTABLE.sub("", href))
        except ValueError:
            continue
        if len(url) > MAX_URL_CHARACTERS or not url.lower().startswith(("http://", "https://")):
            continue
        if "license" in relations.lower().split():
            return url
        if named is None and _CREATIVE_COMMONS.match(url):
            named = url
    return named
