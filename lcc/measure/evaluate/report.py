"""Results -> one HTML file that needs nothing else: tables, curves, heat maps, what was kept."""

from __future__ import annotations

from collections.abc import Iterable
from importlib import resources
from typing import Any

import lcc
from lcc.artifact.outputs import write_whole
from lcc.measure.evaluate.catalog import ABOUT
from lcc.measure.evaluate.charts import Chart, Line, Point, chart, heat, short
from lcc.measure.evaluate.grid import unit_of
from lcc.measure.evaluate.results import Results, failed_text, interval_text, score_text

Page = dict[str, Any]
ANSWER = 160  # characters of an answer that hovering shows


def write(results: Results, cells: list[Page], note: str | None = None) -> None:
    """Write report.html into the folder of the results, if there are any; see `render`."""
    if not results.begun:
        return
    write_whole(results.folder / "report.html", render(results, cells, note))


def render(results: Results, cells: list[Page], note: str | None = None) -> str:
    """The page as HTML; `cells` are those of results.json, `note` stands before all else."""
    from jinja2 import Environment

    source = resources.files("lcc.measure.evaluate").joinpath("report.html.j2").read_text("utf-8")
    template = Environment(autoescape=True, trim_blocks=True, lstrip_blocks=True).from_string(
        source
    )
    return template.render(
        meta=results.meta,
        version=lcc.__version__,
        note=note,
        cells=cells,
        about=ABOUT,
        failed_text=failed_text,
        score_text=score_text,
        interval_text=interval_text,
        short=short,
        charts=[*over_length(cells), *over_budget(cells), *over_position(cells)],
        heat_maps=heat_maps(results.lines.values()),
        kept=kept_maps(results),
    )


def _title(page: Page) -> str:
    interval = interval_text(page)
    return f"{page['name']}: {score_text(page)}" + (f" ({interval})" if interval else "")


def _groups(cells: Iterable[Page], *fields: str) -> dict[tuple[Any, ...], list[Page]]:
    """Scored cells of one measure that agree in these fields, in the order they come."""
    groups: dict[tuple[Any, ...], list[Page]] = {}
    for page in cells:
        if "score" in page and page["measure"] == "score":
            groups.setdefault(tuple(page[field] for field in fields), []).append(page)
    return groups


def _point(page: Page, x: float) -> Point:
    return Point(x, page["score"], page["low"], page["high"], f"{short(x)}, {_title(page)}")


def _together(cells: Iterable[Page]) -> list[Page]:
    """Cells as charts show them: recall is one more line beside query-agnostic, of one reading."""
    return [
        page
        if page["setting"] != "recall"
        else page
        | {"setting": "query-agnostic"}
        | {name: f"{page[name]} with recall" for name in ("name", "policy")}
        for page in cells
    ]


def over_length(cells: list[Page]) -> list[Chart]:
    """Score over the length of the text, a chart for a task and setting, a line for a subject."""
    charts = []
    for (task, setting), group in _groups(_together(cells), "task", "setting").items():
        lines = [
            Line(
                name,
                tuple(
                    _point(page, page["length"])
                    for page in sorted(pages, key=lambda page: page["length"])
                ),
            )
            for (name,), pages in _groups(group, "name").items()
            if pages[0]["length"] is not None
        ]
        if lines:
            charts.append(chart(f"{task}, {setting}", "tokens of the text", "score", lines))
    return charts


def over_budget(cells: list[Page]) -> list[Chart]:
    """Score over the entries kept, where something was measured at several budgets."""
    charts = []
    together = _groups(_together(cells), "task", "setting", "length")
    for (task, setting, length), group in together.items():
        lines = []
        for (source, policy), pages in _groups(group, "source", "policy").items():
            of_budget = sorted(
                (page for page in pages if page["budget"] is not None),
                key=lambda page: page["budget"],
            )
            points = tuple(_point(page, page["budget"]) for page in of_budget)
            if points:
                lines.append(Line(f"{source.rstrip('/').rpartition('/')[2]} {policy}", points))
        if any(len(line.points) > 1 for line in lines):
            at = "" if length is None else f", {short(length)} tokens"
            charts.append(chart(f"{task}{at}, {setting}", "entries kept", "score", lines))
    return charts


def over_position(cells: list[Page]) -> list[Chart]:
    """Perplexity of stretches of the text, by where they end; a chart for a length."""
    groups: dict[int, list[Line]] = {}
    for page in cells:
        if page.get("by_position"):
            points = tuple(
                Point(end, value, None, None, f"to token {end}, {page['name']}: {value:.2f}")
                for end, value in page["by_position"]
            )
            groups.setdefault(page["length"], []).append(Line(page["name"], points))
    return [
        chart(f"perplexity, {short(length)} tokens", "place", "perplexity", lines, share=False)
        for length, lines in groups.items()
    ]


def heat_maps(lines: Iterable[Page]) -> list[Page]:
    """Length by depth for every subject, task and setting with depths; cells hold samples."""
    maps: dict[tuple[str, str, str], dict[tuple[int, float], list[Page]]] = {}
    for line in lines:
        if line.get("depth") is None or line["length"] is None or "error" in line:
            continue
        key = line["task"], unit_of(line).cell.subject.name, line["setting"]
        place = line["length"], round(line["depth"])
        maps.setdefault(key, {}).setdefault(place, []).append(line)
    result = []
    for (task, name, setting), places in sorted(maps.items()):
        lengths = sorted({length for length, _ in places})
        depths = sorted({depth for _, depth in places})
        rows = [
            [_heat_cell(places.get((length, depth), [])) for length in lengths] for depth in depths
        ]
        result.append(
            {
                "task": task,
                "name": name,
                "setting": setting,
                "lengths": lengths,
                "rows": list(zip(depths, rows, strict=True)),
            }
        )
    return result


def _heat_cell(samples: list[Page]) -> Page | None:
    if not samples:
        return None
    mean = sum(sample["score"] for sample in samples) / len(samples)
    back, front = heat(mean)
    told = [
        f"wanted {', '.join(map(str, sample['wanted']))}; answered {sample['answer'][:ANSWER]!r}"
        for sample in samples
    ]
    return {"score": mean, "back": back, "front": front, "title": "\n".join(told)}


def kept_maps(results: Results) -> list[Page]:
    """The samples of which it is known what was kept, in the order of names."""
    maps = []
    for key, page in results.kept.items():
        line = results.lines.get(key)
        if line is not None:
            maps.append(line | page | {"name": unit_of(line).cell.subject.name})
    return sorted(maps, key=lambda page: (page["task"], page["name"], page["setting"]))
