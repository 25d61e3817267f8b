"""`--archive` of `lcc run` and `lcc chat`, and what `lcc inspect` says of it."""

import json
import shutil
from pathlib import Path

import pytest
from typer.testing import CliRunner, Result

from lcc.cli import app
from lcc.cli.options import archive_options
from lcc.errors import ConfigError
from lcc.runtime import open


def lcc(*arguments: object, stdin: str | None = None) -> Result:
    return CliRunner().invoke(app, [str(each) for each in arguments], input=stdin)


def stats(*arguments: object) -> dict:
    result = lcc(*arguments, "--prompt", "Who?", "-n", 8, "--json", "-q")
    assert result.exit_code == 0, (result.output, result.exception)
    page: dict = json.loads(result.stdout)
    return page["stats"] | {"answer": page["answer"]}


def refused(*arguments: object, words: str, stdin: str | None = None) -> None:
    result = lcc(*arguments, stdin=stdin)
    assert result.exit_code == 2, (result.output, result.exception)
    line = result.stderr.splitlines()[-1]
    assert "lcc: error: " in line
    assert words in line


@pytest.fixture
def text(tmp_path: Path) -> Path:
    path = tmp_path / "text.txt"
    sentences = [f"Sentence {n} says {'so ' * (n % 7)}much." for n in range(40)]
    path.write_text(" ".join(sentences), encoding="utf-8")
    return path


@pytest.fixture
def none(tiny_artifact: Path, tmp_path: Path) -> Path:
    """The same artifact without an archive, as other policies have none."""
    shutil.copytree(tiny_artifact, folder := tmp_path / "none.lcc")
    page = json.loads((folder / "manifest.json").read_text())
    del page["archive"], page["schedule"]["flush"], page["schedule"]["recall"]
    cycle = page["schedule"]["cycle"]
    page["schedule"]["cycle"] = [b for b in cycle if b.get("when", [])[:1] != ["zero"]]
    (folder / "manifest.json").write_text(json.dumps(page))
    return folder


def test_a_question_calls_back(tiny_artifact: Path, text: Path, tmp_path: Path) -> None:
    archive = tmp_path / "a.lccarchive"
    run = ("run", tiny_artifact, "--file", text)
    found = stats(*run, "--archive", archive)
    assert found["recalls"] == 1
    assert found["recalled"] > 0
    assert found["archive_rows"] > 800
    assert found["archive_bytes"] == archive.stat().st_size
    open(tiny_artifact, archive=archive).close()  # the command has closed it
    silent = stats(*run, "--archive", tmp_path / "b.lccarchive", "--no-recall")
    assert (silent["recalls"], silent["recalled"]) == (0, None)
    plain = stats(*run)
    assert (plain["archive_rows"], plain["answer"]) == (None, silent["answer"])
    told = lcc(*run, "--archive", tmp_path / "c.lccarchive", "-p", "Who?", "-n", 2, "-q", "-v")
    (archived,) = [line for line in told.stderr.splitlines() if line.startswith("archive ")]
    assert f"{found['archive_rows']:,} tokens, " in archived
    assert f", {found['recalled']:,} entries in the last one" in told.stderr


def test_a_state_goes_on_with_its_archive(tiny_artifact: Path, text: Path, tmp_path: Path) -> None:
    archive, state = tmp_path / "a.lccarchive", tmp_path / "a.lccstate"
    run = ("run", tiny_artifact, "--archive", archive)
    first = stats(*run, "--file", text, "--save", state)
    for _ in range(2):
        again = stats(*run, "--load", state)
        for name in ("answer", "recalled", "tokens", "archive_rows"):
            assert again[name] == first[name]
    ask = ("--prompt", "Who?", "-n", 1)
    refused(*run, "--file", text, *ask, words="tokens of another text; load the state that was")
    other = ("--load", state, "--archive", tmp_path / "b.lccarchive")
    words = "(give the --archive that the state was saved with, or none)"
    refused("run", tiny_artifact, *other, *ask, words=words)
    assert stats("run", tiny_artifact, "--load", state)["recalls"] == 0, "it needs no archive"


