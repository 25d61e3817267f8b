"""The demo: compile a small model, hide a key in a long text, find it in a process without torch.

    python -m lcc.demo.demo ARTIFACT < sample.json

is the second half alone: it reads the text and answers; one JSON object a line tells how far it is
and what memory it takes.
"""

import dataclasses
import hashlib
import importlib.util
import json
import subprocess
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import msgspec

from lcc import env
from lcc.artifact.folder import verify_files
from lcc.artifact.manifest import Manifest, cache_dtype, read_manifest
from lcc.config import CompileConfig
from lcc.errors import ArtifactError, LccError
from lcc.measure.evaluate.haystack import read_haystack, split_sentences
from lcc.measure.evaluate.sample import Sample
from lcc.measure.evaluate.tasks import TASKS

POINTS = 48  # measurements of memory while the text is read
ANSWER_TOKENS = 16

Progress = Callable[[str, float], None]


@dataclasses.dataclass(frozen=True)
class Result:
    """What the second process said.

    answer      the model's words
    found       the key is among them
    memory      tokens read and resident bytes of the process, as it went
    stats       `Session.stats()` at the end
    modules     of torch, onnx and transformers, those the process had loaded: none
    """

    answer: str
    found: bool
    memory: list[tuple[int, int]]
    stats: dict[str, Any]
    modules: list[str]


def compile_demo(model: str, config: CompileConfig, progress: Progress) -> tuple[Path, Manifest]:
    """Compile a model into the cache folder, unless the same artifact is there and whole."""
    page = msgspec.json.encode([model, _files(Path(model)), config, compiler_digest()])
    name = f"{Path(model).name}-{hashlib.sha256(page).hexdigest()[:12]}.lcc"
    folder = env.cache_folder() / name
    try:
        manifest = read_manifest(folder)
        verify_files(folder, manifest)
    except ArtifactError:
        with env.needs_extra("demo"):
            from lcc.compile import compile_model
        manifest = compile_model(model, folder, config, progress=progress)
    return folder, manifest


def _files(path: Path) -> list[tuple[str, int, int]]:
    """Name, size and time of every file of a model on this disk; none for a package or a hub."""
    files = sorted(path.rglob("*")) if path.is_dir() else [path] if path.is_file() else []
    stats = ((str(file.resolve()), file.stat()) for file in files)
    return [(name, stat.st_size, stat.st_mtime_ns) for name, stat in stats]


def compiler_digest() -> str:
    """Return the sha256 of the compiler's own source: another compiler, another artifact."""
    digest = hashlib.sha256()
    for package in ("lcc", "lcc.passes", "lcc.targets"):
        spec = importlib.util.find_spec(package)
        for folder in (spec and spec.submodule_search_locations) or ():
            for path in sorted(Path(folder).rglob("*.py")):
                digest.update(path.read_bytes())
    return digest.hexdigest()


def hide(artifact: Path, haystack: str, tokens: int, depth: float, seed: int) -> Sample:
    """Make the text: `noise`, `python` (the documentation that comes with Python), or a path."""
    from lcc.runtime.text.tokenizer import Tokenizer

    tokenizer = Tokenizer(artifact)

    def count(text: str) -> int:
        return len(tokenizer.encode(text))

    if haystack == "noise":
        return TASKS["passkey"].make(count, tokens, depth, seed, [])
    if haystack == "python":
        from pydoc_data.topics import topics

        sentences = split_sentences(" ".join(topics.values()))
    else:
        sentences = read_haystack(Path(haystack))
    return TASKS["niah_single_2"].make(count, tokens, depth, seed, sentences)


