"""Pages that answer 410 or reserve mining, from a real server: out at the next refresh, in again when it is allowed."""

import contextlib
import hashlib
import json
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest

from tests.e2e.living_site import ANCHORS, CONFIG, Living, html, text_of

pytestmark = pytest.mark.slow

RESERVED = {"tdm-reservation": "1"}
META = '<meta name="tdm-reservation" content="1">'
LISTED = [{"location": "/listed.html", "tdm-reservation": 1}]

WAYS = {"gone": "http_410", "meta": "tdm_reserved", "header": "tdm_reserved", "listed": "tdm_reserved"}
"""How a page is withdrawn, and the outcome that its URL then has: a 410; a reservation in the page, in the header of a
304, or in the site's tdmrep.json."""

PAGES = {f"/{way}.html": html(text_of("kettle", number)) for number, way in enumerate(WAYS)}
ALLOWED = {path: (200, {}, page) for path, page in PAGES.items()}
FORBIDDEN = {
    "/gone.html": (410, {}, "It is gone for good."),
    "/meta.html": (200, {}, PAGES["/meta.html"].replace("<head>", f"<head>{META}")),
    "/header.html": (200, RESERVED, PAGES["/header.html"]),
    "/listed.html": ALLOWED["/listed.html"],
    "/.well-known/tdmrep.json": (200, {}, json.dumps(LISTED)),
}


@contextlib.contextmanager
def serving(answers):
    """Serve what `answers` has by path (status, headers, body) at the time, and 304 to whoever has the body."""

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_GET(self):
            status, headers, text = answers.get(self.path, (404, {}, "no such page"))
            etag = f'"{hashlib.sha256(text.encode()).hexdigest()}"'
            if status == 200 and self.headers.get("If-None-Match") == etag:
                status, text = 304, ""
            self.send_response(status)
            kind = "application/json" if self.path.endswith(".json") else "text/html; charset=utf-8"
            for name, value in {"Content-Type": kind, "ETag": etag, "Content-Length": len(text.encode())}.items():
                self.send_header(name, str(value))
            for name, value in headers.items():
                self.send_header(name, value)
            self.end_headers()
            self.wfile.write(text.encode())

        def log_message(self, *_):
            pass

    listener = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    listener.daemon_threads = True
    threading.Thread(target=listener.serve_forever, kwargs={"poll_interval": 0.05}, daemon=True).start()
    try:
        yield f"http://site.localhost:{listener.server_address[1]}"
    finally:
        listener.shutdown()
        listener.server_close()


@pytest.fixture(scope="module")
def history(tmp_path_factory):
    """Three crawls of the site, at the second of which the pages are withdrawn: the mill, the site's address, and what
    `select` said after each of each document, by its snapshot and path.
    """
    start = html(text_of("mill", 50), tuple(path[1:] for path in (*PAGES, *(f"/{name}" for name in ANCHORS))))
    always = {"/": (200, {}, start)} | {f"/{name}": (200, {}, html(text)) for name, text in ANCHORS.items()}
    answers = {**always, **ALLOWED}
    with serving(answers) as site:
        config = CONFIG.replace('serve = ["{folder}/site"]\n', "").replace("http://site.localhost/", f"{site}/")
        living = Living.make(tmp_path_factory.mktemp("withdrawn"), config)
        said = []
        for state in (ALLOWED, FORBIDDEN, ALLOWED):
            answers.pop("/.well-known/tdmrep.json", None)
            answers.update(state)
            reasons = living.reasons(living.refresh(until="select"))
            said.append({(number, url.removeprefix(site)): reason for (number, url), reason in reasons.items()})
        yield living, site, said


@pytest.mark.parametrize("way", WAYS)
def test_a_page_that_is_withdrawn_leaves_at_the_next_refresh(history, way):
    _, _, (before, withdrawn, _) = history
    assert before[0, f"/{way}.html"] is None
    assert withdrawn[0, f"/{way}.html"] == "gone"


@pytest.mark.parametrize(("way", "outcome"), WAYS.items())
def test_trace_says_what_withdrew_it_and_that_it_was_allowed_again(history, way, outcome):
    living, site, _ = history
    visits = json.loads(living.command("trace", f"{site}/{way}.html", "--json"))["visits"]
    assert [visit["outcome"] for visit in visits[:2]] == ["stored", outcome]
    assert visits[2]["outcome"] in ("stored", "revisit")


@pytest.mark.parametrize("way", WAYS)
def test_a_page_that_is_allowed_again_comes_back(history, way):
    *_, (_, _, allowed) = history
    assert None in (reason for (_, path), reason in allowed.items() if path == f"/{way}.html")


def test_no_other_page_leaves(history):
    *_, said = history
    for reasons in said:
        others = {path: reason for (_, path), reason in reasons.items() if path not in PAGES}
        assert others == dict.fromkeys(["/", *(f"/{name}" for name in ANCHORS)])
