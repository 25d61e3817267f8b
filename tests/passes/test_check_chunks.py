"""A model that carries something from token to token, besides attention, is refused."""

import pytest
import torch
from torch import nn
from torch.nn import functional

from lcc.capture.export import capture
from lcc.config import CacheConfig, CompileConfig, PolicyConfig
from lcc.errors import PassError
from lcc.ir.plan import Full
from lcc.passes.find_attention import FindAttention
from lcc.passes.lift_kv_cache import LiftKVCache
from lcc.passes.policies.consensus import Consensus
from lcc.passes.programs.per_layer import eviction_programs
from lcc.specialize import specialize
from lcc.testing.tiny import tiny_model

CACHE = CacheConfig(capacity=96, budget=40, chunk_size=16, catalyst_size=8, recent_size=4)


class Around(nn.Module):
    """A model whose embeddings, or positions, are changed before it sees them."""

    def __init__(self) -> None:
        super().__init__()
        self.model = tiny_model("llama")

    def forward(self, input_ids, position_ids):
        embedded = self.change(self.model.get_input_embeddings()(input_ids))
        positions = self.move(position_ids)
        return self.model(inputs_embeds=embedded, position_ids=positions).logits

    def change(self, embedded):
        return embedded

    def move(self, positions):
        return positions


class TokenShift(Around):
    """Half of every token is its predecessor's, as in RWKV."""

    def change(self, embedded):
        before = functional.pad(embedded, (0, 0, 1, -1))
        return torch.cat([embedded[..., :32], before[..., 32:]], dim=-1)


class LengthAware(Around):
    """Angles shrink with the length of the text, as in dynamic NTK scaling."""

    def move(self, positions):
        return positions.float() / (1 + positions.max() / 20)


def test_the_frame_itself_is_accepted():
    assert specialize(capture(Around()), CompileConfig(cache=CACHE), "m", "m", None).programs


@pytest.mark.parametrize("model", [TokenShift, LengthAware])
def test_what_carries_from_token_to_token_is_refused(model):
    words = "other logits when it is read in chunks|positions enter at|not a rotation"
    with pytest.raises(PassError, match=words):
        specialize(capture(model()), CompileConfig(cache=CACHE), "m", "m", None)


def test_a_window_that_never_hides_anything_is_a_full_layer():
    for window, full in ((96, True), (95, False)):
        captured = capture(tiny_model("mistral", sliding_window=window))
        graph = LiftKVCache(capacity=96, queries=True)(FindAttention(96)(captured).graph).graph
        policy = Consensus(PolicyConfig())
        layers, _ = eviction_programs(graph, CACHE, policy, (Full(),) * 2)
        assert all((layer.score is not None) == full for layer in layers)
        assert {layer.window_size for layer in layers} == {None if full else window}
