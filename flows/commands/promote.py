"""`gptmill promote`: make a run's model the latest, whatever was decided on it before."""

import argparse

from flows import options as kinds
from flows import refs, validation
from flows.display import Display
from flows.models import existing_store
from flows.names import find_run
from flows.promotion import Verdict, deciding
from flows.runs import Run, artifacts
from pipeline.config import BadInput
from pipeline.engine import locks
from pipeline.engine.store import Artifact, Store


def arguments(added: argparse.ArgumentParser) -> None:
    """Declare what the command takes."""
    kinds.with_store(added)
    added.add_argument("run", metavar="RUN", help=kinds.A_RUN)
    anew = "take what this run holds out as the fixed validation set from now on"
    added.add_argument("--fix-validation", action="store_true", help=anew)


def run(options: argparse.Namespace, display: Display) -> int:
    """Make a run's model `latest`, whatever was decided on it before."""
    store = existing_store(options.store)
    with locks.using_store(store.root):
        chosen = find_run(store, options.run, "tokenizer", "pretrain")
        made = _sound_artifacts(store, chosen)
        with deciding(store, chosen.config, display):
            before = refs.promoted(store, chosen.config).get("stages", {}).get("pretrain", {}).get("key")
            there = [stage for stage in chosen.stages if stage in made or stage == "scrape"]
            stages = {stage: {name: chosen.stages[stage][name] for name in ("key", "digest")} for stage in there}
            refs.promote(store, chosen.config, stages, chosen.id)
            verdict = Verdict(True, "it was promoted by hand", {})
            facts = {"by": "hand", "model": made["pretrain"].key, "against": before, "run": chosen.id}
            refs.decide(store, chosen.config, {**verdict._asdict(), **facts})
            validation.fix(store, chosen.config, made, anew=options.fix_validation)
    display.note(f"The model of {chosen.id} is the latest of {chosen.config}.")
    print(made["pretrain"].path)  # noqa: T201  (the command's result)
    return 0


def _sound_artifacts(store: Store, chosen: Run) -> dict[str, Artifact]:
    made = artifacts(store, chosen)
    damaged = store.damage(made["pretrain"].path, made["pretrain"].manifest)
    if damaged:
        raise BadInput(f"{damaged[0].file} {damaged[0].problem}: run that config again to make it again.")
    return made
