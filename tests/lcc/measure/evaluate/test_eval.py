"""`lcc eval` and `lcc tune-budget` from end to end, on a model that knows nothing."""

import json
import shlex
import shutil
import sys
from html.parser import HTMLParser
from pathlib import Path

import pytest
from typer.testing import CliRunner, Result

import lcc.cli.asking
import lcc.measure.evaluate.asking
from lcc.artifact.manifest import read_manifest
from lcc.cli import app, tune_budget
from lcc.errors import LccError
from lcc.measure.evaluate.catalog import ABOUT
from lcc.measure.evaluate.tune import Tried

QUICK = ("--lengths", "500", "--samples", "2", "-q")


def lcc_(*arguments: object) -> Result:
    return CliRunner().invoke(app, [str(each) for each in arguments])


def done(*arguments: object) -> str:
    result = lcc_(*arguments)
    assert result.exit_code == 0, (result.output, result.exception)
    return result.stdout


def refused(*arguments: object, words: str) -> None:
    result = lcc_(*arguments)
    assert result.exit_code == 2, (result.output, result.exception)
    (line,) = result.stderr.splitlines()
    assert words in line


def lines_of(folder: Path) -> list[dict]:
    """Samples in one order, without what differs from run to run."""
    times = ("read_seconds", "cycle_seconds", "run")
    lines = [json.loads(line) for line in (folder / "samples.jsonl").read_text().splitlines()]
    kept = [{k: v for k, v in line.items() if k not in times} for line in lines]
    return sorted(kept, key=lambda line: json.dumps([line["budget"], line["task"], line["index"]]))


@pytest.fixture
def haystack(tmp_path: Path) -> Path:
    path = tmp_path / "hay.txt"
    path.write_text(" ".join(f"Sentence {n} says {'so ' * (n % 7)}much." for n in range(90)))
    return path


class Page(HTMLParser):
    """Tags with their attributes, and the text between them."""

    def __init__(self, path: Path) -> None:
        super().__init__()
        self.tags, self.text = list[tuple[str, dict]](), ""
        self.feed(path.read_text(encoding="utf-8"))

    def handle_starttag(self, tag: str, attrs: list) -> None:
        self.tags.append((tag, dict(attrs)))

    def handle_data(self, data: str) -> None:
        self.text += data

    def count(self, tag: str, **attributes: str) -> int:
        return sum(t == tag and attributes.items() <= a.items() for t, a in self.tags)


def test_eval(tiny_artifact: Path, haystack: Path, tmp_path: Path) -> None:
    folder = tmp_path / "out"
    command = ["eval", tiny_artifact, "--tasks", "passkey,perplexity", "--haystack", haystack]
    command += ["--budgets", "32,64", "--setting", "query-aware,query-agnostic", *QUICK]
    table = done(*command, "-o", folder).splitlines()
    assert len(table) == 1 + 2 * 3
    assert (
        "tiny.lcc consensus 32  passkey        500  query-agnostic  0 of 2  0.00 to 0.66"
        in (table[1])
    )
    cells = json.loads((folder / "results.json").read_text())["cells"]
    assert [(cell["n"], cell["measure"]) for cell in cells[:3]] == [
        (2, "score"),
        (2, "score"),
        (2, "perplexity"),
    ]
    assert len(cells[2]["by_position"]) == 16
    meta = json.loads((folder / "run_meta.json").read_text())
    assert len(meta["asked"]["artifacts"][0]["fingerprint"]) == 64
    assert meta["asked"]["lengths"] == [500]
    (run,) = meta["runs"]
    assert {"lcc", "python", "numpy", "onnxruntime"} <= run["versions"].keys()
    assert run["machine"]["cpu"]
    assert (run["jobs"], run["threads"]) == (1, None)

    source = (folder / "report.html").read_text(encoding="utf-8")
    assert "http://" not in source
    assert "https://" not in source
    assert "src=" not in source
    page = Page(folder / "report.html")
    assert page.count("table", **{"class": "cells"}) == 1
    assert page.count("table", **{"class": "heat"}) == 4, "two budgets, two settings"
    # Over length and over budget, each in two settings, and perplexity over position.
    assert page.count("svg") == 5
    assert page.count("div", **{"class": "kept"}) == 2, "one for each artifact and task"
    assert "The pass key is" in page.text
    titles = [a["title"] for tag, a in page.tags if tag == "td" and "wanted" in a.get("title", "")]
    assert len(titles) == 8
    assert all("; answered " in title for title in titles)