def ask(artifact: Path, sample: Sample, *, catalyst: str | None, progress: Progress) -> Result:
    """Read the text and answer the question in a new process."""
    request = json.dumps({"sample": dataclasses.asdict(sample), "catalyst": catalyst})
    command = [sys.executable, "-m", "lcc.demo.demo", str(artifact)]
    memory: list[tuple[int, int]] = []
    page: dict[str, Any] = {}
    with tempfile.TemporaryFile("w+", encoding="utf-8") as file:
        file.write(request)
        file.seek(0)
        with subprocess.Popen(
            command, stdin=file, stdout=subprocess.PIPE, text=True, encoding="utf-8"
        ) as process:
            for line in process.stdout or ():
                page = json.loads(line)
                if "rss" in page:
                    memory.append((page["tokens"], page["rss"]))
                    progress(f"{page['tokens']:,} tokens", min(page["fraction"], 1.0))
    if "error" in page:
        raise LccError(page["error"])
    if process.returncode or "answer" not in page:
        raise LccError(f"the process that reads the text ended with code {process.returncode}")
    found = all(answer in page["answer"] for answer in sample.answers)
    return Result(found=found, memory=memory, **page)


def serve(artifact: Path, request: dict[str, Any], tell: Callable[[dict], None]) -> None:
    """Do the second process' work; `tell` gets one page for each step of the reading."""
    import lcc.runtime
    from lcc.runtime.text.writing import GREEDY

    session = lcc.runtime.open(artifact, threads=env.default_threads())
    sample = request["sample"]
    if request["catalyst"] is not None:
        session.catalyst = request["catalyst"]
    told = -1

    def step(at: Any) -> None:
        nonlocal told
        if int(at.fraction * POINTS) > told or at.fraction == 1.0:
            told = int(at.fraction * POINTS)
            tell({"tokens": at.tokens, "fraction": at.fraction, "rss": resident_bytes()})

    session.feed(sample["context"], progress=step)
    question = f"\n{sample['question']} {sample['answer_prefix']}"
    answer = "".join(session.generate(question, max_new_tokens=ANSWER_TOKENS, **GREEDY))
    heavy = [name for name in ("torch", "transformers", "onnx") if name in sys.modules]
    tell({"answer": answer, "stats": session.stats().to_dict(), "modules": heavy})


def _print_line(page: dict[str, Any]) -> None:
    print(json.dumps(page), flush=True)


def resident_bytes() -> int:
    """Return the resident memory of this process; 0 where the system does not say."""
    import os

    try:
        pages = int(Path("/proc/self/statm").read_text().split()[1])
    except (OSError, IndexError):
        return 0
    return pages * os.sysconf("SC_PAGE_SIZE")


def full_cache_bytes(manifest: Manifest, tokens: int) -> int:
    """Return what a cache of every token would take at the same precision."""
    size = 4 if cache_dtype(manifest) == "float32" else 2
    entry = sum(2 * layer.kv_heads * layer.head_size * size for layer in manifest.model.layers)
    return entry * tokens


def picture(memory: list[tuple[int, int]], height: int = 5) -> str:
    """Draw memory over tokens with blocks, from zero up."""
    top = max(rss for _, rss in memory) or 1
    lines = []
    for row in range(height, 0, -1):
        cells = []
        for _, rss in memory:
            eighths = round(rss / top * height * 8) - (row - 1) * 8
            cells.append(" ▁▂▃▄▅▆▇█"[min(max(eighths, 0), 8)])
        label = f"{top / 1e6:7.0f} MB" if row == height else " " * 10
        lines.append(f"{label} │{''.join(cells)}")
    axis = f"{memory[-1][0]:,} tokens"
    lines.append(f"{'0 MB':>10} └{'─' * len(memory)}")
    lines.append(f"{'':12}0{axis:>{max(len(memory) - 1, len(axis) + 1)}}")
    return "\n".join(lines)


if __name__ == "__main__":
    try:
        serve(Path(sys.argv[1]), json.load(sys.stdin), _print_line)
    except LccError as error:
        _print_line({"error": str(error)})
        sys.exit(2)
    except KeyboardInterrupt:
        sys.exit(130)
