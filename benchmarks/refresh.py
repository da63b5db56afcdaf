"""What a refresh costs: a corpus of which 1 % changed, from extract to pack, beside making all of it.

    python benchmarks/refresh.py [--pages N] [--jobs N] [--json]

Pages of some 25 KB are generated, with navigation around English sentences from this Python's own documentation, and
sealed into snapshots by the functions that seal a crawl: the first with all of them, the second with 1 % of them
changed, chosen uniformly, and all others found unchanged, the third with nothing new. Crawling is not in the figures.
After each, `gptmill run --until pack` is timed from the start of its process to its end, Prefect's included; then once
more, with everything cached. In the end another 1 % changes, and Prefect's server is one that is there already, as it
is for the runs of `gptmill schedule`. Run before once on a small corpus: kernels are compiled once a machine.

`refresh_share` is the time with 1 % changed over the time of all, `unchanged_share` that with nothing new,
`served_share` that with a server; `documents` tells for each stage how many documents were done in each run.
"""

import argparse
import ast
import html
import json
import os
import random
import re
import shutil
import sys
import sysconfig
import tempfile
import time
from collections.abc import Iterator
from contextlib import nullcontext
from pathlib import Path
from typing import Any

sys.path[0] = str(Path(__file__).parents[1])  # not this folder, whose pipeline.py would hide the package

from benchmarks.observe import observe  # noqa: E402
from flows.config import load_config  # noqa: E402
from flows.schedule.server import server_of  # noqa: E402
from flows.stages import SCRAPE, TOKENIZER  # noqa: E402
from pipeline import snapshots  # noqa: E402
from pipeline.crawl.seal import seal  # noqa: E402
from pipeline.crawl.spool import REVISIT, STORED, Spool, new_row  # noqa: E402
from pipeline.crawl.warc import payload_digest, response_record, revisit_record  # noqa: E402
from pipeline.engine.hashes import RememberedHashes  # noqa: E402
from pipeline.engine.store import Store  # noqa: E402
from pipeline.extraction.block_kernels import cut  # noqa: E402

CHANGED = 0.01
WARM_UP_PAGES = 400
LINKS = 36
PARAGRAPHS = 32
SENTENCES = 4
"""In a paragraph. A page has 10 KB of prose in 25 KB of HTML with 640 tags: the means of the real pages that other
benchmarks take are 11 KB, 26 KB and 630."""
SENTENCE = re.compile(r"[A-Z][a-z]+ [A-Za-z ,'-]{40,200}\.(?=\s|$)")
HEADERS = [("Content-Type", "text/html; charset=utf-8"), ("ETag", '"1"')]
FIRST_CRAWL = 1_700_000_000_000
"""Milliseconds since the epoch."""
WEEK = 7 * 24 * 3600 * 1000
CONFIG = """
[[scrape.sources]]
name = "site"
seeds = ["http://site.example/"]
contact = "nobody@example.org"
[tokenizer]
kind = "gpt2"
[evaluate]
sets = []
[pretrain]
"""
CRAWLS = {"all": 0, "changed": 1, "unchanged": 2, "served": 3}
EDITED = (1, 3)
"""The crawls that find pages changed."""
RUNS = ("all", "changed", "unchanged", "cached", "served")


