"""What a person sees while the mill turns: one line a stage, a live bar for the one at work, quiet logs elsewhere.

Everything here goes to stderr; results of a command go to stdout.
"""

import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

from rich.console import Console
from rich.progress import (
    BarColumn,
    Progress,
    TaskID,
    TaskProgressColumn,
    TextColumn,
    TimeElapsedColumn,
)

from flows import interrupt
from flows.estimate import Estimate, total
from flows.plan import Decision

REASONS_SHOWN = 3
QUIET_SECONDS = 15.0
"""Without a terminal, a long stage tells its progress this often."""
MARKS = {
    "cached": "[green]✓[/]",
    "run": "[yellow]▶[/]",
    "unknown": "[dim]·[/]",
    "done": "[green]✓[/]",
    "warning": "[red]![/]",
}


Bar = Callable[[int, int, str], None]
"""Takes (done, total, words); a total of 0 means that nobody knows it."""


class Display:
    """Lines and bars on stderr."""

    def __init__(self) -> None:
        self.console = Console(stderr=True, highlight=False, soft_wrap=True)
        self._live = self.console.is_terminal

    def line(self, mark: str, stage: str, text: str) -> None:
        """One line about one stage."""
        self.console.print(f"{MARKS[mark]} [bold]{stage:<13}[/] {text}")

    def note(self, text: str) -> None:
        """A line about the whole run."""
        self.console.print(text, markup=False)

    def error(self, sentence: str) -> None:
        """What went wrong, in one sentence."""
        print(f"gptmill: {sentence}", file=sys.stderr)  # noqa: T201  (must work even where rich does not)

    @contextmanager
    def stage(self, name: str) -> Iterator[Bar]:
        """The progress of one stage while it runs; it ends by it where the end was asked for and the wish was lost."""
        if not self._live:
            yield _heeding(QuietBar(self, name))
            return
        columns = (
            TextColumn("  [bold]{task.fields[stage]:<13}[/]"),
            BarColumn(bar_width=20),
            TaskProgressColumn(),
            TextColumn("{task.fields[words]}"),
            TextColumn("[dim]{task.fields[left]}"),
            TimeElapsedColumn(),
        )
        progress = Progress(*columns, console=self.console, transient=True)
        try:
            yield _heeding(LiveBar(progress, name))
        finally:
            progress.stop()


def _heeding(bar: Bar) -> Bar:
    def told(done: int, total: int, words: str) -> None:
        interrupt.check()
        bar(done, total, words)

    return told


class Pace:
    """How fast it goes, measured from the first progress on: what was done before, or took to set up, is no pace."""

    def __init__(self) -> None:
        self._done: int | None = None
        self._since = 0.0
        self._moving = False

    def seconds_each(self, done: int) -> float | None:
        """Seconds for each unit so far; None while nobody can tell."""
        now = time.monotonic()
        if self._done is None or (done != self._done and not self._moving):
            self._moving = self._done is not None
            self._done, self._since = done, now
            return None
        new = done - self._done
        return (now - self._since) / new if new > 0 else None

    @staticmethod
    def words(seconds_each: float | None) -> str:
        """The pace for people."""
        if seconds_each is None:
            return ""
        return f" · {1 / seconds_each:,.1f}/s" if 0 < seconds_each <= 1 else f" · {seconds_each:,.1f} s each"


class LiveBar:
    """A bar with rate and time left."""

    def __init__(self, progress: Progress, stage: str) -> None:
        self._progress = progress
        self._stage = stage
        self._pace = Pace()
        self._task: TaskID | None = None

    def __call__(self, done: int, total: int, words: str) -> None:
        """Move the bar; it appears at the first call, so that a cached stage shows none."""
        if self._task is None:
            self._task = self._progress.add_task(self._stage, stage=self._stage, words="", left="")
            self._progress.start()
        each = self._pace.seconds_each(done)
        left = f"{each * (total - done):,.0f} s left" if each is not None and total > done else ""
        shown = f"{_counted(done, total)}{words}{Pace.words(each)}"
        self._progress.update(self._task, completed=done, total=total or None, words=shown, left=left)


