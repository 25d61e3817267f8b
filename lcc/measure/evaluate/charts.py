"""Numbers -> places in a picture; `report.html.j2` draws them as SVG."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

WIDTH, HEIGHT = 560, 300
LEFT, RIGHT, TOP, BOTTOM = 64, 14, 14, 44  # margins, for labels
ANCHORS = ((200, 85, 61), (242, 215, 160), (42, 127, 158))  # colours of 0, one half, 1


@dataclass(frozen=True)
class Point:
    """A value with the ends of its interval (None = unknown) and what hovering says."""

    x: float
    y: float
    low: float | None
    high: float | None
    title: str


@dataclass(frozen=True)
class Line:
    """Points that belong together; pixels after `chart`."""

    name: str
    points: tuple[Point, ...]


@dataclass(frozen=True)
class Chart:
    """Lines in pixels, ticks as (pixel, label), and the names of the axes."""

    title: str
    x_name: str
    y_name: str
    lines: tuple[Line, ...]
    x_ticks: tuple[tuple[float, str], ...]
    y_ticks: tuple[tuple[float, str], ...]


def chart(
    title: str, x_name: str, y_name: str, lines: Sequence[Line], *, share: bool = True
) -> Chart:
    """Lay out lines.

    share       y is 0 to 1, and x logarithmic; otherwise y takes the range of the points, and x is
                a place in a text
    """
    xs = sorted({point.x for line in lines for point in line.points})
    low, high = (0.0, 1.0) if share else _range(lines)
    scale = math.log if share else float
    first, last = scale(xs[0]), scale(xs[-1])

    def place(x: float) -> float:
        span = WIDTH - LEFT - RIGHT
        if first == last:
            return LEFT + span / 2
        return LEFT + span * (0.03 + 0.94 * (scale(x) - first) / (last - first))

    def level(y: float) -> float:
        share_of = (min(max(y, low), high) - low) / (high - low)
        return TOP + (HEIGHT - TOP - BOTTOM) * (1 - share_of)

    placed = []
    for number, line in enumerate(lines):
        aside = (
            3 * (number - (len(lines) - 1) / 2) if share else 0.0
        )  # so that intervals do not hide each other
        placed.append(
            Line(
                line.name,
                tuple(
                    Point(
                        round(place(p.x) + aside, 1),
                        round(level(p.y), 1),
                        None if p.low is None else round(level(p.low), 1),
                        None if p.high is None else round(level(p.high), 1),
                        p.title,
                    )
                    for p in line.points
                ),
            )
        )
    few = xs if len(xs) <= 8 else [xs[round(i * (len(xs) - 1) / 7)] for i in range(8)]
    ticks = [low + (high - low) * i / 4 for i in range(5)]
    return Chart(
        title,
        x_name,
        y_name,
        tuple(placed),
        tuple((round(place(x), 1), short(x)) for x in few),
        tuple(
            (
                round(level(y), 1),
                f"{y:.2f}" if high < 10 else f"{y:.1f}" if high < 100 else f"{y:.0f}",
            )
            for y in ticks
        ),
    )


def _range(lines: Sequence[Line]) -> tuple[float, float]:
    values = [
        value
        for line in lines
        for p in line.points
        for value in (p.low, p.y, p.high)
        if value is not None
    ]
    low, high = min(values), max(values)
    room = (high - low) * 0.08 or 0.5
    return low - room, high + room


def short(number: float) -> str:
    """4096 -> 4k; other numbers as they are."""
    whole = int(number)
    return f"{whole // 1024}k" if whole >= 1024 and whole % 1024 == 0 else str(whole)


def heat(share: float) -> tuple[str, str]:
    """Background and text colour of a score between 0 and 1."""
    below, above = (ANCHORS[0], ANCHORS[1]) if share < 0.5 else (ANCHORS[1], ANCHORS[2])
    part = share * 2 if share < 0.5 else share * 2 - 1
    mixed = [round(a + (b - a) * part) for a, b in zip(below, above, strict=True)]
    light = 0.3 * mixed[0] + 0.59 * mixed[1] + 0.11 * mixed[2] > 150
    return "#{:02x}{:02x}{:02x}".format(*mixed), "#1a1a1a" if light else "#ffffff"
