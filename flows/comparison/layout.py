"""What a comparison shows, side by side, in the terminal and as a page."""

from collections.abc import Iterator
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from rich.table import Table
from rich.text import Text

from flows.display import printable

TEMPLATE = Path(__file__).with_name("compare.html.jinja")

UNKNOWN = "–"


@dataclass(frozen=True)
class Row:
    """One fact about both sides; `verdict` says what the difference is worth, where anything can be said."""

    what: str
    values: tuple[str, str]
    verdict: str = ""

    @property
    def differs(self) -> bool:
        """Whether it tells them apart."""
        return self.values[0] != self.values[1]


@dataclass(frozen=True)
class Section:
    """Facts that belong together; `drawing` is an SVG of ours, `note` what to know to read them."""

    title: str
    rows: list[Row]
    note: str = ""
    drawing: str = ""


@dataclass(frozen=True)
class Written:
    """What a model wrote after a prompt, and whether it ended by itself."""

    text: str
    ended: bool


@dataclass(frozen=True)
class Sample:
    """What both wrote after a prompt; `how` is the name of the turn."""

    prompt: str
    how: str
    texts: tuple[Written, Written]


@dataclass(frozen=True)
class Comparison:
    """All that a comparison shows."""

    names: tuple[str, str]
    sections: list[Section]
    samples: list[Sample] = field(default_factory=list)


def tables(found: Comparison) -> Iterator[Table | Text]:
    """The comparison for a terminal: each section's facts, and each prompt with what both wrote, in two columns."""
    for section in found.sections:
        yield Text(f"\n{section.title}", style="bold")
        if section.rows:
            yield _facts(found.names, section)
        if section.note:
            yield Text(section.note, style="dim")
    for sample in found.samples:
        title = Text.assemble((repr(sample.prompt) if sample.prompt else "from nothing", "bold"), f"  {sample.how}")
        table = Table(title=title, title_justify="left", title_style="", show_header=False, expand=True)
        for _ in found.names:
            table.add_column(ratio=1, overflow="fold")
        table.add_row(*(Text.assemble(_lines(each.text), ("∎" if each.ended else "…", "dim")) for each in sample.texts))
        yield table


def _lines(text: str) -> str:
    """A text of a model, its lines kept, without what would steer a terminal."""
    return "\n".join(map(printable, text.split("\n")))


def _facts(names: tuple[str, str], section: Section) -> Table:
    table = Table(box=None, pad_edge=False, expand=True)
    table.add_column("", ratio=1, overflow="fold", style="dim")
    for name in names:
        table.add_column(Text(name), ratio=1, overflow="fold")
    judged = any(row.verdict for row in section.rows)
    if judged:
        table.add_column("difference", ratio=1, overflow="fold")
    for row in section.rows:
        values = [Text(printable(value), style="bold" if row.differs else "") for value in row.values]
        table.add_row(Text(printable(row.what)), *values, *([Text(row.verdict)] if judged else []))
    return table


def as_json(found: Comparison) -> dict[str, Any]:
    """What the terminal shows, for scripts: each fact of `a` and of `b` as it is shown, and all that both wrote."""
    sections = [
        {
            "title": section.title,
            "note": section.note,
            "rows": [{"name": row.what, **_sides(row.values), "worth": row.verdict} for row in section.rows],
        }
        for section in found.sections
    ]
    samples = [
        {"prompt": sample.prompt, "how": sample.how, **_sides(tuple(map(asdict, sample.texts)))}
        for sample in found.samples
    ]
    return {"names": list(found.names), "sections": sections, "samples": samples}


def _sides(both: tuple[Any, ...]) -> dict[str, Any]:
    return dict(zip("ab", both, strict=True))


def page(found: Comparison) -> str:
    """The comparison as one self-contained HTML page."""
    from jinja2 import Environment, StrictUndefined

    environment = Environment(autoescape=True, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True)
    text = environment.from_string(TEMPLATE.read_text(encoding="utf-8")).render(found=found)
    return text.encode("utf-8", "replace").decode()  # a prompt may hold what no file can: half of a surrogate pair