def main() -> None:
    """Make the snapshots, run after each, print."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--pages", type=int, default=300_000, metavar="N", help="pages (default 300,000)")
    parser.add_argument("--jobs", type=int, default=len(os.sched_getaffinity(0)), metavar="N", help="worker processes")
    parser.add_argument("--json", action="store_true", help="the figures as one JSON object on the last line")
    options = parser.parse_args()
    sentences = english()
    cut("", furniture=False, comments=False)  # a run loads these kernels behind its first pages only
    with tempfile.TemporaryDirectory() as folder:
        measure(Path(folder) / "warm-up", Pages(WARM_UP_PAGES, sentences), options.jobs)
        shutil.rmtree(Path(folder) / "warm-up")
        figures = measure(Path(folder) / "store", Pages(options.pages, sentences), options.jobs)
    print_page(figures)
    if options.json:
        print(json.dumps(figures))


def english() -> list[str]:
    """Sentences without program code from the docstrings of the standard library."""
    found: dict[str, None] = {}
    for path in sorted(Path(sysconfig.get_path("stdlib")).glob("*.py")):
        for node in ast.walk(ast.parse(path.read_bytes())):
            if isinstance(node, (ast.Module, ast.ClassDef, ast.FunctionDef)):
                text = " ".join((ast.get_docstring(node) or "").split())
                found.update(dict.fromkeys(SENTENCE.findall(text)))
    return list(found)


class Pages:
    """A site of generated pages, the same every time; each edit gives a page other sentences in one paragraph."""

    def __init__(self, count: int, sentences: list[str]) -> None:
        self.count = count
        edits = round(CHANGED * count)
        self.edited = {crawl: frozenset(random.Random(crawl).sample(range(count), edits)) for crawl in EDITED}
        self._sentences = sentences
        self._head = "".join(f".block-{number} {{ margin: {number}px auto; color: #333 }}\n" for number in range(100))

    def url(self, number: int) -> str:
        """Where a page is; URLs say nothing of which pages change."""
        return f"http://site.example/{number % 100}/{number}"

    def links(self, number: int) -> list[str]:
        """The pages that a page links to."""
        chance = random.Random(number)
        return [self.url(chance.randrange(self.count)) for _ in range(LINKS)]

    def is_new(self, number: int, crawl: int) -> bool:
        """Whether a crawl finds a page as no earlier one did."""
        return crawl == 0 or number in self.edited.get(crawl, ())

    def body(self, number: int, crawl: int) -> bytes:
        """A page's HTML as a crawl finds it."""
        chance = random.Random(number)
        paragraphs = [chance.choices(self._sentences, k=SENTENCES) for _ in range(PARAGRAPHS)]
        for edit in EDITED:
            if edit <= crawl and self.is_new(number, edit):
                paragraphs[(number + edit) % PARAGRAPHS] = chance.choices(self._sentences, k=SENTENCES)
        links = self.links(number)
        prose = "".join(
            f'<p class="text">{html.escape(a)} <em>{html.escape(b)}</em> '
            f'<a href="{link}" rel="nofollow">{html.escape(c)}</a> <span class="note">{html.escape(d)}</span></p>\n'
            for (a, b, c, d), link in zip(paragraphs, links, strict=False)
        )
        menu = "".join(f'<li class="item"><a href="{link}">Page {link}</a></li>\n' for link in links)
        recent = "".join(f'<div><span>{n}</span> <a href="{link}">Recent</a></div>\n' for n, link in enumerate(links))
        return (
            f"<!DOCTYPE html>\n<html lang='en'><head><title>Page {number}</title><style>{self._head}</style></head>\n"
            f'<body><nav class="menu"><ul>{menu}</ul></nav>\n<main><article><h1>Page {number}</h1>\n{prose}</article>'
            f'<div class="sidebar">{recent}</div></main><footer><p>All pages of this site are made of sentences.</p>'
            "</footer></body></html>\n"
        ).encode()


def measure(folder: Path, pages: Pages, jobs: int) -> dict[str, Any]:
    """Figures of all runs on one site."""
    folder.mkdir()
    config = folder / "mill.toml"
    config.write_text(CONFIG, encoding="utf-8")
    store = Store(folder / "store")
    store.create()
    command = [sys.executable, "-m", "flows", "run", "-c", str(config), "--store", str(store.root)]
    figures: dict[str, Any] = {"pages": pages.count, "changed": len(pages.edited[1]), "documents": {}}
    known: set[str] = set()
    for name in RUNS:
        if name in CRAWLS:
            snapshot(store, config, pages, CRAWLS[name])
        with server_of(store.root, config.stem, None) if name == "served" else nullcontext():
            environment = {**os.environ, "PYTHONPATH": sys.path[0]}
            seen = observe([*command, "--until", "pack", "--jobs", str(jobs)], folder / "log", environment)
        figures |= {f"{name}_s": seen["seconds"], f"{name}_cpu_s": seen["cpu_seconds"]}
        figures |= {f"{name}_peak_mib": seen["peak_mib"]}
        figures["documents"][name], figures[f"{name}_stages_s"] = done(store, known)
    figures["refresh_share"] = figures["changed_s"] / figures["all_s"]
    figures["unchanged_share"] = figures["unchanged_s"] / figures["all_s"]
    figures["served_share"] = figures["served_s"] / figures["all_s"]
    figures["refresh_cpu_share"] = figures["changed_cpu_s"] / figures["all_cpu_s"]
    return figures


