"""The good files that are damaged: made once in a folder, and what their use gives."""

import contextlib
import shutil
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from pathlib import Path
from random import Random
from typing import Any

from lcc.config import CacheConfig, CompileConfig, PolicyConfig
from lcc.runtime.model import Model
from lcc.testing.fuzz.forked import run
from lcc.testing.fuzz.uses import (
    TEXT,
    opened,
    three_ids,
    use_artifact,
    use_golden,
    use_source,
    use_state,
)

CACHE = CacheConfig(capacity=96, budget=40, chunk_size=16, catalyst_size=24, recent_size=8)
# name -> architecture, policy, more of the configuration
ARTIFACTS: dict[str, tuple[str, str, dict[str, Any]]] = {
    "consensus": ("llama", "consensus", {}),
    "int8": ("qwen2", "consensus", {"precision": "int8"}),
    "int4": ("llama", "snapkv", {"precision": "int4"}),
    "window": ("llama", "h2o", {"plan": "0: sink_window(sink=2, window=24); 1: full"}),
    "blocks": (
        "llama",
        "sink_window",
        {"plan": "0: full; 1: block_sparse(block=4, stride=3, local=4, reach=40)"},
    ),
    "latents": ("minicpm3", "infinipot", {}),
    "states": ("lfm2", "snapkv", {}),
    "half": ("phi3", "infinipot", {"kv_precision": "fp16"}),
    "mobile": ("llama", "keydiff", {"target": "onnxruntime:mobile"}),
    "tvm": ("llama", "consensus", {"target": "tvm:cpu"}),
    "reference": ("llama", "consensus", {"target": "reference"}),
}


def make(folder: Path, kinds: Sequence[str]) -> None:
    """Compile and write what of the kinds is not there yet; takes minutes."""
    for name in ARTIFACTS:
        output = folder / f"{name}.lcc"
        if not output.exists() and not {"artifact", "golden", "state", "archive"}.isdisjoint(kinds):
            _compile(name, folder / "models", output)
    if "checkpoint" in kinds:
        for architecture in ("llama", "gemma3_text"):
            _save(folder / "checkpoints" / architecture)
    if "gguf" in kinds and not (folder / "ggufs").exists():
        _write_gguf(folder / "ggufs")


def _compile(name: str, models: Path, output: Path) -> None:
    """Here PyTorch is imported: children of a process that has it take twice as long to fork."""
    from lcc.compile import compile_model

    architecture, policy, more = ARTIFACTS[name]
    config = CompileConfig(cache=CACHE, policy=PolicyConfig(name=policy), **more)
    compile_model(_save(models / architecture), output, config)


def _save(place: Path) -> Path:
    """A model of the architecture that the folder is named after, unless it is there."""
    from lcc.testing.tiny import save_tiny

    if not place.exists():
        save_tiny(place, place.name)
    return place


def _write_gguf(folder: Path) -> None:
    import gguf

    from lcc.testing.gguf_writing import built, write

    folder.mkdir()
    write(folder / "llama.gguf", "llama", built("llama"))

    def in_few_bits(name: str, array: Any) -> gguf.GGMLQuantizationType | None:
        fits = array.ndim == 2 and array.shape[1] % 32 == 0
        return gguf.GGMLQuantizationType.Q8_0 if fits else None

    write(folder / "q8.gguf", "qwen2", built("qwen2"), quantize=in_few_bits)


