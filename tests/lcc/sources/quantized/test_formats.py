"""Weights in few bits are the numbers that they stand for: of packed ones that are known."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import save_file

from lcc.errors import ModelError
from lcc.measure.second_unpacking import unpack_again
from lcc.sources.quantized import unpacked
from lcc.sources.stored import safetensors_of
from lcc.testing import quantized_writing as written

CT = {"quant_method": "compressed-tensors"}
CASES: dict[str, tuple[Callable[..., written.Packed], dict[str, Any], dict[str, Any]]] = {
    "gptq": (written.gptq, {}, {"quant_method": "gptq", "bits": 4}),
    "gptq, act-order": (written.gptq, {"order": True}, {"quant_method": "gptq", "bits": 4}),
    "gptq, 8 bits": (written.gptq, {"bits": 8}, {"quant_method": "gptq", "bits": 8}),
    "gptq, 2 bits, version 2": (
        written.gptq,
        {"bits": 2, "version": 2},
        {"quant_method": "gptq", "bits": 2, "checkpoint_format": "gptq_v2"},
    ),
    "awq": (written.awq, {}, {"quant_method": "awq", "bits": 4, "version": "gemm"}),
    "packed, groups": (written.compressed, {}, CT | {"format": "pack-quantized"}),
    "packed, rows, zeros": (
        written.compressed,
        {"groups": False, "zeros": True},
        CT | {"format": "pack-quantized"},
    ),
    "packed, any order, zeros": (
        written.compressed,
        {"order": True, "zeros": True},
        CT | {"format": "pack-quantized"},
    ),
    "packed, 8 bits": (written.compressed, {"bits": 8}, CT | {"format": "pack-quantized"}),
    "int8": (written.compressed_int8, {}, CT | {"format": "int-quantized"}),
    "float8, rows": (written.compressed_fp8, {"rows": True}, CT | {"format": "float-quantized"}),
    "float8, one": (written.compressed_fp8, {"rows": False}, CT | {"format": "naive-quantized"}),
    "fp8": (written.fp8, {}, {"quant_method": "fp8", "weight_block_size": [48, 48]}),
    "nf4": (written.nf4, {"nested": False}, {"quant_method": "bitsandbytes"}),
    "nf4, nested": (written.nf4, {}, {"quant_method": "bitsandbytes"}),
    "LLM.int8": (written.rows_of_8, {}, {"quant_method": "bitsandbytes"}),
    "mxfp4": (written.mxfp4, {}, {"quant_method": "mxfp4"}),
}


@pytest.mark.parametrize("case", CASES)
def test_a_format_is_read_as_it_was_meant(case: str, tmp_path: Path) -> None:
    write, how, page = CASES[case]
    stem, shape = ("x.up", (5, 96, 80)) if case == "mxfp4" else ("x.up_proj", (80, 96))
    packed, meant = write(np.random.default_rng(3), shape, **how)
    tensors = {stem + suffix: tensor for suffix, tensor in packed.items()}
    tensors |= {"x.norm.weight": torch.randn(7), f"{stem}.bias": torch.randn(80)}
    save_file(tensors, tmp_path / "model.safetensors")
    found = unpacked(safetensors_of(tmp_path / "model.safetensors"), page, "m")
    key = stem if case == "mxfp4" else f"{stem}.weight"
    assert found.keys() == {key, "x.norm.weight", f"{stem}.bias"}
    weight = found[key]
    assert (tuple(weight.shape), weight.dtype) == (meant.shape, torch.float32)
    np.testing.assert_allclose(weight.whole().numpy(), meant, rtol=2e-7, atol=1e-12)
    for start, stop in ((0, 1), (2, 5), (3, len(meant)), (len(meant) - 1, len(meant))):
        assert torch.equal(weight.rows(start, stop), weight.whole()[start:stop])
    again = unpack_again(tensors, page)
    assert again.keys() == found.keys()
    np.testing.assert_allclose(again[key], meant, rtol=1e-6, atol=1e-12)
    assert np.abs(meant).max() > 0


@pytest.mark.parametrize(
    ("case", "page", "change", "words"),
    [
        ("gptq", {"bits": 3}, {}, "bits is 3, wanted 2 or 4 or 8"),
        ("gptq", {"checkpoint_format": "marlin"}, {}, "checkpoint_format is 'marlin'"),
        ("gptq", {}, {".scales": None}, "x.scales is missing beside x.qweight"),
        ("gptq", {}, {".scales": torch.ones(2, 80)}, r"x.qzeros is \[3, 10\], wanted \[2, 10\]"),
        ("gptq", {}, {".g_idx": torch.full((96,), -1, dtype=torch.int32)}, "outside 0 to 2"),
        ("gptq", {"desc_act": True}, {".g_idx": None}, "and no g_idx"),
        (
            "packed, groups",
            {"transform_config": {"config_groups": {"R1": {}}}},
            {},
            "transform_config is .*R1",
        ),
        (
            "packed, groups",
            {"sparsity_config": {"format": "sparse-24"}},
            {},
            "format is 'sparse-24'",
        ),
        ("packed, rows, zeros", {}, {".weight_zero_point": torch.zeros(80, 1).int()}, "zero_point"),
        ("LLM.int8", {}, {".weight_format": torch.tensor(1, dtype=torch.uint8)}, "wanted 0: by"),
        ("nf4", {}, {".weight.absmax": torch.ones(3)}, "has 3 scales, wanted 240"),
        ("awq", {"version": "gemv"}, {}, "version is 'gemv', wanted 'gemm'"),
        ("packed, groups", {"format": "nvfp4-pack-quantized"}, {}, "format is 'nvfp4-pack"),
        ("packed, groups", {}, {".weight_shape": torch.tensor([80, 64])}, r"wanted \[80, 16\]"),
        ("fp8", {"weight_block_size": [128, 128]}, {}, r"the scales of x.weight are \[2, 2\]"),
        ("fp8", {}, {".weight_scale_inv": None}, "x.weight is torch.float8_e4m3fn, and has no"),
        ("nf4", {}, {".weight": torch.zeros(9, 1, dtype=torch.uint8)}, "has 9 bytes"),
    ],
)
def test_what_is_not_known_is_refused(
    case: str, page: dict[str, Any], change: dict[str, Any], words: str, tmp_path: Path
) -> None:
    write, how, of_case = CASES[case]
    packed, _ = write(np.random.default_rng(0), (80, 96), **how)
    left = {key: value for key, value in (packed | change).items() if value is not None}
    save_file({f"x{key}": value for key, value in left.items()}, tmp_path / "m.safetensors")
    with pytest.raises(ModelError, match=words):
        unpacked(safetensors_of(tmp_path / "m.safetensors"), of_case | page, "m")


ROUNDED = ("gptq", "gptq, 8 bits", "awq", "packed, groups", "packed, rows, zeros", "packed, 8 bits")


@pytest.mark.parametrize("case", [*ROUNDED, "int8", "LLM.int8"])
def test_levels_are_those_of_the_file(case: str, tmp_path: Path) -> None:
    write, how, page = CASES[case]
    packed, meant = write(np.random.default_rng(5), (80, 96), **how)
    save_file({f"x{key}": each for key, each in packed.items()}, tmp_path / "m.safetensors")
    weight = unpacked(safetensors_of(tmp_path / "m.safetensors"), page, "m")["x.weight"]
    rounded = weight.detach().float().rounded
    assert rounded is not None
    for start, stop in ((0, 80), (5, 11)):
        level, scale, offset = rounded.rows(start, stop)
        assert level.dtype == torch.uint8
        assert int(level.max()) > 15 if rounded.bits == 8 else int(level.max()) == 15
        made = level.reshape(stop - start, 3, 32) * scale[..., None] + offset[..., None]
        np.testing.assert_allclose(made.reshape(-1, 96), meant[start:stop], rtol=0, atol=2e-5)
        middle = -(2 ** (rounded.bits - 1)) * scale
        assert torch.equal(offset, middle) == rounded.about_zero


@pytest.mark.parametrize("case", ["gptq, act-order", "packed, any order, zeros", "fp8", "nf4"])
def test_what_has_no_blocks_of_levels_says_none(case: str, tmp_path: Path) -> None:
    write, how, page = CASES[case]
    packed, _ = write(np.random.default_rng(5), (80, 96), **how)
    save_file({f"x{key}": each for key, each in packed.items()}, tmp_path / "m.safetensors")
    weight = unpacked(safetensors_of(tmp_path / "m.safetensors"), page, "m")["x.weight"]
    assert weight.rounded is None
