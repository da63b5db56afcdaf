"""Keys and digests: names computed from content.

The same values give the same key in every process, on every machine and Python version. What has no
canonical form (a set, a float that is not finite, any object) is an error, never a guess.
"""

import hashlib
import json
import math
from collections.abc import Iterable
from pathlib import Path
from typing import Any

KEY_LENGTH = 32
"""Hex digits of a key: 128 bits, so that two keys never meet by accident and paths stay readable."""

READ_BYTES = 1 << 20


def canonical_json(value: Any) -> bytes:
    """The one JSON form of `value`: sorted keys, no spaces, ASCII. TypeError for what has no such form."""
    _refuse_unstable(value, "value")
    return json.dumps(value, sort_keys=True, separators=(",", ":"), ensure_ascii=True, allow_nan=False).encode()


def fingerprint(value: Any) -> str:
    """The key of a JSON value: the first 32 hex digits of the sha256 of its canonical form."""
    return hashlib.sha256(canonical_json(value)).hexdigest()[:KEY_LENGTH]


def content_digest(files: Iterable[tuple[str, int, str]]) -> str:
    """The digest of a set of files given as (relative path, size in bytes, sha256 hex), whatever their order."""
    digest = hashlib.sha256()
    for name, size, sha256 in sorted(files):
        digest.update(f"{name}\0{size}\0{sha256}\n".encode())
    return digest.hexdigest()


def file_sha256(path: Path) -> str:
    """The sha256 of a file's bytes, in hex."""
    digest = hashlib.sha256()
    with path.open("rb") as file:
        while block := file.read(READ_BYTES):
            digest.update(block)
    return digest.hexdigest()


def _refuse_unstable(value: Any, where: str) -> None:
    if value is None or isinstance(value, (bool, int, str)):
        return
    if isinstance(value, float):
        if not math.isfinite(value):
            raise TypeError(f"{where} is {value}, which has no canonical form")
    elif isinstance(value, (list, tuple)):
        for index, item in enumerate(value):
            _refuse_unstable(item, f"{where}[{index}]")
    elif isinstance(value, dict):
        for name, item in value.items():
            if not isinstance(name, str):
                raise TypeError(f"{where} has a key that is no string: {name!r}")
            _refuse_unstable(item, f"{where}.{name}")
    else:
        raise TypeError(f"{where} is a {type(value).__name__}, which has no canonical form")
