"""Each row of the table: a module of transformers, written as GGUF, is read back as that module."""

from pathlib import Path
from typing import Any

import pytest
import torch

from lcc.errors import ModelError
from lcc.measure.second_reader import read_again
from lcc.sources.from_gguf.architectures import ARCHITECTURES
from lcc.sources.models import load_model
from lcc.testing.gguf_writing import built, logits, write

EXPERTS = {"num_experts_per_tok": 2, "moe_intermediate_size": 48}
COUNTS = {".expert_used_count": 2, ".expert_feed_forward_length": 48}
LATENT = {
    "kv_lora_rank": 16,
    "qk_rope_head_dim": 8,
    "qk_nope_head_dim": 16,
    "v_head_dim": 16,
    "first_k_dense_replace": 1,
    "n_routed_experts": 4,
    "n_shared_experts": 1,
    "num_key_value_heads": 4,
    **EXPERTS,
}
LATENT_FIELDS = {
    ".attention.kv_lora_rank": 16,
    ".attention.key_length": 24,
    ".attention.value_length": 16,
    ".rope.dimension_count": 8,
    ".leading_dense_block_count": 1,
    ".expert_count": 4,
    ".expert_shared_count": 1,
    ".expert_weights_scale": 2.5,
    ".expert_weights_norm": True,
    **COUNTS,
}
WINDOWS = {"num_hidden_layers": 4, "sliding_window": 8}