def test_the_same_command_goes_on(
    tiny_artifact: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked = []
    ask = lcc.measure.evaluate.asking.ask

    def counted(session, sample, **options):  # type: ignore[no-untyped-def]
        asked.append(sample.depth)
        if len(asked) == 2:
            raise KeyboardInterrupt
        return ask(session, sample, **options)

    monkeypatch.setattr(lcc.measure.evaluate.asking, "ask", counted)
    command = ["eval", tiny_artifact, "--tasks", "passkey", "--lengths", 500, "--samples", 3, "-q"]
    command += ["-o", tmp_path / "out"]
    assert lcc_(*command).exit_code == 130
    assert (tmp_path / "out/report.html").exists(), "what was done is shown"
    first = lines_of(tmp_path / "out")
    assert len(first) == 1
    done(*command)
    assert asked == [5, 50, 50, 95]
    done(*command, "--threads", 1)
    done(*command, "--target", read_manifest(tiny_artifact).target)
    refused(*command, "--device", "cpu", words='device was null, now "cpu"')
    assert len(asked) == 4, "nothing is left to do"
    assert lines_of(tmp_path / "out")[0] == first[0]
    refused(*command, "--seed", 3, words="seed was 0, now 3; give another -o")


def test_what_is_there_is_written_while_the_rest_is_done(
    tiny_artifact: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A process that is killed hours later leaves more than lines of JSON."""
    found, ask = [], lcc.measure.evaluate.asking.ask

    def watched(session, sample, **options):  # type: ignore[no-untyped-def]
        page, report = tmp_path / "out/results.json", tmp_path / "out/report.html"
        assert page.exists() == report.exists()
        found.append(json.loads(page.read_text())["cells"][0]["n"] if page.exists() else None)
        return ask(session, sample, **options)

    monkeypatch.setattr(lcc.measure.evaluate.asking, "ask", watched)
    monkeypatch.setattr(lcc.cli.asking, "WRITE_SECONDS", 0.0)
    command = ["eval", tiny_artifact, "--tasks", "passkey", "--lengths", 500, "--samples", 3, "-q"]
    done(*command, "-o", tmp_path / "out")
    assert found == [None, 1, 2]
    assert not list(tmp_path.rglob("*.part*"))


def test_two_jobs_find_what_one_finds(tiny_artifact: Path, tmp_path: Path) -> None:
    command = ["eval", tiny_artifact, "--tasks", "passkey", "--budgets", "32,64", *QUICK]
    done(*command, "-o", tmp_path / "one")
    done(*command, "-o", tmp_path / "two", "--jobs", 2)
    assert lines_of(tmp_path / "one") == lines_of(tmp_path / "two")
    assert len(lines_of(tmp_path / "one")) == 4


def test_settings(tiny_artifact: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    told = []
    ask = lcc.measure.evaluate.asking.ask

    def watched(session, sample, *, view, chat, **options):  # type: ignore[no-untyped-def]
        told.append((view, chat, sample.context.startswith(sample.question)))
        return ask(session, sample, view=view, chat=chat, **options)

    monkeypatch.setattr(lcc.measure.evaluate.asking, "ask", watched)
    command = ["eval", tiny_artifact, "--tasks", "passkey", "--lengths", 500, "--samples", 1, "-q"]
    done(*command, "--chat", "--setting", "query-agnostic,query-aware", "-o", tmp_path / "out")
    assert told == [("generic", True, False), ("question", True, True)]


def test_benchmark_files(tiny_artifact: Path, tmp_path: Path) -> None:
    rows = [
        {"context": f"It is {word}. " * 20, "input": "What?", "answer": word, "options": []}
        for word in ("red", "green")
    ]
    path = tmp_path / "passkey.jsonl"
    path.write_text("\n".join(map(json.dumps, rows)))
    command = ["eval", tiny_artifact, "--file", path, "-q", "-o"]
    table = done(*command, tmp_path / "all").splitlines()
    lines = lines_of(tmp_path / "all")
    assert [line["wanted"] for line in lines] == [["red"], ["green"]]
    assert [(line["length"], line["dataset"]) for line in lines] == [(None, "passkey")] * 2
    assert all(line["tokens"] > len(row["context"]) for line, row in zip(lines, rows, strict=True))
    assert " passkey.jsonl " in table[1], "not to be taken for lcc's own task passkey"
    done(*command, tmp_path / "one", "--samples", 1)
    assert len(lines_of(tmp_path / "one")) == 1
    page = Page(tmp_path / "one/report.html")
    assert page.count("table", **{"class": "heat"}) == page.count("svg") == 0, "no depth, no length"


def test_a_package_that_a_score_needs_is_missed_before_the_first_sample(
    tiny_artifact: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    row = {"input": "What of it?", "context": "Ann. " * 9, "answers": ["Ann"], "length": 9}
    path, out = tmp_path / "qmsum.jsonl", tmp_path / "out"
    path.write_text(json.dumps(row | {"dataset": "qmsum", "all_classes": None}))
    monkeypatch.setitem(sys.modules, "rouge", None)
    refused("eval", tiny_artifact, "--file", path, "-q", "-o", out, words="rouge is not installed")
    assert not out.exists()


def test_policy_none_is_the_same_at_every_budget(
    tiny_artifact: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    none = tmp_path / "none.lcc"
    shutil.copytree(tiny_artifact, none)
    manifest = json.loads((none / "manifest.json").read_text())
    manifest["policy"]["name"] = "none"
    del manifest["schedule"]["cycle"]
    # means nothing: it may be less than what is asked of others
    manifest["cache"]["budget"] = manifest["constants"]["budget"] = 48
    (none / "manifest.json").write_text(json.dumps(manifest))

    def fail(results, units, *_: object) -> list:  # type: ignore[no-untyped-def]
        for unit in units:
            results.fail(unit, "not asked: which cells there are is enough")
        return []

    monkeypatch.setattr(lcc.cli.asking, "do", fail)
    command = ["eval", none, tiny_artifact, "--tasks", "passkey", "--budgets", "16:100,32,64"]
    command += ["--capacity", 120]
    assert lcc_(*command, "-o", tmp_path / "out").exit_code == 1, "no cell has a score"
    cells = json.loads((tmp_path / "out/results.json").read_text())["cells"]
    assert [(cell["policy"], cell["budget"], cell["capacity"]) for cell in cells] == [
        ("none", None, 120),
        ("consensus", 16, 100),
        ("consensus", 32, 120),
        ("consensus", 64, 120),
    ]
    assert cells[1]["name"] == "tiny.lcc consensus 16:100"


def test_what_cannot_be_asked_is_told_beside_the_score(
    tiny_artifact: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    ask, failing = lcc.measure.evaluate.asking.ask, {50}

    def sometimes(session, sample, **options):  # type: ignore[no-untyped-def]
        if sample.depth in failing:
            raise LccError("too long")
        return ask(session, sample, **options)

    monkeypatch.setattr(lcc.measure.evaluate.asking, "ask", sometimes)
    command = ["eval", tiny_artifact, "--tasks", "passkey", "--lengths", 500, "--samples", 3, "-q"]
    (_, row) = done(*command, "-o", tmp_path / "out").splitlines()
    assert " 0 of 2 " in row
    assert row.endswith("  1 failed: too long")
    assert "1 failed: too long" in Page(tmp_path / "out/report.html").text
    failing |= {5, 95}
    result = lcc_(*command, "-o", tmp_path / "none")
    assert result.exit_code == 1, "no cell has a score"
    assert result.stdout.splitlines()[1].endswith("3 failed: too long")


def test_a_haystack_that_nothing_hides_in(
    tiny_artifact: Path, haystack: Path, tmp_path: Path
) -> None:
    task = ["--tasks", "passkey", "--haystack", haystack, "--budgets", 64, *QUICK]
    for command in ("eval", "tune-budget"):
        result = lcc_(command, tiny_artifact, *task, "-o", tmp_path / command)
        assert f"--haystack {haystack}: none of these tasks reads it" in result.stderr
    meta = json.loads((tmp_path / "eval/run_meta.json").read_text())
    assert meta["asked"]["haystack"] is None


def test_another_model_or_version_is_another_command(
    tiny_artifact: Path, tiny_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    model = tmp_path / "model"
    shutil.copytree(tiny_folder, model)
    command = ["eval", tiny_artifact, "--model", model, "--tasks", "passkey", "--lengths", 300]
    command += ["--samples", 1, "-q", "-o", tmp_path / "out"]
    done(*command)
    done(*command)
    with (model / "config.json").open("a") as file:
        file.write("\n")
    refused(*command, words="holds results of another command: model was")
    shutil.rmtree(model)
    shutil.copytree(tiny_folder, model)
    monkeypatch.setattr(lcc, "__version__", "99")
    refused(*command, words='now "99"')


def test_a_model_without_chat_template(tiny_folder: Path, tmp_path: Path) -> None:
    shutil.copytree(tiny_folder, silent := tmp_path / "silent")
    (silent / "chat_template.jinja").unlink()
    command = ["eval", "--model", silent, "--tasks", "passkey", "--chat", *QUICK]
    result = lcc_(*command, "-o", tmp_path / "out")
    assert result.exit_code == 1
    assert "2 failed: the model has no chat template; leave out --chat" in result.stdout


def test_a_model_alone(tiny_folder: Path, tmp_path: Path) -> None:
    command = ["eval", "--model", tiny_folder, "--tasks", "passkey", *QUICK]
    (_, *rows) = done(*command, "-o", tmp_path / "out").splitlines()
    assert len(rows) == 1
    assert rows[0].startswith("tiny-llama full cache  passkey ")


def test_refusals(tiny_artifact: Path, tiny_folder: Path, tmp_path: Path) -> None:
    start = ["eval", tiny_artifact, "-o", tmp_path / "out"]
    (tmp_path / "empty").mkdir()
    hay = ["--tasks", "perplexity", "--haystack", tmp_path / "empty"]
    refused(*start, *hay, words="no text found")
    (tmp_path / "hay.txt").write_text("So. And so.")
    hay = ["--tasks", "perplexity", "--haystack", tmp_path / "hay.txt", "--setting", "query-aware"]
    refused(*start, *hay, words="nothing to measure: perplexity has setting query-agnostic only")
    judged = {"instructions": ["Sum up."], "outputs": ["x"], "input": "t", "evaluation": "LLM"}
    (tmp_path / "s.jsonl").write_text(json.dumps(judged | {"source": "s"}))
    refused(*start, "--file", tmp_path / "s.jsonl", words="none of its rows can be scored")
    refused(*start, words="give --tasks or --file")
    refused(*start, "--tasks", "paskey", words="no task 'paskey'; did you mean passkey? there are:")
    refused(*start, "--tasks", "perplexity", words="task perplexity needs a text to hide in: give")
    refused(*start, "--tasks", "passkey", "--lengths", "4x", words="'4x' is no number of tokens")
    refused(*start, "--tasks", "passkey", "--setting", "generic", words="wanted query-agnostic or")
    refused(*start, "--tasks", "passkey", "--budgets", "65", words="budget is 65, the artifact was")
    words = "exceeds capacity (100); wanted 112 slots or more, or smaller chunks"
    refused(*start, "--tasks", "passkey", "--budgets", "64,64:100", words=words)
    refused(*start, "--tasks", "passkey", "--budgets", "64,4", words="must be smaller than budget")
    tune = ["tune-budget", *start[1:], "--tasks", "passkey"]
    for command in (start, tune[:-2]):
        refused(*command, "--tasks", "passkey", "--capacity", 0, words="capacity is 0, wanted 1")
        refused(*command, "--tasks", "passkey", "--device", "cuda", words="wanted cpu, or nothing")
    refused(*start, "--tasks", "passkey", "--target", "tvm:cpu", words="not compiled for tvm:cpu")
    refused(*tune, "--budgets", 4, words="must be smaller than budget (4)")
    refused(*start, "--tasks", "passkey", "--press", "knorm", words="give --model, too")
    model = ["eval", "--model", tiny_folder, *start[2:]]
    refused(*model, "--tasks", "passkey", "--kept", 64, words="give --press, too")
    for option in ("--budgets", "--capacity", "--target", "--device"):
        refused(*model, "--tasks", "passkey", option, 64, words=f"{option} is of artifacts")
    refused(*start, "--file", tmp_path / "s.jsonl", "--lengths", "4k", words="is of --tasks; sam")
    shutil.copytree(tiny_artifact, silent := tmp_path / "silent.lcc")
    (silent / "chat_template.jinja").unlink()
    for command in ("eval", "tune-budget"):
        asks = [command, silent, *start[2:], "--tasks", "passkey", "--chat"]
        refused(*asks, words="silent.lcc has no chat template; leave it out")
    refused("eval", *start[2:], "--tasks", "passkey", words="nobody to ask; give artifacts, or")
    shutil.copytree(tiny_artifact, tmp_path / tiny_artifact.name)
    refused(*start, tmp_path / tiny_artifact.name, "--tasks", "passkey", words="two artifacts are")
    assert not (tmp_path / "out").exists()


def test_help_lists_the_tasks() -> None:
    for command in ("eval", "tune-budget"):
        text = lcc_(command, "--help").stdout
        assert all(f" {name} " in text for name in ABOUT)


def test_tune_budget(tiny_artifact: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    ask = lcc.measure.evaluate.asking.SessionAsker.ask

    def pretend(self, *arguments: object, **options: object) -> dict:  # type: ignore[no-untyped-def]
        line = ask(self, *arguments, **options)  # type: ignore[arg-type]
        shown.append((tmp_path / "out/report.html").exists())
        budget = self.session._executor.limits.budget
        return line | {"score": float(budget >= 32 or line["depth"] < 50)}

    shown: list[bool] = []
    monkeypatch.setattr(lcc.measure.evaluate.asking.SessionAsker, "ask", pretend)
    monkeypatch.setattr(lcc.cli.asking, "WRITE_SECONDS", 0.0)
    command = ["tune-budget", tiny_artifact, "--tasks", "passkey", *QUICK, "-o", tmp_path / "out"]
    table = done(*command).splitlines()
    chosen = [row for row in table if row.endswith("chosen")]
    assert [row.split()[0] for row in chosen] == ["32"]
    assert any("misses it" in row for row in table)
    assert f'  lcc.runtime.open("{tiny_artifact}", budget=32)' in table
    sizes = "--chunk-size 16 --catalyst-size 32 --recent-size 8"
    advice = f"  lcc compile MODEL -o SMALLER.lcc --budget 32 --capacity 128 {sizes}"
    options = "--option 'catalyst=What matters?' --option nll_weight=0.25"
    assert f"{advice} {options} --option recall_floor=0.02" in table
    page = Page(tmp_path / "out/report.html")
    assert shown == [False] + [True] * (len(shown) - 1), "it may be looked at meanwhile"
    assert "Budget 32 reaches the target" in page.text
    assert page.count("svg") == 2, "over length and over budget"
    monkeypatch.setattr(lcc.measure.evaluate.asking, "ask", None)
    assert done(*command).splitlines() == table, "nothing is asked again"
    listed = [*command, "--budgets", "32,64", "--target-accuracy", 0.5, "--absolute"]
    assert any(row.endswith("chosen") for row in done(*listed).splitlines()), "nor for these"


def test_what_tune_budget_advises_can_be_compiled(
    tiny_artifact: Path, tiny_folder: Path, tmp_path: Path
) -> None:
    """To what was measured, whatever the default sizes and policy are."""
    shutil.copytree(tiny_artifact, own := tmp_path / "own.lcc")
    manifest = json.loads((own / "manifest.json").read_text())
    manifest["policy"] = {"name": "infinipot", "options": {"alpha": 0.25, "catalyst": "Sum up: a"}}
    (own / "manifest.json").write_text(json.dumps(manifest))
    best = Tried(budget=40, score=1.0, wanted=0.9, sure=True)
    for capacity in (None, 112):
        advice = shlex.split(tune_budget._advice(best, own, capacity, 20).splitlines()[-1])
        assert advice[:4] == ["lcc", "compile", "MODEL", "-o"]
        done("compile", tiny_folder, "-o", tmp_path / f"{capacity}.lcc", *advice[5:])
        made, wanted = read_manifest(tmp_path / f"{capacity}.lcc"), read_manifest(own)
        assert made.cache == wanted.cache.lowered(budget=40, capacity=capacity)
        assert made.policy.name == "infinipot"
        assert made.policy.options.items() >= wanted.policy.options.items()


def test_tune_budget_when_nothing_is_good_enough(tiny_artifact: Path, tmp_path: Path) -> None:
    command = ["tune-budget", tiny_artifact, "--tasks", "passkey", *QUICK]
    result = lcc_(*command, "--absolute", "-o", tmp_path / "out")
    assert result.exit_code == 1
    assert "No budget reaches the target" in result.stdout
    refused(*command, "-o", tmp_path / "out2", words="the reference answered nothing right")
    refused(*command, "--absolute", "--model", "x", "-o", "y", words="wanted it or --model")
