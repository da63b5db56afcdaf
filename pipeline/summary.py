"""Figures in words: how numbers are written for people, and the short report of one stage.

Numbers carry their unit and separators for thousands; what counts was split by comes largest first.
"""

import math
from collections.abc import Mapping, Sequence
from typing import Any

SHORT_HASH = 12
"""Hex digits that tell artifacts of one store apart by eye."""

MOST_CHARACTERS = 200
"""Characters that a cell of it shows."""

MOST_ROWS = 30
"""Rows that a table of a summary shows."""


def summary(manifest: Mapping[str, Any]) -> str:
    """A short Markdown report of one stage: its counts, and a table for each count that is split by reason or kind."""
    run, stats = manifest.get("run", {}), manifest["stats"]
    seconds = run.get("wall_seconds", run.get("seconds"))
    facts = [f"{manifest['rows']:,} rows", *([] if seconds is None else [as_duration(seconds)])]
    lines = [f"## {manifest['stage']}", "", " · ".join([*facts, f"digest `{manifest['digest'][:SHORT_HASH]}`"]), ""]
    plain = [(as_words(name), as_number(value)) for name, value in stats.items() if is_number(value)]
    lines += _table(("count", "value"), plain)
    for name, value in stats.items():
        if value and isinstance(value, (Mapping, list)):
            lines += [f"### {as_words(name)}", "", *_split_count(as_words(name), value)]
    return "\n".join(lines).rstrip() + "\n"


def _split_count(name: str, value: Mapping[str, Any] | list[Any]) -> list[str]:
    """A table of what a mapping or a list of mappings holds, or a list of sentences."""
    if isinstance(value, list):
        if not isinstance(value[0], Mapping):
            return [*(f"- {item}" for item in value), ""]
        return _table(tuple(value[0]), [tuple(as_number(item) for item in row.values()) for row in value])
    ranked = list(value.items())
    if all(is_number(each) for each in value.values()):
        ranked.sort(key=lambda item: -item[1])
    elif all(isinstance(each, Mapping) for each in value.values()):
        columns = tuple(next(iter(value.values())))
        ranked.sort(key=lambda item: [-number if is_number(number) else 0 for number in item[1].values()])
        rows = [(as_words(key), *(as_number(each.get(column, "")) for column in columns)) for key, each in ranked]
        return _table((name, *columns), rows)
    return _table((name, "count"), [(as_words(key) or "other", as_number(each)) for key, each in ranked])


def _table(head: tuple[str, ...], rows: Sequence[tuple[str, ...]]) -> list[str]:
    """The lines of a Markdown table, cut at `MOST_ROWS`; none where it has no rows."""
    if not rows:
        return []
    marks = (":--", *("--:" for _ in head[1:]))
    lines = ["| " + " | ".join(_cell(cell) for cell in row) + " |" for row in (head, marks, *rows[:MOST_ROWS])]
    more = [] if len(rows) <= MOST_ROWS else ["", f"and {len(rows) - MOST_ROWS:,} more"]
    return [*lines, *more, ""]


def _cell(text: str) -> str:
    line = " ".join(text.split())
    return (line if len(line) <= MOST_CHARACTERS else line[: MOST_CHARACTERS - 1] + "…").replace("|", "\\|")


def flat(nested: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    """The leaves of nested mappings, under dotted names."""
    leaves: dict[str, Any] = {}
    for name, value in nested.items():
        if isinstance(value, Mapping):
            leaves |= flat(value, f"{prefix}{name}.")
        elif isinstance(value, list) and value and all(isinstance(item, Mapping) for item in value):
            for place, item in enumerate(value):
                leaves |= flat(item, f"{prefix}{name}.{place}.")
        else:
            leaves[f"{prefix}{name}"] = value
    return leaves


def is_number(value: Any) -> bool:
    """Whether it can be written as a figure: no bool, no infinity."""
    return isinstance(value, (int, float)) and not isinstance(value, bool) and math.isfinite(value)


def as_words(name: str) -> str:
    """The name of a field or reason for people."""
    return name.replace("_", " ")


def as_count(value: float) -> str:
    """A whole number with separators for thousands."""
    return f"{value:,.0f}"


def as_number(value: Any) -> str:
    """Whole and large numbers with separators, others with four significant digits, counts by name; else its text."""
    if isinstance(value, Mapping):
        ranked = sorted(value.items(), key=lambda item: (-item[1], item[0]))
        return ", ".join(f"{as_words(name)} {as_number(count)}" for name, count in ranked)
    if not is_number(value):
        return str(value)
    if isinstance(value, int) or float(value).is_integer() or abs(value) >= 1_000:
        return f"{value:,.0f}"
    return f"{value:.4g}"


def as_percent(share: float) -> str:
    """A share of one as a percentage with one decimal."""
    return "< 0.1 %" if 0 < share < 0.0005 else f"{100 * share:.1f} %"


def as_duration(seconds: float) -> str:
    """A time in the units that people use for times of that length."""
    if seconds < 59.5:
        return f"{seconds:.2g} s" if seconds < 10 else f"{seconds:.0f} s"
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours:,} h {minutes:02d} min" if hours else f"{minutes} min {rest:02d} s"


def as_size(n_bytes: float) -> str:
    """A number of bytes with three significant digits and a decimal unit."""
    for unit_bytes, unit in ((1e12, "TB"), (1e9, "GB"), (1e6, "MB"), (1e3, "kB")):
        if n_bytes >= unit_bytes:
            return f"{n_bytes / unit_bytes:.3g} {unit}"
    return f"{n_bytes:.0f} B"
