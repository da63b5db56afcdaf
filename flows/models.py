"""Which model a command means: a folder, the newest of a config, or whichever was trained last."""

from pathlib import Path
from typing import NamedTuple

from flows.config import load_config
from flows.plan import Mill
from flows.runs import LATEST, find_run
from flows.session import latest_model
from pipeline.config import BadInput
from pipeline.engine.store import Store, read_manifest, read_object

Latest = dict[str, dict[str, str]]
"""{stage: {key, digest}} of the newest artifacts of a config."""


class Model(NamedTuple):
    """Where a model and its tokenizer lie, and what people call it."""

    name: str
    folder: Path
    tokenizer: Path


def newest(store: Store, config: Path | None) -> tuple[str, Latest]:
    """The given config's name and latest artifacts, or those of whichever config trained last."""
    if config:
        loaded = load_config(config)
        return loaded.name, Mill(store, loaded).latest()
    found = latest_model(store.root)
    if found is None:
        raise BadInput(f"There is no trained model in {store.root}: gptmill run makes one, or name a config (-c).")
    return found


def newest_model(root: Path, config: Path | None = None) -> Model:
    """The newest model of a config, or of all."""
    return _trained(existing_store(root), *newest(existing_store(root), config))


def model_in(folder: Path, root: Path, config: Path | None = None) -> Model:
    """The model in a folder, its tokenizer being beside it, or that of the run that made it, or else the newest.

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
    name, latest = newest(Store(root), config)
    if "tokenizer" not in latest:
        raise BadInput(f"{folder} has no tokenizer beside its model, and the config {name} has none yet.")
    return Model(str(folder), folder, Store(root).artifact_folder("tokenizer", latest["tokenizer"]["key"]))


def model_named(name: str, root: Path) -> Model:
    """The model in a folder, or the newest of the config of that name, or that of a run, or `latest` of all."""
    if Path(name).is_dir():
        return model_in(Path(name), root)
    if name == LATEST:
        found = newest_model(root)
        return found._replace(name=f"{LATEST} ({found.name})")
    if not Store(root).exists():
        raise BadInput(f"{name} is no folder, and there is no store in {root} that could have a model of that name.")
    store = Store(root)
    if name in configs(store):
        return _trained(store, name, read_object(root / "refs" / name / "latest.json").get("stages", {}))
    try:
        return _trained(store, name, find_run(store, name, "tokenizer", "pretrain").stages)
    except BadInput as error:
        raise BadInput(f"{name} is no folder and no config with results. {error}") from error


def configs(store: Store) -> set[str]:
    """The names of the configs that have results."""
    return {path.parent.name for path in (store.root / "refs").glob(f"*/{LATEST}.json")}


def existing_store(path: Path) -> Store:
    """The store in a folder; raises `BadInput` where there is none."""
    store = Store(path)
    if not store.exists():
        raise BadInput(f"There is no store in {path}: give one with --store DIR, or make one with gptmill run.")
    return store


def _trained(store: Store, name: str, latest: Latest) -> Model:
    if "pretrain" not in latest or "tokenizer" not in latest:
        raise BadInput(f"There is no trained model of {name} in {store.root}: gptmill run makes one.")
    folder, tokenizer = (store.artifact_folder(stage, latest[stage]["key"]) for stage in ("pretrain", "tokenizer"))
    return Model(name, folder, tokenizer)
