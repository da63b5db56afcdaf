"""Decide whether a stage is up to date, and say why not.

A key is a hash of the stage, the config fields it reads, its code, its tools and the content digests of its
inputs. The *key document* keeps these in the open, so that two of them can be compared field by field.
"""

import json
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from pydantic import BaseModel

from pipeline.config import BadInput, identity
from pipeline.engine.hashes import Files
from pipeline.engine.keys import fingerprint
from pipeline.engine.stage import Stage
from pipeline.engine.store import FORMAT, Artifact, Part, Store, write_atomically

Input = Artifact | Files
NEVER_RUN = "never run"
GOES_ON = "goes on where it was stopped"
UNITS_NAMED = 3
"""How many changed functions a reason names before it only counts them."""


@dataclass(frozen=True)
class Request:
    """A stage with its config and its inputs: everything that a key is computed from."""

    stage: Stage
    section: str
    config: BaseModel
    inputs: dict[str, Input]
    code: dict[str, str]
    tools: dict[str, str]
    implementation: str

    @classmethod
    def make(cls, store: Store, stage: Stage, section: str, config: BaseModel, inputs: dict[str, Input]) -> "Request":
        """Read the stage's code and tools as they are now, and the oldest implementation accepted as the same."""
        code, tools = stage.code(), stage.tool_versions()
        implementation = accepted_as(store, stage.name, fingerprint({"code": code, "tools": tools}))
        return cls(stage, section, config, inputs, code, tools, implementation)

    def document(self) -> dict[str, Any]:
        """The key document: all that the key stands for, as plain JSON."""
        return {
            "stage": self.stage.name,
            "config": identity(self.config),
            "code": self.code,
            "tools": self.tools,
            "inputs": self._digests(),
        }

    def key(self) -> str:
        """The key of the whole artifact."""
        return self._key(self._digests())

    def shard_key(self, part: int) -> str:
        """The key of one part of a map stage: partitioned inputs count by the digest of that part alone."""
        digests = self._digests()
        for name in self.parts:
            digests[name] = self.partitioned(name)[part].digest
        if "source" in self.stage.extras:
            digests["source name"] = self.partitioned(self.stage.parts[0])[part].source
        return self._key(digests)

    def _digests(self) -> dict[str, str]:
        """What stands for each input. A stage that reads manifests depends on the configs in them too."""
        if "manifests" not in self.stage.extras:
            return {name: value.digest for name, value in self.inputs.items()}
        return {
            name: fingerprint({"digest": value.digest, "config": value.manifest["key_document"]["config"]})
            for name, value in self.inputs.items()
            if isinstance(value, Artifact)
        }

    def _key(self, digests: dict[str, str]) -> str:
        return fingerprint(
            {
                "format": FORMAT,
                "stage": self.stage.name,
                "config": identity(self.config),
                "implementation": self.implementation,
                "inputs": digests,
            }
        )

    @property
    def parts(self) -> list[str]:
        """The partitioned inputs that this request has; some stages take one only if their config asks for it."""
        return [name for name in self.stage.parts if name in self.inputs]

    def partitioned(self, name: str) -> tuple[Part, ...]:
        """The parts of the input of that name."""
        value = self.inputs[name]
        assert isinstance(value, Artifact), f"{self.stage.name} wants parts of {name}, which has none"
        return value.parts


@dataclass(frozen=True)
class Resolution:
    """What the store says of a request: `cached` with its artifact, or `run` with the reasons."""

    status: str
    key: str
    reasons: list[str] = field(default_factory=list)
    artifact: Artifact | None = None
    parts_to_do: int = 0
    parts: int = 0


def resolve(store: Store, request: Request, *, last_key: str | None = None, force: bool = False) -> Resolution:
    """Look the request up. `last_key` names the artifact to compare with (by default the stage's newest)."""
    key = request.key()
    name = request.stage.name
    manifest = store.manifest(name, key)
    if manifest is not None:
        damage = store.damage(store.artifact_folder(name, key), manifest)
        if not damage and not force:
            return Resolution("cached", key, [], store.from_manifest(manifest))
        reasons = ["forced"] if force else [str(each) for each in damage]
    elif store.artifact_folder(name, key).exists():
        reasons = ["manifest missing or unreadable"]
    else:
        reasons = explain(store, request, last_key)
    if any((store.root / "work" / f"{name}-{key}" / "state").glob("*")) and not force:
        reasons = [*reasons, GOES_ON]
    to_do, parts = 0, 0
    if request.stage.kind == "map":
        keys = shard_keys(request)
        parts = len(keys)
        to_do = parts if force else sum(store.sound_shard(name, shard_key) is None for shard_key in keys)
    return Resolution("run", key, reasons, None, to_do, parts)


