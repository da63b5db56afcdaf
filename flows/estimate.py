"""What the stages of a plan would cost: seconds, from what the last runs in the store took.

A map stage is estimated by its parts, a training by its tokens and weights, anything else by what it took last time.
A stage of which nobody knows yet whether it will run has an upper figure: all of its work, of the size it had. So has
one that goes on where it was stopped: how much of it is done is not looked for.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from itertools import islice
from typing import Any

from pydantic import ValidationError

from flows import refs, stages
from flows.plan import Decision, Mill, to_crawl
from model.config import PretrainConfig
from pipeline import snapshots
from pipeline.engine.resolve import GOES_ON
from pipeline.engine.store import Store
from pipeline.summary import as_duration

Manifest = dict[str, Any]

LOOKED_AT = 20
"""Artifacts of a stage that are looked at for one that did as much work: of a large corpus each is megabytes."""


@dataclass(frozen=True)
class Estimate:
    """What a stage would take: None where its like was never measured; `upper` where all or some of it may not run."""

    seconds: float | None
    upper: bool = False

    def as_json(self) -> dict[str, float | bool | None]:
        """The fields that scripts rely on."""
        rounded = None if self.seconds is None else round(self.seconds, 3)
        return {"estimated_seconds": rounded, "estimate_is_upper": self.upper}

    def __str__(self) -> str:
        if self.seconds is None:
            return "not measured"
        if self.seconds < 1:
            return "under 1 s"
        return f"{'up to' if self.upper else 'about'} {as_duration(self.seconds)}"


CACHED = Estimate(0.0)
"""What needs no work."""


def estimates(mill: Mill, decisions: Sequence[Decision], force: str | None = None) -> dict[str, Estimate]:
    """The estimate of each stage by name; 0 s for what is cached."""
    return {decision.stage: _estimate(mill, decision, force) for decision in decisions}


def total(found: dict[str, Estimate]) -> str:
    """A line about all stages together; nothing where all are cached."""
    if all(each == CACHED for each in found.values()):
        return ""
    expected = Estimate(sum(each.seconds or 0.0 for each in found.values() if not each.upper))
    at_most = Estimate(sum(each.seconds or 0.0 for each in found.values()), upper=True)
    ranges = dict.fromkeys([str(expected), *([str(at_most)] if at_most.seconds != expected.seconds else [])])
    unmeasured = [stage for stage, each in found.items() if each.seconds is None]
    if len(unmeasured) == len(found):
        return "Nothing was measured here yet: how long it takes is not known."
    without = f", without {', '.join(unmeasured)}, never measured here" if unmeasured else ""
    return f"In all {', '.join(ranges)}, start-up aside, going by the last runs{without}."


def _estimate(mill: Mill, decision: Decision, force: str | None) -> Estimate:
    if decision.status == "cached":
        return CACHED
    if decision.stage == stages.SCRAPE.name:
        return Estimate(_crawl_seconds(mill, everything=force == decision.stage))
    unknown = decision.status == "unknown"
    upper = unknown or GOES_ON in decision.reasons
    last = _measured(mill, decision)
    if last is None:
        return Estimate(None, upper)
    if stages.BY_NAME[decision.stage].kind == "map":
        return Estimate(_map_seconds(last["run"], len(last["parts"]) if unknown else decision.parts_to_do), upper)
    seconds = float(last["run"]["wall_seconds"])
    if decision.stage == stages.PRETRAIN.name:
        seconds = _training_seconds(last, mill.config.pretrain)
    return Estimate(seconds, upper)


def _crawl_seconds(mill: Mill, *, everything: bool) -> float | None:
    """What the sources to be crawled took last time, one after another; None where one was never crawled."""
    config = mill.config.scrape
    wanted = config.sources if everything else [source for source, _ in to_crawl(mill)]
    taken = [snapshots.last_seconds(mill.store, source.name) for source in wanted]
    known = [seconds for seconds in taken if seconds is not None]
    return sum(known) if len(known) == len(taken) else None


def _measured(mill: Mill, decision: Decision) -> Manifest | None:
    """The newest artifact of the stage that did as much work as is to be done, or the one that did most of those seen.

    This config's own comes first; one that only found its parts done tells nothing.
    """
    best: Manifest | None = None
    newest = refs.newest(mill.store, mill.config.name).get(decision.stage, {})
    for manifest in _newest(mill.store, decision.stage, newest.get("key")):
        made = manifest["run"].get("parts_made", 1)
        if made > (best["run"].get("parts_made", 1) if best else 0):
            best = manifest
        if best is not None and made >= decision.parts_to_do:
            break
    return best


def _newest(store: Store, stage: str, first: str | None) -> Iterable[Manifest]:
    """The manifest of that key, then those of the stage, newest first."""
    manifest = store.manifest(stage, first) if first else None
    if manifest is not None:
        yield manifest
    yield from islice(store.manifests(stage), LOOKED_AT)


def _map_seconds(run: Manifest, parts: int) -> float:
    """Seconds for so many parts of a map stage, shared among as many workers as there were.

    The clock of the stage itself tells less: parts are made ahead of its turn, while an earlier stage has its own.
    """
    each = run["seconds"] / run["parts_made"]
    return float(each * max(parts / run["jobs"], min(parts, 1)))


def _training_seconds(last: Manifest, config: PretrainConfig) -> float:
    """What a training would take at the pace of the last, in proportion to its tokens and to the weights of its blocks.

    As long as the last where that cannot be told: with a budget in minutes, or after settings that no longer exist.
    """
    spent = last["stats"]["seconds"]
    # Of a training that was stopped and went on, the wall clock saw only the end.
    before_and_after = max(last["run"]["wall_seconds"] - spent["train"], spent["compile"])
    try:
        before = PretrainConfig.model_validate(last["key_document"]["config"])
    except ValidationError:
        return float(before_and_after + spent["train"])
    old, new = _training_work(before), _training_work(config)
    return float(before_and_after + spent["train"] * (new / old if old and new else 1))


def _training_work(config: PretrainConfig) -> int:
    """What a training's time grows with; 0 where its budget is in minutes."""
    return (config.step_budget or 0) * config.batch_tokens * config.block_weights
