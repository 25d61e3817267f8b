"""Who may import whom, as docs/design.md's table says; read from the source, nothing is run."""

import ast
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
HEAVY = {"torch", "transformers", "onnx", "onnxscript", "onnx_ir"}

ENGINES = {
    *("torch", "transformers", "kvpress", "onnxruntime", "onnxruntime_genai", "tvm", "tvm_ffi"),
    *("openvino", "openvino_genai", "llama_cpp", "lcc.sources.models"),
}

# folder, file or pattern -> modules not to be imported anywhere in it, inside functions included
NEVER = {
    "lcc/errors.py": {*HEAVY, "numpy", "lcc"},
    "lcc/config.py": {*HEAVY, "numpy", "lcc.passes", "lcc.targets", "lcc.runtime"},
    "lcc/ir/plan.py": {*HEAVY, "numpy", "lcc.passes", "lcc.targets", "lcc.runtime"},
    "lcc/env.py": {*HEAVY, "numpy", "lcc.passes", "lcc.targets", "lcc.runtime"},
    "lcc/artifact/folder.py": {*HEAVY, "numpy", "lcc.passes", "lcc.targets", "lcc.runtime"},
    "lcc/artifact/manifest.py": {*HEAVY, "numpy", "lcc.passes", "lcc.targets", "lcc.runtime"},
    "lcc/measure/machine.py": {*HEAVY, "numpy", "lcc.passes", "lcc.targets", "lcc.runtime"},
    "passes": {"lcc.targets", "lcc.runtime", "onnx", "onnxscript", "onnxruntime", "transformers"},
    "targets": {"lcc.runtime", "transformers"},
    "runtime": {
        *HEAVY,
        "tvm",
        "lcc.passes",
        "lcc.targets",
        "lcc.compile",
        "lcc.sources.models",
        "lcc.cli",
    },
    "passes/specialize.py": {
        "lcc.runtime",
        "lcc.cli",
        "lcc.measure.evaluate",
        "lcc.compile",
        "onnxruntime",
    },
    "lcc/compile.py": {"lcc.runtime", "lcc.cli", "lcc.measure.evaluate", "onnxruntime"},
    "lcc/cli": {"torch", "transformers", "onnx", "onnxruntime"},
    "lcc/train": {"lcc.targets", "lcc.runtime", "lcc.compile", "lcc.cli", "onnxruntime"},
    "lcc/measure/bench": {"lcc.cli", "lcc.compile", "lcc.passes", "lcc.targets", "lcc.train"},
    "lcc/measure/bench/*.py": ENGINES,  # processes of their own run them
    "lcc/measure/evaluate": {*HEAVY, "lcc.passes", "lcc.targets", "lcc.compile", "lcc.cli"},
    "lcc/measure/evaluate/eager.py": {
        "lcc.passes",
        "lcc.targets",
        "lcc.compile",
        "lcc.cli",
        "onnx",
    },
    "lcc/measure/evaluate/peers.py": {
        "lcc.passes",
        "lcc.targets",
        "lcc.compile",
        "lcc.cli",
        "onnx",
    },
}
# folder -> modules that may be imported, but only inside functions: they are optional or slow
ONLY_INSIDE = {
    "runtime": {"onnxruntime", "tvm_ffi", "tokenizers", "jinja2"},
    "targets": {"onnx", "onnxscript", "onnx_ir", "onnxruntime", "tvm"},
    "lcc/cli": {
        "lcc.compile",
        "lcc.measure.verify",
        "lcc.sources.models",
        "lcc.passes",
        "lcc.runtime",
        "numpy",
    },
    "lcc/measure/bench": {*ENGINES, "tokenizers", "matplotlib", "gguf"},
    "lcc/measure/evaluate": {
        "lcc.measure.evaluate.eager",
        "lcc.measure.evaluate.peers",
        "lcc.sources.models",
        "jinja2",
        "kvpress",
    },
    "lcc/measure/evaluate/eager.py": HEAVY,
    "lcc/measure/evaluate/peers.py": {*HEAVY, "kvpress"},
    "lcc/sources/models.py": HEAVY,
    "lcc/testing/tiny.py": {*HEAVY, "tokenizers"},
    "lcc/__init__.py": {*HEAVY, "numpy", "lcc.compile", "lcc.sources.models", "lcc.runtime"},
}
# The model in PyTorch, to compare with: held to its own line.
EAGER = {"lcc/measure/evaluate/eager.py", "lcc/measure/evaluate/peers.py"}
OWN_FILE = {
    f"targets/onnx_{name}.py"
    for name in (
        *("runtime", "mobile", "precision", "half_cache"),
        *("experts", "expert_loop", "rewriter", "matrix", "weights"),
    )
}


