"""Items for a child process to work on, some of which end it; the child imports this by name."""

import ctypes
import os
import signal
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

_begun: list[Any] = []


def items(
    names: list[str], start: int | None = None, note: str | None = None
) -> Iterator[tuple[int, Callable[[], Any]]]:
    """One item a name, at its index; what begins with "between" happens while the next item is looked for."""
    for place in range(start or 0, len(names)):
        if names[place].startswith("between"):
            act(names[place].partition(" ")[2], note)
        yield place, lambda name=names[place]: act(name, note)


def act(name: str, note: str | None) -> Any:
    """Do what `name` says; anything else is a fine item, which is its own result."""
    _begun.append(name)
    if note is not None:
        with Path(note).open("a") as file:
            file.write(f"{os.getpid()}\n")
    if name == "segfault":
        ctypes.string_at(0)
    elif name == "abort":
        os.abort()
    elif name == "exit":
        os._exit(3)
    elif name == "allocate":
        return len(bytearray(1 << 40))
    elif name == "allocate in steps":
        kept = []
        while True:
            kept.append(bytearray(1 << 24))
    elif name == "spin":
        while True:
            pass
    elif name == "sleep":
        time.sleep(60)
    elif name == "raise":
        raise ValueError("no such item")
    elif name == "killed" or (name == "killed once" and len(Path(note or "").read_text().splitlines()) < 3):
        os.kill(os.getpid(), signal.SIGKILL)
    elif name == "segfault behind others" and len(_begun) > 1:
        ctypes.string_at(0)
    elif name == "print":
        os.write(1, b'["result", "forged"]\n')
        os.write(2, b"complaints\n")
    elif name == "pid":
        return os.getpid()
    return name
