"""What each stage costs: documents/s and MB/s per stage and core, and the share of wall time that orchestration takes.

    python benchmarks/pipeline.py [-c configs/demo.toml] [--set KEY=VALUE …] [--jobs N] [--json]

Runs the whole mill in a new store and reads the figures from the manifests and the run's log.
"""

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

READERS = {"scrape", "extract", "language", "quality", "signatures", "contamination", "select", "tokenize"}


def main() -> None:
    """Run, measure, print."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("-c", "--config", default="configs/demo.toml")
    parser.add_argument("--set", action="append", default=[], dest="settings", metavar="KEY=VALUE")
    parser.add_argument("--jobs", type=int, default=os.cpu_count())
    parser.add_argument("--json", action="store_true", help="the figures as one JSON object on the last line")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        store = Path(folder) / "store"
        settings = [argument for setting in options.settings for argument in ("--set", setting)]
        command = [sys.executable, "-m", "flows", "run", "-c", options.config, "--store", str(store), *settings]
        start = time.time()
        subprocess.run([*command, "--jobs", str(options.jobs)], check=True)
        figures = measure(store, start, time.time())
    print_page(figures)
    if options.json:
        print(json.dumps(figures))


def measure(store: Path, start: float, end: float) -> dict[str, Any]:
    """Figures of the one run in a store: a row a stage, and where the wall time went (seconds)."""
    log = [json.loads(line) for line in next((store / "runs").glob("*.jsonl")).read_text().splitlines()]
    events = [row for row in log if row["event"] == "stage"]
    manifests = {
        path.parent.parent.name: json.loads(path.read_text()) for path in store.glob("artifacts/*/*/manifest.json")
    }
    # What a stage reads: pages as HTML until extract, the documents' text from then on.
    html_bytes = manifests["extract"]["stats"]["bytes_in"]
    text_bytes = manifests["extract"]["stats"]["bytes_out"]
    stages = []
    for event in events:
        manifest = manifests.get(event["stage"], {"rows": manifests["extract"]["stats"]["records"], "run": {}})
        run = manifest["run"]
        cpu = run.get("cpu_seconds")
        row = {"stage": event["stage"], "wall_s": event["seconds"], "cpu_s": cpu, "rows": manifest["rows"]}
        # The rates of stages that read all documents. A crawl waits more than it computes, so its rate is by the wall.
        if event["stage"] in READERS:
            seconds = cpu or event["seconds"]
            row["documents_s_core"] = manifest["rows"] / seconds
            row["mb_s_core"] = (html_bytes if event["stage"] in {"scrape", "extract"} else text_bytes) / 1e6 / seconds
        stages.append(row)
    first = min(event["at"] - event["seconds"] for event in events)
    work = sum(event["work_seconds"] for event in events)
    turning = end - first
    return {
        "stages": stages,
        "wall_s": end - start,
        "startup_s": first - start,
        "work_s": work,
        "orchestration_s": turning - work,
        "orchestration_share": (turning - work) / turning,
    }


def print_page(figures: dict[str, Any]) -> None:
    """The figures for people, on one page."""
    print(f"\n{'stage':<14}{'wall s':>9}{'cpu s':>9}{'rows':>11}{'documents/s/core':>18}{'MB/s/core':>11}")
    for row in figures["stages"]:
        cells = [row.get(name) for name in ("wall_s", "cpu_s", "rows", "documents_s_core", "mb_s_core")]
        widths, digits = (9, 9, 11, 18, 11), (2, 2, 0, 0, 1)
        shown = (f"{c:>{w},.{d}f}" if c is not None else " " * w for c, w, d in zip(cells, widths, digits, strict=True))
        print(f"{row['stage']:<14}{''.join(shown)}")
    print(
        f"\n{figures['wall_s']:.1f} s in all: start-up {figures['startup_s']:.1f} s, stages {figures['work_s']:.1f} s, "
        f"orchestration {figures['orchestration_s']:.1f} s "
        f"({figures['orchestration_share']:.1%} of the time after start-up)"
    )


if __name__ == "__main__":
    main()