class Goods:
    """Good files, and what a use of each gives.

    artifacts   folders
    states      of artifacts: (folder, file of a state, archive that goes with it)
    sources     GGUF files and folders
    """

    def __init__(
        self, folder: Path, kinds: Sequence[str], scratch: Path, names: Sequence[str] | None = None
    ) -> None:
        """`names`: of artifacts; None = all that are there."""
        self.scratch, self.log = scratch, scratch / "log"
        self.artifacts = []
        for path in sorted(folder.glob("*.lcc")):
            if names is None or path.stem in names:
                own = scratch / "good" / path.name  # other runs may link to the files, too
                shutil.copytree(path, own, dirs_exist_ok=True)
                self.artifacts.append(own)
        found = {"gguf": folder.glob("ggufs/*.gguf"), "checkpoint": folder.glob("checkpoints/*")}
        self.sources = {
            kind: sorted(paths) if kind in kinds else [] for kind, paths in found.items()
        }
        self.states: list[tuple[Path, Path, Path | None]] = []
        self.wanted: dict[Any, Any] = {}
        self._models: dict[Path, Model] = {}
        if {"state", "archive"} & {*kinds}:
            for artifact in self.artifacts:
                if not artifact.stem.startswith("reference"):
                    self._save_states(artifact)

    def artifact(self, random: Random) -> Path:
        """One of them; `reference` seldom, for PyTorch takes 3 s to read it."""
        weights = [1 if each.stem.startswith("reference") else 5 for each in self.artifacts]
        return random.choices(self.artifacts, weights)[0]

    def use_once(self) -> None:
        """Import, in this process, what uses import when they need it: else every child does.

        A checkpoint takes 0.1 s of a child in place of 2.
        """
        for source in (*self.sources["gguf"], *self.sources["checkpoint"]):
            use_source(source, _to_nobody)
        for artifact in self.artifacts:
            if "tvm" not in artifact.stem:  # its threads are not forked
                use_artifact(artifact, self.scratch, _to_nobody)

    def _model_in_child(self, artifact: Path) -> Callable[[], Model]:
        """Loaded once for all children; not by TVM, whose threads are not forked."""
        if "tvm" in artifact.stem:
            return partial(opened, artifact)
        if artifact not in self._models:
            self._models[artifact] = opened(artifact)
        return partial(self._models.__getitem__, artifact)

    def output(self, kind: str, good: Any) -> Any:
        """What the use of a good file gives: to tell whether a damaged one gives the same."""
        if (kind, good) not in self.wanted:
            jobs: dict[str, Any] = {
                "artifact": lambda: partial(use_artifact, good, self.scratch),
                "golden": lambda: partial(use_golden, good),
                "state": lambda: self.state_job(good, good[1], None),
                "archive": lambda: self.state_job(good, good[1], self._copied(good[2])),
                "gguf": lambda: partial(use_source, good),
                "checkpoint": lambda: partial(use_source, good),
            }
            ending = run(jobs[kind](), self.log)
            if ending.outcome != "works":
                raise SystemExit(f"{kind} {good}: {ending}")
            self.wanted[kind, good] = ending.output
        return self.wanted[kind, good]

    def state_job(self, good: Any, state: Path, archive: Path | None) -> Any:
        """The use of a state file, and of an archive."""
        return partial(use_state, self._model_in_child(good[0]), state, archive, self.scratch)

    def _copied(self, archive: Path) -> Path:
        return Path(shutil.copyfile(archive, self.scratch / "mutant.lccarchive"))

    def _save_states(self, artifact: Path) -> None:
        """Sessions at various places of a text, each in a child: this process loads no TVM."""
        folder = self.scratch / "states" / artifact.stem
        shutil.rmtree(folder, ignore_errors=True)
        folder.mkdir(parents=True)

        def save(say: Any) -> list[list[str | None]]:
            return [*_saved(opened(artifact), folder)]

        ending = run(save, self.log)
        if ending.outcome != "works":
            raise SystemExit(f"{artifact}: {ending}")
        for state, archive in ending.output:
            self.states.append((artifact, Path(state), Path(archive) if archive else None))


def _to_nobody(step: str) -> None:
    """Where a use has come to, when nobody asks."""


def _saved(model: Model, folder: Path) -> Iterator[list[str | None]]:
    session = model.session()

    def saved(name: str, **how: Any) -> list[str | None]:
        session.save(folder / name, **how)
        return [str(folder / name), None]

    session.feed(TEXT[:10])
    yield saved("begin")
    session.feed(TEXT)
    yield saved("cycled")
    three_ids(session)
    with contextlib.suppress(ValueError):  # a cache that is in float16 already
        yield saved("half", dtype="float16")
    session.reset()
    session.feed(TEXT[:9], protect=True)
    session.feed(TEXT)
    list(session.chat([{"role": "user", "content": "Hello"}], max_new_tokens=4))
    yield saved("talk")
    if model.manifest.schedule.recall:
        for limit in (None, 1 << 19):
            session = model.session(archive=folder / f"rows{limit}", archive_limit=limit)
            session.feed(TEXT)
            session.save(folder / f"archived{limit}")
            session.close()
            yield [str(folder / f"archived{limit}"), str(folder / f"rows{limit}")]
