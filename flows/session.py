"""One run: holds the store, the workers, the display and the log, and does one stage at a time.

Prefect and the plain path both come here; neither decides what is up to date.
"""

import contextlib
import os
import time
import traceback
from collections.abc import Callable
from types import TracebackType
from typing import Any, Self

from pydantic import BaseModel

from flows import dag, interrupt, logs, notify, refs, stages
from flows.ahead import Ahead
from flows.display import Display, headline
from flows.plan import Decision, Mill, Pending, graph, plan, refuse_unknown_stage, why_scrape
from pipeline import purge, snapshots
from pipeline.config import BadInput, StageFailed, StageStopped
from pipeline.engine import locks
from pipeline.engine.execute import execute
from pipeline.engine.executor import Workers
from pipeline.engine.hashes import Files
from pipeline.engine.resolve import Input
from pipeline.engine.stage import Stage
from pipeline.engine.store import Artifact
from pipeline.report import check_counts
from pipeline.sources import CrawlSource


class Selection:
    """Which stages a run does: all, those up to one, or only one; and which one is forced."""

    def __init__(
        self, mill: Mill, *, only: str | None = None, until: str | None = None, force: str | None = None
    ) -> None:
        for name in (only, until, force):
            if name is not None:
                refuse_unknown_stage(name)
        drawn = graph(mill)
        self.force = force
        self.only = only
        self.wanted = set(drawn.inputs)
        if until is not None:
            self.wanted = {until, *drawn.upstream(until)}
        if only is not None:
            self.wanted = {only, *drawn.upstream(only)}
        if force is not None and force not in self.wanted:
            raise BadInput(f"--force {force} is not among the stages of this run; drop --only or --until.")

    def refuse_stale(self, decisions: list[Decision]) -> None:
        """BadInput where --only names a stage whose upstream is not all there."""
        if self.only is None:
            return
        stale = [d for d in decisions if d.stage in self.wanted and d.stage != self.only and d.status != "cached"]
        if stale:
            first = stale[0]
            raise BadInput(
                f"--only {self.only} cannot run: {first.stage} before it is not up to date "
                f"({'; '.join(first.reasons)}). Use --until {self.only} instead."
            )


