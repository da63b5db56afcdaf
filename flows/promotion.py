"""Promotion: which model is `latest`, and how a refresh decides that its own shall be.

Whoever runs the mill by hand gets what they asked for: what a run made is promoted at its end. A refresh, which nobody
may be watching, asks first: the new model must not be worse than the promoted one by more than `refresh.margin`, in
bits per byte, on either of two validation sets that neither was trained on (flows/validation.py).

Promotion changes a ref and never a key: a refused model stays in the store, and can be promoted by hand.
"""

from contextlib import AbstractContextManager
from typing import TYPE_CHECKING, NamedTuple

from flows import refs, validation
from flows.display import Display
from flows.refs import References, Row
from pipeline.engine import locks
from pipeline.engine.store import Store

if TYPE_CHECKING:
    from flows.session import Session


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
    with deciding(session.mill.store, session.mill.config.name, session.display):
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
        validation.fix(store, config, session.artifacts)
    refs.end_refresh(store, config, session.mill.begun.get("id"))
    if verdict is not None:
        _tell(session.display, verdict, session.run)
    return verdict


def deciding(store: Store, config: str, display: Display) -> AbstractContextManager[None]:
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
    return judged(validation.compare(session, stages), mill.config.refresh.margin)


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
