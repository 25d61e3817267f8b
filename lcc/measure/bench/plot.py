"""The picture: time and memory over the length, a line an engine."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from lcc.measure.bench.summary import Cell, Spread

# Okabe and Ito's colours, told apart by nearly everyone; black is the first engine's.
COLOURS = ("#000000", "#E69F00", "#0072B2", "#009E73", "#D55E00", "#56B4E9", "#CC79A7", "#999933")
MARKERS = "osD^vPX*"
SPREAD = 0.012  # how far markers of neighbours lie apart, of the whole width


def draw(cells: Sequence[Cell], folder: Path) -> list[Path]:
    """Write bench.png and bench.svg into `folder`; nothing where nothing was measured."""
    from matplotlib.figure import Figure

    labels = list(dict.fromkeys(cell.engine for cell in cells if cell.rounds))
    lengths = sorted({cell.tokens for cell in cells})
    if not labels:
        return []
    figure = Figure(figsize=(11, 4.2 + 0.22 * ((len(labels) + 1) // 2)), layout="constrained")
    for axes, (title, metric, unit) in zip(
        figure.subplots(1, 3),
        (
            ("time to the first token, s", "first_token_seconds", 1.0),
            ("time of each further token, ms", "decode_tokens_per_second", None),
            ("peak memory, MB", "peak_rss_bytes", 1e-6),
        ),
        strict=True,
    ):
        for place, label in enumerate(labels):
            points = [
                (cell.tokens, _scaled(cell.numbers[metric], unit))
                for cell in cells
                if cell.engine == label and metric in cell.numbers
            ]
            if points:
                shift = _shift(place, len(labels), lengths)
                _line(axes, points, place, label, shift)
        _finish(axes, title, lengths)
    handles, names = figure.axes[0].get_legend_handles_labels()
    figure.legend(handles, names, loc="outside lower center", ncols=2, frameon=False)
    paths = [folder / "bench.png", folder / "bench.svg"]
    for path in paths:
        figure.savefig(path, dpi=130)
    return paths


def _scaled(spread: Spread, unit: float | None) -> tuple[float, float, float]:
    """Median, least, most; unit None = of a rate, the milliseconds of one."""
    values = (spread.median, spread.least, spread.most)
    if unit is None:
        return (1e3 / spread.median, 1e3 / spread.most, 1e3 / spread.least)
    return (values[0] * unit, values[1] * unit, values[2] * unit)


def _shift(place: int, count: int, lengths: Sequence[int]) -> float:
    """A factor for the lengths of one engine, so that bars do not hide each other."""
    decades = max(lengths) / min(lengths) if len(lengths) > 1 else 4.0
    return float(decades ** (SPREAD * (place - (count - 1) / 2)))


def _line(
    axes: Any, points: Sequence[tuple[int, tuple[float, ...]]], place: int, label: str, shift: float
) -> None:
    middle = [value[0] for _, value in points]
    below = [value[0] - value[1] for _, value in points]
    above = [value[2] - value[0] for _, value in points]
    axes.errorbar(
        [tokens * shift for tokens, _ in points],
        middle,
        [below, above],
        label=label,
        color=COLOURS[place % len(COLOURS)],
        marker=MARKERS[place % len(MARKERS)],
        linestyle=("-", "--")[place // len(COLOURS) % 2],
        linewidth=2.2 if place == 0 else 1.3,
        markersize=6 if place == 0 else 5,
        capsize=2.5,
        zorder=3 if place == 0 else 2,
    )


def _finish(axes: Any, title: str, lengths: Sequence[int]) -> None:
    from matplotlib.ticker import FuncFormatter, LogLocator, NullLocator

    axes.set_xscale("log")
    axes.set_yscale("log")
    axes.set_title(title, fontsize=10)
    axes.set_xlabel("tokens read")
    axes.set_xticks(lengths, [short(length) for length in lengths])
    axes.xaxis.set_minor_locator(NullLocator())
    axes.yaxis.set_major_locator(LogLocator(subs=(1.0, 2.0, 5.0)))
    axes.yaxis.set_minor_locator(NullLocator())
    axes.yaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
    axes.grid(which="major", color="0.9")
    axes.set_axisbelow(True)
    for side in ("top", "right"):
        axes.spines[side].set_visible(False)


def short(tokens: int) -> str:
    """8192 -> 8k."""
    return f"{tokens // 1024}k" if tokens % 1024 == 0 else f"{tokens:,}"
