"""What is compiled for phones, run here on the CPU."""

from collections.abc import Callable
from pathlib import Path

import onnx
import pytest
import torch

import lcc.runtime
from lcc.errors import CacheError, TargetError
from lcc.measure.check_golden import check_golden
from lcc.measure.verify import verify
from lcc.passes.programs.base import run_program_passes
from lcc.passes.specialize import Specialized
from lcc.sources.models import LoadedModel
from lcc.targets import standard_operators
from lcc.targets.onnx_mobile import largest_piece, nnapi


@pytest.mark.parametrize(
    ("target", "architecture", "plan"),
    [
        ("onnxruntime:mobile", "llama", "dense"),
        ("onnxruntime:nnapi", "llama", "hybrid"),
        ("onnxruntime:nnapi", "gpt2", "dense"),
        ("onnxruntime:coreml", "gemma3_text", "dense"),
    ],
)
def test_it_is_the_model(
    target: str,
    architecture: str,
    plan: str,
    compiled: Callable[..., Path],
    loaded: Callable[..., LoadedModel],
    hybrid: str,
) -> None:
    """Logits, tokens, and what several cycles keep; compared with eager PyTorch."""
    plan = hybrid if plan == "hybrid" else plan
    folder = compiled(target, architecture=architecture, plan=plan)
    report = verify(folder, loaded(architecture, plan), device="cpu", new_tokens=20)
    assert [row for row in report.rows if not row.ok] == []
    assert any("entries kept by" in row.what for row in report.rows)
    golden = check_golden(lcc.runtime.load(folder, device="cpu"), folder)
    assert [row for row in golden.rows if not row.ok] == []


def test_a_reduced_build_is_told_what_it_needs(compiled: Callable[..., Path]) -> None:
    folder = compiled("onnxruntime:mobile", architecture="llama", plan="dense")
    config = (folder / "required_operators_and_types.config").read_text()
    assert "GroupQueryAttention" in config
    assert {path.name for path in folder.iterdir() if path.suffix in (".ort", ".onnx", ".bin")} == {
        "step.ort",
        "head.ort",
        "evict_0.ort",
        "score_0.ort",
        "text.bin",
    }


def test_an_accelerator_gets_static_shapes_in_few_parts(
    compiled: Callable[..., Path], hybrid: str
) -> None:
    folder = compiled("onnxruntime:nnapi", architecture="llama", plan=hybrid)
    for name in ("prefill_chunk", "decode"):
        page = onnx.load(folder / f"{name}.onnx", load_external_data=False)
        for value in [*page.graph.input, *page.graph.output]:
            assert all(dim.dim_value > 0 for dim in value.type.tensor_type.shape.dim), value.name
        assert {node.domain for node in page.graph.node} == {""}
        share, reasons = largest_piece(folder / f"{name}.onnx", "nnapi")
        assert share > 0.6  # of so few layers, with three kinds of masks before them
        assert not {"MatMul", "Softmax", "Div", "Concat", "ReduceMean"} & set(reasons)
    share, reasons = largest_piece(compiled("onnxruntime:cpu") / "step.onnx", "nnapi")
    assert share < 0.3
    assert "sizes that are not static" in reasons


def test_what_would_be_cut_to_pieces_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, specialized: Callable[..., Specialized]
) -> None:
    standard = standard_operators.lowerings()
    del standard[torch.ops.aten.layer_norm.default]  # one operator, which NNAPI does not have
    monkeypatch.setattr(standard_operators, "lowerings", lambda: standard)
    target = nnapi()
    decode = run_program_passes(specialized("gpt2").programs[:1], target.passes())[1:]
    assert [program.names for program in decode] == [("decode",)]
    with pytest.raises(
        TargetError, match=r"cut to pieces by .*LayerNormalization, .*\), the largest has \d\d%"
    ):
        target.build(decode, tmp_path)


def test_never_somewhere_else_unless_told(compiled: Callable[..., Path], hybrid: str) -> None:
    folder = compiled("onnxruntime:nnapi", architecture="llama", plan=hybrid)
    with pytest.raises(TargetError, match=r'has only .*it runs if you ask for it: device="cpu"'):
        lcc.runtime.open(folder)
    with pytest.raises(CacheError, match=r"compiled for 96, and \w+\.\w+ has it as a number"):
        lcc.runtime.open(folder, capacity=90, device="cpu")
