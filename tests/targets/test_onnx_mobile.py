"""What is compiled for phones, run here on the CPU."""

import functools
from pathlib import Path

import onnx
import pytest
import torch

import lcc.runtime
from lcc.compile import compile_model
from lcc.config import CacheConfig, CompileConfig, PolicyConfig
from lcc.errors import CacheError, TargetError
from lcc.measure.verify import verify
from lcc.targets import standard_operators
from lcc.targets.onnx_mobile import largest_piece
from lcc.testing.tiny import save_tiny

CACHE = CacheConfig(capacity=96, budget=40, chunk_size=16, catalyst_size=8, recent_size=4)
HYBRID = (
    "0: sink_window(sink=2, window=9); 1: full; 2: block_sparse(block=4, stride=3, local=2, "
    "reach=12, shift=1)"
)


@pytest.fixture(scope="module")
def compiled(tmp_path_factory: pytest.TempPathFactory):
    folder = tmp_path_factory.mktemp("mobile")

    @functools.cache
    def build(target: str, architecture: str, plan: str = "dense", policy: str = "snapkv") -> Path:
        model = folder / f"{architecture}{len(plan)}"
        if not model.exists():
            layers = {"num_hidden_layers": 3} if plan == HYBRID else {}
            save_tiny(model, architecture, **layers)
        out = folder / f"{architecture}-{len(plan)}-{target.replace(':', '-')}.lcc"
        config = CompileConfig(
            target=target, cache=CACHE, policy=PolicyConfig(name=policy), plan=plan
        )
        compile_model(model, out, config)
        return out

    return build


@pytest.mark.parametrize(
    ("target", "architecture", "plan"),
    [
        ("onnxruntime:mobile", "llama", "dense"),
        ("onnxruntime:nnapi", "llama", HYBRID),
        ("onnxruntime:nnapi", "gpt2", "dense"),
        ("onnxruntime:coreml", "gemma3_text", "dense"),
    ],
)
def test_it_is_the_model(target: str, architecture: str, plan: str, compiled) -> None:
    """Logits, tokens, and what several cycles keep; compared with eager PyTorch."""
    folder = compiled(target, architecture, plan)
    report = verify(folder, folder.with_name(f"{architecture}{len(plan)}"), device="cpu")
    assert [row for row in report.rows if not row.ok] == []
    assert any("entries kept by" in row.what for row in report.rows)


def test_a_reduced_build_is_told_what_it_needs(compiled) -> None:
    folder = compiled("onnxruntime:mobile", "llama", "dense")
    config = (folder / "required_operators_and_types.config").read_text()
    assert "GroupQueryAttention" in config
    assert {path.name for path in folder.iterdir() if path.suffix in (".ort", ".onnx", ".bin")} == {
        "step.ort",
        "head.ort",
        "evict_0.ort",
        "score_0.ort",
    }


def test_an_accelerator_gets_static_shapes_in_few_parts(compiled) -> None:
    folder = compiled("onnxruntime:nnapi", "llama", HYBRID)
    for name in ("prefill_chunk", "decode"):
        page = onnx.load(folder / f"{name}.onnx", load_external_data=False)
        for value in [*page.graph.input, *page.graph.output]:
            assert all(dim.dim_value > 0 for dim in value.type.tensor_type.shape.dim), value.name
        assert {node.domain for node in page.graph.node} == {""}
        share, reasons = largest_piece(folder / f"{name}.onnx", "nnapi")
        assert share > 0.6  # of so few layers, with three kinds of masks before them
        assert not {"MatMul", "Softmax", "Div", "Concat", "ReduceMean"} & set(reasons)
    share, reasons = largest_piece(compiled("onnxruntime:cpu", "llama") / "step.onnx", "nnapi")
    assert share < 0.3
    assert "sizes that are not static" in reasons


def test_what_would_be_cut_to_pieces_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    save_tiny(tmp_path / "model", "gpt2")
    standard = standard_operators.lowerings()
    del standard[torch.ops.aten.layer_norm.default]  # one operator, which NNAPI does not have
    monkeypatch.setattr(standard_operators, "lowerings", lambda: standard)
    config = CompileConfig(target="onnxruntime:nnapi", cache=CACHE)
    with pytest.raises(
        TargetError, match=r"cut to pieces by .*LayerNormalization, .*\), the largest has \d\d%"
    ):
        compile_model(tmp_path / "model", tmp_path / "m.lcc", config)
    assert not (tmp_path / "m.lcc").exists()


def test_never_somewhere_else_unless_told(compiled) -> None:
    folder = compiled("onnxruntime:nnapi", "llama", HYBRID)
    with pytest.raises(TargetError, match=r'has only .*it runs if you ask for it: device="cpu"'):
        lcc.runtime.open(folder)
    with pytest.raises(CacheError, match="onnxruntime:nnapi has it fixed at 96"):
        lcc.runtime.open(folder, capacity=90, device="cpu")
