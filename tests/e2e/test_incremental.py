"""Incremental equals from-scratch: over any history of a site, refreshing gives what all its snapshots at once give."""

import shutil
import tempfile
from pathlib import Path

import pytest
from hypothesis import HealthCheck, Phase, example, given, settings
from hypothesis import strategies as st

from pipeline.engine.store import Store
from tests.e2e.conftest import MADE_FROM_SNAPSHOT
from tests.e2e.living_site import ANCHORS, HOST, Living, html, text_of

pytestmark = pytest.mark.slow

NAMES = ("a.html", "b.html", "c.html", "d.html")
CONTENTS = ("one", "two", "two again", "moved one", "moved two", "kept one")
"""What a page may be: one of two texts, or nearly the second; at an address with a slash, to which it redirects; or
not for training."""

states = st.dictionaries(st.sampled_from(NAMES), st.sampled_from(CONTENTS))
"""The pages that there are at one time: from one state to the next pages come, change, go, return, move and double."""

TEXTS = {"one": text_of("ferry", 1), "two": text_of("violin", 2), "again": text_of("violin", 2) + " Thank you."}


def published(state):
    """The files of a state."""
    pages = {}
    for name, content in state.items():
        text = TEXTS[content.split()[-1]]
        if content.startswith("moved"):
            pages[f"{name}/index.html"] = html(text)
        else:
            head = '<meta name="robots" content="noai">' if content.startswith("kept") else ""
            pages[name] = html(text, head=head)
    return pages


class Told:
    """What the rules say of the site's URLs, read off its history in plain words; the oracle of this test."""

    def __init__(self):
        self.last = {}  # URL → the content that was last stored, and in which snapshot
        self.misses, self.withdrawn, self.documents = {}, set(), set()

    def see(self, number, state):
        """Go on to the next snapshot: every linked page is asked for, and those below it that are known to be live."""
        missed = self.misses
        self.misses = {}
        for name in NAMES:
            content = state.get(name)
            if content is None:
                self._missing(name, missed)
            elif content.startswith(("moved", "kept")):
                self.withdrawn.add(name)
            else:
                self._found(name, content, number)
            below = f"{name}/"
            moved = content is not None and content.startswith("moved")
            if moved or (below in self.last and below not in self.withdrawn):
                if content is None:
                    self._missing(below, missed)
                elif content.startswith("kept"):
                    self.withdrawn.add(below)
                else:
                    self._found(below, content.removeprefix("moved "), number)

    def _missing(self, url, missed):
        self.misses[url] = missed.get(url, 0) + 1
        if self.misses[url] >= 2:
            self.withdrawn.add(url)

    def _found(self, url, content, number):
        self.withdrawn.discard(url)
        if self.last.get(url, (None,))[0] != content:
            self.last[url] = content, number
            self.documents.add((number, url))

    def reasons(self):
        """What `select` should say of each document of these pages."""
        told = {}
        for number, name in self.documents:
            superseded = self.last[name][1] > number
            reason = "superseded" if superseded else "gone" if name in self.withdrawn else None
            told[number, f"http://{HOST}/{name}"] = reason
        return told


EDITED = [
    {"a.html": "one", "b.html": "one", "c.html": "two"},
    {"a.html": "two", "c.html": "moved two", "d.html": "two again"},
    {"a.html": "one", "b.html": "one", "d.html": "kept one"},
    {"a.html": "one", "c.html": "two"},
]
"""Every kind of edit: pages double, change, go, come, move, return as they were, and forbid their use."""


@settings(
    max_examples=4,
    phases=[Phase.explicit, Phase.generate],
    suppress_health_check=[HealthCheck.too_slow],
    derandomize=True,
)
@given(history=st.lists(states, min_size=2, max_size=4))
@example(history=EDITED)
def test_a_store_refreshed_again_and_again_has_the_digests_of_one_built_at_once(history):
    with tempfile.TemporaryDirectory() as folder:
        living, told = Living.make(Path(folder)), Told()
        for number, state in enumerate(history):
            living.publish(published(state), NAMES)
            made = living.refresh(until="pack")
            told.see(number, state)
        reasons = {
            key: reason
            for key, reason in living.reasons(made).items()
            if key[1] != f"http://{HOST}/" and key[1].rpartition("/")[2] not in ANCHORS
        }
        assert reasons == told.reasons()
        at_once = Living(living.folder, Store(living.folder / "at once"))
        shutil.copytree(living.store.root / "snapshots", at_once.store.root / "snapshots")
        again = at_once.run(until="pack")
        assert {s: again[s].digest for s in MADE_FROM_SNAPSHOT} == {s: made[s].digest for s in MADE_FROM_SNAPSHOT}
