"""Starts the processes that scraping needs and sees them through: none outlives its parent, none can hang it."""

import contextlib
import json
import os
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

from pipeline.config import BadInput, StageFailed

PROJECT = Path(__file__).resolve().parents[2]

PYDOC_HOST = "pydoc.localhost"

PYDOC_TIMEOUT_S = 600
"""Seconds; rendering takes about 8 on one core."""

_GRACE_SECONDS = 5.0


class CrawlError(StageFailed):
    """The crawler's process failed; the message says where its log is."""


def run_crawler(job: dict[str, Any], work: Path, progress: Callable[[int, int, str], None]) -> dict[str, Any]:
    """Crawl what `job` describes into the spool that it names; returns the crawler's last report.

    Raises CrawlError where the process fails, OSError where its disk does.
    """
    job_file = work / "job.json"
    job_file.write_text(json.dumps(job, sort_keys=True))
    log_file = work / "crawl.log"
    last: dict[str, Any] = {}
    with log_file.open("ab") as log:
        process = subprocess.Popen(
            [sys.executable, "-P", "-m", "pipeline.crawl.crawler", str(job_file), str(os.getpid())],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=log,
            env=environment(),
            start_new_session=True,  # Ctrl-C reaches us, and we end it
        )
        try:
            assert process.stdout is not None
            for line in process.stdout:
                last |= json.loads(line)
                if "total" in last:
                    progress(last["pages"], last["total"], "pages")
            code = process.wait()
        finally:
            _end(process)
    if "errno" in last:
        raise OSError(last["errno"], last["error"], last["path"])
    if code != 0:
        raise CrawlError(f"the crawler's process ended with code {code}; its log is {log_file}")
    return last


def render_pydoc(work: Path, progress: Callable[[int, int, str], None]) -> Path:
    """A folder below `work` with the host `pydoc.localhost`, rendered unless a whole rendering is there already.

    Raises BadInput where this Python cannot render its documentation.
    """
    folder = work / "pydoc"
    site = folder / PYDOC_HOST
    if not (site / "index.html").exists():
        progress(0, 0, "rendering pydoc")
        script = Path(__file__).with_name("pydoc_site.py")
        try:
            done = subprocess.run(
                [sys.executable, "-S", "-P", str(script), str(site)],
                env={"PYTHONHASHSEED": "0"},  # sets are shown in an order that hangs on it
                stdin=subprocess.DEVNULL,
                capture_output=True,
                timeout=PYDOC_TIMEOUT_S,
                check=False,
            )
        except subprocess.TimeoutExpired:
            raise BadInput(f"pydoc did not finish rendering the standard library in {PYDOC_TIMEOUT_S} s.") from None
        if done.returncode != 0:
            said = done.stderr.decode("utf-8", "replace").strip().splitlines() or [f"exit code {done.returncode}"]
            raise BadInput(f"pydoc could not render the standard library with {sys.executable}: {said[-1]}.")
    return folder


def environment() -> dict[str, str]:
    """Ours, with the project importable wherever the process is started."""
    paths = [str(PROJECT), *filter(None, [os.environ.get("PYTHONPATH")])]
    return os.environ | {"PYTHONPATH": os.pathsep.join(paths)}


def _end(process: "subprocess.Popen[bytes]") -> None:
    if process.poll() is None:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGTERM)
        try:
            process.wait(_GRACE_SECONDS)
        except subprocess.TimeoutExpired:
            os.killpg(process.pid, signal.SIGKILL)
            process.wait()
    if process.stdout is not None:
        process.stdout.close()
