"""The validation sets of a promotion, and what two models score on them.

    fixed     texts that were held out when this config's first model was promoted, less what was withdrawn since
    sampled   texts that are held out of the new corpus

Neither model was trained on a text of either.
"""

from typing import TYPE_CHECKING

from pyarrow import ArrowInvalid

from flows import refs
from flows.display import Bar
from flows.models import judge_of, trained
from flows.refs import References, Row
from pipeline import held_out
from pipeline.config import StageFailed
from pipeline.documents import read_table
from pipeline.engine.store import Artifact, Store

if TYPE_CHECKING:
    import pyarrow as pa

    from flows.config import MillConfig
    from flows.session import Session

MEANING = {
    "fixed": "bits per byte of texts that were held out when the first model was promoted",
    "sampled": "bits per byte of texts that are held out of the new corpus",
}


def compare(session: "Session", promoted: References) -> dict[str, Row]:
    """By the name of each set what it means, its size, and the bits per byte of the run's model and the promoted one's.

    A set is left out where nothing of it is left.
    """
    texts, config = _texts(session, promoted), session.mill.config
    with session.display.stage("promote") as bar:
        new, old = (
            _scores(session.mill.store, of, texts, config, bar) for of in (refs.references(session.artifacts), promoted)
        )
    return {name: _numbers(name, new[name], old[name]) for name in texts}


def fix(store: Store, config: str, made: dict[str, Artifact], *, anew: bool = False) -> None:
    """Keep a sample of what is held out of a corpus, unless there is one already."""
    path = refs.validation_path(store, config)
    if {"pack", "tokenizer"} <= made.keys() and (anew or not path.is_file()):
        held_out.write(_sample(made), path)


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


def _texts(session: "Session", promoted: References) -> dict[str, list[str]]:
    """The texts of both sets by name; a set is left out where nothing of it is left."""
    store, made = session.mill.store, session.artifacts
    path = refs.validation_path(store, session.mill.config.name)
    if not path.is_file():  # the store is older than promotion
        before = {stage: store.load(stage, reference["key"]) for stage, reference in promoted.items()}
        known = {stage: artifact for stage, artifact in before.items() if artifact is not None}
        fix(store, session.mill.config.name, known if "pack" in known else made)
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


def _numbers(name: str, new: Row, promoted: Row) -> Row:
    sizes = {key: new[key] for key in ("documents", "bytes")}
    return {
        "meaning": MEANING[name],
        **sizes,
        "new": new["bits_per_byte"],
        "promoted": promoted["bits_per_byte"],
    }


def _sample(made: dict[str, Artifact]) -> "pa.Table":
    return held_out.sample([part.folder for part in made["pack"].parts], made["tokenizer"].path)