# name: (architecture of the file, of transformers, fields of its configuration, of the file)
CASES: dict[str, tuple[str, str, dict[str, Any], dict[str, Any]]] = {
    "llama": ("llama", "llama", {}, {}),
    "llama tied": ("llama", "llama", {"tie_word_embeddings": True}, {}),
    "llama, head of its own": ("llama", "llama", {"head_dim": 32}, {}),
    "llama with biases": ("llama", "llama", {"attention_bias": True, "mlp_bias": True}, {}),
    "mistral": ("llama", "mistral", {"sliding_window": None}, {}),
    "mixtral": (
        "llama",
        "mixtral",
        {"num_local_experts": 4, "num_experts_per_tok": 2},
        {".expert_count": 4, ".expert_used_count": 2},
    ),
    "qwen2": ("qwen2", "qwen2", {}, {}),
    "qwen3": ("qwen3", "qwen3", {"head_dim": 32}, {}),
    "qwen2moe": (
        "qwen2moe",
        "qwen2_moe",
        {"num_experts": 4, "shared_expert_intermediate_size": 40, **EXPERTS},
        {".expert_count": 4, ".expert_shared_feed_forward_length": 40, **COUNTS},
    ),
    "qwen3moe": (
        "qwen3moe",
        "qwen3_moe",
        {"num_experts": 4, "norm_topk_prob": True, "head_dim": 32, **EXPERTS},
        {".expert_count": 4, **COUNTS},
    ),
    "mistral3": (
        "mistral3",
        "ministral3",
        {
            "head_dim": 16,
            "rope_parameters": {
                "rope_type": "yarn",
                "rope_theta": 10_000.0,
                "factor": 16.0,
                "original_max_position_embeddings": 32,
                "mscale": 1.0,
                "mscale_all_dim": 1.0,
                "beta_fast": 32.0,
                "beta_slow": 1.0,
                "llama_4_scaling_beta": 0.1,
            },
        },
        {
            ".rope.scaling.type": "yarn",
            ".rope.scaling.factor": 16.0,
            ".rope.scaling.original_context_length": 32,
            ".rope.scaling.yarn_beta_fast": 32.0,
            ".rope.scaling.yarn_beta_slow": 1.0,
            ".rope.scaling.yarn_log_multiplier": 1.0,
            ".attention.temperature_scale": 0.1,
        },
    ),
    "smollm3": ("smollm3", "smollm3", {"num_hidden_layers": 4}, {}),
    "granite": (
        "granite",
        "granite",
        {
            "embedding_multiplier": 3.0,
            "residual_multiplier": 0.5,
            "attention_multiplier": 0.1,
            "logits_scaling": 4.0,
        },
        {
            ".embedding_scale": 3.0,
            ".residual_scale": 0.5,
            ".attention.scale": 0.1,
            ".logit_scale": 4.0,
        },
    ),
    "granitemoe": (
        "granitemoe",
        "granitemoe",
        {
            "num_local_experts": 4,
            "num_experts_per_tok": 2,
            "attention_multiplier": 0.1,
            "embedding_multiplier": 3.0,
        },
        {
            ".expert_count": 4,
            ".expert_used_count": 2,
            ".attention.scale": 0.1,
            ".embedding_scale": 3.0,
        },
    ),
    "arcee": ("arcee", "arcee", {}, {}),
    "olmo": ("olmo", "olmo", {}, {".attention.layer_norm_epsilon": 1e-5}),
    "olmo, clamped": (
        "olmo",
        "olmo",
        {"clip_qkv": 0.5},
        {".attention.layer_norm_epsilon": 1e-5, ".attention.clamp_kqv": 0.5},
    ),
    "olmo2": ("olmo2", "olmo2", {}, {}),
    "olmo3": (
        "olmo2",
        "olmo3",
        WINDOWS,
        {
            ".attention.sliding_window": 8,
            ".attention.sliding_window_pattern": [True, True, True, False],
        },
    ),
    "olmoe": (
        "olmoe",
        "olmoe",
        {"num_experts": 4, "num_experts_per_tok": 2},
        {".expert_count": 4, ".expert_used_count": 2},
    ),
    "exaone4": (
        "exaone4",
        "exaone4",
        {"sliding_window": None, "head_dim": 16, "layer_types": ["full_attention"] * 2},
        {},
    ),
    "exaone4 with windows": (
        "exaone4",
        "exaone4",
        {**WINDOWS, "sliding_window_pattern": 4},
        {
            ".attention.sliding_window": 8,
            ".attention.sliding_window_pattern": [True, True, True, False],
        },
    ),
    "seed_oss": ("seed_oss", "seed_oss", {"head_dim": 16}, {}),
    "ernie4_5": ("ernie4_5", "ernie4_5", {"head_dim": 16}, {}),
    "hunyuan-dense": ("hunyuan-dense", "hunyuan_v1_dense", {"head_dim": 16}, {}),
    "glm4": ("glm4", "glm4", {"head_dim": 16, "partial_rotary_factor": 0.5}, {}),
    "bitnet": ("bitnet", "bitnet", {"hidden_act": "relu2", "tie_word_embeddings": True}, {}),
    "bitnet of the first kind": (
        "bitnet",
        "bitnet",
        {"hidden_act": "silu", "tie_word_embeddings": True},
        {".rope.scaling.type": "linear", ".rope.scaling.factor": 1.0},
    ),
    "bitnet that says its activation": (
        "bitnet",
        "bitnet",
        {"hidden_act": "relu2", "tie_word_embeddings": True},
        {
            ".rope.scaling.type": "linear",
            ".rope.scaling.factor": 1.0,
            ".hidden_activation": "relu2",
        },
    ),
    "command-r": (
        "command-r",
        "cohere",
        {"logit_scale": 0.25, "tie_word_embeddings": True},
        {".logit_scale": 0.25, ".rope.scaling.type": "none"},
    ),
    "command-r with norms": (
        "command-r",
        "cohere",
        {"logit_scale": 0.25, "use_qk_norm": True, "tie_word_embeddings": True},
        {".logit_scale": 0.25},
    ),
    "cohere2": (
        "cohere2",
        "cohere2",
        {**WINDOWS, "logit_scale": 0.25, "tie_word_embeddings": True},
        {".logit_scale": 0.25, ".attention.sliding_window": 8},
    ),
    "gemma": ("gemma", "gemma", {"head_dim": 32, "tie_word_embeddings": True}, {}),
    "gemma2": (
        "gemma2",
        "gemma2",
        {
            "head_dim": 32,
            "sliding_window": 8,
            "query_pre_attn_scalar": 32,
            "tie_word_embeddings": True,
            "attn_logit_softcapping": 20.0,
        },
        {
            ".attention.sliding_window": 8,
            ".attn_logit_softcapping": 20.0,
            ".final_logit_softcapping": 30.0,
        },
    ),
    "gemma3": (
        "gemma3",
        "gemma3_text",
        {
            "head_dim": 32,
            "num_hidden_layers": 6,
            "sliding_window": 8,
            "query_pre_attn_scalar": 32,
            "tie_word_embeddings": True,
        },
        {".attention.sliding_window": 8},
    ),
    "phi2": ("phi2", "phi", {"partial_rotary_factor": 0.5, "num_key_value_heads": 4}, {}),
    "phi3": ("phi3", "phi3", {}, {}),
    "phi3 with a window": (
        "phi3",
        "phi3",
        {"sliding_window": 8, "partial_rotary_factor": 0.5},
        {".attention.sliding_window": 8},
    ),
    "gpt2": (
        "gpt2",
        "gpt2",
        {"n_inner": 96, "tie_word_embeddings": True},
        {".attention.head_count_kv": 4},
    ),
    "starcoder": (
        "starcoder",
        "gpt_bigcode",
        {"n_inner": 96, "tie_word_embeddings": True},
        {".attention.head_count_kv": 1},
    ),
    "starcoder2": ("starcoder2", "starcoder2", {}, {}),
    "stablelm": ("stablelm", "stablelm", {"use_qkv_bias": True}, {".use_parallel_residual": True}),
    "stablelm, parallel": ("stablelm", "stablelm", {"use_parallel_residual": True}, {}),
    "nemotron": ("nemotron", "nemotron", {}, {".rope.scaling.type": "none"}),
    "falcon": ("falcon", "falcon", {"ffn_hidden_size": 96}, {".attention.head_count_kv": 1}),
    "falcon 40B": (
        "falcon",
        "falcon",
        {"ffn_hidden_size": 96, "new_decoder_architecture": True, "num_kv_heads": 2},
        {},
    ),
    "gptneox": ("gptneox", "gpt_neox", {}, {".use_parallel_residual": True}),
    "deepseek2": (
        "deepseek2",
        "deepseek_v3",
        {
            **LATENT,
            "q_lora_rank": 32,
            "n_group": 2,
            "topk_group": 1,
            "norm_topk_prob": True,
            "routed_scaling_factor": 2.5,
        },
        {
            **LATENT_FIELDS,
            ".attention.q_lora_rank": 32,
            ".expert_group_count": 2,
            ".expert_group_used_count": 1,
            ".expert_gating_func": 2,
        },
    ),
    "deepseek2 lite": (
        "deepseek2",
        "deepseek_v2",
        {
            **LATENT,
            "q_lora_rank": None,
            "norm_topk_prob": True,
            "routed_scaling_factor": 2.5,
            "topk_method": "greedy",
            "n_group": 1,
            "topk_group": 1,
        },
        LATENT_FIELDS,
    ),
    "deepseek2, latent parts apart": (
        "deepseek2",
        "deepseek_v3",
        {
            **LATENT,
            "q_lora_rank": None,
            "n_group": 1,
            "topk_group": 1,
            "norm_topk_prob": True,
            "routed_scaling_factor": 2.5,
            "qk_nope_head_dim": 24,
            "v_head_dim": 12,
        },
        {
            **LATENT_FIELDS,
            ".expert_gating_func": 2,
            ".attention.head_count_kv": 1,
            ".attention.key_length_mla": 32,
            ".attention.value_length_mla": 12,
        },
    ),
    "deepseek2 with yarn": (
        "deepseek2",
        "deepseek_v3",
        {
            **LATENT,
            "q_lora_rank": None,
            "n_group": 1,
            "topk_group": 1,
            "norm_topk_prob": True,
            "routed_scaling_factor": 2.5,
            "rope_parameters": {
                "rope_type": "yarn",
                "rope_theta": 10_000.0,
                "factor": 40.0,
                "original_max_position_embeddings": 32,
                "mscale": 0.707,
                "mscale_all_dim": 0.707,
                "beta_fast": 32.0,
                "beta_slow": 1.0,
            },
        },
        {
            **LATENT_FIELDS,
            ".expert_gating_func": 2,
            ".rope.scaling.type": "yarn",
            ".rope.scaling.factor": 40.0,
            ".rope.scaling.original_context_length": 32,
            ".rope.scaling.yarn_log_multiplier": 0.0707,
        },
    ),
    "glm4moe": (
        "glm4moe",
        "glm4_moe",
        {
            "head_dim": 16,
            "first_k_dense_replace": 1,
            "n_routed_experts": 4,
            "n_shared_experts": 1,
            "use_qk_norm": True,
            "n_group": 1,
            "topk_group": 1,
            "norm_topk_prob": True,
            "routed_scaling_factor": 2.5,
            **EXPERTS,
        },
        {
            ".leading_dense_block_count": 1,
            ".expert_count": 4,
            ".expert_shared_count": 1,
            ".expert_weights_scale": 2.5,
            ".expert_weights_norm": True,
            ".expert_gating_func": 2,
            **COUNTS,
        },
    ),
    "dots1": (
        "dots1",
        "dots1",
        {
            "head_dim": 16,
            "first_k_dense_replace": 1,
            "n_routed_experts": 4,
            "n_shared_experts": 1,
            "norm_topk_prob": True,
            "routed_scaling_factor": 2.5,
            "sliding_window": None,
            "layer_types": ["full_attention"] * 2,
            **EXPERTS,
        },
        {
            ".leading_dense_block_count": 1,
            ".expert_count": 4,
            ".expert_shared_count": 1,
            ".expert_weights_scale": 2.5,
            ".expert_weights_norm": True,
            ".expert_gating_func": 2,
            **COUNTS,
        },
    ),
    "minimax-m2": (
        "minimax-m2",
        "minimax_m2",
        {"head_dim": 16, "rotary_dim": 8, "num_local_experts": 4, "num_experts_per_tok": 2},
        {
            ".expert_count": 4,
            ".expert_used_count": 2,
            ".expert_feed_forward_length": 96,
            ".expert_gating_func": 2,
        },
    ),
    "bloom": (
        "bloom",
        "bloom",
        {"n_layer": 2, "n_head": 4, "tie_word_embeddings": True},
        {".context_length": 512, ".feed_forward_length": 256, ".attention.head_count_kv": 4},
    ),
    "gpt-oss": (
        "gpt-oss",
        "gpt_oss",
        {
            "head_dim": 16,
            "num_local_experts": 4,
            "num_experts_per_tok": 2,
            "sliding_window": 8,
            "rope_parameters": {
                "rope_type": "yarn",
                "rope_theta": 150_000.0,
                "factor": 32.0,
                "beta_fast": 32.0,
                "beta_slow": 1.0,
                "truncate": False,
                "original_max_position_embeddings": 64,
            },
        },
        {
            ".expert_count": 4,
            ".expert_used_count": 2,
            ".expert_feed_forward_length": 96,
            ".attention.sliding_window": 8,
            ".rope.scaling.type": "yarn",
            ".rope.scaling.factor": 32.0,
            ".rope.scaling.original_context_length": 64,
        },
    ),
}


