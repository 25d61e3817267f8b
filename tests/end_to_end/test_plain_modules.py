"""Modules that are no Hugging Face classes, compiled and read through cycles."""

from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional

import lcc.runtime
from lcc.compile import compile_model
from lcc.config import CacheConfig, CompileConfig, PolicyConfig, Precision
from lcc.errors import CaptureError, ConfigError, PassError
from lcc.measure.verify import verify
from lcc.passes.policies import POLICIES, Entries
from lcc.testing.tiny import tiny_model

CACHE = CacheConfig(
    capacity=48, budget=20, chunk_size=16, catalyst_size=0, sink_size=2, recent_size=4
)
KNORM = CompileConfig(cache=CACHE, policy=PolicyConfig(name="knorm"))
IDS = np.random.default_rng(0).integers(0, 260, 200).tolist()


class Decoder(nn.Module):
    """One layer of causal attention, rotated by position.

    name        of the table of tokens
    offset      added to positions, which no difference of positions sees
    most        positions beyond it are as this one
    per_head    a linear layer over each head's values
    """

    def __init__(
        self,
        *,
        name: str = "table",
        size: int = 16,
        offset: int = 0,
        most: int = 1 << 20,
        per_head: bool = False,
    ) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.name, self.size, self.offset, self.most = name, size, offset, most
        setattr(self, name, nn.Parameter(torch.randn(260, 4 * size)))
        self.qkv = nn.Linear(4 * size, 12 * size, bias=False)
        self.out = nn.Linear(4 * size, 260, bias=False)
        self.per_head = nn.Linear(size, size, bias=False) if per_head else None

    def forward(self, ids: Tensor, places: Tensor) -> Tensor:
        """Not called input_ids and position_ids: they are given by place."""
        x = functional.embedding(ids, getattr(self, self.name))
        q, k, v = self.qkv(x).unflatten(-1, (3, 4, self.size)).permute(2, 0, 3, 1, 4)
        if self.per_head is not None:
            v = self.per_head(v)
        half = self.size // 2
        places = (places + self.offset).clamp(max=self.most)
        angle = places[:, None, :, None] * 1000 ** (-torch.arange(half) / half)
        cos, sin = (torch.cat([t, t], dim=-1) for t in (angle.cos(), angle.sin()))
        q, k = (t * cos + torch.cat([-t[..., half:], t[..., :half]], -1) * sin for t in (q, k))
        attended = functional.scaled_dot_product_attention(q, k, v, is_causal=True)
        return self.out(x + attended.transpose(1, 2).flatten(2))


def read(artifact: Path) -> np.ndarray:
    session = lcc.runtime.open(artifact)
    session.feed(IDS)
    assert len(session.cycles) > 5
    return session.next_logits()


@pytest.fixture(scope="module")
def plain(tmp_path_factory: pytest.TempPathFactory) -> np.ndarray:
    """What the module itself says after several cycles."""
    artifact = tmp_path_factory.mktemp("plain") / "m.lcc"
    compile_model(Decoder(), artifact, KNORM)
    return read(artifact)


def test_where_angles_begin_does_not_matter(plain: np.ndarray, tmp_path: Path) -> None:
    """A model that counts from 3, or from 100, turns what moves up as one that counts from 0."""
    for offset in (3, 100):
        compile_model(Decoder(offset=offset), tmp_path / f"{offset}.lcc", KNORM)
        np.testing.assert_allclose(read(tmp_path / f"{offset}.lcc"), plain, atol=1e-4)


def test_angles_that_are_no_matter_of_differences(tmp_path: Path) -> None:
    with pytest.raises(PassError, match=r"turned by b more \(off by .*--positions absolute"):
        compile_model(Decoder(most=30), tmp_path / "m.lcc", KNORM)


@pytest.mark.parametrize("name", ["tokens", "positions", "used", "key_0"])
def test_parameters_may_be_called_as_inputs_are(
    name: str, plain: np.ndarray, tmp_path: Path
) -> None:
    compile_model(Decoder(name=name), tmp_path / "m.lcc", KNORM)
    np.testing.assert_array_equal(read(tmp_path / "m.lcc"), plain)


@pytest.mark.parametrize("precision", ["fp32", "int8", "int4"])
def test_a_linear_layer_over_heads(precision: Precision, tmp_path: Path) -> None:
    """And `verify` takes the module itself, whatever its inputs are called."""
    module = Decoder(size=32, per_head=True)
    config = CompileConfig(cache=CACHE, policy=PolicyConfig(name="h2o"), precision=precision)
    compile_model(module, tmp_path / "m.lcc", config)
    report = verify(tmp_path / "m.lcc", module)
    assert report.ok, [row for row in report.rows if not row.ok]


def test_a_cache_of_few_slots(tmp_path: Path) -> None:
    sizes = {"budget": 8, "chunk_size": 2, "catalyst_size": 0, "sink_size": 0, "recent_size": 0}
    config = CompileConfig(cache=CacheConfig(capacity=10, **sizes), policy=PolicyConfig(name="h2o"))
    compile_model(Decoder(), tmp_path / "m.lcc", config)
    assert verify(tmp_path / "m.lcc", Decoder()).ok
    with pytest.raises(ConfigError, match="capacity is 7, wanted 8 or more to compile"):
        CompileConfig(cache=CacheConfig(capacity=7, **(sizes | {"budget": 3})))


def test_a_policy_that_branches_on_values(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    class Branches(POLICIES["knorm"]):  # type: ignore[misc]
        name = "own"

        def rank(self, entries: Entries) -> Tensor:
            rank = super().rank(entries)
            return rank if rank.sum() > 0 else -rank

    monkeypatch.setitem(POLICIES, "own", Branches)
    config = CompileConfig(cache=CACHE, policy=PolicyConfig(name="own"))
    with pytest.raises(ConfigError, match=r"policy own: rank\(\) cannot be traced: .*branches on"):
        compile_model(Decoder(), tmp_path / "m.lcc", config)


def test_heads_that_a_target_does_not_take(tmp_path: Path) -> None:
    words = "target onnxruntime:cpu refuses: heads of 12 numbers; .* takes multiples of 8"
    with pytest.raises(ConfigError, match=words):
        compile_model(Decoder(size=12), tmp_path / "m.lcc", KNORM)


def test_weights_in_half_precision_are_told(tmp_path: Path) -> None:
    words = "Decoder: table is bfloat16, wanted float32: call float"
    with pytest.raises(CaptureError, match=words):
        compile_model(Decoder().bfloat16(), tmp_path / "m.lcc", KNORM)


def test_a_hugging_face_module_says_how_far_it_was_trained(tmp_path: Path) -> None:
    module = tiny_model("llama", max_position_embeddings=40)
    words = "capacity is 48, LlamaForCausalLM was trained on positions below 40"
    with pytest.raises(ConfigError, match=words):
        compile_model(module, tmp_path / "m.lcc", KNORM)
