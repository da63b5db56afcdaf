"""Toy stages that leave traces of each call, so that tests can see what ran."""

import os
import time
from pathlib import Path

from pipeline.config import BadInput, Config, execution
from pipeline.extraction.isolation import Limits, isolated
from tests.pipeline.extraction.bad_items import items

OFFSET = 0
LIMITS = Limits(memory_bytes=1 << 30, cpu_seconds=60)


class ToyConfig(Config):
    suffix: str = ""
    workers: int = execution(1)
    fail: str = execution("")
    sleep: float = execution(0.0)
    trace: str = execution("")


def _trace(config: ToyConfig, text: str) -> None:
    if config.trace:
        with Path(config.trace).open("a") as file:
            file.write(f"{text}\n")


def upper(*, out: Path, config: ToyConfig, documents: Path) -> dict:
    """A map stage: one text file to one text file."""
    text = (documents / "text.txt").read_text()
    _trace(config, f"upper {text}")
    time.sleep(config.sleep)
    if config.fail == text:
        raise ValueError(f"cannot take {text}")
    if config.fail == f"die {text}":
        os._exit(9)
    (out / "upper.txt").write_text(text.upper() + config.suffix)
    return {"rows": 1, "letters": len(text), "by": {text[:1]: 1}}


def asleep(*, out: Path, config: ToyConfig, documents: Path) -> dict:  # noqa: ARG001
    """A map stage that waits for a minute for a child."""
    _trace(config, f"asleep {(documents / 'text.txt').read_text()}")
    return {"rows": len(list(isolated(items, {"names": ["sleep"]}, LIMITS)))}


def join(*, out: Path, config: ToyConfig, texts: list[Path]) -> dict:
    """A whole stage with one part for each of its input's, and a file of its own."""
    _trace(config, "join")
    time.sleep(config.sleep)
    if config.fail == "bad input":
        raise BadInput("The input is bad: give another.")
    for i, folder in enumerate(texts):
        part = out / f"part-{i:05d}"
        part.mkdir()
        (part / "first.txt").write_text((folder / "upper.txt").read_text()[:1])
    (out / "all.txt").write_text(" ".join((folder / "upper.txt").read_text() for folder in texts))
    (out / "report").mkdir()
    (out / "report" / "time.txt").write_text(str(time.time_ns()))
    return {"rows": len(texts)}
