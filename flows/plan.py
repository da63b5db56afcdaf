"""The planner: walks the DAG without running anything and says of every stage what would happen and why."""

from collections.abc import Iterator
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

from pydantic import BaseModel

from flows import dag, refs, stages
from flows.config import MillConfig
from model.config import TrainingError
from model.evaluation.sets import read_sets
from pipeline import snapshots
from pipeline.config import BadInput
from pipeline.engine.hashes import Files, RememberedHashes
from pipeline.engine.resolve import NEVER_RUN, Input, Request, resolve
from pipeline.engine.stage import Stage
from pipeline.engine.store import Artifact, Store
from pipeline.language import default_model, refuse_unknown
from pipeline.sources import Source


@dataclass(frozen=True)
class Pending:
    """An artifact that cannot be told yet, because the stage will run or waits for one that will."""

    stage: str
    upstream: frozenset[str] = frozenset()

    def of_first_snapshots(self, _count: int) -> "Pending":
        """Some parts of what is not there are not there either."""
        return self


@dataclass(frozen=True)
class Decision:
    """What the plan says of one stage; `key`, `digest` and `path` only where they are known."""

    stage: str
    status: str
    reasons: list[str] = field(default_factory=list)
    key: str | None = None
    digest: str | None = None
    path: str | None = None
    parts_to_do: int = 0
    parts: int = 0

    def as_json(self) -> dict[str, Any]:
        """The fields that scripts rely on."""
        names = ("stage", "status", "reasons", "key", "digest", "path")
        return {name: getattr(self, name) for name in names}


class Mill:
    """One config in one store: the outside files, the newest artifacts, and what a step needs to know."""

    def __init__(self, store: Store, config: MillConfig) -> None:
        self.store = store
        self.config = config
        # How the last refresh began, read once: what another run does to it meanwhile is no matter of this one.
        self.begun = refs.last_refresh(store, config.name)
        self.hashes = RememberedHashes(store)

    @cached_property
    def evaluation_sets(self) -> Files:
        """The evaluation sets that the config names; BadInput here, before anything runs, where one is no set."""
        paths = [Path(path) for path in self.config.evaluate.sets]
        try:
            read_sets(paths, self.config.evaluate.tasks)
        except TrainingError as error:
            raise BadInput(f"evaluate.sets: {error}") from error
        return self.hashes.files(paths)

    @cached_property
    def language_model(self) -> Files:
        """The fastText model, which an installed package carries; BadInput where it knows no wanted language."""
        model = default_model()
        refuse_unknown(self.config.language.wanted, model)
        return self.hashes.files([model], single=True)

    @cached_property
    def tokenizer_model(self) -> Files:
        """The SentencePiece model that the config names."""
        return self.hashes.files([Path(self.config.tokenizer.model)], single=True)

    @cached_property
    def tombstones(self) -> Files:
        """The store's takedown list, none if nothing was ever taken down."""
        path = self.store.tombstones
        return self.hashes.files([path] if path.is_file() else [], single=True)

    def snapshot_wanted(self, source_key: str) -> int:
        """The number of the snapshot that a source must have at least: the first, unless a refresh wants a later."""
        wanted: int = self.begun.get("crawls", {}).get(source_key, 0)
        return wanted

    def start(self, shards: Artifact | Pending) -> Artifact | None:
        """The checkpoint that training on these shards goes on from; None where it starts from nothing.

        The last refresh settled it: from then on, training on another corpus than that of the model that was promoted
        when it began goes on from that model or starts from nothing, and training on the same one starts where that
        model's own did, unless a run was told otherwise. Promotion changes nothing of this. BadInput where the
        checkpoint is gone.
        """
        reference = self.begun.get("stages", {}).get("pretrain")
        if reference is None or isinstance(shards, Pending):
            return None
        promoted = self.store.load("pretrain", reference["key"])
        made_from = {} if promoted is None else promoted.manifest["inputs"]
        if made_from and made_from["shards"]["digest"] == shards.digest and not self.begun.get("any_corpus"):
            return self._checkpoint(made_from["start"]["key"]) if "start" in made_from else None
        return self._checkpoint(reference["key"]) if self.begun["start"] == "continue" else None

    def _checkpoint(self, key: str) -> Artifact:
        found = self.store.load("pretrain", key)
        if found is None:
            raise BadInput(
                f"The checkpoint pretrain/{key} that training goes on from is no longer in {self.store.root}: "
                "start from nothing with --start scratch."
            )
        return found

    def request(self, stage: Stage, section: str, config: BaseModel, inputs: dict[str, Input]) -> Request:
        """The request that a step makes of the store."""
        return Request.make(self.store, stage, section, config, inputs)


