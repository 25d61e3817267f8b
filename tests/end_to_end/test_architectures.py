"""One tiny model of each kind of architecture, compiled, and held against the model itself.

`verify` compares logits in chunks and one by one and greedy tokens with the eager model, and what
cycles keep with the reference target.
"""

from pathlib import Path
from typing import Any

import pytest

from lcc.compile import compile_model
from lcc.config import CacheConfig, CompileConfig, PolicyConfig
from lcc.errors import ConfigError
from lcc.measure.verify import verify
from lcc.targets import missing, onnx_mobile
from lcc.testing.tiny import tiny_model

CACHE = CacheConfig(
    capacity=64, budget=32, chunk_size=16, catalyst_size=0, sink_size=4, recent_size=8
)


def compiled(folder: Path, architecture: str, **options: Any) -> tuple[Path, Any]:
    """An artifact, and the model that it was compiled from."""
    model = tiny_model(architecture)
    options = {"cache": CACHE, "policy": PolicyConfig(name="snapkv"), **options}
    compile_model(model, folder / "m.lcc", CompileConfig(**options))
    return folder / "m.lcc", model


# experts; sinks, windows and experts; a bias by distance; a norm behind the rotation; latents;
# complex numbers; states and experts
@pytest.mark.parametrize(
    "architecture",
    [
        *("qwen2_moe", "gpt_oss", "bloom", "hunyuan_v1_dense", "deepseek_v3", "llama4_text"),
        "granitemoehybrid",
    ],
)
def test_compiled_is_the_model(architecture: str, tmp_path: Path) -> None:
    report = verify(*compiled(tmp_path, architecture), prompt_tokens=40, new_tokens=16)
    assert report.ok, [row for row in report.rows if not row.ok]
    assert {"the model", "reference"} <= {row.against for row in report.rows}


def test_experts_in_few_bits(tmp_path: Path) -> None:
    """And no weight of an expert is left in float32."""
    artifact, model = compiled(tmp_path, "mixtral", precision="int4")
    report = verify(artifact, model, prompt_tokens=40, new_tokens=16)
    assert report.ok, [row for row in report.rows if not row.ok]
    experts = sum(each.numel() for each in model.parameters() if each.ndim == 3)
    others = sum(each.numel() for each in model.parameters() if each.ndim != 3)
    assert experts > others / 2
    stored = (artifact / "weights.bin").stat().st_size
    assert stored < 0.75 * experts + 2 * others + 40 * 4096  # with gaps between tensors


@pytest.mark.parametrize(
    ("target", "architecture"),
    [
        ("tvm:cpu", "bloom"),
        ("tvm:cpu", "gpt_oss"),
        ("tvm:cpu", "deepseek_v3"),
        ("onnxruntime:mobile", "lfm2"),
        ("onnxruntime:nnapi", "bloom"),
    ],
)
def test_other_targets_give_the_same(
    target: str, architecture: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Sinks, latents, a bias by distance; experts with biases; states."""
    if lacking := missing(target):
        pytest.skip(f"{target} needs {', '.join(lacking)}")
    monkeypatch.setattr(onnx_mobile, "LEAST_SHARE", 0)  # so few layers do not pay
    artifact, model = compiled(tmp_path, architecture, target=target)
    device: Any = "cpu" if target.startswith("onnxruntime") else None
    report = verify(
        artifact, model, device=device, allow_native=True, prompt_tokens=40, new_tokens=16
    )
    assert report.ok, [row for row in report.rows if not row.ok]


def test_what_only_full_layers_and_slots_have(tmp_path: Path) -> None:
    """Refused before anything is built."""
    places = CacheConfig(
        **{n: getattr(CACHE, n) for n in CACHE.__struct_fields__} | {"positions": "absolute"}
    )
    with pytest.raises(ConfigError, match=r"a bias by distance .* --positions contiguous"):
        compiled(tmp_path, "bloom", cache=places)
    plan = "0: full; 1: sink_window(sink=4, window=16)"
    for architecture, words in (("bloom", "a bias by distance"), ("gpt_oss", "attention sinks")):
        with pytest.raises(ConfigError, match=f"layer 1 .*{words}.*; wanted full"):
            compiled(tmp_path, architecture, plan=plan)
    with pytest.raises(ConfigError, match=r"layer 1 multiplies its queries .*; wanted full"):
        compiled(tmp_path, "hunyuan_v1_dense", plan=plan)


def test_targets_that_lack_something_say_so(tmp_path: Path) -> None:
    for target, architecture, trait in (
        ("onnxruntime:nnapi", "mixtral", "mixtures of experts"),
        ("onnxruntime:coreml", "lfm2", "layers that carry a state from token to token"),
        ("onnxruntime:cuda", "bloom", r"a bias by distance \(ALiBi\)"),
    ):
        with pytest.raises(ConfigError, match=f"cannot build {trait}; onnxruntime:cpu can"):
            compiled(tmp_path, architecture, target=target)
