"""find_attention: eight architectures in two spellings, others by hand, what is refused."""

import math

import pytest
import torch
from torch import nn

from lcc.capture.export import capture
from lcc.errors import PassError
from lcc.passes.find_attention import FindAttention
from lcc.passes.graph import ModelGraph
from lcc.testing.oracles import rotate as rotate_oracle
from lcc.testing.tiny import ARCHITECTURES, tiny_model

attention = torch.ops.lcc.attention.default


def logits(graph: ModelGraph, ids: torch.Tensor, positions: torch.Tensor) -> torch.Tensor:
    with torch.no_grad():
        return graph.module(ids, positions)[0]


def text(length: int = 33, seed: int = 0) -> torch.Tensor:
    return torch.randint(0, 250, (1, length), generator=torch.Generator().manual_seed(seed))


# windows of the layers, distinct rotations, and which rotation each layer's keys go through
EXPECTED = {
    "llama": ([0, 0], [0, 0]),
    "qwen2": ([0, 0], [0, 0]),
    "qwen3": ([0, 0], [0, 0]),
    "mistral": ([8, 8], [0, 0]),
    "phi3": ([0, 0], [0, 0]),
    "gemma3_text": ([8, 0, 8], [0, 1, 0]),
    "smollm3": ([0, 0], [0, -1]),
    "gpt2": ([0, 0], [-1, -1]),
}


@pytest.mark.parametrize("spelling", ["sdpa", "eager"])
@pytest.mark.parametrize("architecture", sorted(ARCHITECTURES))
def test_every_architecture_in_every_spelling(architecture: str, spelling: str) -> None:
    model = tiny_model(architecture)
    model.set_attn_implementation(spelling)
    found = FindAttention(table_size=64)(capture(model))

    windows, rotations = EXPECTED[architecture]
    calls = found.graph.calls(attention)
    assert found.sites == len(calls) == len(windows)
    assert [call.args[4] for call in calls] == windows
    assert [call.args[6] for call in calls] == rotations
    assert len(found.graph.rotations) == len({r for r in rotations if r >= 0})
    ids = text()
    for first in (0, 17):
        positions = torch.arange(first, first + ids.shape[1])[None]
        with torch.no_grad():
            expected = model(input_ids=ids, position_ids=positions).logits
        torch.testing.assert_close(logits(found.graph, ids, positions), expected, atol=2e-5, rtol=0)


def test_windows_are_not_idle() -> None:
    """Guards the fixture: a window of 8 changes what tiny Mistral says about 33 tokens."""
    ids = text()
    with torch.no_grad():
        narrow = tiny_model("mistral")(input_ids=ids).logits
        wide = tiny_model("mistral", sliding_window=None)(input_ids=ids).logits
    assert (narrow - wide).abs().max() > 1e-2


def test_rotation_tables_are_the_models_own() -> None:
    """Against rotation by complex numbers, for llama's rule theta^(-2i/D)."""
    found = FindAttention(table_size=40)(capture(tiny_model("llama")))
    (rotation,) = found.graph.rotations
    theta = tiny_model("llama").config.rope_parameters["rope_theta"]
    frequencies = [theta ** (-i / 8) for i in range(8)]
    for position in (0, 1, 39):
        unit = [1.0] * 8 + [0.0] * 8
        turned = rotate_oracle(unit, position, frequencies)
        assert rotation.cos[position].tolist() == pytest.approx(turned[:8], abs=1e-6)
        assert rotation.sin[position].tolist() == pytest.approx(turned[8:], abs=1e-6)


def test_yarn_scale_is_divided_out_of_the_tables() -> None:
    scaling = {
        "rope_type": "yarn",
        "factor": 4.0,
        "rope_theta": 1e4,
        "original_max_position_embeddings": 128,
    }
    model = tiny_model("llama", rope_parameters=scaling)
    found = FindAttention(table_size=16)(capture(model))
    (rotation,) = found.graph.rotations
    length = torch.hypot(rotation.cos, rotation.sin)
    torch.testing.assert_close(length, torch.ones_like(length))
    assert model.model.rotary_emb.attention_scaling > 1.1  # else there was nothing to divide out
    ids, positions = text(), torch.arange(33)[None]
    with torch.no_grad():
        expected = model(input_ids=ids).logits
    torch.testing.assert_close(logits(found.graph, ids, positions), expected, atol=2e-5, rtol=0)


