"""Promotion: which model is `latest`, and how a refresh decides that its own shall be.

Whoever runs the mill by hand gets what they asked for: what a run made is promoted at its end. A refresh, which nobody
may be watching, asks first: the new model must not be worse than the promoted one by more than `refresh.margin`, in
bits per byte, on either of two validation sets that neither was trained on:

    fixed     texts that were held out when this config's first model was promoted, less what was withdrawn since
    sampled   texts that are held out of the new corpus

Promotion changes a ref and never a key: a refused model stays in the store, and can be promoted by hand.
"""

import argparse
from contextlib import AbstractContextManager
from typing import TYPE_CHECKING, NamedTuple

from pyarrow import ArrowInvalid

from flows import options as kinds
from flows import refs
from flows.display import Bar, Display
from flows.models import existing_store, judge_of, trained
from flows.names import find_run
from flows.refs import References, Row
from flows.runs import Run, artifacts
from pipeline import held_out
from pipeline.config import BadInput, StageFailed
from pipeline.documents import read_table
from pipeline.engine import locks
from pipeline.engine.store import Artifact, Store

if TYPE_CHECKING:
    import pyarrow as pa

    from flows.config import MillConfig
    from flows.session import Session

MEANING = {
    "fixed": "bits per byte of texts that were held out when the first model was promoted",
    "sampled": "bits per byte of texts that are held out of the new corpus",
}


class Verdict(NamedTuple):
    """Whether a model was promoted, and why.

    numbers: by the name of the validation set its `meaning`, size, and the bits per byte of the `new` and of the
    `promoted` model; empty where there was nothing to compare.
    """

    promoted: bool
    reason: str
    numbers: dict[str, Row]


def is_asked(session: "Session") -> bool:
    """Whether a run that has come to its end ends a refresh whose model nobody has compared with the promoted one yet.

    A model that was decided on before is not asked about again where somebody has promoted another by hand since.
    """
    store, config = session.mill.store, session.mill.config.name
    model, current = session.artifacts.get("pretrain"), refs.promoted(store, config).get("stages", {}).get("pretrain")
    if model is None or not session.mill.begun.get("open"):
        return False
    known = refs.decisions(store, config)
    decided = [row for row in known if row["model"] == model.key]
    if decided and _last_promoted(known).get("by") == "hand":
        return False
    compared = {row["against"] for row in decided if row["by"] == "refresh"}
    return current is None or (current["key"] != model.key and current["key"] not in compared)


def conclude(session: "Session") -> Verdict | None:
    """Promote what a run made, or decide whether to where it ends a refresh; None where there was nothing to decide.

    A run that stopped before training leaves a promoted model as it is, with all that belongs to it.
    """
    with _deciding(session.mill.store, session.mill.config.name, session.display):
        return _conclude(session)


def _conclude(session: "Session") -> Verdict | None:
    store, config = session.mill.store, session.mill.config.name
    made, current = refs.references(session.artifacts), refs.promoted(store, config).get("stages", {}).get("pretrain")
    if "pretrain" not in made:
        if current is None:
            refs.promote(store, config, made, session.run)
        return None
    against = None if current is None else current["key"]
    verdict = None
    if is_asked(session):
        verdict = _decide(session)
        _note(session, verdict, "refresh", against)
    elif against != made["pretrain"]["key"]:
        verdict = _unpromoted(session)
        if verdict is None:
            _note(session, Verdict(True, "it was run by hand", {}), "run", against)
    if verdict is None or verdict.promoted:
        refs.promote(store, config, made, session.run)
        _fix_validation(store, config, session.artifacts)
    refs.end_refresh(store, config, session.mill.begun.get("id"))
    if verdict is not None:
        _tell(session.display, verdict, session.run)
    return verdict


def _deciding(store: Store, config: str, display: Display) -> AbstractContextManager[None]:
    """One decision on a config's models at a time, scores included: what it compares with is promoted until its end."""
    waits = "another run is deciding on a model of this config: waiting for its end"
    lock = store.root / "locks" / f"promote-{config}.lock"
    return locks.held(lock, on_wait=lambda: display.line("unknown", "promote", waits))


