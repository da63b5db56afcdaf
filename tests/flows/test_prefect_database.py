"""Prefect's database is made once on a machine: what a new store is given, and what is never kept or written over."""

import sqlite3
from contextlib import closing
from pathlib import Path

import pytest

from flows.prefect_database import DATABASE_FILE, begin, keep


@pytest.fixture(autouse=True)
def _caches(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "caches"))


def _home(folder: Path, runs: int | None = None) -> Path:
    """A home of Prefect, with a database that holds so many runs, or none."""
    folder.mkdir()
    if runs is not None:
        with closing(sqlite3.connect(folder / DATABASE_FILE)) as database:
            database.execute("CREATE TABLE flow_run (id)")
            database.executemany("INSERT INTO flow_run VALUES (?)", [[run] for run in range(runs)])
            database.commit()
    return folder


def _runs(home: Path) -> int:
    with closing(sqlite3.connect(home / DATABASE_FILE)) as database:
        return int(database.execute("SELECT count(*) FROM flow_run").fetchone()[0])


def test_a_new_store_is_given_the_database_that_another_made(tmp_path: Path) -> None:
    keep(_home(tmp_path / "first", runs=0))
    home = _home(tmp_path / "second")
    assert not begin(home)
    assert _runs(home) == 0
    assert [path.name for path in home.iterdir()] == [DATABASE_FILE]


def test_the_first_store_on_a_machine_has_none_and_is_told_so(tmp_path: Path) -> None:
    home = _home(tmp_path / "first")
    assert begin(home)
    assert not list(home.iterdir())


def test_a_database_in_which_a_run_is_written_is_not_kept(tmp_path: Path) -> None:
    keep(_home(tmp_path / "first", runs=1))
    assert begin(_home(tmp_path / "second"))


def test_a_database_that_is_there_is_left_as_it_is(tmp_path: Path) -> None:
    keep(_home(tmp_path / "first", runs=0))
    home = _home(tmp_path / "second", runs=3)
    assert not begin(home)
    assert _runs(home) == 3


def test_where_nothing_can_be_kept_nothing_fails(tmp_path: Path) -> None:
    (tmp_path / "caches").write_text("a file where the folder would be")
    keep(_home(tmp_path / "first", runs=0))
    assert begin(_home(tmp_path / "second"))