def snapshot(store: Store, config: Path, pages: Pages, crawl: int) -> None:
    """Seal what a crawl would have found: all pages, those that changed, or nothing new."""
    scrape = load_config(config, []).scrape
    [source] = scrape.sources
    source_key = snapshots.identify(source, RememberedHashes(store))
    work = store.work_folder("scrape", f"{source_key}-{crawl:04d}")
    aside = work / "snapshot"
    aside.mkdir()
    start = time.perf_counter()
    with Spool(work / "state") as spool:
        for row, record in answers(pages, crawl):
            spool.add(row, record)
        stats = seal(spool, aside, source.name, scrape.segment_bytes) | {"unreached": 0}
    snapshots.publish(store, source, SCRAPE, source_key, aside, stats, time.perf_counter() - start)
    shutil.rmtree(work)


def answers(pages: Pages, crawl: int) -> Iterator[tuple[dict[str, Any], bytes]]:
    """A row and a record for each page, as the crawler would have written them."""
    at = FIRST_CRAWL + crawl * WEEK
    for number in range(pages.count):
        url, stored = pages.url(number), pages.is_new(number, crawl)
        body = pages.body(number, crawl)
        row = new_row(
            url,
            STORED if stored else REVISIT,
            status=200 if stored else 304,
            content_type="text/html",
            payload_digest=payload_digest(body),
            payload_length=len(body) if stored else 0,
            links=pages.links(number),
            fetched_at=at,
            stored_at=at if stored else FIRST_CRAWL,
        )
        if stored:
            yield row, response_record(url, at, 200, HEADERS, body)
        else:
            yield row, revisit_record(url, at, 304, HEADERS, row["payload_digest"], FIRST_CRAWL)


def done(store: Store, known: set[str]) -> tuple[dict[str, int], dict[str, float]]:
    """Documents that the last run did in each stage, and the stage's seconds; `known` are the parts made before it."""
    log = max((store.root / "runs").glob("*.jsonl")).read_text(encoding="utf-8")
    documents, seconds = {}, {}
    for event in map(json.loads, log.splitlines()):
        if event["event"] != "stage" or event["stage"] == SCRAPE.name:
            continue
        stage, made = event["stage"], 0
        manifest = store.manifest(stage, event["key"])
        assert manifest is not None
        for part in {part["at"] for part in manifest["parts"]} - known:
            shard = json.loads((store.root / part / "manifest.json").read_text()) if part.startswith("shards") else None
            made += shard["rows"] if shard else 0
        known |= {part["at"] for part in manifest["parts"] if part["at"].startswith("shards")}
        whole = event["status"] == "run" and not any(part["at"].startswith("shards") for part in manifest["parts"])
        documents[stage] = manifest["rows"] if whole and stage != TOKENIZER.name else made
        seconds[stage] = event["seconds"]
    return documents, seconds


def print_page(figures: dict[str, Any]) -> None:
    """The figures for people."""
    print(f"\n{figures['pages']:,} pages, {figures['changed']:,} changed; documents done and seconds of each stage\n")
    print(f"{'':<16}" + "".join(f"{name:>20}" for name in RUNS))
    for stage in figures["documents"]["all"]:
        cells = ((figures["documents"][name][stage], figures[f"{name}_stages_s"][stage]) for name in RUNS)
        print(f"{stage:<16}" + "".join(f"{count:>12,}{seconds:>8.2f}" for count, seconds in cells))
    for label, unit in (("seconds", "s"), ("of processors", "cpu_s"), ("peak MiB", "peak_mib")):
        print(f"{label:<16}" + "".join(f"{figures[f'{name}_{unit}']:>20,.2f}" for name in RUNS))
    print(
        f"\na refresh of 1 % takes {figures['refresh_share']:.1%} of the whole ({figures['refresh_cpu_share']:.1%} of "
        f"its processor time), one beside a server {figures['served_share']:.1%}, one with nothing new "
        f"{figures['unchanged_share']:.1%}"
    )


if __name__ == "__main__":
    main()
