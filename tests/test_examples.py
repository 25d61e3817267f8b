"""The examples run as a user runs them, each in a new process, on tiny models."""

import re
import subprocess
import sys
from pathlib import Path

import pytest

import lcc.runtime
from lcc.runtime.text.writing import GREEDY

EXAMPLES = Path(__file__).parents[1] / "examples"


@pytest.fixture(scope="module")
def text(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("text") / "book.txt"
    path.write_text("It was the best of times, it was the worst of times. " * 20)
    return path


def run(name: str, *arguments: object) -> subprocess.CompletedProcess:
    command = [sys.executable, str(EXAMPLES / name), *map(str, arguments)]
    result = subprocess.run(command, capture_output=True, text=True, encoding="utf-8", check=False)
    assert result.returncode == 0, result.stderr
    return result


def test_every_example_is_short_and_run_here() -> None:
    names = sorted(path.name for path in EXAMPLES.glob("*.py"))
    assert len(names) == 6
    source = Path(__file__).read_text()
    for name in names:
        assert f'run("{name}"' in source
        most = 60 if name != "05_runtime_in_one_file.py" else 280  # a whole runtime, to be ported
        assert len((EXAMPLES / name).read_text().splitlines()) < most


def test_embed_in_an_app(tiny_artifact: Path, text: Path) -> None:
    result = run("01_embed_in_an_app.py", tiny_artifact, text, "When was it?")
    assert result.stdout.endswith("\n")
    assert len(result.stdout) > 1
    assert "entries became 64" in result.stderr
    assert "100%" in result.stderr


def test_save_and_ask_again(tiny_artifact: Path, text: Path) -> None:
    arguments = (tiny_artifact, text, "When was it?", "Where?", "When was it?")
    first = run("02_save_and_ask_again.py", *arguments).stdout
    again = run("02_save_and_ask_again.py", *arguments).stdout
    assert text.with_suffix(".lccstate").exists()
    assert " tokens became " in first
    _, _, answers = first.partition("lccstate\n")
    assert again == answers, "the second run reads the state instead of the text"
    first_time, _, rest = answers.removeprefix("When was it?\n").partition("Where?\n")
    other, _, second_time = rest.partition("When was it?\n")
    assert first_time == second_time
    assert other


def test_custom_policy(tiny_folder: Path, tmp_path: Path) -> None:
    result = run("03_custom_policy.py", tiny_folder, tmp_path / "out.lcc")
    kept = [int(each) for each in result.stdout.partition(":")[2].split()]
    assert len(kept) == 64
    assert kept == sorted(kept)
    assert kept[:4] == [0, 1, 2, 3]


def test_plain_module(tmp_path: Path) -> None:
    result = run("04_plain_module.py", tmp_path / "out.lcc")
    assert result.stdout.startswith("4400 tokens read, ")


def test_runtime_in_one_file(tiny_artifact: Path) -> None:
    result = run("05_runtime_in_one_file.py", tiny_artifact, "--golden")
    assert result.stdout == "golden: all numbers are the same\n"
    ids = run("05_runtime_in_one_file.py", tiny_artifact, "--ids", "72,101", "--new", 4).stdout
    session = lcc.runtime.open(tiny_artifact)
    wanted = list(session.generate_ids([72, 101], max_new_tokens=4, **GREEDY))
    assert [int(each) for each in ids.split()] == wanted


def test_call_back(tiny_artifact: Path, tmp_path: Path) -> None:
    text = tmp_path / "book.txt"
    text.write_text(" ".join(f"Sentence {n} says {'so ' * (n % 7)}much." for n in range(30)))
    first = run("06_call_back.py", tiny_artifact, text, "Which?", "And 3?").stdout
    assert re.match(r"\d+ tokens were read, \d+ are in the cache\nWhich\?\n  ", first)
    back = [int(each) for each in re.findall(r"\n  (\d+) of \d+ came back", first)]
    assert len(back) == 2
    assert min(back) > 0
    again = run("06_call_back.py", tiny_artifact, text, "And 3?", "Which?").stdout
    assert again.splitlines()[0] == first.splitlines()[0], "the state and the archive are read"
    assert re.findall(r"(\d+) of", again) == [*map(str, back[::-1])]
