"""Drawings for the report: curves as SVG, in the page's own colours through its style sheet.

A drawing says what is what by class names (`axis`, `train`, `val`), so that it follows the page into the dark.
"""

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

Point = tuple[float, float]

WIDTH, HEIGHT = 960, 360
LEFT, RIGHT, TOP, BOTTOM = 48, 60, 14, 34
MOST_POINTS = 480
"""A curve is drawn through the means of this many stretches at most: two screen pixels each."""


@dataclass(frozen=True)
class Stretch:
    """Consecutive points of a curve as one: their mean place, mean value and range."""

    x: float
    y: float
    low: float
    high: float


def stretches(points: Sequence[Point], most: int = MOST_POINTS) -> list[Stretch]:
    """The points in order, grouped evenly into at most so many stretches."""
    size = max(1, math.ceil(len(points) / most))
    grouped = [points[start : start + size] for start in range(0, len(points), size)]
    return [
        Stretch(
            sum(x for x, _ in group) / len(group),
            sum(y for _, y in group) / len(group),
            min(y for _, y in group),
            max(y for _, y in group),
        )
        for group in grouped
    ]


def ticks(low: float, high: float, about: int = 5) -> list[float]:
    """Round values between `low` and `high`: multiples of 1, 2 or 5 times a power of ten."""
    if not high > low:
        return [low]
    rough = (high - low) / about
    power = 10.0 ** math.floor(math.log10(rough))
    step = next(factor * power for factor in (1, 2, 5, 10) if factor * power >= rough * 0.999)
    first = math.ceil(low / step - 1e-9)
    return [round(index * step, 12) for index in range(first, math.floor(high / step + 1e-9) + 1)]


def short(value: float) -> str:
    """A number for an axis: 1.5k, 20M, 0.25."""
    for size, unit in ((1e9, "B"), (1e6, "M"), (1e3, "k")):
        if abs(value) >= size:
            return f"{value / size:g}{unit}"
    return f"{value:g}"


@dataclass(frozen=True)
class LossAxes:
    """Training tokens across, loss (nats a token) down on a log scale: where things lie, and what is drawn behind."""

    low: float
    high: float
    end: float

    @classmethod
    def around(cls, drawn: Sequence[Stretch], val: Sequence[Point]) -> "LossAxes | None":
        """Axes on which all of these have a place; None where there are none."""
        values = [each for s in drawn for each in (s.low, s.high)] + [y for _, y in val]
        if not values:
            return None
        end = max([s.x for s in drawn] + [x for x, _ in val]) or 1.0
        return cls(min(values) * 0.97, max(values) * 1.03, end)

    def x_at(self, x: float) -> float:
        """Pixels from the left."""
        return LEFT + (WIDTH - LEFT - RIGHT) * x / self.end

    def y_at(self, y: float) -> float:
        """Pixels from the top."""
        return TOP + (HEIGHT - TOP - BOTTOM) * (math.log(self.high / y) / math.log(self.high / self.low))

    def frame(self) -> list[str]:
        """The lines and figures behind the curves."""
        right, bottom = WIDTH - RIGHT, HEIGHT - BOTTOM
        parts = []
        for y in _log_ticks(self.low, self.high):
            at = self.y_at(y)
            parts.append(f'<line class="grid" x1="{LEFT}" x2="{right}" y1="{at:.1f}" y2="{at:.1f}"/>')
            parts.append(f'<text class="axis" x="{LEFT - 8}" y="{at + 4:.1f}" text-anchor="end">{y:g}</text>')
        for x in ticks(0, self.end, 6):
            where = f'x="{self.x_at(x):.1f}" y="{HEIGHT - 12}"'
            parts.append(f'<text class="axis" {where} text-anchor="middle">{short(x)}</text>')
        parts.append(f'<line class="base" x1="{LEFT}" x2="{right}" y1="{bottom}" y2="{bottom}"/>')
        return parts

    def dots(self, name: str, val: Sequence[Point]) -> list[str]:
        """A validation loss a dot."""
        return [
            f'<circle class="{name}" cx="{self.x_at(x):.1f}" cy="{self.y_at(y):.1f}" r="4">'
            f"<title>validation loss {y:.4f} after {x:,.0f} tokens</title></circle>"
            for x, y in val
        ]


