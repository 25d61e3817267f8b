"""`verify` finds what went wrong while a model was read, and forgives what is rounding."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file

from lcc.compile import compile_model
from lcc.config import CacheConfig, CompileConfig, PolicyConfig
from lcc.errors import ArtifactError, ConfigError
from lcc.measure import verify as verifying
from lcc.measure.comparison import logits_tolerance
from lcc.measure.second_reader import read_again
from lcc.measure.verify import verify
from lcc.sources.from_gguf import config
from lcc.testing.gguf_writing import built, write
from lcc.testing.tiny import save_tiny

CACHE = CacheConfig(capacity=96, budget=40, chunk_size=16, catalyst_size=8, recent_size=4)
CONFIG = CompileConfig(cache=CACHE, policy=PolicyConfig(name="knorm"))
AGAIN = "the model, read again"


@pytest.fixture
def scaled(tmp_path: Path) -> Path:
    """A GGUF file with the angles of Llama 3."""
    factors = np.array([1, 1, 1.5, 4, 8, 8, 8, 8], np.float32)
    freqs = {"rope_freqs.weight": factors}
    return write(tmp_path / "m.gguf", "llama", built("llama"), {}, freqs)


def test_what_the_first_reader_drops_the_second_one_sees(
    scaled: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The mistake that both sides once shared: the angles of the file were dropped."""
    own = config.rope_parameters

    def plain(*given: Any, **more: Any) -> dict[str, Any]:
        return own(*given, **more) | {"rope_type": "default"}

    compile_model(scaled, tmp_path / "right.lcc", CONFIG)
    report = verify(tmp_path / "right.lcc", scaled)
    assert report.ok
    assert report.rows[0].against == AGAIN
    with monkeypatch.context() as patch:
        patch.setattr(config, "rope_parameters", plain)
        compile_model(scaled, tmp_path / "wrong.lcc", CONFIG)
        report = verify(tmp_path / "wrong.lcc", scaled)
    wrong = {row.what for row in report.rows if not row.ok}
    assert {"the model as it was compiled", "prefill_chunk + head", "decode + head"} <= wrong


def test_large_logits_are_rounded_more(tmp_path: Path) -> None:
    save_tiny(tmp_path / "model", tie_word_embeddings=False)
    path = tmp_path / "model" / "model.safetensors"
    tensors = load_file(path)
    tensors["lm_head.weight"] *= 3000
    save_file(tensors, path, metadata={"format": "pt"})
    compile_model(tmp_path / "model", tmp_path / "m.lcc", CONFIG)
    rows = {row.what: row for row in verify(tmp_path / "m.lcc", tmp_path / "model").rows}
    head = rows["prefill_chunk + head"]
    assert head.ok
    assert head.max_error > 1e-4, "nothing was rounded"
    tensors["lm_head.weight"] *= 1.001  # and a model that is another one is still told apart
    save_file(tensors, path, metadata={"format": "pt"})
    report = verify(tmp_path / "m.lcc", tmp_path / "model")
    assert not next(row for row in report.rows if row.what == "prefill_chunk + head").ok


def test_how_far_logits_may_be_apart() -> None:
    assert logits_tolerance("float32", 1.0, 2) == 1e-4
    assert logits_tolerance("float32", 25.0, 24) == pytest.approx(1.22e-3, rel=0.01)
    assert logits_tolerance("float32", 50.0, 24) == pytest.approx(2.45e-3, rel=0.01)
    assert logits_tolerance("float16", 1.0, 2) == 5e-2


def test_a_folder_is_compared_tensor_by_tensor(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import transformers

    model = save_tiny(tmp_path / "model")
    assert torch.equal(
        read_again(tmp_path / "model", length=9).lm_head.weight, model.lm_head.weight
    )
    model.model.norm.weight.data += 1
    monkeypatch.setattr(
        transformers.AutoModelForCausalLM, "from_pretrained", lambda *_, **__: model
    )
    with pytest.raises(ArtifactError, match=r"model\.norm\.weight is another one in the module"):
        read_again(tmp_path / "model", length=9)


def test_a_model_that_does_not_fit_is_refused_with_what_it_needs(
    scaled: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """And one that fits once is read from its file while it is compared."""
    compile_model(scaled, tmp_path / "m.lcc", CONFIG)
    size = 4 * sum(each.numel() for each in built("llama").parameters())
    monkeypatch.setattr(verifying, "free_memory", lambda: size // 2)
    words = r"m: reading it a second time takes 0\.0 GB .* 0\.0 GB are free; .*lcc verify --golden"
    with pytest.raises(ConfigError, match=words):
        verify(tmp_path / "m.lcc", scaled)
    monkeypatch.setattr(verifying, "free_memory", lambda: size)
    report = verify(tmp_path / "m.lcc", scaled, prompt_tokens=40, new_tokens=8)
    assert report.ok, [row for row in report.rows if not row.ok]
