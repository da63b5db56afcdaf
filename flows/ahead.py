"""Parts begun ahead of their stage's turn, so that no worker is idle while a stage's last parts are being made.

Stages take turns, but a part of one needs no more than its own inputs. A part is named by a key of what it depends on
and appears by a rename, so when it was made changes nothing: the stage finds it made, or being made, when its turn
comes. Parts that come earlier in the DAG are begun earlier.
"""

from collections.abc import Iterable
from dataclasses import replace
from pathlib import Path
from typing import Any

from pydantic import BaseModel

from flows import dag
from flows.plan import Mill, Pending
from pipeline.engine.execute import begin_part
from pipeline.engine.executor import Workers
from pipeline.engine.resolve import Request
from pipeline.engine.stage import Stage
from pipeline.engine.store import Artifact, Part


class Ahead:
    """What follows one stage, begun part by part as that stage's parts come in."""

    def __init__(
        self, mill: Mill, workers: Workers, stage: Stage, known: dict[str, Artifact], wanted: Iterable[str]
    ) -> None:
        self._mill, self._workers, self._stage = mill, workers, stage
        self._known, self._wanted = known, frozenset(wanted)
        self._followers: list[Request] | None = None

    def part(self, index: int, part: Part) -> None:
        """Begin what needs this part of the stage, and else only what is known."""
        if not self._workers.started:
            return
        if self._followers is None:
            coming = Artifact(self._stage.name, "", "", Path())
            self._followers = [each for each in self._ready(coming) if self._stage.name not in _whole(each)]
        for request in self._followers:
            begin_part(self._mill.store, _of_part(request, index, self._stage.name, part), self._workers, index)

    def all(self, artifact: Artifact) -> None:
        """Begin all parts of what needs the stage, which is done now."""
        if self._workers.started:
            for request in self._ready(artifact):
                for index in range(len(request.partitioned(request.stage.parts[0]))):
                    begin_part(self._mill.store, _of_part(request, index), self._workers, index)

    def _ready(self, artifact: Artifact) -> list[Request]:
        """Map stages not yet done that take this artifact and else only known ones."""
        ready: list[Request] = []
        known = {**self._known, artifact.stage: artifact}

        def step(stage: Stage, section: str, config: BaseModel, /, **inputs: Any) -> Artifact | Pending:
            if stage.name in known:
                return known[stage.name]
            pending = any(isinstance(value, Pending) for value in inputs.values())
            takes = any(isinstance(value, Artifact) and value.stage == artifact.stage for value in inputs.values())
            if stage.kind == "map" and not stage.brief and stage.name in self._wanted and takes and not pending:
                ready.append(self._mill.request(stage, section, config, inputs))
            return Pending(stage.name)

        dag.mill(step, self._mill.config, self._mill)
        return ready


def _whole(request: Request) -> set[str]:
    """The stages whose artifacts a request takes as a whole."""
    inputs = request.inputs.items()
    return {value.stage for name, value in inputs if isinstance(value, Artifact) and name not in request.parts}


def _of_part(request: Request, index: int, stage: str = "", part: Part | None = None) -> Request:
    """`request` with one part of each partitioned input, that of `stage` being `part`."""
    inputs = dict(request.inputs)
    for name in request.parts:
        value = inputs[name]
        assert isinstance(value, Artifact)
        chosen = part if part is not None and value.stage == stage else value.parts[index]
        inputs[name] = replace(value, parts=(chosen,))
    return replace(request, inputs=inputs)
