"""Tiny models with seeded random weights, one per architecture: what tests and examples compile.

They say nothing sensible and weigh nothing, but they have every trait that matters to lcc: grouped
query heads, QK norms, fused projections, partial or absent rotation, windows, two rotary bases.
"""

from __future__ import annotations

import copy
from pathlib import Path
from typing import TYPE_CHECKING, Any

from lcc.env import needs_extra
from lcc.errors import ModelError

if TYPE_CHECKING:
    from tokenizers import Tokenizer
    from torch import nn
    from transformers import PreTrainedModel

    from lcc.sources.heads import RetainingHeads

VOCAB_SIZE = 260  # 256 bytes, then the four below
END_OF_TEXT, START, END, PAD = 256, 257, 258, 259
SPECIAL_TOKENS = ["<|endoftext|>", "<|im_start|>", "<|im_end|>", "<|pad|>"]
CHAT_TEMPLATE = (
    "{% for message in messages %}<|im_start|>{{ message['role'] }}\n"
    "{{ message['content'] }}<|im_end|>\n{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)

_COMMON: dict[str, Any] = {
    "vocab_size": VOCAB_SIZE,
    "hidden_size": 64,
    "intermediate_size": 96,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "max_position_embeddings": 512,
    "eos_token_id": END,
    "bos_token_id": START,
    "pad_token_id": PAD,
}

# What each architecture adds to `_COMMON`: the trait it is here for.
ARCHITECTURES: dict[str, dict[str, Any]] = {
    "llama": {"tie_word_embeddings": True},
    "qwen2": {},
    "qwen3": {"head_dim": 16},
    "mistral": {"sliding_window": 8},
    "phi3": {"partial_rotary_factor": 0.5},
    "gemma3_text": {
        "head_dim": 16,
        "num_hidden_layers": 3,
        "sliding_window": 8,
        "layer_types": ["sliding_attention", "full_attention", "sliding_attention"],
    },
    "smollm3": {"no_rope_layers": [1, 0]},
    "gpt2": {},
}

_EXPERTS: dict[str, Any] = {
    "num_experts": 4,
    "num_local_experts": 4,
    "num_experts_per_tok": 2,
    "moe_intermediate_size": 48,
}
# Kinds of models that fewer tests look at; fields that a configuration does not know do no harm.
KINDS: dict[str, dict[str, Any]] = {
    "gpt_oss": {
        **_EXPERTS,
        "rope_parameters": {
            "rope_type": "yarn",
            "rope_theta": 150000.0,
            "factor": 8.0,
            "beta_fast": 32.0,
            "beta_slow": 1.0,
            "truncate": False,
            "original_max_position_embeddings": 64,
        },
        "head_dim": 16,
        "sliding_window": 8,
        "layer_types": ["sliding_attention", "full_attention"],
    },
    "granite_swa": {
        "head_dim": 16,
        "sliding_window": 8,
        "layer_types": ["sliding_attention", "full_attention"],
    },
    "llama4_text": {
        **_EXPERTS,
        "head_dim": 16,
        "intermediate_size_mlp": 96,
        "interleave_moe_layer_step": 1,
        "no_rope_layers": [1, 0],
        "attention_chunk_size": 8192,
        "attn_temperature_tuning": False,
    },
    "bloom": {"n_layer": 2, "n_head": 4},
    "mpt": {"d_model": 64, "n_heads": 4, "n_layers": 2, "max_seq_len": 512},
    "falcon": {"alibi": True, "new_decoder_architecture": True, "num_kv_heads": 2},
    "codegen": {"n_embd": 64, "n_head": 4, "n_layer": 2, "rotary_dim": 8, "n_positions": 512},
    "xglm": {"d_model": 64, "ffn_dim": 96, "num_layers": 2, "attention_heads": 4},
    "gpt_neo": {
        "num_layers": 2,
        "num_heads": 4,
        "attention_types": [[["global", "local"], 1]],
        "window_size": 8,
    },
    "openai-gpt": {"n_embd": 64, "n_head": 4, "n_layer": 2, "n_positions": 512},
    "hunyuan_v1_dense": {"head_dim": 16},
    "gemma3n_text": {
        "num_hidden_layers": 4,
        "head_dim": 16,
        "sliding_window": 8,
        "layer_types": ["sliding_attention", "full_attention"] * 2,
        "num_kv_shared_layers": 2,
        "activation_sparsity_pattern": [0.5, 0.5, 0.0, 0.0],
        "laurel_rank": 8,
        "hidden_size_per_layer_input": 16,
        "vocab_size_per_layer_input": VOCAB_SIZE,
    },
    "nanochat": {},
    "mixtral": _EXPERTS,
    "qwen3_moe": {**_EXPERTS, "head_dim": 16},
    "qwen2_moe": {**_EXPERTS, "shared_expert_intermediate_size": 48},
    "glm4_moe": {
        **_EXPERTS,
        "n_routed_experts": 4,
        "n_group": 2,
        "topk_group": 1,
        "first_k_dense_replace": 0,
        "head_dim": 16,
    },
}
_LATENT: dict[str, Any] = {
    "num_key_value_heads": 4,
    "kv_lora_rank": 16,
    "qk_nope_head_dim": 16,
    "qk_rope_head_dim": 8,
    "qk_head_dim": 24,
    "v_head_dim": 16,
    "head_dim": 8,
}
_GROUPS: dict[str, Any] = {
    **_EXPERTS,
    "n_routed_experts": 4,
    "n_shared_experts": 1,
    "n_group": 1,
    "topk_group": 1,
    "first_k_dense_replace": 1,
}
KINDS |= {
    "deepseek_v2": {**_LATENT, **_GROUPS, "q_lora_rank": None, "topk_method": "greedy"},
    "deepseek_v3": {**_LATENT, **_GROUPS, "q_lora_rank": 32},
    "minicpm3": {**_LATENT, "q_lora_rank": 32},
}
# Layers that carry a state: short convolutions; the gated delta rule; Mamba 2; nothing else at all.
RECURRENT: dict[str, dict[str, Any]] = {
    "lfm2": {"num_hidden_layers": 4, "layer_types": ["conv", "full_attention"] * 2},
    "qwen3_5_text": {
        "num_hidden_layers": 4,
        "layer_types": ["linear_attention", "full_attention"] * 2,
        "head_dim": 16,
        "linear_num_key_heads": 2,
        "linear_num_value_heads": 4,
        "linear_key_head_dim": 16,
        "linear_value_head_dim": 8,
    },
    "granitemoehybrid": {
        **_EXPERTS,
        "num_hidden_layers": 4,
        "layer_types": ["linear_attention", "full_attention"] * 2,
        "position_embedding_type": "rope",
        "shared_intermediate_size": 48,
        "mamba_n_heads": 8,
        "mamba_d_head": 16,
        "mamba_d_state": 16,
        "mamba_expand": 2,
        "mamba_n_groups": 1,
        "mamba_chunk_size": 16,
    },
    "mamba": {"state_size": 8, "time_step_rank": 4, "expand": 2},
}
KINDS |= RECURRENT


def tiny_model(architecture: str, seed: int = 0, **overrides: Any) -> PreTrainedModel:
    """Build a model of 2 or 3 layers, 64 wide, 4 query heads and 2 KV heads (GPT-2: 4 and 4).

    Args:
        architecture: one of `ARCHITECTURES` or `KINDS`.
        seed: same seed, same weights.
        overrides: fields of the architecture's transformers configuration.
    """
    known = ARCHITECTURES | KINDS
    if architecture not in known:
        raise ModelError(f"no tiny {architecture}; there are: {', '.join(sorted(known))}")
    with needs_extra("compile"):
        import torch
        from transformers import AutoConfig, AutoModelForCausalLM

    fields = {**_COMMON, **copy.deepcopy(known[architecture]), **overrides}
    config = AutoConfig.for_model(architecture, **fields)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        model = AutoModelForCausalLM.from_config(config, dtype=torch.float32)
        # transformers starts norms at one and projections near zero: a model whose attention is
        # flat hides mistakes, so everything is drawn again, wide enough to make heads disagree.
        for name, parameter in model.named_parameters():
            if name.endswith(("A_log", "dt_bias")):  # of a recurrence, which must not grow
                continue
            parameter.data.add_(torch.randn_like(parameter) * 0.1)
    return model.eval().requires_grad_(False)


def tiny_tokenizer() -> Tokenizer:
    """Build a tokenizer of single bytes: token id = byte value, then four special tokens."""
    from tokenizers import AddedToken, Tokenizer, decoders, models, pre_tokenizers

    # ByteLevel shows byte b as one printable character; the same table as GPT-2's.
    printable = [*range(33, 127), *range(161, 173), *range(174, 256)]
    hidden = [byte for byte in range(256) if byte not in printable]
    shown = {byte: chr(byte) for byte in printable}
    shown |= {byte: chr(256 + place) for place, byte in enumerate(hidden)}
    vocabulary = {character: byte for byte, character in shown.items()}
    tokenizer = Tokenizer(models.BPE(vocab=vocabulary, merges=[]))
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)
    tokenizer.decoder = decoders.ByteLevel()
    tokenizer.add_special_tokens([AddedToken(token, normalized=False) for token in SPECIAL_TOKENS])
    return tokenizer