def loss_curve(train: Sequence[Point], val: Sequence[Point]) -> str:
    """Training and validation loss (nats a token, on a log scale) over training tokens, as an SVG element."""
    drawn, val = _shown(train, val)
    axes = LossAxes.around(drawn, val)
    if axes is None:
        return ""
    parts = [_HEAD, *axes.frame()]
    if len(drawn) < len(train):
        upper = [f"{axes.x_at(s.x):.1f},{axes.y_at(s.high):.1f}" for s in drawn]
        lower = [f"{axes.x_at(s.x):.1f},{axes.y_at(s.low):.1f}" for s in reversed(drawn)]
        parts.append(f'<polygon class="range" points="{" ".join(upper + lower)}"/>')
    parts.append(_line("train", [(s.x, s.y) for s in drawn], axes.x_at, axes.y_at))
    parts.append(_line("val", val, axes.x_at, axes.y_at))
    parts += axes.dots("val", val)
    if val:
        x, y = val[-1]
        parts.append(f'<text class="last" x="{axes.x_at(x) + 10:.1f}" y="{axes.y_at(y) + 5:.1f}">{y:.3f}</text>')
    return "".join([*parts, "</svg>"])


def loss_curves(trainings: Mapping[str, tuple[Sequence[Point], Sequence[Point]]]) -> str:
    """Several trainings on the same axes, each with its training and validation loss under its own class name."""
    shown = {name: _shown(train, val) for name, (train, val) in trainings.items()}
    axes = LossAxes.around(
        [s for drawn, _ in shown.values() for s in drawn], [p for _, val in shown.values() for p in val]
    )
    if axes is None:
        return ""
    parts = [_HEAD, *axes.frame()]
    for name, (drawn, val) in shown.items():
        parts.append(_line(name, [(s.x, s.y) for s in drawn], axes.x_at, axes.y_at))
        parts.append(_line(f"{name} val", val, axes.x_at, axes.y_at))
        parts += axes.dots(name, val)
    return "".join([*parts, "</svg>"])


_HEAD = f'<svg class="curve" viewBox="0 0 {WIDTH} {HEIGHT}" role="img" aria-label="Loss over training tokens">'


def _shown(train: Sequence[Point], val: Sequence[Point]) -> tuple[list[Stretch], list[Point]]:
    """What of a training has a place on a log scale."""
    return stretches([(x, y) for x, y in train if y > 0]), [(x, y) for x, y in val if y > 0]


def _log_ticks(low: float, high: float) -> list[float]:
    """Values for a log scale: as many round ones as stand apart."""
    candidates = ticks(low, high, 12)
    kept: list[float] = []
    for value in candidates:
        if value > 0 and (not kept or math.log(value / kept[-1]) > 0.11 * math.log(high / low)):
            kept.append(value)
    return kept


def sparkline(points: Sequence[Point], floor: float | None = None) -> str:
    """A small curve without axes, from `floor` (or its least value) to its greatest, as an SVG element."""
    drawn = stretches(points, 120)
    if not drawn:
        return ""
    low = min(s.y for s in drawn) if floor is None else floor
    high = max(s.y for s in drawn)
    end = drawn[-1].x or 1.0
    spread = (high - low) or 1.0
    line = _line(
        "spark", [(s.x, s.y) for s in drawn], lambda x: 2 + 236 * x / end, lambda y: 46 - 42 * (y - low) / spread
    )
    return f'<svg class="sparkline" viewBox="0 0 240 48" preserveAspectRatio="none" aria-hidden="true">{line}</svg>'


def _line(name: str, points: Sequence[Point], x_at: Callable[[float], float], y_at: Callable[[float], float]) -> str:
    path = " ".join(f"{x_at(x):.1f},{y_at(y):.1f}" for x, y in points)
    return f'<polyline class="{name}" points="{path}"/>'