def test_input_is_unchanged_and_a_second_run_is_refused() -> None:
    graph = capture(tiny_model("llama"))
    ids, positions = text(), torch.arange(33)[None]
    before, nodes = logits(graph, ids, positions), len(graph.graph.nodes)
    found = FindAttention(table_size=64)(graph).graph
    assert len(graph.graph.nodes) == nodes
    assert torch.equal(logits(graph, ids, positions), before)
    with pytest.raises(
        PassError, match="neither scaled_dot_product_attention nor a softmax over tokens"
    ):
        FindAttention(table_size=64)(found)


def test_weights_are_shared_with_the_model() -> None:
    model = tiny_model("llama")
    found = FindAttention(table_size=64)(capture(model)).graph
    held = {p.data_ptr() for p in found.module.parameters()}
    assert held == {p.data_ptr() for p in model.parameters()}


class Toy(nn.Module):
    """One attention layer by hand, with places to go wrong."""

    def __init__(self, kind: str) -> None:
        super().__init__()
        torch.manual_seed(1)
        self.kind = kind
        self.embed = nn.Embedding(64, 32)
        self.qkv = nn.Linear(32, 96)
        self.head = nn.Linear(32, 64)
        place = torch.arange(200)
        gap = place[:, None] - place
        self.register_buffer("band", (gap >= 0) & (gap < 50))
        self.register_buffer("angles", place[:40, None] * 100.0 ** (-torch.arange(8) / 8))

    def forward(self, input_ids: torch.Tensor, position_ids: torch.Tensor) -> torch.Tensor:
        x = self.embed(input_ids)
        q, k, v = (t.unflatten(-1, (2, 16)).transpose(1, 2) for t in self.qkv(x).chunk(3, dim=-1))
        frequencies = 100.0 ** (-torch.arange(8) / 8)
        places = position_ids
        if self.kind == "length":
            places = torch.arange(input_ids.shape[1])[None]
        elif self.kind == "offset":
            places = position_ids + 3
        elif self.kind == "clamped":
            places = position_ids.clamp(max=20)
        angles = places[..., None].float() * frequencies
        if self.kind == "table":
            angles = self.angles[position_ids]
        q, k = (self.turn(t, angles) for t in (q, k))
        if self.kind == "faded":  # half of a score for what is two tokens away
            scores = q @ k.transpose(2, 3)
            place = position_ids[0]
            gap = place[:, None] - place[None, :]
            scores = scores * torch.where(gap == 2, 0.5, 1.0)
            out = scores.masked_fill(gap < 0, float("-inf")).softmax(-1) @ v
        elif self.kind == "bidirectional":
            out = nn.functional.scaled_dot_product_attention(q, k, v)
        elif self.kind in ("alibi", "bent"):
            place = position_ids[0].float()
            bias = -(place[:, None] - place[None, :]).abs()
            if self.kind == "bent":
                bias = bias / (1 - 0.1 * bias)
            causal = torch.ones_like(bias, dtype=torch.bool).tril()
            mask = torch.where(causal, bias, float("-inf"))
            out = nn.functional.scaled_dot_product_attention(q, k, v, attn_mask=mask)
        elif self.kind == "strided":
            place = position_ids[0]
            gap = place[:, None] - place[None, :]
            mask = (gap >= 0) & (gap % 3 == 0)
            out = nn.functional.scaled_dot_product_attention(q, k, v, attn_mask=mask)
        elif self.kind in ("floats", "blocks", "band", "chunks"):
            place = position_ids[0]
            gap = place[:, None] - place[None, :]
            mask = (gap >= 0) & (gap < 50.0)
            if self.kind == "blocks":
                mask = (gap >= 0) & (place[:, None] // 16 - place[None, :] // 16 < 4)
            elif self.kind == "chunks":
                mask = (gap >= 0) & (place[:, None] // 16 == place[None, :] // 16)
            elif self.kind == "band":
                mask = self.band[place][:, place]
            out = nn.functional.scaled_dot_product_attention(q, k, v, attn_mask=mask)
        else:
            out = nn.functional.scaled_dot_product_attention(q, k, v, is_causal=True)
        x = x + out.transpose(1, 2).flatten(2)
        if self.kind == "router":  # a softmax that is no attention
            x = x * self.head(x).softmax(-1).topk(2)[0].sum(-1, keepdim=True)
        if self.kind == "late":
            x = x * (1 + position_ids[..., None].float())
        return self.head(x)

    def turn(self, t: torch.Tensor, angles: torch.Tensor) -> torch.Tensor:
        cos, sin = angles.cos()[:, None], angles.sin()[:, None]
        if self.kind == "heads":  # the second turns twice as fast
            faster = angles[:, None] * torch.tensor([1.0, 2.0])[:, None, None]
            cos, sin = faster.cos(), faster.sin()
        if self.kind == "longer":  # than it is where the two probes look
            place = angles[:, None, :, :1]
            length = torch.where((place > 20) & (place < 40), 2.0, 1.0)
            cos, sin = cos * length, sin * length
        if self.kind == "shear":
            return torch.cat((t[..., :8] * cos + t[..., 8:] * sin, t[..., 8:]), -1)
        if self.kind == "interleaved":
            even, odd = t[..., ::2], t[..., 1::2]
            return torch.stack((even * cos - odd * sin, odd * cos + even * sin), -1).flatten(-2)
        if self.kind == "complex":
            turns = torch.polar(torch.ones_like(cos), angles[:, None])
            pairs = torch.view_as_complex(t.unflatten(-1, (8, 2)).contiguous())
            return torch.view_as_real(pairs * turns).flatten(-2)
        return torch.cat(
            (t[..., :8] * cos - t[..., 8:] * sin, t[..., 8:] * cos + t[..., :8] * sin), -1
        )


@pytest.mark.parametrize("kind", ["plain", "interleaved", "complex", "router", "alibi"])
def test_plain_modules_with_other_spellings_of_rotation(kind: str) -> None:
    model = Toy(kind).eval()
    found = FindAttention(table_size=64)(capture(model)).graph
    assert found.rotations[0].interleaved == (kind in ("interleaved", "complex"))
    ids, positions = text() % 64, torch.arange(5, 38)[None]
    with torch.no_grad():
        expected = model(ids, positions)
    torch.testing.assert_close(logits(found, ids, positions), expected, atol=1e-5, rtol=0)


@pytest.mark.parametrize(
    ("kind", "reason"),
    [
        ("bidirectional", "without a mask and not causal"),
        ("bent", "not a slope times the distance of two tokens"),
        ("blocks", "neither causal nor a causal window: token "),
        ("faded", "multiplies scores of keys that are seen by numbers besides 1"),
        ("chunks", "same chunk of 16 tokens: lcc has no kernel for so short chunks"),
        ("strided", "neither causal nor a causal window: token 1 "),
        ("shear", "not by a rotation of pairs"),
        ("heads", "does not turn all heads of .* alike"),
        ("longer", "changes with the position"),
        ("length", "takes positions from the length of the input"),
        ("late", "positions enter at mul"),
    ],
)
def test_what_cannot_be_handled_is_refused_by_name(kind: str, reason: str) -> None:
    with pytest.raises(PassError, match=reason):
        FindAttention(table_size=64)(capture(Toy(kind).eval()))


@pytest.mark.parametrize("kind", ["floats", "band"])
def test_windows_that_no_whole_number_tells(kind: str) -> None:
    found = FindAttention(table_size=64)(capture(Toy(kind).eval())).graph
    assert [call.args[4] for call in found.calls(attention)] == [50]


def test_rotations_turn_by_differences() -> None:
    """However large a model's first angle is; where differences do not tell, that is told."""
    rotations = {}
    for kind in ("plain", "offset", "clamped", "table"):
        graph = FindAttention(table_size=64)(capture(Toy(kind).eval())).graph
        rotations[kind] = graph.rotations[0]
    plain = rotations["plain"]
    assert (plain.cos[0] == 1).all()
    assert (plain.sin[0] == 0).all()
    torch.testing.assert_close(rotations["offset"].cos, plain.cos, atol=1e-6, rtol=0)
    torch.testing.assert_close(rotations["offset"].sin, plain.sin, atol=1e-6, rtol=0)
    assert len(rotations["table"].cos) == 40, "the model has no more"
    assert [rotations[kind].off_by() for kind in ("plain", "offset", "table")] == [0, 0, 0]
    assert rotations["clamped"].off_by() > 0.5


def test_no_attention_is_an_error_that_counts_nodes() -> None:
    class Bag(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.embed = nn.Embedding(8, 8)

        def forward(self, input_ids: torch.Tensor, position_ids: torch.Tensor) -> torch.Tensor:
            return self.embed(input_ids) + position_ids[..., None]

    with pytest.raises(PassError, match=r"no attention in a graph of \d+ nodes"):
        FindAttention(table_size=8)(capture(Bag()))


def test_scale_is_read_from_the_spelling() -> None:
    model = tiny_model("llama")
    model.set_attn_implementation("eager")
    found = FindAttention(table_size=8)(capture(model)).graph
    scales = [call.args[3] for call in found.calls(attention)]
    assert scales == pytest.approx([1 / math.sqrt(16)] * 2)
