"""The folder of results: what is done is not done again, and another command is told apart."""

import dataclasses
import json
import math
from pathlib import Path

import pytest

from lcc.errors import ConfigError, LccError
from lcc.measure.evaluate.grid import Cell, Subject, Unit, units_of
from lcc.measure.evaluate.report import over_length, render, write
from lcc.measure.evaluate.results import Results, cell_page, failed_text

SUBJECT = Subject(kind="artifact", source="a/m.lcc", policy="snapkv", budget=64)
CELL = Cell(subject=SUBJECT, task="passkey", length=700, setting="query-aware")
UNITS = units_of([CELL], {"passkey": 3})


def line(unit: Unit, **fields: object) -> dict:
    known = {"score": 1.0, "tokens": 700, "read_seconds": 2.0, "cycles": 4}
    return unit.fields() | known | fields


def test_goes_on_where_it_stopped(tmp_path: Path) -> None:
    results = Results(tmp_path / "r", {"samples": 3}, {})
    assert results.todo(UNITS) == UNITS
    results.write([CELL])
    write(results, [])
    assert not (tmp_path / "r").exists(), "what never began is no other command"
    results.add(UNITS[1], line(UNITS[1], kept={"heads": 4}))
    again = Results(tmp_path / "r", {"samples": 3}, {})
    assert again.todo(UNITS) == [UNITS[0], UNITS[2]]
    assert again.lines == results.lines
    assert again.kept == {UNITS[1].key: {"heads": 4}}
    assert "kept" not in (tmp_path / "r/samples.jsonl").read_text()


def test_a_torn_line_is_dropped(tmp_path: Path) -> None:
    results = Results(tmp_path, {}, {})
    results.add(UNITS[0], line(UNITS[0]))
    path = tmp_path / "samples.jsonl"
    whole = path.read_bytes()
    for torn in (b'{"kind": "arti', json.dumps(line(UNITS[1])).encode()):
        path.write_bytes(whole + torn)
        again = Results(tmp_path, {}, {})
        assert again.todo(UNITS) == UNITS[1:]
        assert path.read_bytes() == whole, "the next line begins a line"
    path.write_bytes(b"{}\n" + whole)
    with pytest.raises(LccError, match=r"samples.jsonl: line 1 is no sample"):
        Results(tmp_path, {}, {})


def test_every_sample_says_how_it_was_run(tmp_path: Path) -> None:
    """A cell has no speed where its samples were run in different ways."""
    for number, threads in enumerate((1, 1, 4)):
        run = {"threads": threads, "command": ["lcc", "eval", str(number)]}
        results = Results(tmp_path, {}, run)
        results.add(UNITS[number], line(UNITS[number], read_seconds=1.0 + number))
        (page,) = results.write([CELL])
        assert page["tokens_per_second"] == ([700, 1400 / 3, None][number])
    assert [run["threads"] for run in results.meta["runs"]] == [1, 4]
    assert json.loads((tmp_path / "run_meta.json").read_text()) == results.meta
    lines = (tmp_path / "samples.jsonl").read_text().splitlines()
    assert [json.loads(each)["run"] for each in lines] == [0, 0, 1]
    (tmp_path / "run_meta.json").write_text('{"asked": {}, "runs": {"jobs": 1}}')
    with pytest.raises(ConfigError, match="holds results of an older lcc; give another -o"):
        Results(tmp_path, {}, {})


def test_another_command_is_told_apart(tmp_path: Path) -> None:
    results = Results(tmp_path, {"samples": 3, "seed": 0, "tasks": ["passkey"]}, {})
    results.add(UNITS[0], line(UNITS[0]))
    with pytest.raises(ConfigError) as told:
        Results(tmp_path, {"samples": 4, "seed": 0, "tasks": ["vt"]}, {})
    assert 'samples was 3, now 4; tasks was ["passkey"], now ["vt"]' in str(told.value)
    assert "seed" not in str(told.value)
    (tmp_path / "other").mkdir()
    (tmp_path / "other/thesis.tex").write_text("mine")
    with pytest.raises(ConfigError, match="holds other files"):
        Results(tmp_path / "other", {}, {})


def test_cells() -> None:
    lines = [line(UNITS[0]), line(UNITS[1], score=0.0), line(UNITS[2])]
    page = cell_page(CELL, lines)
    assert (page["name"], page["n"], page["found"]) == ("m.lcc snapkv 64", 3, 2)
    assert page["score"] == pytest.approx(2 / 3)
    assert (page["interval"], page["cycles"], page["tokens_per_second"]) == ("wilson", 4, 350)
    failed = UNITS[0].fields() | {"error": "too long"}
    page = cell_page(CELL, [failed, lines[2]])
    assert (page["n"], page["score"], page["error"], page["failed"]) == (1, 1, "too long", 1)
    assert "score" not in cell_page(CELL, [failed])


def test_failed_samples_are_told_beside_the_score(tmp_path: Path) -> None:
    results = Results(tmp_path / "r", {"samples": 3}, {"machine": {}})
    results.add(UNITS[0], line(UNITS[0]))
    results.add(UNITS[1], UNITS[1].fields() | {"error": "too long"})
    results.fail(UNITS[2], "its process ended")
    pages = results.write([CELL])
    assert (pages[0]["n"], pages[0]["failed"]) == (1, 2)
    assert failed_text(pages[0]) == "2 failed: too long"
    html = render(results, pages)
    assert html.index("1 of 1<") < html.index("2 failed: too long")
    again = Results(tmp_path / "r", {"samples": 3}, {})
    assert again.todo(UNITS) == UNITS[2:], "what may have been chance is tried again"
    again.add(UNITS[2], line(UNITS[2]))
    assert failed_text(again.write([CELL])[0]) == "1 failed: too long"
    results.add(UNITS[2], line(UNITS[2]))
    assert results.write([CELL])[0]["failed"] == 1


def test_lines_go_from_short_to_long() -> None:
    cells = [dataclasses.replace(CELL, length=length) for length in (4000, 500, 1000)]
    pages = [cell_page(cell, [line(Unit(cell=cell, index=0))]) for cell in cells]
    ((drawn,),) = [chart.lines for chart in over_length(pages)]
    xs = [point.x for point in drawn.points]
    assert len(xs) == 3
    assert xs == sorted(xs)


def test_perplexity_cells() -> None:
    cell = Cell(subject=SUBJECT, task="perplexity", length=8, setting="query-agnostic")
    lines = [
        line(Unit(cell=cell, index=i), score=nats, by_position=[[4, nats + 1], [8, nats]])
        for i, nats in enumerate([1.0, 3.0])
    ]
    page = cell_page(cell, lines)
    assert page["score"] == pytest.approx(math.exp(2))
    assert page["by_position"] == [(4, pytest.approx(math.exp(3))), (8, pytest.approx(math.exp(2)))]
