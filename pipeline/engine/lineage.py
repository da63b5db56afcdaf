"""Lineage: which artifacts an artifact was made from, found again through what its manifest says of its inputs."""

from collections.abc import Mapping
from typing import Any

from pipeline.engine.store import Artifact, Store


def lineage(store: Store, manifest: Mapping[str, Any]) -> dict[str, Artifact]:
    """The artifact of a manifest and all that it descends from, by stage.

    What is no longer in the store is left out with what only it descends from; snapshots are not among them.
    """
    found: dict[str, Artifact] = {}
    todo = [(manifest["stage"], manifest["key"])]
    while todo:
        stage, key = todo.pop()
        artifact = None if stage in found else store.load(stage, key)
        if artifact is not None:
            found[stage] = artifact
            todo += [(value["stage"], value["key"]) for value in artifact.manifest["inputs"].values() if "key" in value]
    return found
