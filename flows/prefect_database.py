"""Prefect's database as it is before the first run: made once on a machine, and copied into each new store.

Its tables are the outcome of hundreds of migrations, which take 3 to 4 s of processor time. A server looks at what it
finds all the same, and migrates what is older. Where anything here fails, it makes the database itself.
"""

import contextlib
import os
import secrets
import shutil
import sqlite3
from importlib import metadata
from pathlib import Path

from pipeline.engine.store import caches

DATABASE_FILE = "prefect.db"
"""What Prefect calls it, in its home."""


def begin(home: Path) -> bool:
    """Give a new `home` a copy of the database; tells whether it still has none, so that the server will make one."""
    database = home / DATABASE_FILE
    if database.exists():
        return False
    aside = _aside(database)
    with contextlib.suppress(OSError):
        shutil.copyfile(_kept(), aside)
        os.link(aside, database)  # and not over one that another run is using by now
    aside.unlink(missing_ok=True)
    return not database.exists()


def keep(home: Path) -> None:
    """Keep a copy of the database that a server has just made in `home`, unless a run is written in it already."""
    kept = _kept()
    aside = _aside(kept)
    with contextlib.suppress(OSError, sqlite3.Error):
        kept.parent.mkdir(parents=True, exist_ok=True)
        with (
            contextlib.closing(sqlite3.connect(home / DATABASE_FILE)) as made,
            contextlib.closing(sqlite3.connect(aside)) as copied,
        ):
            made.backup(copied)
            runs = copied.execute("SELECT count(*) FROM flow_run").fetchone()[0]
        if not runs:
            aside.replace(kept)
        else:
            aside.unlink()


def _kept() -> Path:
    """Where the database of this version of Prefect is kept."""
    return caches() / f"prefect-{metadata.version('prefect')}.db"


def _aside(path: Path) -> Path:
    return path.with_name(f".{path.name}.{secrets.token_hex(4)}")