def save_tiny(
    folder: Path, architecture: str = "llama", seed: int = 0, **overrides: Any
) -> PreTrainedModel:
    """Write a tiny model with tokenizer and chat template as a Hugging Face folder; return it."""
    model = tiny_model(architecture, seed, **overrides)
    from transformers import PreTrainedTokenizerFast

    model.save_pretrained(folder)
    tokenizer = PreTrainedTokenizerFast(
        tokenizer_object=tiny_tokenizer(),
        unk_token="<|endoftext|>",
        bos_token="<|im_start|>",
        eos_token="<|im_end|>",
        pad_token="<|pad|>",
        chat_template=CHAT_TEMPLATE,
    )
    tokenizer.save_pretrained(folder)
    return model


def random_heads(model: nn.Module, width: int = 8, seed: int = 0) -> RetainingHeads:
    """Draw retaining heads for every attention layer of a model: of the right shapes, untrained.

    Args:
        model: what `lcc.capture.export` takes.
        width: hidden numbers of a head.
        seed: same seed, same weights.
    """
    with needs_extra("compile"):
        import torch

    from lcc.artifact.heads_page import HeadsPage
    from lcc.capture.export import capture
    from lcc.passes.find_attention import FindAttention
    from lcc.passes.insert_retaining_heads import attention_sizes
    from lcc.sources.heads import RetainingHeads, activation_of, model_fingerprint

    sizes = attention_sizes(FindAttention(table_size=1)(capture(model)).graph)
    draw = torch.Generator().manual_seed(seed)
    layers = {
        i: (
            torch.randn(width, features, generator=draw) * features**-0.5,
            torch.randn(kv_heads, width, generator=draw) * width**-0.5,
        )
        for i, (features, kv_heads) in enumerate(sizes)
    }
    page = HeadsPage(
        architecture=getattr(getattr(model, "config", None), "model_type", type(model).__name__),
        model=model_fingerprint(dict(model.named_parameters())),
        width=width,
        activation=activation_of(model),
        trained_on="nothing: random weights",
    )
    return RetainingHeads(page, layers)