@pytest.mark.parametrize("name", CASES)
def test_reads_what_was_written(name: str, tmp_path: Path) -> None:
    architecture, model_type, config, fields = CASES[name]
    module = built(model_type, **config)
    if architecture in ("falcon", "gpt2", "starcoder"):
        inner = {"falcon": "ffn_hidden_size"}.get(architecture, "n_inner")
        fields = {**fields, ".feed_forward_length": getattr(module.config, inner)}
    path = write(tmp_path / "m.gguf", architecture, module, fields)
    loaded = load_model(path)
    expected, got = logits(module), logits(loaded.module)
    assert expected.std() > 0.05, "the model says nothing: any two would be equal"
    assert torch.allclose(expected, got, atol=2e-5 * float(expected.abs().max())), name
    if architecture != "bloom":  # its positions have no end
        assert loaded.trained_window == module.config.max_position_embeddings
    again = logits(read_again(path, length=48))  # by the second pair of eyes
    assert torch.allclose(expected, again, atol=2e-5 * float(expected.abs().max())), name


def test_every_row_is_tried() -> None:
    assert {case[0] for case in CASES.values()} == {
        name for name in ARCHITECTURES if " " not in name
    }


def test_an_architecture_that_the_table_has_not_is_named(tmp_path: Path) -> None:
    path = write(tmp_path / "m.gguf", "llama", built("llama"))
    data = path.read_bytes().replace(b"llama", b"newer")
    path.write_bytes(data)
    with pytest.raises(ModelError, match=r"architecture newer is not among those .* granite, "):
        load_model(path)


