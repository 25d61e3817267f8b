"""What the programs of the bindings print, and the same from the Python runtime."""

import re
import subprocess
from pathlib import Path
from typing import Any

import lcc.runtime

ROOT = Path(__file__).parents[3]
PAGE = ROOT / "docs" / "embed.md"
TEXT = (
    "It was the best of times. 书 is a book, and 🙂 smiles at it; then the cafés closed. Call me "
    "Ishmael. Some years ago, never mind how long precisely, having little money in my purse, and "
    "nothing particular to interest me on shore, I thought I would sail about a little: 日本語.\n"
)
QUESTION = "Who is the narrator?"


def program(language: str) -> str:
    """The program of the page in this language; there is one."""
    (found,) = re.findall(rf"```{language}\n(.*?)```", PAGE.read_text("utf-8"), flags=re.DOTALL)
    return found


def run(*command: Any, cwd: Path, **variables: Any) -> bytes:
    """What a program prints; AssertionError with what it says where it fails."""
    given = [f"{name}={value}" for name, value in variables.items()]
    words = ["env", *given, *map(str, command)]
    done = subprocess.run(words, cwd=cwd, check=False, capture_output=True)
    assert done.returncode == 0, (done.stdout[-2000:] + done.stderr[-2000:]).decode()
    return done.stdout


def lines(output: bytes) -> dict[str, str]:
    """Lines of `name<TAB>value`; of a name that comes twice the last one."""
    rows = (line.split("\t") for line in output.decode().splitlines())
    return {name: value for name, value in rows}


def app_folder(folder: Path, artifact: Path) -> Path:
    """What the programs of the page find where they run."""
    (folder / "model.lcc").symlink_to(artifact)
    (folder / "book.txt").write_text(TEXT, encoding="utf-8")
    return folder


def page_prints(artifact: Path) -> bytes:
    """What a program of the page must print."""
    session = lcc.runtime.open(artifact)
    session.feed(TEXT)
    return "".join(session.generate(QUESTION, max_new_tokens=16)).encode()


def expected(artifact: Path) -> dict[str, Any]:
    """What the programs of the tests must print, from the Python runtime."""
    six: dict[str, Any] = {"max_new_tokens": 6}
    session = lcc.runtime.open(artifact, threads=1)
    ids = session.encode(TEXT)
    session.feed(ids)
    kept = session.kept_tokens(1).tolist()
    stats = session.stats()
    counts = f"{stats.tokens} {stats.cycles} {stats.capacity}"
    assert stats.cycles > 3
    following = list(session.generate_ids(None, **six))
    assert len(following) == 6  # the programs ask for six, whatever they are
    session.reset()
    session.feed(TEXT)
    answer = "".join(session.generate("Who?", **six)).encode()
    session.reset()
    talk = [
        {"role": "system", "content": "Be brief."},
        {"role": "user", "content": "Who are you?"},
    ]
    chat = "".join(session.chat(talk, **six)).encode()
    assert answer
    assert chat
    return {
        "ids": ids, "kept": kept, "stats": counts, "next": following, "answer": list(answer),
        "chat": list(chat),
    }  # fmt: skip
