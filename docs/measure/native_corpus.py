"""Makes the files that the native runtime's fuzzers begin with, of tiny models.

python docs/measure/native_corpus.py

Writes runtime/native/tests/fuzz/corpus: for each target a folder of small files that are read
without an error. Files that a fuzzer found (`found_*`) stay. Run it when a format has changed.
"""

import json
import shutil
import tempfile
from pathlib import Path
from typing import Any

import onnx
from onnx import helper

import lcc.runtime
from lcc.sources.text_tables.build import build
from lcc.testing.golden_cases import Artifacts
from lcc.testing.native_archive import append, drawn, python
from lcc.testing.onnx_programs import SIZE, graph, loop, named
from lcc.testing.tiny_tokenizers import KINDS

CORPUS = Path(__file__).parents[2] / "runtime" / "native" / "tests" / "fuzz" / "corpus"
MANIFESTS = {
    "consensus": "consensus",
    "blocks": "sink_window, blocks",
    "states": "states, read again",
}
IDS = [(7 * i * i + 3 * i) % 251 for i in range(90)]


def main() -> None:
    """Make all of them."""
    for name in ("manifest", "text_tables", "state", "archive", "program"):
        folder = CORPUS / name
        folder.mkdir(parents=True, exist_ok=True)
        for old in folder.iterdir():
            if not old.name.startswith("found_"):
                old.unlink()
    with tempfile.TemporaryDirectory() as place:
        artifacts = Artifacts(Path(place))
        for name, case in MANIFESTS.items():
            page = json.loads((artifacts(case) / "manifest.json").read_text())
            text = json.dumps(page, separators=(",", ":"), sort_keys=True)
            (CORPUS / "manifest" / f"{name}.json").write_text(text)
        consensus = artifacts("consensus")
        shutil.copy(consensus / "text.bin", CORPUS / "text_tables" / "tiny.bin")
        make_states(consensus)
        make_archives(Path(place))
    make_tables()
    make_programs()


def make_tables() -> None:
    """Steps of every kind: few of them in a file, so that it is small."""
    from tokenizers import Regex, normalizers, pre_tokenizers

    sequence = [normalizers.Prepend("_"), normalizers.Strip(), normalizers.Replace("x", "yy")]
    kinds = {
        "llama2": KINDS["llama2"](),
        "steps": with_steps(normalizers.Sequence(sequence)),
        "form": with_steps(normalizers.Lowercase()),
        "pattern": with_steps(normalizers.Replace(Regex("[0-9]+"), "<n>")),
    }
    split = pre_tokenizers.Split(Regex(" ?[a-z]+|x=|[0-9]+$"), "merged_with_next")
    bytes_alone = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)
    kinds["pattern"].pre_tokenizer = pre_tokenizers.Sequence([split, bytes_alone])
    for name, backend in kinds.items():
        (CORPUS / "text_tables" / f"{name}.bin").write_bytes(build(backend, "<tool>"))


def make_programs() -> None:
    """Weights in a file, wherever they may be; a loop over a tensor."""
    node = helper.make_node("Own", [], ["y"], several=[named("weights.bin")])
    sparse = onnx.SparseTensorProto(values=named("weights.bin"), dims=[4])
    parts = {"initializer": [named("weights.bin")], "sparse_initializer": [sparse]}
    places = helper.make_model(graph(node, **parts))
    (CORPUS / "program" / "places.onnx").write_bytes(places.SerializeToString())
    body = graph(initializer=[named("weights.bin")])
    (CORPUS / "program" / "loop.onnx").write_bytes(loop("count", "", nodes=SIZE, body=body))


def with_steps(normalizer: Any) -> Any:
    """A tokenizer of bytes, without a pattern."""
    from tokenizers import pre_tokenizers

    backend = KINDS["gpt2"]()
    backend.normalizer = normalizer
    backend.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)
    return backend


def make_states(artifact: Path) -> None:
    """A text that has begun, one after cycles."""
    session = lcc.runtime.open(artifact, threads=1)
    session.feed(IDS[:7])
    session.save(CORPUS / "state" / "begun")
    session = lcc.runtime.load(artifact, threads=1).session(budget=16)
    session.feed(IDS)
    list(session.generate_ids(IDS[:3], max_new_tokens=2, eos=[], temperature=0.0))
    session.save(CORPUS / "state" / "cycles", dtype="float16")


def make_archives(place: Path) -> None:
    """Two blocks, the second not full, in both widths."""
    for dtype in ("float16", "int8"):
        archive = python(place / dtype, dtype)
        held = append(archive, drawn(0, 128), 0)
        append(archive, drawn(1, 30), held)
        archive.archive.close()
        shutil.copy(place / dtype, CORPUS / "archive" / dtype)


if __name__ == "__main__":
    main()
