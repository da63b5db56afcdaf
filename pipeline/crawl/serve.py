"""Folders served on loopback, as the hosts that their subfolders are named after.

The server is an HTTP proxy for just these hosts: a request names the whole URL (RFC 9112, 3.2.2), so the URLs of a
corpus never contain the port that happened to be free. `folder/<host>/<path>` is the file behind
`http://<host>/<path>`.
"""

import hashlib
import re
import threading
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from http import HTTPStatus
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any
from urllib.parse import unquote, urlsplit

from pipeline.config import BadInput
from pipeline.crawl.urls import is_loopback

CONTENT_TYPES = {
    ".html": "text/html",
    ".htm": "text/html",
    ".xhtml": "application/xhtml+xml",
    ".txt": "text/plain",
    ".css": "text/css",
    ".js": "text/javascript",
    ".json": "application/json",
    ".xml": "application/xml",
    ".png": "image/png",
    ".jpg": "image/jpeg",
    ".svg": "image/svg+xml",
    ".pdf": "application/pdf",
    ".zip": "application/zip",
}
"""Our own short table: the system's differs between machines."""

_DECLARED_CHARSET = re.compile(rb"<meta[^>]*charset\s*=\s*[\"']?\s*([\w-]+)", re.IGNORECASE)
_SNIFFED_BYTES = 1024  # where HTML wants a charset to be declared


def served_hosts(folders: Iterable[Path]) -> dict[str, Path]:
    """The hosts below `folders` and the folder of each; BadInput where one is missing or a name not loopback."""
    hosts: dict[str, Path] = {}
    for folder in folders:
        if not folder.is_dir():
            raise BadInput(f"the folder to serve, {folder}, does not exist.")
        found = sorted(child for child in folder.iterdir() if child.is_dir())
        if not found:
            raise BadInput(f"the folder to serve, {folder}, has no subfolder named after a host.")
        for child in found:
            if not is_loopback(child.name):
                raise BadInput(f"{child} cannot be served as a host: its name must end in .localhost.")
            hosts[child.name] = child
    return hosts


@contextmanager
def serve(hosts: dict[str, Path]) -> Iterator[str]:
    """Serve `hosts` on a free port of 127.0.0.1 until the block ends; gives the proxy's address."""
    server = ThreadingHTTPServer(("127.0.0.1", 0), _handler(hosts))
    server.daemon_threads = True
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.05}, daemon=True)
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_address[1]}"
    finally:
        server.shutdown()
        server.server_close()
        thread.join()


def content_type(path: Path, body: bytes) -> str:
    """The media type of a file, with the charset that an HTML file declares (UTF-8 where it declares none)."""
    media_type = CONTENT_TYPES.get(path.suffix.lower(), "application/octet-stream")
    if not media_type.startswith("text/"):
        return media_type
    declared = _DECLARED_CHARSET.search(body[:_SNIFFED_BYTES]) if media_type == "text/html" else None
    return f"{media_type}; charset={declared[1].decode('ascii').lower() if declared else 'utf-8'}"


def _handler(hosts: dict[str, Path]) -> type[BaseHTTPRequestHandler]:
    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"
        server_version = "gptmill"
        sys_version = ""
        timeout = 60
        disable_nagle_algorithm = True

        def do_GET(self) -> None:
            url = urlsplit(self.path)
            host = (url.hostname or self.headers.get("Host", "").rsplit(":", 1)[0]).lower()
            if host not in hosts:
                self._answer(HTTPStatus.NOT_FOUND, "text/plain; charset=utf-8", b"no such host\n")
                return
            file = hosts[host] / unquote(url.path).strip("/")
            root = hosts[host].resolve()
            if not file.resolve().is_relative_to(root):
                self._answer(HTTPStatus.NOT_FOUND, "text/plain; charset=utf-8", b"no such page\n")
            elif file.is_dir() and not url.path.endswith("/"):
                self._answer(HTTPStatus.MOVED_PERMANENTLY, "text/plain; charset=utf-8", b"", Location=url.path + "/")
            else:
                self._send(file / "index.html" if file.is_dir() else file)

        do_HEAD = do_GET  # noqa: N815 (the standard library's name)

        def _send(self, file: Path) -> None:
            if not file.is_file():
                self._answer(HTTPStatus.NOT_FOUND, "text/plain; charset=utf-8", b"no such page\n")
                return
            body = file.read_bytes()
            etag = f'"{hashlib.sha256(body).hexdigest()[:32]}"'
            if self.headers.get("If-None-Match") == etag:
                self._answer(HTTPStatus.NOT_MODIFIED, content_type(file, body), b"", ETag=etag)
            else:
                self._answer(HTTPStatus.OK, content_type(file, body), body, ETag=etag)

        def _answer(self, status: HTTPStatus, media_type: str, body: bytes, **headers: str) -> None:
            self.send_response(status)
            self.send_header("Content-Type", media_type)
            self.send_header("Content-Length", str(len(body)))
            for name, value in headers.items():
                self.send_header(name, value)
            self.end_headers()
            if self.command != "HEAD":
                self.wfile.write(body)

        def log_message(self, *_: Any) -> None:
            """The crawler keeps the log."""

    return Handler
