"""Evaluation sets: files that hold the items of a benchmark, or plain texts."""

import json
from collections.abc import Mapping, Sequence
from pathlib import Path

from model.config import TaskName, TrainingError
from model.evaluation.task_files import Task, read_task

SUFFIXES = (".jsonl", ".txt")


def read_sets(paths: Sequence[Path], tasks: Mapping[str, TaskName]) -> dict[str, Task | list[str]]:
    """What each set holds, by the name of its file; `tasks` has the benchmarks of those whose items do not tell.

    Raises `TrainingError` where a file is no set, where two cannot be told apart by their names without endings, which
    is what results are kept under, and where `tasks` names none of them.
    """
    stems = [path.stem for path in paths]
    for stem in stems:
        if stems.count(stem) > 1:
            raise TrainingError(f"Two evaluation sets are called {stem}, and results are kept by name: rename one.")
    for stem in sorted(tasks.keys() - {path.stem for path in paths if path.suffix == ".jsonl"}):
        raise TrainingError(f"{tasks[stem]} is said to be the task of {stem}.jsonl, which is no evaluation set here.")
    return {path.name: read_task(path, tasks.get(path.stem)) or read_texts(path) for path in paths}


def read_texts(path: Path) -> list[str]:
    """The `text` field of each line of a .jsonl file, or a whole .txt file; raises `TrainingError`."""
    if path.suffix not in SUFFIXES:
        raise TrainingError(f"The evaluation set {path} is neither a .jsonl nor a .txt: rename it, or take it out.")
    try:
        content = path.read_bytes().decode("utf-8")  # newlines as they are
        lines = [line for line in content.split("\n") if line.strip()]
        texts = [content] if path.suffix == ".txt" else [json.loads(line)["text"] for line in lines]
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise TrainingError(
            f"The evaluation set {path} cannot be read ({type(error).__name__}: {error}): it must be UTF-8, and each"
            ' line of a .jsonl file an object with a "text" or an item of a benchmark.'
        ) from error
    if not all(isinstance(text, str) for text in texts):
        raise TrainingError(f'The evaluation set {path} has a "text" that is no string: mend it, or take it out.')
    if not any(texts):
        raise TrainingError(f"The evaluation set {path} has no text to score: take it out.")
    return texts
