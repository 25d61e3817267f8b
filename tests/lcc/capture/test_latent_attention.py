"""Latent attention: one entry of the latent for all heads, and the model's own numbers."""

from pathlib import Path

import pytest
import torch

from lcc.capture.export import capture
from lcc.capture.latent_attention import latents_as_entries
from lcc.compile import compile_model
from lcc.config import CacheConfig, CompileConfig, PolicyConfig
from lcc.ir.roles import Role
from lcc.passes.find_attention import FindAttention
from lcc.passes.graph import shape
from lcc.testing.tiny import tiny_model

IDS = torch.randint(0, 250, (1, 33), generator=torch.Generator().manual_seed(0))
RANK, ROTATED = 16, 8  # numbers of a latent, and of the channels that turn
MODELS = {  # complex pairs; pairs told apart before they turn; halves
    "deepseek_v2": True,
    "deepseek_v3": True,
    "minicpm3": False,
}


@pytest.mark.parametrize("architecture", MODELS)
def test_an_entry_is_the_latent_and_the_numbers_are_the_models(architecture: str) -> None:
    model = tiny_model(architecture)
    found = FindAttention(table_size=64)(capture(model)).graph
    for call in found.calls(torch.ops.lcc.attention.default):
        heads, key, value = (shape(node)[2:] for node in call.args[:3])
        assert (heads[0], key, value) == (4, (1, RANK + ROTATED), (1, RANK + ROTATED))
    (rotation,) = found.rotations
    assert rotation.cos.shape == (64, ROTATED // 2), "the first channels turn, and no others"
    assert rotation.interleaved == MODELS[architecture]
    for first in (0, 17):
        positions = torch.arange(first, first + 33)[None]
        with torch.no_grad():
            wanted = model(input_ids=IDS, position_ids=positions, use_cache=False).logits
            got = found.module(IDS, positions)[0]
        torch.testing.assert_close(got, wanted, atol=5e-5, rtol=0)


def test_what_a_cache_holds(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Of a token: once the latent and what turns, however many heads there are."""
    monkeypatch.setenv("LCC_CHECK", "0")
    cache = CacheConfig(capacity=64, budget=32, chunk_size=16, catalyst_size=0, recent_size=8)
    config = CompileConfig(target="reference", cache=cache, policy=PolicyConfig(name="knorm"))
    manifest = compile_model(tiny_model("deepseek_v3"), tmp_path / "m.lcc", config)
    held = [each for each in manifest.buffers if each.group and each.role != Role.TOKEN_POSITION]
    assert [each.name for each in held] == ["key_0", "key_1"]
    assert {each.shape for each in held} == {(1, 1, "capacity", RANK + ROTATED)}
    spare = [each.role for each in manifest.buffers if each.name.startswith("spare")]
    assert spare == [Role.KEY, Role.TOKEN_POSITION]
    (row,) = [each.bytes for each in manifest.memory if each.name == "cache"]
    assert row == 2 * 64 * (4 * (RANK + ROTATED) + 8), "float32, and a position"


def test_the_model_is_as_it_was() -> None:
    model = tiny_model("deepseek_v3")
    with torch.no_grad():
        before = model(input_ids=IDS, use_cache=False).logits
        with latents_as_entries(model) as count:
            during = model(input_ids=IDS, use_cache=False).logits
        after = model(input_ids=IDS, use_cache=False).logits
    assert count == 2
    assert torch.equal(before, after)
    assert "expand_kv" not in vars(model.model.layers[0].self_attn)
    torch.testing.assert_close(during, before, atol=5e-5, rtol=0)
    assert not torch.equal(during, before), "else nothing was taken in another order"


def test_what_expands_latents_otherwise_is_left_alone() -> None:
    model = tiny_model("deepseek_v3")
    layer = model.model.layers[1].self_attn
    expand = layer.expand_kv
    layer.expand_kv = lambda latent, turned: [2 * each for each in expand(latent, turned)]
    with latents_as_entries(model) as count:
        assert count == 1
