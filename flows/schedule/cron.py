"""Cron's notation of times: numbers, names, lists, ranges and steps in five fields, or six with seconds at the end."""

import calendar
from typing import NamedTuple

from pipeline.config import BadInput

DAYS = ("Sun", "Mon", "Tue", "Wed", "Thu", "Fri", "Sat")


class Field(NamedTuple):
    """What a field counts, the values that it may have, and names for these."""

    what: str
    first: int
    last: int
    names: tuple[str, ...] = ()


FIELDS = (
    Field("minute", 0, 59),
    Field("hour", 0, 23),
    Field("day of the month", 1, 31),
    Field("month", 1, 12, tuple(calendar.month_abbr)),
    Field("day of the week", 0, 7, DAYS),
    Field("second", 0, 59),
)


def allowed_values(cron: str) -> list[list[int] | None]:
    """The values that each field allows, None where it is a star. BadInput where the text is no such notation."""
    texts = cron.split()
    if len(texts) not in (5, 6):
        raise BadInput(f'--cron "{cron}" has {len(texts)} fields, not five as in "0 3 * * 1" (Mondays at three).')
    found = []
    for text, field in zip(texts, FIELDS, strict=False):
        try:
            found.append(None if text == "*" else sorted({v for item in text.split(",") for v in _values(item, field)}))
        except ValueError as error:
            allowed = f"numbers from {field.first} to {field.last}, lists (1,15), ranges (1-5) and steps (*/15)"
            raise BadInput(f'--cron "{cron}": the {field.what} cannot be {text}; it takes {allowed}.') from error
    return found


def _values(item: str, field: Field) -> range:
    """The values of one item of a list; ValueError where it is none."""
    span, slash, step_text = item.partition("/")
    first_text, dash, last_text = span.partition("-")
    step = int(step_text) if slash else 1
    first = field.first if first_text == "*" else _value(first_text, field)
    last = _value(last_text, field) if dash else field.last if slash or first_text == "*" else first
    if step < 1 or first > last or (dash and first_text == "*"):
        raise ValueError(item)
    return range(first, last + 1, step)


def _value(text: str, field: Field) -> int:
    names = [name.lower() for name in field.names]
    value = names.index(text.lower()) if text.lower() in names else int(text)
    if not field.first <= value <= field.last:
        raise ValueError(text)
    return value
