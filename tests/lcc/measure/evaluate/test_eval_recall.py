"""`lcc eval --archive`: one reading of a text, answered without recall and with it."""

import gc
import json
import shutil
import tempfile
from pathlib import Path

import pytest
from typer.testing import CliRunner, Result

import lcc.measure.evaluate.asking
import lcc.runtime
from lcc.cli import app
from lcc.errors import LccError
from lcc.measure.evaluate.asking import SessionAsker
from lcc.measure.evaluate.grid import Subject, cells_of, units_of
from lcc.measure.evaluate.report import over_budget, over_length
from lcc.measure.evaluate.sample import Sample
from lcc.runtime import Session
from lcc.runtime.text.writing import GREEDY

QUICK = ("--lengths", "500", "--samples", "2", "-q")
SAMPLE = Sample(
    context="".join(f"Sentence {n} says {'so ' * (n % 7)}much. " for n in range(30)),
    question="And 3?",
    task="What?",
    answer_prefix="It says",
    answers=("so so so much",),
    depth=10.0,
    tokens=0,
    max_new_tokens=6,
)
TIMES = ("read_seconds", "cycle_seconds", "recall_seconds", "run")


def lcc_(*arguments: object) -> Result:
    return CliRunner().invoke(app, [str(each) for each in arguments])


def lines_of(folder: Path) -> dict[tuple, dict]:
    """Setting, index -> a sample, without what differs from run to run."""
    lines = [json.loads(line) for line in (folder / "samples.jsonl").read_text().splitlines()]
    return {
        (line["setting"], line["index"]): {k: v for k, v in line.items() if k not in TIMES}
        for line in lines
    }


