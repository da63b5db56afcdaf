"""Outside inputs, known by their sha256.

A hash is remembered by (path, size, mtime, inode) of its file; only the sha256 enters keys. What else takes long to
compute is remembered too, by all that it is computed from.
"""

import contextlib
import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pipeline.config import BadInput
from pipeline.engine.keys import content_digest, file_sha256
from pipeline.engine.store import Store, read_object, write_atomically


@dataclass(frozen=True)
class Files:
    """Files from outside the store as an input of a stage: passed to it as a list of paths, or one path if `single`."""

    paths: tuple[Path, ...]
    digest: str
    single: bool = False


class RememberedHashes:
    """sha256 of outside files; a file is read again only where its size, mtime or inode changed."""

    def __init__(self, store: Store) -> None:
        self._store = store
        self._path = store.root / "hashes.json"
        self._known: dict[str, list] = read_object(self._path)
        self._changed = False

    def save(self) -> None:
        """Remember for later runs what was read since, where there is a store that can be written to."""
        if self._changed and self._store.exists():
            with contextlib.suppress(OSError):  # read again next time, that is all
                write_atomically(self._path, json.dumps(self._known, sort_keys=True))
            self._changed = False

    def sha256(self, path: Path) -> str:
        """The sha256 of a file; BadInput where it cannot be read."""
        try:
            facts = path.stat()
            place = [facts.st_size, facts.st_mtime_ns, facts.st_ino]
            return self.remembered(str(path.absolute()), place, lambda: file_sha256(path))
        except OSError as error:
            raise BadInput(f"{path} cannot be read: {error.strerror or error}. Check the path.") from error

    def remembered(self, name: str, made_from: list[Any], make: Callable[[], str]) -> str:
        """What `make` gives, or gave the last time where it was made from the same."""
        known = self._known.get(name)
        if known is None or known[:-1] != made_from:
            known = [*made_from, make()]
            self._known[name] = known
            self._changed = True
        return str(known[-1])

    def files(self, paths: Sequence[Path], *, single: bool = False) -> Files:
        """The files as an input; their names without folders count, their places do not."""
        facts = [(f"{i} {path.name}", 0, self.sha256(path)) for i, path in enumerate(paths)]
        self.save()
        return Files(tuple(paths), content_digest(facts), single)
