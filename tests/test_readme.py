"""The README is true: its code runs, its flags exist, its second command is the gate."""

import re
import shlex
import shutil
import subprocess
import sys
from pathlib import Path

import msgspec
import pytest
import typer.core
import typer.main

from lcc.cli import app
from lcc.passes.policies import POLICIES

ROOT = Path(__file__).parents[1]
README = (ROOT / "README.md").read_text(encoding="utf-8")
CONTRIBUTING = (ROOT / "CONTRIBUTING.md").read_text(encoding="utf-8")
PAGES = sorted(
    str(page.relative_to(ROOT)) for page in [*ROOT.glob("*.md"), *(ROOT / "docs").rglob("*.md")]
)


def blocks(text: str, language: str) -> list[str]:
    """Code of one language, each command in one line."""
    found = re.findall(rf"```{language}\n(.*?)```", text, flags=re.DOTALL)
    return [re.sub(r"\s*\\\n\s*", " ", block) for block in found]


def test_a_newcomer_reads_it_in_five_minutes() -> None:
    lines = README.splitlines()
    assert len(lines) <= 150
    assert [line for line in lines if len(line) > 100] == []


def test_quickstart_runs(tiny_artifact: Path, tmp_path: Path) -> None:
    (code,) = blocks(README, "python")
    assert len(code.splitlines()) <= 10
    shutil.copytree(tiny_artifact, tmp_path / "model.lcc")
    (tmp_path / "book.txt").write_text("Call me Ishmael. " * 50)
    result = subprocess.run(
        [sys.executable, "-c", code], cwd=tmp_path, capture_output=True, text=True, check=False
    )
    assert result.returncode == 0, result.stderr
    read = re.search(r"prefill +(\d+) tokens", result.stdout)
    assert read is not None, result.stdout
    assert int(read[1]) > 850  # the book, and the question in its template
    assert "peak memory" in result.stdout
    assert (tmp_path / "book.lccstate").exists()


def test_ci_runs_the_second_command() -> None:
    commands = [block.strip() for block in blocks(README, "bash") if "venv" in block]
    assert len(commands) == 2
    assert commands[1] in [block.strip() for block in blocks(CONTRIBUTING, "bash")]
    steps = [step.strip() for step in commands[1].split(" && ")]
    script = (ROOT / ".ci" / "run").read_text().replace(" && ", "\n").splitlines()
    assert [line for line in script if line in steps] == steps
    assert commands[0].split(" && ")[-1] == "lcc demo"


def lcc_commands(name: str) -> list[list[str]]:
    """Every command that a page shows, in words, without the parts that are left open."""
    text = (ROOT / name).read_text(encoding="utf-8")
    lines = [line for block in blocks(text, "bash") for line in block.splitlines()]
    shown = [line for line in lines if line.startswith("lcc ")]
    inline = re.findall(r"`(?:LCC_\w+=\S+ )?(lcc [a-z][^`]*)`", text)
    return [shlex.split(line.replace("...", ""), comments=True) for line in shown + inline]


def every_command() -> dict[str, typer.core.TyperCommand]:
    """Name, with that of its group before it -> command."""
    found, groups = {}, [("", typer.main.get_command(app))]
    for prefix, group in groups:
        for name, command in group.commands.items():  # type: ignore[attr-defined]
            if hasattr(command, "commands"):
                groups.append((f"{prefix}{name} ", command))
            else:
                found[prefix + name] = command
    return found


def test_the_readme_shows_commands() -> None:
    assert len(lcc_commands("README.md")) >= 8
    assert len([page for page in PAGES if lcc_commands(page)]) >= 10


@pytest.mark.parametrize("page", PAGES)
def test_commands_and_flags_exist(page: str) -> None:
    known = every_command()
    for _, *words in lcc_commands(page):
        name = " ".join(words[:2]) if " ".join(words[:2]) in known else words[0]
        assert name in known, name
        flags = {flag for each in known[name].params for flag in each.opts}
        assert {word for word in words if word.startswith("-")} <= flags, (name, words)


def test_every_command_is_in_the_changelog_and_teaches() -> None:
    changelog = (ROOT / "CHANGELOG.md").read_text()
    for name, command in every_command().items():
        assert re.search(rf"`(lcc )?{name}`", changelog), name
        assert f"  lcc {name}" in str(command.help), f"lcc {name} --help has no example"


def test_policies_are_all_in_the_table() -> None:
    section = README.partition("## Policies")[2].partition("\n## ")[0]
    cells = re.findall(r"^\| (`.*?) \|", section, flags=re.MULTILINE)
    assert re.findall(r"`(\w+)`", " ".join(cells[1:])) == list(POLICIES)  # after the head


def test_policies_and_their_options_are_all_in_the_documentation() -> None:
    text = (ROOT / "docs" / "policies.md").read_text(encoding="utf-8")
    rows = [line.split(" | ") for line in text.splitlines() if line.startswith("| `")]
    shown = {row[0].strip("| `"): re.findall(r"`(\w+)`", row[2]) for row in rows[1:]}
    known = {
        name: [field.name for field in msgspec.structs.fields(policy.Options)]
        for name, policy in POLICIES.items()
    }
    assert shown == known


def test_tables_of_fidelity_are_those_of_the_figures() -> None:
    script = ROOT / "docs" / "measure" / "fidelity_tables.py"
    assert subprocess.run([sys.executable, script, "--check"], check=False).returncode == 0


@pytest.mark.parametrize("name", PAGES)
def test_links_and_paths_exist(name: str) -> None:
    text = (ROOT / name).read_text(encoding="utf-8")
    for target in re.findall(r"\]\((?!http)([^)#]+)[^)]*\)", text):
        assert (ROOT / name).parent.joinpath(target).exists(), target
    for path in re.findall(
        r"`((?:lcc|passes|targets|runtime|tests|examples|docs)/[\w/.-]*)`", text
    ):
        if "name" not in path and "verb_object" not in path:
            assert (ROOT / path).exists(), path
