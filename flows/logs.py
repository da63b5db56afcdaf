"""Lists that grow by a line: JSON, one object a line, the last of which a kill may have cut off."""

import json
import os
from pathlib import Path
from typing import Any

Row = dict[str, Any]


def append(path: Path, row: Row) -> None:
    """Add a row on a line of its own, though the one before it may have been cut off."""
    with path.open("ab+") as file:
        cut = False
        if file.tell():
            file.seek(-1, os.SEEK_END)
            cut = file.read(1) != b"\n"
        file.write(b"\n" * cut + json.dumps(row).encode() + b"\n")


def read(path: Path) -> list[Row]:
    """The rows of a list, without what was cut off; none where there is no such file."""
    if not path.is_file():
        return []
    rows = []
    for line in path.read_text(encoding="utf-8", errors="replace").split("\n"):
        try:
            rows.append(json.loads(line))
        except ValueError:
            continue
    return rows
