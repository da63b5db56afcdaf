"""Lineage: which artifacts an artifact was made from, found again through what its manifest says of its inputs."""

from collections import deque
from collections.abc import Mapping
from typing import Any

from pipeline.engine.store import Artifact, Store


def lineage(store: Store, manifest: Mapping[str, Any]) -> dict[str, Artifact]:
    """The artifact of a manifest and all that it descends from, by stage; of several of one stage, the nearest.

    A tokenizer may be older than its corpus, made from what an earlier run extracted. What is no longer in the store is
    left out with what only it descends from; snapshots are not among them.
    """
    found: dict[str, Artifact] = {}
    todo = deque([(manifest["stage"], manifest["key"])])
    while todo:
        stage, key = todo.popleft()
        artifact = None if stage in found else store.load(stage, key)
        if artifact is not None:
            found[stage] = artifact
            todo += [(value["stage"], value["key"]) for value in artifact.manifest["inputs"].values() if "key" in value]
    return found