def files_of(place: str) -> list[Path]:
    if "*" in place:
        return sorted(ROOT.glob(place))
    path = ROOT / place
    return sorted(path.rglob("*.py")) if path.is_dir() else [path]


def imports(path: Path, *, inside: bool) -> set[str]:
    """Modules that a file imports: all of them, or only those imported when it is imported."""
    tree = ast.parse(path.read_text(encoding="utf-8"))
    pending, found = list(tree.body), set()
    while pending:
        node = pending.pop()
        if isinstance(node, ast.If) and "TYPE_CHECKING" in ast.unparse(node.test):
            continue
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef) and not inside:
            continue
        if isinstance(node, ast.Import):
            found |= {name.name for name in node.names}
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}: relative import"
            found |= {f"{node.module}.{name.name}" for name in node.names} | {node.module or ""}
        pending += ast.iter_child_nodes(node)
    return found


def offences(path: Path, banned: set[str], *, inside: bool) -> list[str]:
    return [
        f"{path.relative_to(ROOT)} imports {name}"
        for name in sorted(imports(path, inside=inside))
        if any(name == each or name.startswith(f"{each}.") for each in banned)
    ]


@pytest.mark.parametrize("place", NEVER)
def test_never_imported(place: str) -> None:
    files = [p for p in files_of(place) if str(p.relative_to(ROOT)) not in EAGER - {place}]
    assert files, f"{place} has no Python files: this test would check nothing"
    assert [o for path in files for o in offences(path, NEVER[place], inside=True)] == []


@pytest.mark.parametrize("place", ONLY_INSIDE)
def test_only_imported_inside_functions(place: str) -> None:
    apart = OWN_FILE | EAGER - {place}
    files = [path for path in files_of(place) if str(path.relative_to(ROOT)) not in apart]
    assert files, f"{place} has no Python files: this test would check nothing"
    assert [o for path in files for o in offences(path, ONLY_INSIDE[place], inside=False)] == []


def test_targets_do_not_import_each_other() -> None:
    shared = {
        "__init__",
        "base",
        "attention_parts",
        "half_precision",
        "low_bits",
        "onnx_expert_loop",
        "onnx_experts",
        "onnx_exporter",
        "onnx_half_cache",
        "onnx_matrix",
        "onnx_operators",
        "onnx_precision",
        "onnx_rewriter",
        "onnx_weights",
        "standard_operators",
        "static_shapes",
    }
    names = {path.stem for path in (ROOT / "targets").iterdir()} - shared - {"__pycache__"}
    assert len(names) >= 2
    for name in names:
        families = (
            {"onnx_runtime", "onnx_mobile", "onnx_cuda"},
            {"tvm_cpu", "tvm_cuda"},
        )  # a backend each
        own = next((family for family in families if name in family), {name})
        others = {f"lcc.targets.{other}" for other in names - own}
        file = ROOT / "targets" / f"{name}.py"
        files = [file] if file.exists() else files_of(f"targets/{name}")
        assert [o for path in files for o in offences(path, others, inside=True)] == []