class Session:
    """The context of one run."""

    def __init__(self, mill: Mill, selection: Selection, jobs: int, display: Display) -> None:
        self.mill = mill
        self.selection = selection
        self.display = display
        self.workers = Workers(jobs, mill.config.workers)
        self.artifacts: dict[str, Artifact] = {}
        self.cached = self.ran = 0
        self._crawled: set[str] = set()
        self._crawling = False
        self._early: dict[str, tuple[Artifact, str, list[str]]] = {}  # what was done before Prefect was there
        self._start = time.time()
        stamp = time.strftime("%Y%m%dT%H%M%SZ", time.gmtime(self._start))
        self.log_path = mill.store.root / "runs" / f"{stamp}-{os.getpid()}.jsonl"
        while self.log_path.exists():  # by another run of this process in the same second
            self.log_path = self.log_path.with_stem(f"{self.log_path.stem}-again")
        self._store_lock = locks.using_store(mill.store.root)

    @property
    def run(self) -> str:
        """The run's id."""
        return self.log_path.stem

    def __enter__(self) -> Self:
        self.mill.store.create()
        self._store_lock.__enter__()
        purge.commit(self.mill.store)
        self.workers.__enter__()
        self.log_path.parent.mkdir(parents=True, exist_ok=True)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.workers.__exit__(kind, error, trace)
        self._store_lock.__exit__(kind, error, trace)
        if self._crawling and isinstance(error, (BadInput, StageFailed)):
            # A refresh of a site that is down is over: it must not keep later runs from what they can do.
            refs.end_refresh(self.mill.store, self.mill.config.name, self.mill.begun.get("id"))
        told = {} if error is None else {"error": str(error), "traceback": "".join(traceback.format_exception(error))}
        self.log("end", status="done" if error is None else "failed", seconds=time.time() - self._start, **told)
        if kind is not KeyboardInterrupt:
            for problem in notify.tell_of_run(self.mill.config.notify, self.mill.config.name, self.log_path):
                self.display.note(problem)

    def log(self, event: str, **facts: Any) -> None:
        """Add a line to the run's log."""
        logs.append(self.log_path, {"event": event, "at": round(time.time(), 3), **facts})

    def start(self, facts: dict[str, Any]) -> list[Decision]:
        """Plan, log the plan, and refuse what cannot be done."""
        decisions = plan(self.mill, force=self.selection.force)
        # The log is shown to others, and where notices go may be a secret.
        settings = self.mill.config.model_dump(mode="json", exclude={"notify": {"webhook"}})
        told = {"config": self.mill.config.name, "settings": settings}
        self.log("start", **told, **facts, plan=[d.as_json() for d in decisions])
        self.selection.refuse_stale(decisions)
        return decisions

    def crawl(self, decisions: list[Decision]) -> list[Decision]:
        """Crawl what a run is to crawl before Prefect is started for it, for often nothing is new; and plan anew.

        A crawler that broke down is left to Prefect's retries.
        """
        if stages.SCRAPE.name not in self._unforced() or not self._crawls(stages.SCRAPE):
            return decisions
        with contextlib.suppress(StageFailed, OSError):
            self._early[stages.SCRAPE.name] = self.do(stages.SCRAPE, "scrape", self.mill.config.scrape, {})
        return plan(self.mill, force=self.selection.force)

    def use_wait(self, waiting: Callable[[], bool]) -> None:
        """Do stages up to the corpus as long as Prefect is `waiting` to start; it is told of each when its turn comes.

        A crawl has its turn. What fails here fails again then, and is told then.
        """

        def step(
            stage: Stage, section: str, config: BaseModel, /, **inputs: Artifact | Pending | Files
        ) -> Artifact | Pending:
            ready = stage is not stages.PRETRAIN and not any(isinstance(value, Pending) for value in inputs.values())
            if stage.name not in self._unforced() or not ready or self._crawls(stage) or not waiting():
                return Pending(stage.name)
            self._early[stage.name] = self.do(stage, section, config, _known(inputs))
            return self._early[stage.name][0]

        with contextlib.suppress(BadInput, StageFailed, OSError):
            dag.mill(step, self.mill.config, self.mill)

    def walk(self, stage: Stage, section: str, config: BaseModel, /, **inputs: Artifact | Pending | Files) -> Any:
        """The plain step: do the stage if the run wants it."""
        if stage.name not in self.selection.wanted:
            return Pending(stage.name)
        return self.do(stage, section, config, _known(inputs))[0]

    def do(
        self, stage: Stage, section: str, config: BaseModel, inputs: dict[str, Input]
    ) -> tuple[Artifact, str, list[str]]:
        """Do one stage or find it done. Returns the artifact, `cached` or `run`, and why it ran."""
        interrupt.check()
        if stage.name in self._early:
            return self._early.pop(stage.name)
        start = time.perf_counter()
        forced = self.selection.force == stage.name
        if stage is stages.SCRAPE:
            self._crawling = True
            artifact, reasons = self._scrape(stage, forced)
            self._crawling = False
            status = "run" if reasons else "cached"
        else:
            refuse_other_tokenizer(inputs)
            request = self.mill.request(stage, section, config, inputs)
            with self.display.stage(stage.name) as bar:
                ahead = Ahead(self.mill, self.workers, stage, self.artifacts, self._unforced())
                try:
                    artifact, found = execute(
                        self.mill.store,
                        request,
                        self.workers,
                        bar,
                        force=forced,
                        on_wait=self._waits(stage.name),
                        on_part=ahead.part,
                    )
                except StageStopped as error:
                    self.display.note(str(error))
                    interrupt.stop()
            status, reasons = found.status, found.reasons
            if stage.kind == "whole":
                ahead.all(artifact)
        refuse_empty(artifact)
        seconds = time.perf_counter() - start
        self.artifacts[stage.name] = artifact
        refs.remember(self.mill.store, self.mill.config.name, artifact)
        if stage is stages.PACK:
            refuse_unscorable(artifact)
            check_counts({name: each.manifest for name, each in self.artifacts.items()})
        folders = [self.mill.store.relative(folder) for folder in artifact.folders]
        seen = {"snapshots": folders} if stage is stages.SCRAPE else {}
        self.log(
            "stage",
            stage=stage.name,
            status=status,
            reasons=reasons,
            key=artifact.key,
            digest=artifact.digest,
            seconds=seconds,
            work_seconds=artifact.manifest["run"].get("wall_seconds", seconds) if status == "run" else 0.0,
            **seen,
        )
        if status == "run":
            self.ran += 1
            self.display.line("done", stage.name, f"{_seconds(seconds)} · {headline(stage.name, artifact.manifest)}")
        else:
            self.cached += 1
            self.display.line("cached", stage.name, f"[dim]cached · {headline(stage.name, artifact.manifest)}[/]")
        for warning in artifact.manifest["stats"].get("warnings", []):
            self.display.line("warning", stage.name, warning)
        return artifact, status, reasons

    def _scrape(self, stage: Stage, forced: bool) -> tuple[Artifact, list[str]]:
        mill = self.mill
        reasons = list(why_scrape(mill, forced))
        config = mill.config.scrape
        for source in config.sources:
            source_key = snapshots.identify(source, mill.hashes)
            lock = mill.store.root / "locks" / f"scrape-{source_key}.lock"
            with locks.held(lock, on_wait=self._waits(stage.name)):
                again = forced and source_key not in self._crawled
                newest = snapshots.newest_sequence(mill.store, source_key)
                if again or newest is None or newest < mill.snapshot_wanted(source_key):
                    with self.display.stage(stage.name) as bar:
                        snapshots.seal(mill.store, source, stage, config, source_key, bar, self.workers.each)
                    self._crawled.add(source_key)
        return snapshots.as_artifact(mill.store, config, mill.hashes), reasons

    def _crawls(self, stage: Stage) -> bool:
        """Whether the stage is to crawl."""
        sources = self.mill.config.scrape.sources
        crawls = stage is stages.SCRAPE and any(isinstance(source, CrawlSource) for source in sources)
        return crawls and any(why_scrape(self.mill, False))

    def _unforced(self) -> set[str]:
        """Stages whose parts may be found rather than made."""
        return self.selection.wanted - {self.selection.force}

    def _waits(self, stage: str) -> Callable[[], None]:
        return lambda: self.display.line("unknown", stage, "another run is at it: waiting for its result")