class Graph:
    """A step that only draws: it notes which stage takes what from which."""

    def __init__(self) -> None:
        self.inputs: dict[str, list[str]] = {}

    def __call__(self, stage: Stage, _section: str, _config: BaseModel, /, **inputs: Pending | Files) -> Pending:
        """Note the stage and where its inputs come from."""
        self.inputs[stage.name] = sorted({value.stage for value in inputs.values() if isinstance(value, Pending)})
        return Pending(stage.name)

    def upstream(self, stage: str) -> set[str]:
        """All stages that the stage depends on."""
        found: set[str] = set()
        todo = [*self.inputs[stage]]
        while todo:
            name = todo.pop()
            if name not in found:
                found.add(name)
                todo += self.inputs[name]
        return found


def graph(mill: Mill) -> Graph:
    """The DAG of a config as names and edges."""
    drawn = Graph()
    dag.mill(drawn, mill.config, mill)
    return drawn


def plan(mill: Mill, *, force: str | None = None) -> list[Decision]:
    """What `run` would do with every stage, in the DAG's order."""
    decisions: list[Decision] = []
    newest = refs.newest(mill.store, mill.config.name)

    def step(
        stage: Stage, section: str, config: BaseModel, /, **inputs: Artifact | Pending | Files
    ) -> Artifact | Pending:
        decision, artifact = _decide(mill, newest, force, stage, section, config, inputs)
        decisions.append(decision)
        waiting = [value for value in inputs.values() if isinstance(value, Pending)]
        upstream = frozenset().union(*({value.stage} | value.upstream for value in waiting))
        return artifact or Pending(stage.name, upstream)

    dag.mill(step, mill.config, mill)
    return decisions


def _decide(
    mill: Mill,
    newest: refs.References,
    force: str | None,
    stage: Stage,
    section: str,
    config: BaseModel,
    inputs: dict[str, Artifact | Pending | Files],
) -> tuple[Decision, Artifact | None]:
    if stage is stages.SCRAPE:
        reasons = list(why_scrape(mill, force == stage.name))
        if reasons:
            return Decision(stage.name, "run", reasons), None
        artifact = snapshots.as_artifact(mill.store, mill.config.scrape, mill.hashes)
        return _cached(stage, artifact), artifact
    pending = [value for value in inputs.values() if isinstance(value, Pending)]
    if pending:
        # Only the nearest are named: what these wait for themselves stands in their own lines.
        further = frozenset().union(*(value.upstream for value in pending))
        waiting = sorted({value.stage for value in pending} - further)
        return Decision(stage.name, "unknown", [f"after {', '.join(waiting)}"]), None
    known: dict[str, Input] = {name: value for name, value in inputs.items() if not isinstance(value, Pending)}
    request = mill.request(stage, section, config, known)
    last_key = newest.get(stage.name, {}).get("key")
    found = resolve(mill.store, request, last_key=last_key, force=force == stage.name)
    if found.artifact is not None:
        return _cached(stage, found.artifact), found.artifact
    path = str(mill.store.artifact_folder(stage.name, found.key))
    return Decision(stage.name, "run", found.reasons, found.key, None, path, found.parts_to_do, found.parts), None


def why_scrape(mill: Mill, force: bool) -> Iterator[str]:
    """Why sources must be crawled; nothing where each has the sealed snapshots that it should have."""
    if force:
        yield "forced"
        return
    for _, why in to_crawl(mill):
        yield why


def to_crawl(mill: Mill) -> Iterator[tuple[Source, str]]:
    """The sources that lack a snapshot which they should have, and why each is crawled."""
    for source in mill.config.scrape.sources:
        source_key = snapshots.identify(source, mill.hashes)
        newest = snapshots.newest_sequence(mill.store, source_key)
        if newest is None:
            yield source, f"{NEVER_RUN}: source {source.name} has no sealed snapshot"
        elif newest < mill.snapshot_wanted(source_key):
            yield source, f"a refresh crawls source {source.name} again"


def _cached(stage: Stage, artifact: Artifact) -> Decision:
    return Decision(stage.name, "cached", [], artifact.key, artifact.digest, str(artifact.path))


def refuse_unknown_stage(name: str) -> None:
    """BadInput for a stage that does not exist."""
    if name not in stages.BY_NAME:
        raise BadInput(f"There is no stage {name}; there are {', '.join(stages.BY_NAME)}.")
