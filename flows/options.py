"""What the arguments of several commands have in common: kinds of numbers, the store, the config."""

import argparse
import math
from pathlib import Path

from flows.config import DEFAULT_CONFIG, DEFAULT_STORE

A_RUN = "a run's name or id, as gptmill runs has it, a config's name, or latest"


def with_store(added: argparse.ArgumentParser) -> argparse.ArgumentParser:
    """Add --store."""
    added.add_argument("--store", type=Path, default=DEFAULT_STORE, metavar="DIR", help=f"default: {DEFAULT_STORE}")
    return added


def with_config(added: argparse.ArgumentParser) -> argparse.ArgumentParser:
    """Add --config and --set."""
    default = f"default: {DEFAULT_CONFIG}"
    added.add_argument("-c", "--config", type=Path, default=DEFAULT_CONFIG, metavar="FILE", help=default)
    more = "override one key; may be repeated"
    added.add_argument("--set", action="append", default=[], dest="settings", metavar="KEY=VALUE", help=more)
    return added


def with_run(added: argparse._ActionsContainer) -> None:
    """Add --run."""
    added.add_argument("--run", metavar="RUN", help=f"{A_RUN} (the default)")


def with_json(added: argparse.ArgumentParser, form: str = "one JSON object") -> argparse.ArgumentParser:
    """Add --json; `form` says what is then written to stdout."""
    added.add_argument("--json", action="store_true", help=form)
    return added


def with_selection(added: argparse.ArgumentParser) -> argparse.ArgumentParser:
    """Add --only, --until and --force."""
    which = added.add_mutually_exclusive_group()
    which.add_argument("--only", metavar="STAGE", help="run just this stage; refused if what lies before it is stale")
    which.add_argument("--until", metavar="STAGE", help="run this stage and what it needs, nothing after it")
    added.add_argument("--force", metavar="STAGE", help="run this stage even if it is up to date")
    return added


def positive(text: str) -> int:
    """A whole number of at least 1."""
    value = int(text) if text.isdecimal() else 0
    if value < 1:
        raise argparse.ArgumentTypeError(f"{text} is no whole number of at least 1")
    return value


def count(text: str) -> int:
    """A whole number of at least 0."""
    if not text.isdecimal():
        raise argparse.ArgumentTypeError(f"{text} is no whole number of at least 0")
    return int(text)


def at_least_zero(text: str) -> float:
    """A finite number of at least 0."""
    try:
        value = float(text)
    except ValueError:
        value = -1.0
    if not 0 <= value < math.inf:
        raise argparse.ArgumentTypeError(f"{text} is no number of at least 0")
    return value


def above_zero(text: str) -> float:
    """A finite number above 0."""
    value = at_least_zero(text)
    if value == 0:
        raise argparse.ArgumentTypeError(f"{text} is no number above 0")
    return value


def at_least_one(text: str) -> float:
    """A finite number of at least 1."""
    value = at_least_zero(text)
    if value < 1:
        raise argparse.ArgumentTypeError(f"{text} is no number of at least 1")
    return value


def seed(text: str) -> int:
    """A seed of torch's generators."""
    value = count(text)
    if value >= 2**63:
        raise argparse.ArgumentTypeError(f"{text} is no whole number below 2^63")
    return value


def up_to_one(text: str) -> float:
    """A number from 0 to 1."""
    value = at_least_zero(text)
    if value > 1:
        raise argparse.ArgumentTypeError(f"{text} is no number from 0 to 1")
    return value


def some_text(text: str) -> str:
    """A text that is not empty."""
    if not text:
        raise argparse.ArgumentTypeError("an empty text is in every place")
    return text


def share(text: str) -> float:
    """A number above 0 and up to 1."""
    value = at_least_zero(text)
    if not 0 < value <= 1:
        raise argparse.ArgumentTypeError(f"{text} is no number above 0 and up to 1")
    return value