def shard_keys(request: Request) -> list[str]:
    """The shard keys of all parts of a map stage, in order."""
    return [request.shard_key(i) for i in range(len(request.partitioned(request.stage.parts[0])))]


def explain(store: Store, request: Request, last_key: str | None) -> list[str]:
    """Why a request without an artifact must run: how it differs from the last artifact of its stage."""
    name = request.stage.name
    last = store.manifest(name, last_key) if last_key else None
    last = last or next(store.manifests(name), None)
    if last is None:
        return ["artifact missing" if last_key else NEVER_RUN]
    return list(differences(last["key_document"], request.document(), request.section)) or ["artifact missing"]


def differences(old: dict[str, Any], new: dict[str, Any], section: str) -> Iterator[str]:
    """The differences between two key documents of one stage, one phrase each."""
    yield from _config_differences(old["config"], new["config"], section)
    units = [u for u in sorted({*old["code"], *new["code"]}) if old["code"].get(u) != new["code"].get(u)]
    for unit in units[:UNITS_NAMED]:
        fate = "" if unit in old["code"] and unit in new["code"] else " (new)" if unit in new["code"] else " (gone)"
        yield f"code {unit}{fate}"
    if len(units) > UNITS_NAMED:
        yield f"code of {len(units) - UNITS_NAMED} more functions"
    for tool in sorted({*old["tools"], *new["tools"]}):
        before, after = old["tools"].get(tool, "unused"), new["tools"].get(tool, "unused")
        if before != after:
            yield f"{tool} {before} → {after}"
    for name in sorted({*old["inputs"], *new["inputs"]}):
        if old["inputs"].get(name) != new["inputs"].get(name):
            yield f"input {name} changed"


def _config_differences(old: Any, new: Any, path: str) -> Iterator[str]:
    if isinstance(old, dict) and isinstance(new, dict):
        for name in sorted({*old, *new}):
            yield from _config_differences(old.get(name), new.get(name), f"{path}.{name}")
    elif old != new:
        yield f"{path} {_short(old)} → {_short(new)}"


def _short(value: Any) -> str:
    text = "unset" if value is None else value if isinstance(value, str) else json.dumps(value)
    return text if len(text) <= 40 else f"{text[:37]}…"


def accepted_as(store: Store, stage: str, implementation: str) -> str:
    """The oldest implementation that `accept` declared to give what this one gives."""
    older = {row["implementation"]: row["same_as"] for row in _accepted(store) if row["stage"] == stage}
    seen = {implementation}
    while implementation in older and older[implementation] not in seen:
        implementation = older[implementation]
        seen.add(implementation)
    return implementation


def accept(store: Store, stage: Stage, last: dict[str, Any]) -> bool:
    """Declare that the present code and tools give what those of the manifest `last` gave; False if known already."""
    now = accepted_as(store, stage.name, fingerprint({"code": stage.code(), "tools": stage.tool_versions()}))
    was = accepted_as(store, stage.name, last["implementation"])
    if now == was:
        return False
    row = {
        "stage": stage.name,
        "implementation": now,
        "same_as": was,
        "at": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()),
    }
    write_atomically(_accepted_path(store), "".join(json.dumps(each) + "\n" for each in [*_accepted(store), row]))
    return True


def _accepted_path(store: Store) -> Path:
    return store.root / "accepted.jsonl"


def _accepted(store: Store) -> list[dict[str, str]]:
    path = _accepted_path(store)
    lines = path.read_text().splitlines() if path.is_file() else []
    try:
        rows = [json.loads(line) for line in lines]
        return [{name: str(row[name]) for name in ("stage", "implementation", "same_as", "at")} for row in rows]
    except (ValueError, KeyError, TypeError) as error:
        raise BadInput(f"{path} has a line that gptmill did not write ({error}): remove that line.") from error
