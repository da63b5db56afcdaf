"""What our crawler costs beside plain Scrapy: the same sites, the same server, the same number of connections.

    python benchmarks/crawl.py [FOLDER] [--rounds N] [--json]

Serves FOLDER (the shared sites, where they are beside the project), and then 2,000 generated pages, on loopback, and
crawls each of them whole, in turns: ours from the first import to the sealed snapshot, Scrapy from the first import to
the last page on disk. Both must find the same pages. The figures are medians over the rounds.

`x_plain_scrapy` is our time over Scrapy's (lower is better), `pages_s` our pages per second, both of FOLDER, or of the
generated pages where there is none. Needs Scrapy: pip install -e '.[bench]'.
"""

import argparse
import asyncio
import importlib.util
import json
import mimetypes
import os
import random
import re
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from statistics import median
from typing import Any
from urllib.parse import unquote, urldefrag

ROOT = Path(__file__).resolve().parents[1]
SHARED_SITES = ROOT.parent / "shared" / "data" / "sites"
CONNECTIONS = 16
TIMEOUT_S = 30
GENERATED_PAGES = 2000
GENERATED_LINKS = 50
GENERATED_WORDS = 4000
"""Of seven letters on average, so about 30 KB a page."""


def main() -> int:
    """Measure and print; 2 where Scrapy or the folder is missing."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("folder", nargs="?", type=Path, help="a folder of HTML pages; by default the shared sites")
    parser.add_argument("--rounds", type=int, default=5, help="crawls by each, in turns")
    parser.add_argument("--json", action="store_true", help="the figures as one JSON object on the last line")
    options = parser.parse_args()
    if importlib.util.find_spec("scrapy") is None:
        print("Scrapy is not installed, which this is measured against: pip install -e '.[bench]'", file=sys.stderr)
        return 2
    if options.folder is not None and not options.folder.is_dir():
        print(f"{options.folder} is no folder.", file=sys.stderr)
        return 2
    given = options.folder or (SHARED_SITES if SHARED_SITES.is_dir() else None)
    with tempfile.TemporaryDirectory() as scratch:
        generated = generate(Path(scratch) / "generated")
        sites = [measure(folder, Path(scratch), options.rounds) for folder in filter(None, [given, generated])]
    figures = {"x_plain_scrapy": sites[0]["x_plain_scrapy"], "pages_s": sites[0]["pages_s"], "sites": sites}
    print_page(figures)
    if options.json:
        print(json.dumps(figures))
    return 0


def measure(folder: Path, scratch: Path, rounds: int) -> dict[str, Any]:
    """Figures of one folder: seconds of each round by each crawler, medians, their ratio."""
    seconds: dict[str, list[float]] = {"ours": [], "scrapy": []}
    pages: set[str] = set()
    with serving(folder) as base:
        for turn in range(rounds):
            for who in ("ours", "scrapy") if turn % 2 == 0 else ("scrapy", "ours"):
                out = scratch / f"{folder.name}-{who}-{turn}"
                start = time.perf_counter()
                subprocess.run(
                    [sys.executable, "-P", __file__, who, base, str(out)],  # -P: pipeline.py beside this is not it
                    check=True,
                    env=os.environ | {"PYTHONPATH": str(ROOT)},
                )
                seconds[who].append(time.perf_counter() - start)
                found = set((out / "found.txt").read_text().splitlines())
                pages = pages or found
                assert found == pages, f"{who} found {len(found)} pages, not {len(pages)}: {sorted(found ^ pages)[:5]}"
    ours, scrapy = median(seconds["ours"]), median(seconds["scrapy"])
    return {
        "site": folder.name,
        "pages": len(pages),
        "ours_s": ours,
        "scrapy_s": scrapy,
        "x_plain_scrapy": ours / scrapy,
        "pages_s": len(pages) / ours,
        "scrapy_pages_s": len(pages) / scrapy,
        "seconds": seconds,
    }


def print_page(figures: dict[str, Any]) -> None:
    """The figures for people."""
    heads = ("site", "pages", "ours s", "Scrapy s", "ours pages/s", "Scrapy pages/s", "ratio")
    print("\n{:<12}{:>8}{:>10}{:>10}{:>14}{:>16}{:>8}".format(*heads))
    for row in figures["sites"]:
        print(
            f"{row['site']:<12}{row['pages']:>8,}{row['ours_s']:>10.2f}{row['scrapy_s']:>10.2f}"
            f"{row['pages_s']:>14,.0f}{row['scrapy_pages_s']:>16,.0f}{row['x_plain_scrapy']:>8.2f}"
        )
    print(f"\nx_plain_scrapy {figures['x_plain_scrapy']:.3f}\npages_s {figures['pages_s']:.1f}")


def generate(folder: Path) -> Path:
    """A folder of pages that link to each other at random; the same ones every time."""
    folder.mkdir()
    dice = random.Random(0)
    words = ["".join(dice.choices("abcdefghijklmnopqrstuvwxyz", k=dice.randint(2, 11))) for _ in range(5000)]
    for number in range(GENERATED_PAGES):
        targets = [number + 1, *(dice.randrange(GENERATED_PAGES) for _ in range(GENERATED_LINKS - 1))]
        text = dice.choices(words, k=GENERATED_WORDS)
        step = GENERATED_WORDS // GENERATED_LINKS
        paragraphs = (
            f'<p>{" ".join(text[n * step : (n + 1) * step])} <a href="{target % GENERATED_PAGES}.html">more</a></p>'
            for n, target in enumerate(targets)
        )
        page = f"<!DOCTYPE html><html><head><title>{number}</title></head><body>{''.join(paragraphs)}</body></html>"
        (folder / f"{number}.html").write_text(page)
    (folder / "index.html").write_text('<!DOCTYPE html><a href="0.html">start</a>')
    return folder


def start_page(folder: Path) -> str:
    """Its own, or links to the index pages of each subfolder, or to all pages of one that has no index page."""
    if (folder / "index.html").is_file():
        return (folder / "index.html").read_text()
    links = []
    for subfolder in sorted({file.parent for file in folder.rglob("*.html")}):
        pages = sorted(subfolder.glob("*.html"))
        links += [file for file in pages if file.name.startswith("index")] or pages
    return "<!DOCTYPE html>" + "".join(f'<a href="{file.relative_to(folder).as_posix()}">x</a> ' for file in links)


@contextmanager
def serving(folder: Path) -> Iterator[str]:
    """A web server for `folder`, in a process of its own; gives its address."""
    process = subprocess.Popen([sys.executable, __file__, "serve", str(folder)], stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None
    try:
        yield f"http://127.0.0.1:{int(process.stdout.readline())}"
    finally:
        process.terminate()
        process.wait()


async def serve(folder: Path) -> None:
    """Serve `folder` out of memory, so that the crawler is what is measured, until this process is ended."""
    from aiohttp import web

    files = {f"/{file.relative_to(folder).as_posix()}": file for file in folder.rglob("*") if file.is_file()}
    answers = {path: (file.read_bytes(), mimetypes.guess_type(path)[0]) for path, file in files.items()}
    answers["/"] = (start_page(folder).encode(), "text/html")

    async def answer(request: web.BaseRequest) -> web.Response:
        body, media_type = answers.get(unquote(request.path), (None, None))
        if body is None:
            return web.Response(status=404, text="no such page")
        return web.Response(body=body, content_type=media_type or "application/octet-stream")

    runner = web.ServerRunner(web.Server(answer))
    await runner.setup()
    site = web.TCPSite(runner, "127.0.0.1", 0)
    await site.start()
    print(runner.addresses[0][1], flush=True)
    await asyncio.Event().wait()


def crawl_ours(base: str, out: Path) -> set[str]:
    """The pages of a snapshot of `base`, sealed in `out`."""
    from pipeline.crawl.seal import INDEX
    from pipeline.documents import read_table
    from pipeline.scrape import scrape
    from pipeline.sources import CrawlSource

    source = CrawlSource(
        name="bench", seeds=[f"{base}/"], delay_s=0, concurrency_per_host=CONNECTIONS, timeout_s=TIMEOUT_S
    )
    snapshot = out / "snapshot"
    snapshot.mkdir()
    scrape(source, snapshot, out / "work")
    rows = read_table(snapshot / INDEX).select(["url", "outcome"]).to_pylist()
    return {row["url"] for row in rows if row["outcome"] == "stored"}


def crawl_scrapy(base: str, out: Path) -> set[str]:
    """The pages of `base`, each in a file of its own below `out`, by a spider as its tutorial has it."""
    import scrapy
    from scrapy.crawler import CrawlerProcess
    from scrapy.http import HtmlResponse
    from scrapy.linkextractors import LinkExtractor

    found: set[str] = set()
    links = LinkExtractor(allow=re.escape(base))

    class Plain(scrapy.Spider):
        name = "plain"
        start_urls = [f"{base}/"]  # noqa: RUF012 (Scrapy's way)

        def parse(self, response: Any) -> Iterator[Any]:
            (out / f"{len(found)}.html").write_bytes(response.body)
            found.add(urldefrag(response.url).url)
            if isinstance(response, HtmlResponse):
                yield from response.follow_all(links.extract_links(response))

    process = CrawlerProcess(
        {
            "ROBOTSTXT_OBEY": True,
            "CONCURRENT_REQUESTS": CONNECTIONS,
            "CONCURRENT_REQUESTS_PER_DOMAIN": CONNECTIONS,
            "DOWNLOAD_DELAY": 0,
            "DOWNLOAD_TIMEOUT": TIMEOUT_S,
            "TELNETCONSOLE_ENABLED": False,
            "LOG_ENABLED": False,
        }
    )
    process.crawl(Plain)
    process.start()
    return found


def crawl(who: str, base: str, out: Path) -> None:
    """One crawl, in a process of its own; what it found goes into out/found.txt."""
    out.mkdir()
    found = crawl_ours(base, out) if who == "ours" else crawl_scrapy(base, out)
    (out / "found.txt").write_text("\n".join(sorted(found)))


if __name__ == "__main__":
    if sys.argv[1:2] == ["serve"]:
        asyncio.run(serve(Path(sys.argv[2])))
    elif sys.argv[1:2] in (["ours"], ["scrapy"]):
        crawl(sys.argv[1], sys.argv[2], Path(sys.argv[3]))
    else:
        sys.exit(main())
