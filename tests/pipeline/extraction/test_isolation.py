"""isolation: an item that kills its process is lost alone, and nothing else is."""

import multiprocessing
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pipeline.config import StageFailed
from pipeline.extraction import isolation as isolation
from pipeline.extraction.isolation import Limits, Lost, isolated
from tests.pipeline.extraction.bad_items import items

ROOT = Path(__file__).resolve().parents[3]
LIMITS = Limits(memory_bytes=1 << 29, cpu_seconds=1)
DEADLY = {
    "segfault": ("crashed", "SIGSEGV"),
    "abort": ("crashed", "SIGABRT"),
    "exit": ("crashed", "exit code 3"),
    "allocate": ("memory_limit", "more than 536870912 bytes of memory"),
    "allocate in steps": ("memory_limit", "more than 536870912 bytes of memory"),
    "spin": ("cpu_limit", "more than 1 s of processor time"),
}


def results(names: list[str], **more: Any) -> list[Any]:
    return list(isolated(items, {"names": names, **more}, LIMITS))


@pytest.mark.parametrize("name", DEADLY)
def test_an_item_that_kills_its_process_is_lost_alone_and_with_its_reason(name: str) -> None:
    assert results(["a", name, "b", "c"]) == ["a", Lost(1, *DEADLY[name]), "b", "c"]


def test_first_last_and_neighbouring_items_may_be_the_deadly_ones() -> None:
    lost = DEADLY["abort"]
    assert results(["abort", "abort", "a", "abort"]) == [Lost(0, *lost), Lost(1, *lost), "a", Lost(3, *lost)]


@settings(max_examples=15)
@given(st.lists(st.sampled_from(["a", "b", "abort", "exit"]), max_size=6))
def test_the_results_are_those_of_each_item_alone(names: list[str]) -> None:
    expected = [Lost(place, *DEADLY[name]) if name in DEADLY else name for place, name in enumerate(names)]
    assert results(names) == expected


def test_an_item_that_only_dies_of_what_others_left_behind_is_not_lost() -> None:
    assert results(["a", "segfault behind others", "b"]) == ["a", "segfault behind others", "b"]


def test_a_child_is_kept_for_the_next_call_and_replaced_when_it_is_gone() -> None:
    [first] = results(["pid"])
    assert results(["a", "pid"]) == ["a", first]
    os.kill(first, signal.SIGKILL)
    [second] = results(["pid"])
    assert second != first


def test_what_is_left_in_the_middle_does_not_reach_the_next_call() -> None:
    unfinished = isolated(items, {"names": ["a", "b", "c"]}, LIMITS)
    assert next(unfinished) == "a"
    unfinished.close()
    assert results(["d"]) == ["d"]


def test_what_libraries_print_is_no_result(capfd: pytest.CaptureFixture[str]) -> None:
    assert results(["print", "a"]) == ["print", "a"]
    assert capfd.readouterr() == ("", "")


def test_an_item_killed_once_from_outside_is_begun_again(tmp_path: Path) -> None:
    assert results(["a", "killed once", "b"], note=str(tmp_path / "note")) == ["a", "killed once", "b"]


@pytest.mark.parametrize("name", ["killed", "between segfault", "between killed"])
def test_what_is_no_fault_of_an_item_fails_with_one_sentence(name: str) -> None:
    with pytest.raises(StageFailed, match=r"again and again through no fault of an item \(SIG") as problem:
        results(["a", name, "b"])
    assert "\n" not in str(problem.value)
    assert results(["a"]) == ["a"]


def test_a_function_that_raises_fails_with_its_words() -> None:
    with pytest.raises(StageFailed, match=r"^tests\.pipeline\.extraction\.bad_items failed: ValueError: no such item$"):
        results(["a", "raise", "b"])
    assert results(["a"]) == ["a"]


def test_a_child_that_cannot_start_fails_with_its_last_word(monkeypatch: pytest.MonkeyPatch) -> None:
    for child in filter(None, [getattr(isolation._threads, "child", None)]):
        child.end()
    monkeypatch.setattr(sys, "executable", "/nowhere/python")
    with pytest.raises(StageFailed, match=r"could be started .*/nowhere/python"):
        results(["a"])
    monkeypatch.setattr(sys, "executable", "/bin/false")
    with pytest.raises(StageFailed, match="did not start: no word"):
        results(["a"])


def test_it_works_below_a_daemonic_process() -> None:
    context = multiprocessing.get_context("spawn")
    with context.Pool(1) as pool:  # its workers may not have children by multiprocessing
        assert pool.apply(results, (["a", "abort", "b"],)) == ["a", Lost(1, *DEADLY["abort"]), "b"]


def started(note: Path, name: str) -> tuple["subprocess.Popen[bytes]", int]:
    """A process whose child works on an item called `name`, and that child's id."""
    code = (
        "import signal; signal.signal(signal.SIGINT, signal.default_int_handler)\n"  # whoever started us may ignore it
        "from tests.pipeline.extraction.test_isolation import results\n"
        f"try: results([{name!r}], note={str(note)!r})\n"
        "except KeyboardInterrupt: print('interrupted')"
    )
    process = subprocess.Popen(
        [sys.executable, "-c", code],
        cwd=ROOT,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        start_new_session=True,
    )
    until(lambda: note.exists() and note.read_text().endswith("\n"))
    return process, int(note.read_text())


def until(true: Any) -> None:
    deadline = time.monotonic() + 30
    while not true():
        assert time.monotonic() < deadline
        time.sleep(0.02)


def gone(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] == "Z"
    except FileNotFoundError:
        return True


def test_a_killed_parent_leaves_no_orphan(tmp_path: Path) -> None:
    process, child = started(tmp_path / "note", "sleep")
    assert not gone(child)
    process.kill()
    process.communicate()
    until(lambda: gone(child))


def test_an_interrupt_is_the_parents_alone_and_takes_the_child_along(tmp_path: Path) -> None:
    process, child = started(tmp_path / "note", "sleep")
    os.killpg(process.pid, signal.SIGINT)
    assert process.communicate(timeout=30) == (b"interrupted\n", b"")
    until(lambda: gone(child))