def refuse_other_tokenizer(inputs: dict[str, Input]) -> None:
    """BadInput where training would go on from a checkpoint that knows other ids."""
    start = inputs.get("start")
    if isinstance(start, Artifact) and start.manifest["inputs"]["tokenizer"]["digest"] != inputs["tokenizer"].digest:
        raise BadInput(
            f"Training cannot go on from the checkpoint {start.key[:12]}, which has another tokenizer than the present "
            "one: go back to its [tokenizer] section, or start from nothing with --start scratch."
        )


def refuse_unscorable(artifact: Artifact) -> None:
    """StageFailed where a split has no document: training would end without anything to measure it by."""
    documents = artifact.manifest["stats"]["documents"]
    for split, count in documents.items():
        if not count:
            raise StageFailed(
                f"The {split} split is empty: {sum(documents.values()):,} documents were packed in all, and which side "
                "one falls on depends on its URL. Loosen [policy], add sources, or change pack.val_fraction."
            )


def refuse_empty(artifact: Artifact) -> None:
    """StageFailed where nothing is left to go on with, with the reasons that took most."""
    stats = artifact.manifest["stats"]
    if artifact.stage == "extract" and not artifact.manifest["rows"]:
        raise StageFailed(
            f"No page gave a document ({_most(stats.get('rejected', {}))}): check the sources in [scrape]."
        )
    if artifact.stage == "select" and not stats["kept"]:
        raise StageFailed(
            f"Nothing survives the filters: all {stats['rows']:,} documents were dropped ({_most(stats['reasons'])}). "
            "Loosen [policy], or check language.wanted."
        )


def _most(reasons: dict[str, int]) -> str:
    ordered = sorted(((count, name) for name, count in reasons.items() if count), reverse=True)
    return ", ".join(f"{name} {count:,}" for count, name in ordered[:3]) or "there were none"


def _known(inputs: dict[str, Artifact | Pending | Files]) -> dict[str, Input]:
    return {name: value for name, value in inputs.items() if not isinstance(value, Pending)}


def _seconds(seconds: float) -> str:
    return f"{seconds:.1f} s" if seconds < 100 else f"{seconds / 60:.1f} min"
