"""A command seen from outside: how long it takes, and what memory and processor time its whole process tree uses."""

import os
import subprocess
import threading
import time
from pathlib import Path
from typing import Any

SAMPLE_SECONDS = 0.2
TICKS = os.sysconf("SC_CLK_TCK")


def observe(command: list[str], log: Path, environment: dict[str, str] | None = None) -> dict[str, Any]:
    """Run `command` to its end: seconds, processor time, peak memory in MiB, and samples of memory over time.

    Where it fails, prints the end of its `log` and exits 2.
    """
    samples: list[tuple[float, float]] = []
    cpu: dict[int, float] = {}  # of each process that was seen, as it was seen last
    with log.open("wb") as output:
        start = time.time()
        process = subprocess.Popen(command, stdout=output, stderr=subprocess.STDOUT, env=environment)
        ended = threading.Event()

        def watch() -> None:
            while not ended.wait(SAMPLE_SECONDS):
                samples.append((time.time(), tree_mib(process.pid, cpu)))

        watcher = threading.Thread(target=watch)
        watcher.start()
        failed = process.wait()
        seconds = time.time() - start
        ended.set()
        watcher.join()
    if failed:
        print(f"{' '.join(command[:4])} … failed:\n{log.read_text(encoding='utf-8', errors='replace')[-3000:]}")
        raise SystemExit(2)
    peak = max((mib for _, mib in samples), default=0.0)
    return {"seconds": seconds, "cpu_seconds": sum(cpu.values()), "peak_mib": peak, "samples": samples}


def tree_mib(root: int, cpu: dict[int, float]) -> float:
    """Memory of a process and all below it in MiB: proportional set size, so that shared pages count once.

    Also notes each one's processor time in seconds in `cpu`.
    """
    children: dict[int, list[int]] = {}
    times: dict[int, float] = {}
    for stat in Path("/proc").glob("[0-9]*/stat"):
        try:
            fields = stat.read_text().rpartition(")")[2].split()
        except OSError:  # it has ended
            continue
        children.setdefault(int(fields[1]), []).append(int(stat.parent.name))
        times[int(stat.parent.name)] = (int(fields[11]) + int(fields[12])) / TICKS
    waiting, total = [root], 0
    while waiting:
        process = waiting.pop()
        waiting += children.get(process, [])
        if process in times:
            cpu[process] = times[process]
        try:
            rollup = Path(f"/proc/{process}/smaps_rollup").read_text()
        except OSError:
            continue
        total += int(next((line.split()[1] for line in rollup.splitlines() if line.startswith("Pss:")), 0))
    return total / 1024