def test_chat_with_an_archive(tiny_artifact: Path, text: Path, tmp_path: Path) -> None:
    archive = tmp_path / "a.lccarchive"
    chat = ("chat", tiny_artifact, "-n", 4, "--archive", archive)
    lines = f"/file {text}\nWhat now?\nWhat then?\n/stats\n"
    result = lcc(*chat, stdin=lines)
    assert result.exit_code == 0, (result.output, result.exception)
    assert "\nrecalls      2, " in result.stderr, "a message with a file asks at its end"
    assert (
        "\nrecalls      0, " in lcc(*chat[:-1], tmp_path / "b", "--no-recall", stdin=lines).stderr
    )
    refused(*chat, stdin="Hello\nHello\n", words="tokens of another text; load the state")


def test_options_of_an_archive(tiny_artifact: Path, none: Path, tmp_path: Path) -> None:
    path = tmp_path / "a.lccarchive"
    assert archive_options(None, limit=None, dtype=None) == {}
    assert archive_options(path, limit="2GB", dtype="float32") == {
        "archive": path,
        "archive_limit": 2 * 10**9,
        "archive_dtype": "float32",
    }
    for given, name in (
        ({"limit": "2GB", "dtype": None}, "--archive-limit"),
        ({"limit": None, "dtype": "float16"}, "--archive-dtype"),
        ({"limit": None, "dtype": None, "no_recall": True}, "--no-recall"),
    ):
        with pytest.raises(ConfigError, match=f"{name} is of an archive; give --archive PATH"):
            archive_options(None, **given)  # type: ignore[arg-type]
    run = ("run", tiny_artifact, "--prompt", "Who?", "--archive", path)
    refused(*run, "--archive-limit", "much", words="'much' is not a size")
    refused(*run, "--archive-limit", "20kB", words="limit")
    refused(*run, "--archive-dtype", "int3", words='archive dtype is "int3", wanted one of')
    refused("run", none, *run[2:], words="this artifact has no archive: policy consensus")
    refused("chat", none, *run[4:], words="this artifact has no archive: policy consensus")
    assert not path.exists()


def test_help_teaches_archives() -> None:
    for command, option in (("run", "--file book.txt"), ("chat", "m.lcc")):
        words = " ".join(lcc(command, "--help").stdout.split())
        assert f"{option} --archive " in words
        assert "what evictions drop goes to a file" in words or "evictions write to it" in words


def test_inspect(tiny_artifact: Path, none: Path) -> None:
    shown = lcc("inspect", tiny_artifact).stdout
    # 7 columns: 8 + 4 + 4 bytes; keys and values of 2 layers of 2 heads of 16; and padding.
    sizes = "288 bytes in float16, 544 bytes in float32, 160 bytes in int8"
    assert f"archive    a token on disk: {sizes}; 7 columns\n" in shown
    assert "\n           recall by layers 1\n" in shown
    lists = shown.partition("\n  flush\n")[2].partition("\nPrograms\n")[0]
    for words in (
        "      append  leaving rows to the archive\n      archive_0 for layers 0-1\n",
        "        store  archived_key_2x16 -> key_* of the archive\n",
        "      store  archived_position -> position of the archive\n",
        "  recall\n    catalyst tokens, chunk_size at a time\n",
        "      grow  votes, all_position, all_sentence, all_nll, by_token\n",
        "      load  all_position[row .. +n] <- position of the archive, from row on\n",
        "      vote_0 for layers 1\n        load  scanned_key_2x16[zero .. +n] <- key_* of",
        "      gather  back_position <- position of the archive\n",
        "        gather  back_key_2x16 <- key_* of the archive\n",
    ):
        assert words in lists, words
    shown = lcc("inspect", none).stdout
    assert "archive    none: what is evicted is gone\n" in shown
    assert "\n  flush: nothing\n  recall: nothing\n" in shown
