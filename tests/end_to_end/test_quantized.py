"""Checkpoints in few bits, as they are published: the model is the one that the bits mean."""

from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest

import lcc.runtime
from lcc.compile import _check_few_bits, compile_model
from lcc.config import CacheConfig, CompileConfig, PolicyConfig, Precision
from lcc.errors import ConfigError
from lcc.ir.lazy_tensor import LazyTensor
from lcc.measure.check_golden import check_golden
from lcc.measure.second_reader import read_again
from lcc.measure.verify import verify
from lcc.sources.models import load_model, quiet_transformers
from lcc.testing.quantized_writing import PAGES, quantize_folder
from lcc.testing.tiny import save_tiny

PRECISIONS: tuple[Precision, ...] = ("fp32", "int8", "int4", "given")


@pytest.mark.parametrize("method", PAGES)
def test_a_checkpoint_in_few_bits_is_compiled_as_it_is(method: str, tmp_path: Path) -> None:
    folder, artifact = tmp_path / "model", tmp_path / "m.lcc"
    if method == "mxfp4":
        save_tiny(folder, "gpt_oss", intermediate_size=64)
    else:
        save_tiny(folder)
    meant = quantize_folder(folder, method)
    lazy = dict(load_model(folder, lazy=True).module.named_parameters())
    with quiet_transformers():
        again = dict(read_again(folder, length=64).named_parameters())
    assert len(meant) == (4 if method == "mxfp4" else 14)
    for name, weight in meant.items():
        assert isinstance(lazy[name], LazyTensor)
        np.testing.assert_allclose(lazy[name].whole().numpy(), weight, rtol=1e-6)
        np.testing.assert_allclose(again[name].numpy(), weight, rtol=1e-6)
    cache = CacheConfig(capacity=64, budget=32, chunk_size=16, catalyst_size=8, recent_size=8)
    compile_model(folder, artifact, CompileConfig(cache=cache, policy=PolicyConfig(name="knorm")))
    assert check_golden(lcc.runtime.load(artifact), artifact).ok
    report = verify(artifact, folder, prompt_tokens=40, new_tokens=8)
    assert report.ok, [row for row in report.rows if not row.ok]


def test_given_wants_weights_in_few_bits(tiny_folder: Path, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="no weight of tiny-llama is in levels that lcc keeps"):
        compile_model(tiny_folder, tmp_path / "m.lcc", CompileConfig(precision="given"))


@pytest.mark.parametrize(("about_zero", "said"), [(True, True), (False, False)])
def test_int4_does_not_keep_a_grid_about_zero(
    about_zero: bool, said: bool, caplog: pytest.LogCaptureFixture
) -> None:
    """As in Q4_0: few of its blocks use both the lowest and the highest level."""
    weight = SimpleNamespace(rounded=SimpleNamespace(bits=4, about_zero=about_zero))
    model = SimpleNamespace(name="m", module=SimpleNamespace(parameters=lambda: [weight]))
    _check_few_bits(model, "int4")
    assert ("1 weights are in few bits in the file" in caplog.text) == said


def test_what_is_rounded_anew_is_said(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """And what is given is kept: the same logits but for inputs in 8 bits."""
    folder = tmp_path / "model"
    save_tiny(folder)
    quantize_folder(folder, "gptq")
    cache = CacheConfig(capacity=64, budget=32, chunk_size=16, catalyst_size=8, recent_size=8)
    errors = {}
    for precision in PRECISIONS:
        caplog.clear()
        config = CompileConfig(cache=cache, policy=PolicyConfig(name="none"), precision=precision)
        artifact = tmp_path / f"{precision}.lcc"
        compile_model(folder, artifact, config)
        words = f"14 weights are in few bits in the file, and --precision {precision} rounds"
        assert (words in caplog.text) == (precision == "int8")
        report = verify(artifact, folder, prompt_tokens=40, new_tokens=8)
        assert report.ok, [row for row in report.rows if not row.ok]
        session = lcc.runtime.open(artifact)
        session.feed("some words to read")
        errors[precision] = session.next_logits().copy()
    exact = errors.pop("fp32")
    for precision in ("int4", "given"):
        assert np.abs(errors[precision] - exact).max() < 0.05 * np.abs(exact).max()