@pytest.fixture
def temporary(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Where temporary folders are made."""
    (folder := tmp_path / "temporary").mkdir()
    monkeypatch.setattr(tempfile, "tempdir", str(folder))
    return folder


def count_tokens(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """How many tokens each call of `feed` has read."""
    counts, feed = list[int](), Session.feed

    def counted(session: Session, *given: object, **more: object) -> int:
        counts.append(feed(session, *given, **more))  # type: ignore[arg-type]
        return counts[-1]

    monkeypatch.setattr(Session, "feed", counted)
    return counts


def test_eval(
    tiny_artifact: Path, temporary: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    command = ["eval", tiny_artifact, "--tasks", "passkey", *QUICK, "-o"]
    assert lcc_(*command, tmp_path / "without").exit_code == 0
    counts = count_tokens(monkeypatch)
    result = lcc_(*command, tmp_path / "one", "--archive")
    assert result.exit_code == 0, (result.output, result.exception)
    rows = [row.split()[4:6] for row in result.stdout.splitlines()[1:]]
    assert rows == [["500", "query-agnostic"], ["500", "recall"]]
    lines = lines_of(tmp_path / "one")
    assert sum(counts) == sum(lines["recall", i]["tokens"] for i in (0, 1)), "each is read once"
    assert lines_of(tmp_path / "without").items() < lines.items(), "and nothing else changes"
    for index in (0, 1):
        plain, recalled = lines["query-agnostic", index], lines["recall", index]
        assert "recalled" not in plain
        assert recalled["recalled"] >= 0
        assert (recalled["tokens"], recalled["cycles"]) == (plain["tokens"], plain["cycles"])
    cells = json.loads((tmp_path / "one/results.json").read_text())["cells"]
    assert [cell["setting"] for cell in cells] == ["query-agnostic", "recall"]
    assert cells[1]["recalled"] == sum(lines["recall", i]["recalled"] for i in (0, 1)) / 2
    assert cells[1]["recall_seconds"] > 0
    report = (tmp_path / "one/report.html").read_text()
    assert report.count("<td>recall\n") == 1
    assert ">tiny.lcc consensus 64 with recall</span>" in report, "a line beside the other one"
    assert report.count("<svg ") == 1
    assert report.count('class="heat"') == report.count('class="kept"') == 2
    assert report.count(" data-recall ") == 1
    assert lcc_(*command, tmp_path / "two", "--archive", "--jobs", 2).exit_code == 0
    assert lines_of(tmp_path / "two") == lines
    gc.collect()
    assert not [*temporary.iterdir()], "archives are gone with their folders"


def test_what_came_back_is_shown(tiny_artifact: Path, tmp_path: Path) -> None:
    asker = SessionAsker(lcc.runtime.open(tiny_artifact), archive=True)
    plain = asker.ask(SAMPLE, "query-agnostic", chat=False, kept_map=True)["kept"]
    line = asker.ask(SAMPLE, "recall", chat=False, kept_map=True)
    page = line["kept"]
    assert (plain["recall"], page["recall"]) == (False, True)
    assert plain["tokens"][-1:] * 2 == page["tokens"], "before and after the recall"
    assert "".join(text for text, _, _ in page["pieces"]) == SAMPLE.context
    back = sum(len(text) for text, (old, new), _ in page["pieces"] if old == "0" < new)
    assert back == line["recalled"] > 0
    last = "".join(levels[-1] * len(text) for text, levels, _ in plain["pieces"])
    assert last == "".join(levels[0] * len(text) for text, levels, _ in page["pieces"])


def test_answers_are_those_of_a_session_that_does_nothing_else(
    tiny_artifact: Path, tmp_path: Path
) -> None:
    session = lcc.runtime.open(tiny_artifact, archive=tmp_path / "a.lccarchive")
    session.feed(SAMPLE.context, last=True)
    session.save(tmp_path / "a.lccstate")
    wanted = []
    for recall in (False, True):
        session.load(tmp_path / "a.lccstate")
        wanted.append(
            "".join(session.generate(SAMPLE.asked, max_new_tokens=6, recall=recall, **GREEDY))
        )
    recalled = session.stats().recalled
    asker = SessionAsker(lcc.runtime.open(tiny_artifact), archive=True)
    for setting in ("query-agnostic", "recall", "query-agnostic", "recall"):
        line = asker.ask(SAMPLE, setting, chat=False)  # type: ignore[arg-type]
        assert line["answer"] == wanted[setting == "recall"]
        assert line.get("recalled") == (recalled if setting == "recall" else None)
        asker.perplexity(asker.encode(SAMPLE.context))  # another text in between
    alone = SessionAsker(lcc.runtime.open(tiny_artifact)).ask(SAMPLE, "recall", chat=False)
    assert (alone["answer"], alone["recalled"]) == (wanted[1], recalled)


def test_what_cannot_be_recalled_is_an_error(
    tiny_artifact: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    shutil.copytree(tiny_artifact, none := tmp_path / "none.lcc")
    page = json.loads((none / "manifest.json").read_text())
    del page["archive"], page["schedule"]["flush"], page["schedule"]["recall"]
    cycle = page["schedule"]["cycle"]
    page["schedule"]["cycle"] = [b for b in cycle if b.get("when", [])[:1] != ["zero"]]
    (none / "manifest.json").write_text(json.dumps(page))
    command = ["eval", none, "--tasks", "passkey", "--archive", *QUICK, "-o", tmp_path / "out"]
    plain, recall = lcc_(*command).stdout.splitlines()[1:]
    assert "failed" not in plain
    assert "2 failed: this artifact has no archive: policy consensus" in recall
    asker = SessionAsker(lcc.runtime.open(tiny_artifact), archive=True)
    asker.ask(SAMPLE, "query-agnostic", chat=False)
    stats = asker.session.stats()
    stats.archive_stopped = "no space left on device"
    monkeypatch.setattr(asker.session, "stats", lambda: stats)
    with pytest.raises(LccError, match="lacks a part of the text: no space left on device"):
        asker.ask(SAMPLE, "recall", chat=False)
    words = "wanted query-agnostic or query-aware, or both; recall is asked for by --archive"
    assert words in lcc_(*command, "--setting", "recall").stderr
    alone = lcc_("eval", "--model", "x", *command[2:])
    assert "--archive is of artifacts, and there is none; leave it out" in alone.stderr


def test_one_process_answers_without_and_with_recall() -> None:
    subjects = [
        Subject(kind="artifact", source="a", policy="a", budget=1),
        Subject(kind="full", source="m", policy="full cache"),
    ]
    tasks = ["passkey", "perplexity"]
    cells = cells_of(subjects, tasks, [100], ["query-agnostic", "recall", "query-aware"])
    assert [cell.setting for cell in cells if cell.subject.kind == "full"] == [
        *("query-agnostic", "query-aware", "query-agnostic")
    ]
    assert [cell.setting for cell in cells if cell.task == "perplexity"] == ["query-agnostic"] * 2
    asked = [u for u in units_of(cells[:3], dict.fromkeys(tasks, 2))]
    assert [(unit.cell.setting, unit.index) for unit in asked] == [
        ("query-agnostic", 0),
        ("recall", 0),
        ("query-agnostic", 1),
        ("recall", 1),
        ("query-aware", 0),
        ("query-aware", 1),
    ]
    assert asked[0].text_key == asked[1].text_key != asked[4].text_key
    mapped = [(unit.cell.setting, unit.index) for unit in asked if unit.kept_map]
    assert mapped == [("query-agnostic", 1), ("recall", 1)]


def test_charts_show_recall_beside_the_same_reading_without_it() -> None:
    page = {"task": "vt", "length": 1024, "measure": "score", "source": "a", "low": 0, "high": 1}
    cells = [
        page
        | {"setting": setting, "budget": budget, "name": f"a p {budget}", "policy": "p"}
        | {"score": 0.5, "n": 2, "found": 1, "interval": "wilson"}
        for budget in (1, 2)
        for setting in ("query-agnostic", "recall", "query-aware")
    ]
    agnostic, aware = over_length(cells)
    assert (agnostic.title, aware.title) == ("vt, query-agnostic", "vt, query-aware")
    names = ["a p 1", "a p 1 with recall", "a p 2", "a p 2 with recall"]
    assert [line.name for line in agnostic.lines] == names
    assert [line.name for line in aware.lines] == names[::2]
    agnostic, aware = over_budget(cells)
    assert [line.name for line in agnostic.lines] == ["a p", "a p with recall"]
    assert [line.name for line in aware.lines] == ["a p"]
    assert cells[1]["setting"] == "recall"