def _unpromoted(session: "Session") -> Verdict | None:
    """Why a run that asks nothing leaves its model unpromoted all the same; None where it promotes it.

    A model that was decided on before takes the place of what a run promoted, and undoes no word of a refresh or hand.
    """
    model, known = session.artifacts["pretrain"].key, refs.decisions(session.mill.store, session.mill.config.name)
    decided = [row for row in known if row["model"] == model]
    if not decided:
        return None
    if not decided[-1]["promoted"]:
        return Verdict(False, f"a refresh refused this model ({decided[-1]['reason']})", {})
    last = _last_promoted(known)
    if last["model"] == model or (last["by"] == "run" and not session.mill.begun.get("open")):
        return None
    by = {"run": "a run", "refresh": "a refresh", "hand": "hand"}[last["by"]]
    return Verdict(False, f"this model was promoted before, and another one since, by {by}", {})


def _last_promoted(known: list[Row]) -> Row:
    return next((row for row in reversed(known) if row["promoted"]), {})


def _note(session: "Session", verdict: Verdict, by: str, against: str | None) -> None:
    """Put a decision down in the config's list and in the run's log."""
    facts = {**verdict._asdict(), "by": by, "model": session.artifacts["pretrain"].key, "against": against}
    refs.decide(session.mill.store, session.mill.config.name, {**facts, "run": session.run})
    session.log("promotion", **facts)


def _decide(session: "Session") -> Verdict:
    """Compare the run's model with the promoted one."""
    mill = session.mill
    stages: References = refs.promoted(mill.store, mill.config.name).get("stages", {})
    if "pretrain" not in stages:
        return Verdict(True, "it is the first model of this config", {})
    promoted = mill.store.load("pretrain", stages["pretrain"]["key"])
    if promoted is None or mill.store.damage(promoted.path, promoted.manifest):
        return Verdict(True, "the promoted model is no longer in the store", {})
    texts = _validation_sets(session, stages)
    with session.display.stage("promote") as bar:
        scored = {
            who: _scores(mill.store, of, texts, mill.config, bar)
            for who, of in (("new", refs.references(session.artifacts)), ("promoted", stages))
        }
    numbers = {name: _numbers(name, scored["new"][name], scored["promoted"][name]) for name in texts}
    return judged(numbers, mill.config.refresh.margin)


def judged(numbers: dict[str, Row], margin: float) -> Verdict:
    """The verdict that follows from the bits per byte of both models on each set."""
    told = {name: f"{row['promoted']:.4f} → {row['new']:.4f} on the {name} texts" for name, row in numbers.items()}
    if not numbers:
        return Verdict(False, "there is no text to compare the models on that neither was trained on", numbers)
    worse = [name for name, row in numbers.items() if not row["new"] <= row["promoted"] * (1 + margin)]
    bits = f"bits per byte {', '.join(told[name] for name in worse or numbers)}"
    if worse:
        return Verdict(False, f"{bits}: worse by more than the margin of {margin:.1%}", numbers)
    return Verdict(True, f"{bits}: not worse by more than the margin of {margin:.1%}", numbers)


def _numbers(name: str, new: Row, promoted: Row) -> Row:
    sizes = {key: new[key] for key in ("documents", "bytes")}
    return {
        "meaning": MEANING[name],
        **sizes,
        "new": new["bits_per_byte"],
        "promoted": promoted["bits_per_byte"],
    }


def _validation_sets(session: "Session", promoted: References) -> "dict[str, list[str]]":
    """The texts of both sets by name; a set is left out where nothing of it is left."""
    store, made = session.mill.store, session.artifacts
    path = refs.validation_path(store, session.mill.config.name)
    if not path.is_file():  # the store is older than promotion
        before = {stage: store.load(stage, reference["key"]) for stage, reference in promoted.items()}
        known = {stage: artifact for stage, artifact in before.items() if artifact is not None}
        _fix_validation(store, session.mill.config.name, known if "pack" in known else made)
    try:
        tables = {"fixed": read_table(path), "sampled": _sample(made)}
    except ArrowInvalid as error:
        raise StageFailed(
            f"The fixed validation set {path} is damaged, so that no model can be compared: gptmill promote RUN "
            "--fix-validation makes another."
        ) from error
    folders = {stage: [part.folder for part in made[stage].parts] for stage in ("extract", "select")}
    share = min(least_held_out(store, key) for key in (promoted["pretrain"]["key"], made["pretrain"].key))
    left = {
        name: held_out.without(held_out.unseen(table, share), store.tombstones, folders["extract"], folders["select"])
        for name, table in tables.items()
    }
    return {name: table["text"].to_pylist() for name, table in left.items() if len(table)}