class QuietBar:
    """A line now and then."""

    def __init__(self, display: Display, stage: str) -> None:
        self._display = display
        self._stage = stage
        self._pace = Pace()
        self._last = time.monotonic()

    def __call__(self, done: int, total: int, words: str) -> None:
        """Print a line if the last one is long ago."""
        each = self._pace.seconds_each(done)
        now = time.monotonic()
        if now - self._last < QUIET_SECONDS:
            return
        self._last = now
        left = f", {each * (total - done):,.0f} s left" if each is not None and total > done else ""
        self._display.line("run", self._stage, f"{_counted(done, total)}{words}{Pace.words(each)}{left}")


def printable(text: str) -> str:
    """Text from outside on one line, without what would steer a terminal."""
    return "".join(c if c.isprintable() else " " if c.isspace() else "\ufffd" for c in text)


def _counted(done: int, total: int) -> str:
    """How much of how much; nothing where neither is known."""
    return f"{done:,} of {total:,} " if total else f"{done:,} " if done else ""


def headline(stage: str, manifest: dict[str, Any]) -> str:
    """What a stage made, in a few words."""
    stats, rows = manifest["stats"], f"{manifest['rows']:,}"
    match stage:
        case "scrape":
            return f"{rows} pages of {stats['urls']:,} URLs"
        case "extract":
            return f"{rows} documents from {stats['records']:,} pages"
        case "language":
            return f"{stats['wanted']:,} of {rows} documents in a wanted language"
        case "contamination":
            return f"{stats['with_overlap']:,} of {rows} documents overlap with an evaluation set"
        case "select":
            return f"{stats['kept']:,} of {rows} documents kept{_dropped(stats['reasons'])}"
        case "deduplicate":
            return f"{stats['kept']:,} of {stats['selected']:,} documents kept{_dropped(stats['duplicates'])}"
        case "tokenizer":
            return f"vocabulary of {rows}"
        case "tokenize":
            return f"{stats['tokens']:,} tokens"
        case "pack":
            return f"{stats['tokens']['train']:,} tokens to train on, {stats['tokens']['val']:,} held out"
        case "pretrain":
            return f"{stats['parameters']:,} parameters, {stats['steps']:,} steps"
        case "evaluate":
            return (
                f"{stats['bits_per_byte']:.3f} bits per byte of held-out text (xz -9: {stats['xz_bits_per_byte']:.3f})"
            )
        case "report":
            return "report.html"
    return f"{rows} documents"


def _dropped(reasons: dict[str, int]) -> str:
    """The reasons that took most, in brackets."""
    most = sorted(((count, reason) for reason, count in reasons.items() if count), reverse=True)[:REASONS_SHOWN]
    return f" (dropped: {', '.join(f'{reason} {count:,}' for count, reason in most)})" if most else ""


def plan_lines(decisions: list[Decision], costs: dict[str, Estimate], console: Console) -> None:
    """The plan for people: a line a stage with its status, what it would take, and the reasons; and the sum."""
    width = max(len(decision.stage) for decision in decisions)
    told = {d.stage: "" if d.status == "cached" else str(costs[d.stage]) for d in decisions}
    room = max(map(len, told.values()))
    for decision in decisions:
        parts = ""
        if decision.status == "run" and decision.parts:
            parts = f" [dim]({decision.parts_to_do} of {decision.parts} parts)[/]"
        reasons = "; ".join(reason.replace("[", r"\[") for reason in decision.reasons)
        key = f"[dim]{decision.key[:12]}[/]" if decision.status == "cached" and decision.key else ""
        style = {"cached": "green", "run": "yellow", "unknown": "dim"}[decision.status]
        cost = f"{told[decision.stage]:<{room}}  " if room else ""
        console.print(f"{decision.stage:<{width}}  [{style}]{decision.status:<7}[/]  {cost}{reasons}{key}{parts}")
    if sum_of_all := total(costs):
        console.print(sum_of_all)
