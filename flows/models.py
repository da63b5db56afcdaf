"""Which model a command means: a folder, the promoted one of a config, or whichever was promoted last."""

from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

from flows.config import load_config
from flows.display import Bar
from flows.names import find_run
from flows.refs import LATEST, References, last_promoted, promoted
from pipeline.config import BadInput
from pipeline.engine.store import Store, read_manifest

if TYPE_CHECKING:
    from model.config import EvaluateConfig
    from model.evaluate import Judge


class Model(NamedTuple):
    """Where a model and its tokenizer lie, and what people call it."""

    name: str
    folder: Path
    tokenizer: Path


def latest(store: Store, config: Path | None) -> tuple[str, References]:
    """The given config's name and promoted artifacts, or those of whichever config's model was promoted last."""
    if config:
        name = load_config(config).name
        return name, promoted(store, name).get("stages", {})
    found = last_promoted(store)
    if found is None:
        raise BadInput(f"There is no trained model in {store.root}: gptmill run makes one, or name a config (-c).")
    return found[0], found[1].get("stages", {})


def latest_model(root: Path, config: Path | None = None) -> Model:
    """The promoted model of a config, or the one of all that was promoted last."""
    return trained(existing_store(root), *latest(existing_store(root), config))


def model_in(folder: Path, root: Path, config: Path | None = None) -> Model:
    """The model in a folder, its tokenizer being beside it, or that of the run that made it, or else the latest.

    Raises `BadInput` where none of them is there.
    """
    from model.folder import has_tokenizer

    if not folder.is_dir():
        raise BadInput(f"{folder} is no folder: give one with a checkpoint, or one from Hugging Face.")
    if has_tokenizer(folder):
        return Model(str(folder), folder, folder)
    made_from = (read_manifest(folder) or {}).get("inputs", {})
    if "tokenizer" in made_from:
        return Model(str(folder), folder, folder.resolve().parents[1] / "tokenizer" / made_from["tokenizer"]["key"])
    if not Store(root).exists():
        raise BadInput(f"{folder} has no tokenizer beside its model, and there is no store in {root} that has one.")
    name, stages = latest(Store(root), config)
    if "tokenizer" not in stages:
        raise BadInput(f"{folder} has no tokenizer beside its model, and the config {name} has none yet.")
    return Model(str(folder), folder, Store(root).artifact_folder("tokenizer", stages["tokenizer"]["key"]))


def model_named(name: str, root: Path) -> Model:
    """The model in a folder, or the promoted one of the config of that name, or that of a run, or `latest` of all."""
    if Path(name).is_dir():
        return model_in(Path(name), root)
    if name == LATEST:
        found = latest_model(root)
        return found._replace(name=f"{LATEST} ({found.name})")
    if not Store(root).exists():
        raise BadInput(f"{name} is no folder, and there is no store in {root} that could have a model of that name.")
    store = Store(root)
    if Path(name).name == name and (of_config := promoted(store, name)):
        return trained(store, name, of_config.get("stages", {}))
    try:
        return trained(store, name, find_run(store, name, "tokenizer", "pretrain").stages)
    except BadInput as error:
        raise BadInput(f"{name} is no folder and no config with results. {error}") from error


def existing_store(path: Path) -> Store:
    """The store in a folder; raises `BadInput` where there is none."""
    store = Store(path)
    if not store.exists():
        raise BadInput(f"There is no store in {path}: give one with --store DIR, or make one with gptmill run.")
    return store


def trained(store: Store, name: str, stages: References) -> Model:
    """The model among a run's artifacts, with the tokenizer that it was trained with; BadInput where there is none."""
    if "pretrain" not in stages or "tokenizer" not in stages:
        raise BadInput(f"There is no trained model of {name} in {store.root}: gptmill run makes one.")
    key = stages["pretrain"]["key"]
    made_from = (store.manifest("pretrain", key) or {}).get("inputs", {})
    tokenizer = made_from.get("tokenizer", stages["tokenizer"])
    return Model(name, store.artifact_folder("pretrain", key), store.artifact_folder("tokenizer", tokenizer["key"]))


def judge_of(chosen: Model, config: "EvaluateConfig", bar: Bar) -> "Judge":
    """A model ready to be scored; raises `TrainingError` where it cannot be loaded."""
    from model.evaluate import Judge
    from model.folder import open_folder
    from model.training.hardware import choose_device

    model, encoding = open_folder(chosen.folder, chosen.tokenizer)
    return Judge(model.to(choose_device(config.device)).eval(), encoding, config, bar)