def least_held_out(store: Store, model: str) -> float:
    """The least `pack.val_fraction` of the corpora that a model was trained on, and those that it was continued from.

    A page that falls within it was in no training split of theirs: a larger share holds out the pages of a smaller too.
    """
    shares = [1.0]
    following: str | None = model
    while following is not None:
        inputs = (store.manifest("pretrain", following) or {}).get("inputs", {})
        packed = store.manifest("pack", inputs["shards"]["key"]) if inputs else None
        if packed is not None:
            shares.append(packed["key_document"]["config"]["val_fraction"])
        following = inputs.get("start", {}).get("key")
    return min(shares)


def _scores(
    store: Store, stages: References, texts: dict[str, list[str]], config: "MillConfig", bar: Bar
) -> dict[str, Row]:
    """Bits per byte of one model on each set, in ids of its own tokenizer."""
    from model.config import TrainingError
    from model.evaluation.documents import documents_score
    from model.training.hardware import reproducible, use_threads
    from pipeline.tokenize import encode

    use_threads(config.evaluate.threads)
    try:
        judge = judge_of(trained(store, config.name, stages), config.evaluate, bar)
    except TrainingError as error:
        raise StageFailed(f"The models cannot be compared: {error}") from error
    with reproducible(judge.model.embedding.weight.device):
        return {
            name: documents_score(judge, [encode(judge.encoding, text) for text in some], f"{name} texts")
            for name, some in texts.items()
        }


def _fix_validation(store: Store, config: str, made: dict[str, Artifact], *, anew: bool = False) -> None:
    """Keep a sample of what is held out of a corpus, unless there is one already."""
    path = refs.validation_path(store, config)
    if {"pack", "tokenizer"} <= made.keys() and (anew or not path.is_file()):
        held_out.write(_sample(made), path)


def _sample(made: dict[str, Artifact]) -> "pa.Table":
    return held_out.sample([part.folder for part in made["pack"].parts], made["tokenizer"].path)


def markdown(verdict: Verdict) -> str:
    """A decision as a page of its own."""
    title = "Promoted" if verdict.promoted else "Not promoted"
    lines = [f"# {title}", "", f"{verdict.reason}.", ""]
    if verdict.numbers:
        lines += ["| set | what | documents | promoted model | new model |", "|---|---|---:|---:|---:|"]
    for name, row in verdict.numbers.items():
        scores = f"{row['promoted']:.4f} | {row['new']:.4f}"
        lines.append(f"| {name} | {row['meaning']} | {row['documents']:,} | {scores} |")
    return "\n".join(lines)


def _tell(display: Display, verdict: Verdict, run: str) -> None:
    if verdict.promoted:
        display.line("done", "promote", f"promoted: {verdict.reason}")
    else:
        by_hand = f"gptmill promote {run} makes it latest all the same."
        display.line("warning", "promote", f"not promoted: {verdict.reason}. {by_hand}")


def arguments(added: argparse.ArgumentParser) -> None:
    """Declare what `gptmill promote` takes."""
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
        with _deciding(store, chosen.config, display):
            before = refs.promoted(store, chosen.config).get("stages", {}).get("pretrain", {}).get("key")
            there = [stage for stage in chosen.stages if stage in made or stage == "scrape"]
            stages = {stage: {name: chosen.stages[stage][name] for name in ("key", "digest")} for stage in there}
            refs.promote(store, chosen.config, stages, chosen.id)
            verdict = Verdict(True, "it was promoted by hand", {})
            facts = {"by": "hand", "model": made["pretrain"].key, "against": before, "run": chosen.id}
            refs.decide(store, chosen.config, {**verdict._asdict(), **facts})
            _fix_validation(store, chosen.config, made, anew=options.fix_validation)
    display.note(f"The model of {chosen.id} is the latest of {chosen.config}.")
    print(made["pretrain"].path)  # noqa: T201  (the command's result)
    return 0


def _sound_artifacts(store: Store, chosen: Run) -> dict[str, Artifact]:
    made = artifacts(store, chosen)
    damaged = store.damage(made["pretrain"].path, made["pretrain"].manifest)
    if damaged:
        raise BadInput(f"{damaged[0].file} {damaged[0].problem}: run that config again to make it again.")
    return made
