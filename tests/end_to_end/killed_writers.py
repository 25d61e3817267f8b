"""Kills writers of artifacts and states, and looks at what they leave; prints what it saw.

python killed_writers.py MODEL.lcc FOLDER KILLS [--compile MODEL]

An artifact or a state is there as a whole after every kill, the old one or the new one, and the
next writer that is not killed leaves nothing else. `--compile`: `compile_model` writes the
artifacts. `killed_reader.py` does the same with archives.
"""

import argparse
import json
import os
import random
import shutil
import signal
import time
from collections import Counter
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

import lcc.runtime
from lcc.artifact.folder import verify_files, write_artifact
from lcc.artifact.manifest import MANIFEST, Manifest, fingerprint, read_manifest

TEXT = "The cat sat on the mat. Where was it? Nobody knew; the key is 4711. " * 3
Write = Callable[[], Any]


def killed(write: Write, seconds: float) -> bool:
    """Run it in a child and kill the child after so long; False = it was done before."""
    if (child := os.fork()) == 0:
        for stream in (1, 2):
            os.dup2(os.open(os.devnull, os.O_WRONLY), stream)
        write()
        os._exit(0)
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        if os.waitpid(child, os.WNOHANG)[0]:
            return False
        time.sleep(min(0.001, max(0.0, end - time.monotonic())))
    with suppress(ProcessLookupError):
        os.kill(child, signal.SIGKILL)
    return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == -signal.SIGKILL


def left_by(place: Path) -> list[str]:
    """What lies beside it that a writer has made."""
    return [path.name for path in place.parent.iterdir() if path.name.startswith(f".{place.name}")]


def kill_writers(
    place: Path, writes: list[Write], look: Callable[[], str], kills: int, chance: random.Random
) -> dict[str, Any]:
    """Take turns at writing two things to one place, each killed at some moment."""
    writes[0]()
    begin = time.perf_counter()
    assert not killed(writes[1], 60.0), "a write takes more than a minute"
    seconds = time.perf_counter() - begin
    whole, told = {look()}, Counter[str]()
    writes[0]()
    whole.add(look())
    assert len(whole) == 2, "the two cannot be told apart"
    for number in range(kills):
        before = look()
        was_killed = killed(writes[number % 2], chance.uniform(0, 1.5) * seconds)
        after = look()
        assert after in whole, after
        told["killed" if was_killed else "done"] += 1
        told["new" if after != before else "as before"] += 1
        told["with something left"] += bool(left_by(place))
        if number % 10 == 9:
            writes[number % 2]()
            assert left_by(place) == [], left_by(place)
    writes[0]()
    assert left_by(place) == [], left_by(place)
    return {"seconds of a write": round(seconds, 3), **told}


def artifact_writers(place: Path, source: Path) -> list[Write]:
    """Writers of two artifacts: the files of one, the second with another note."""

    def write(note: str) -> None:
        def fill(folder: Path) -> Manifest:
            for path in source.iterdir():
                if path.name != MANIFEST:
                    shutil.copyfile(path, folder / path.name)
            (folder / "generation_config.json").write_text(json.dumps({"note": note}))
            return read_manifest(source)

        write_artifact(place, fill)

    return [lambda: write("one"), lambda: write("other")]


def compilers(place: Path, model: str) -> list[Write]:
    """The compiler itself, of two budgets; what it exports and converts is kept from then on."""
    import torch

    from lcc.compile import compile_model
    from lcc.config import CacheConfig, CompileConfig
    from lcc.targets import onnx_mobile, onnx_runtime
    from lcc.testing.once import Exports, converted_content

    torch.set_num_threads(1)
    torch.export.export = Exports(torch.export.export, lambda: "")
    anew, made = onnx_runtime.to_onnx, dict[str, Any]()

    def once(program: Any, *how: Any) -> Any:
        key = converted_content(program, *how)
        assert key is not None, "a model too large to keep"
        if key not in made:
            made[key] = anew(program, *how)
        return made[key].clone()

    onnx_runtime.to_onnx = onnx_mobile.to_onnx = once

    def write(budget: int) -> None:
        sizes = {"capacity": 96, "chunk_size": 16, "catalyst_size": 24, "recent_size": 8}
        compile_model(model, place, CompileConfig(cache=CacheConfig(budget=budget, **sizes)))

    write(40)
    write(44)
    return [lambda: write(40), lambda: write(44)]


def whole_artifact(place: Path) -> str:
    """Which one is there, every file as it was written."""
    manifest = read_manifest(place)
    verify_files(place, manifest)
    return fingerprint(manifest)


def main() -> None:
    """Kill writers of artifacts, then of states."""
    parser = argparse.ArgumentParser()
    parser.add_argument("artifact", type=Path)
    parser.add_argument("folder", type=Path)
    parser.add_argument("kills", type=int)
    parser.add_argument("--compile")
    arguments = parser.parse_args()
    chance, place = random.Random(0), arguments.folder / "x.lcc"
    if arguments.compile is None:
        writes = artifact_writers(place, arguments.artifact)
    else:
        writes = compilers(place, arguments.compile)
    told = {
        "artifacts": kill_writers(
            place, writes, lambda: whole_artifact(place), arguments.kills, chance
        )
    }
    model = lcc.runtime.load(arguments.artifact, threads=1)
    sessions = [model.session() for _ in range(3)]
    state = arguments.folder / "x.lccstate"
    for number, session in enumerate(sessions[:2]):
        session.feed(TEXT[: 100 + number])

    def look() -> str:
        sessions[2].load(state)
        return str(sessions[2].tokens)

    saves: list[Write] = [lambda each=each: each.save(state) for each in sessions[:2]]
    told["states"] = kill_writers(state, saves, look, arguments.kills, chance)
    print(json.dumps(told))


if __name__ == "__main__":
    main()
