"""Experts of any model become one operator, whose numbers are the model's."""

import pytest
import torch
from torch import nn
from transformers import AutoConfig, AutoModelForCausalLM

from lcc.capture.experts import gate_of
from lcc.capture.export import capture
from lcc.errors import CaptureError
from lcc.passes.find_attention import FindAttention
from lcc.testing.tiny import tiny_model

IDS, POSITIONS = torch.arange(33)[None] * 7 % 250, torch.arange(33)[None]


@pytest.mark.parametrize("architecture", ["mixtral", "qwen2_moe", "glm4_moe"])
def test_a_router_in_front_of_one_operator(architecture: str) -> None:
    """Softmax over all or over the chosen, sigmoid in groups; beside shared experts."""
    model = tiny_model(architecture)
    with torch.no_grad():
        wanted = model(input_ids=IDS, use_cache=False).logits
    graph = capture(model)
    assert len(graph.calls(torch.ops.lcc.experts.default)) == 2
    found = FindAttention(table_size=64)(graph)
    assert found.sites == 2
    with torch.no_grad():
        got = found.graph.module(IDS, POSITIONS)[0]
        again = model(input_ids=IDS, use_cache=False).logits
    torch.testing.assert_close(got, wanted, atol=2e-5, rtol=0)
    assert torch.equal(again, wanted), "the model is as it was"


def test_other_spellings_of_experts() -> None:
    """DBRX, whose experts lie in one matrix, and Llama 4, which scales what they are given."""
    sizes = {"vocab_size": 64, "hidden_size": 32, "num_hidden_layers": 2, "head_dim": 8}
    heads = {"num_attention_heads": 4, "num_key_value_heads": 2, "pad_token_id": 0}
    experts = {"num_local_experts": 4, "num_experts_per_tok": 2, "intermediate_size": 24}
    llama4 = {"interleave_moe_layer_step": 1, "intermediate_size_mlp": 32, **experts}
    dbrx = {
        "d_model": 32,
        "n_heads": 4,
        "n_layers": 2,
        "attn_config": {"kv_n_heads": 2, "clip_qkv": 8.0, "rope_theta": 10000.0},
        "ffn_config": {"ffn_hidden_size": 24, "moe_num_experts": 4, "moe_top_k": 2},
    }
    for name, fields in (("llama4_text", llama4), ("dbrx", dbrx)):
        config = AutoConfig.for_model(name, **{**sizes, **heads, **fields})
        torch.manual_seed(0)
        model = AutoModelForCausalLM.from_config(config, dtype=torch.float32).eval()
        for parameter in model.parameters():
            parameter.data.add_(torch.randn_like(parameter) * 0.1)
        graph = capture(model)
        assert len(graph.calls(torch.ops.lcc.experts.default)) == 2, name
        with torch.no_grad():
            wanted = model(input_ids=IDS % 64, use_cache=False).logits
            got = FindAttention(table_size=64)(graph).graph.module(IDS % 64, POSITIONS)[0]
        torch.testing.assert_close(got, wanted, atol=2e-5, rtol=0)


class Gated(nn.Module):
    """Of a decorated module of experts, the gate."""

    alpha, limit = 1.702, 7.0

    def __init__(self, kind: str) -> None:
        super().__init__()
        self.kind, self.alpha, self.limit = kind, 1.702, 7.0

    def _apply_gate(self, rows: torch.Tensor) -> torch.Tensor:
        if self.kind == "gpt_oss":
            gate, up = rows[..., ::2].clamp(max=7.0), rows[..., 1::2].clamp(-7.0, 7.0)
            return (up + 1) * gate * torch.sigmoid(gate * 1.702)
        gate, up = rows.chunk(2, dim=-1)
        if self.kind == "clamped":
            return nn.functional.silu(gate.clamp(max=7.0)) * up.clamp(-7.0, 7.0)
        if self.kind == "late":  # clamped behind the activation
            return nn.functional.silu(gate).clamp(max=7.0) * up.clamp(-7.0, 7.0)
        return nn.functional.gelu(gate, approximate="tanh") * up


def test_a_gate_is_read_by_what_it_computes() -> None:
    assert gate_of("x", Gated("gpt_oss")) == ("silu", 1.702, 1.0, 7.0, True)
    assert gate_of("x", Gated("clamped")) == ("silu", 1.0, 0.0, 7.0, False)
    assert gate_of("x", Gated("gelu")) == ("gelu_tanh", 1.0, 0.0, float("inf"), False)
    with pytest.raises(CaptureError, match=r"layers.3 \(Gated\): its gate is none that lcc knows"):
        gate_of("layers.3", Gated("late"))


def test_experts_without_a_gate_are_refused() -> None:
    model = tiny_model("mixtral")
    model.model.layers[1].mlp.experts.has_gate = False
    with pytest.raises(CaptureError, match=r"layers.1.*\(MixtralExperts\): experts without a gate"):
        capture(model)
