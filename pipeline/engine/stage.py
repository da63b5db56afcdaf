"""What the engine must know of a stage to run and key it; the stage itself is a plain function elsewhere."""

import importlib
import unicodedata
from collections.abc import Callable
from dataclasses import dataclass
from functools import cache
from importlib import metadata
from typing import Any, Literal

from pipeline.engine.code import ROOT, UNIT_LENGTH, kept_units
from pipeline.engine.keys import file_sha256

UNICODE = "unicode"
"""The tool of a stage that normalises text or asks what kind a character is: Python's Unicode tables."""


@dataclass(frozen=True)
class Stage:
    """A stage by name: its function is imported only where it runs.

    function: "module:function". kind: `map` calls it once for each part, `whole` once. parts: the inputs that are
    partitioned like the documents (a map stage gets one folder of each, a whole stage all folders in order).
    code_deps: what is chosen at run time and so not seen in the source. tools: distributions that shape the bytes.
    files: data files of ours that it reads, from the root. extras: further keyword arguments it wants: `work`,
    `progress`, `source`, `manifests`. brief: a part takes milliseconds, mostly the system's, so that threads do as
    well as any workers.
    """

    name: str
    function: str
    kind: Literal["map", "whole", "scrape"]
    parts: tuple[str, ...] = ()
    code_deps: tuple[str, ...] = ()
    tools: tuple[str, ...] = ()
    files: tuple[str, ...] = ()
    extras: tuple[str, ...] = ()
    retries: int = 0
    brief: bool = False

    def load(self) -> Callable[..., dict[str, Any]]:
        """The stage's function."""
        return load_function(self.function)

    def code(self) -> dict[str, str]:
        """Hashes of the first-party code that the stage reaches, by "file definition", and of its data files."""
        return dict(_code(self))

    def tool_versions(self) -> dict[str, str]:
        """Installed versions of the tools."""
        return {tool: _version(tool) for tool in self.tools}


def load_function(name: str) -> Callable[..., dict[str, Any]]:
    """Import "module:function"."""
    module, _, function = name.partition(":")
    loaded: Callable[..., dict[str, Any]] = getattr(importlib.import_module(module), function)
    return loaded


@cache
def _code(stage: Stage) -> dict[str, str]:
    files = {file: file_sha256(ROOT / file)[:UNIT_LENGTH] for file in stage.files}
    return {**kept_units([stage.function, *stage.code_deps]), **files}


@cache
def _version(distribution: str) -> str:
    if distribution == UNICODE:
        return unicodedata.unidata_version
    try:
        return metadata.version(distribution)
    except metadata.PackageNotFoundError:
        return "not installed"