def test_what_nobody_uses_is_named(tmp_path: Path) -> None:
    module = built("llama")
    ones = torch.ones(64).numpy()
    cases = {
        "a field": ({".attention.sliding_window": 8}, {}, "llama.attention.sliding_window = 8"),
        "a field of all": ({"general.surprise": "x"}, {}, "general.surprise = x"),
        "a field of the tokenizer": ({"tokenizer.ggml.odd": 1}, {}, "tokenizer.ggml.odd = 1"),
        "a norm": ({}, {"blk.0.attn_q_norm.weight": ones}, "tensor blk.0.attn_q_norm.weight"),
        "a layer": ({}, {"blk.2.attn_norm.weight": ones}, "tensor blk.2.attn_norm.weight"),
        "another scale": ({}, {"blk.0.attn_q.scale": ones[:1]}, "tensor blk.0.attn_q.scale"),
        "causality": ({".attention.causal": False}, {}, "attention.causal is false"),
    }
    for name, (fields, tensors, words) in cases.items():
        path = write(tmp_path / "m.gguf", "llama", module, fields, tensors)
        with pytest.raises(ModelError) as caught:
            load_model(path)
        assert words in str(caught.value), name
        assert "\n" not in str(caught.value), name


def test_what_means_nothing_is_passed_over(tmp_path: Path) -> None:
    module = built("llama")
    fields = {
        "general.license": "apache-2.0",
        "general.base_model.0.name": "x",
        "general.tags": ["chat"],
        "general.quantization_version": 2,
        "quantize.imatrix.file": "x.dat",
        "mradermacher.quantized_by": "x",
        ".tensor_data_layout": "Meta AI original pth",
        "tokenizer.ggml.fim_pre_token_id": 3,
    }
    path = write(tmp_path / "m.gguf", "llama", module, fields)
    assert torch.equal(logits(load_model(path).module), logits(module))


def test_a_missing_tensor_is_named_and_a_missing_bias_is_none(tmp_path: Path) -> None:
    module = built("llama", attention_bias=True)
    for i in range(2):
        module.model.layers[i].self_attn.o_proj.bias.data.zero_()
    from lcc.testing import gguf_writing as writing

    whole = writing.converted("llama", module)

    def without(*names: str) -> Path:
        kept = {name: array for name, array in whole.items() if name not in names}
        writing_converted = writing.converted
        writing.converted = lambda *_, **__: kept
        try:
            return write(tmp_path / "m.gguf", "llama", module)
        finally:
            writing.converted = writing_converted

    path = without(*(f"blk.{i}.attn_output.bias" for i in range(2)))
    assert torch.allclose(logits(load_model(path).module), logits(module), atol=1e-5)
    with pytest.raises(ModelError, match=r"down_proj\.weight \(blk\.1\.ffn_down\.weight\)"):
        load_model(without("blk.1.ffn_down.weight"))
    path = write(tmp_path / "m.gguf", "llama", module, {".rope.dimension_count": 8})
    with pytest.raises(ModelError, match=r"dimension_count is 8, wanted the size of a head, 16"):
        load_model(path)
