"""A model that carries something from token to token, besides attention, is refused."""

import pytest
import torch
from torch import nn
from torch.nn import functional

from lcc.capture.export import capture
from lcc.config import CacheConfig, PolicyConfig
from lcc.errors import PassError
from lcc.ir.show import show
from lcc.passes import default_passes, pipeline
from lcc.passes.check_chunks import CheckChunks
from lcc.passes.find_attention import FindAttention
from lcc.passes.graph import ModelGraph
from lcc.passes.lift_kv_cache import LiftKVCache
from lcc.passes.policies import make_policy
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


def passed(model: nn.Module) -> list[str]:
    """The passes that such a model goes through, up to the check."""
    captured = capture(model.eval())
    steps = default_passes(CACHE, make_policy(PolicyConfig()), captured=captured)
    return [each.name for each in pipeline.run(captured, steps)[1]]


def test_the_frame_itself_is_accepted() -> None:
    assert passed(Around()) == [
        *("find_attention", "spell_out_complex", "share_latents"),
        *("lift_kv_cache", "lift_state", "check_chunks"),
    ]


@pytest.mark.parametrize("model", [TokenShift, LengthAware])
def test_what_carries_from_token_to_token_is_refused(model: type[nn.Module]) -> None:
    words = "other logits when it is read in chunks|positions enter at|not a rotation"
    with pytest.raises(PassError, match=words):
        passed(model())


def lifted(captured: ModelGraph, capacity: int) -> ModelGraph:
    found = FindAttention(capacity)(captured).graph
    return LiftKVCache(capacity=capacity, queries=True)(found).graph


def test_the_graph_stays_as_it_is(captured: ModelGraph) -> None:
    graph = lifted(captured, 96)
    result = CheckChunks(captured)(graph)
    assert result.sites == 0
    assert show(result.graph.graph) == show(graph.graph)
    assert result.graph.outputs == graph.outputs


def test_no_positions_are_tried_that_the_model_has_not() -> None:
    captured = capture(tiny_model("gpt2"))  # a table of 512 positions
    graph = lifted(captured, 600)
    assert CheckChunks(captured, longest=512)(graph).sites == 0
    with pytest.raises(Exception, match="index out of range"):
        CheckChunks(captured)(graph)
