"""Writes a module of transformers as a GGUF file, the way that llama.cpp's converter does.

By other means than the reader: tensor names are those of the gguf package's own maps, metadata is
written by its writer, and heads are arranged by index.
"""

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import gguf
import numpy as np
import torch
from gguf.constants import MODEL_ARCH_NAMES

VOCABULARY = 260
PERMUTED = {"llama", "granite", "granitemoe", "smollm3", "mistral3", "arcee", "olmo"}
NORMS_OF_ONE = {"gemma", "gemma2", "gemma3", "nemotron"}
# Names that the package's maps lack, inside a layer.
EXTRA = {
    "mlp.gate.e_score_correction_bias": "exp_probs_b.bias",
    "self_attn.sinks": "attn_sinks.weight",
    "block_sparse_moe.router.weight": "ffn_gate_inp.weight",
    "block_sparse_moe.experts.down_proj": "ffn_down_exps.weight",
    "mlp.experts.down_proj": "ffn_down_exps.weight",
    "mlp.experts.down_proj_bias": "ffn_down_exps.bias",
    "self_attn.attn_sub_norm.weight": "attn_sub_norm.weight",
    "mlp.ffn_sub_norm.weight": "ffn_sub_norm.weight",
}


def write(
    path: Path,
    architecture: str,
    module: Any,
    metadata: Mapping[str, Any] | None = None,
    tensors: Mapping[str, np.ndarray] | None = None,
    *,
    drop: tuple[str, ...] = (),
    tokenizer: Mapping[str, Any] | None = None,
    quantize: Callable[[str, np.ndarray], gguf.GGMLQuantizationType | None] | None = None,
    **options: Any,
) -> Path:
    """A file of the module.

    metadata    fields besides the usual ones, without the architecture's name where they begin
                with a dot
    tensors     besides the module's
    drop        fields that are left out
    quantize    type of a tensor; None = float32
    """
    writer = gguf.GGUFWriter(path, architecture, **options)
    config = module.config
    page = sizes(config) | dict(metadata or {})
    for key, value in page.items():
        if key not in drop and value is not None:
            field(writer, f"{architecture}{key}" if key.startswith(".") else key, value)
    for key, value in (byte_tokenizer() if tokenizer is None else tokenizer).items():
        if key not in drop:
            field(writer, f"tokenizer.{key}", value)
    for name, array in (converted(architecture, module) | dict(tensors or {})).items():
        kind = quantize(name, array) if quantize is not None else None
        data = np.ascontiguousarray(array)
        if kind is None:
            writer.add_tensor(name, data)
        else:
            writer.add_tensor(name, gguf.quants.quantize(data, kind), raw_dtype=kind)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return path


def field(writer: gguf.GGUFWriter, key: str, value: Any) -> None:
    """One field, of the type that its value has."""
    if isinstance(value, bool):
        writer.add_bool(key, value)
    elif isinstance(value, int):
        writer.add_uint32(key, value)
    elif isinstance(value, float):
        writer.add_float32(key, value)
    elif isinstance(value, str):
        writer.add_string(key, value)
    else:
        writer.add_array(key, value)


def sizes(config: Any) -> dict[str, Any]:
    """What every converter writes."""
    heads = config.num_attention_heads
    head = getattr(config, "head_dim", None) or config.hidden_size // heads
    angles = getattr(config, "rope_parameters", None) or {}
    angles = angles.get("full_attention", angles)
    kv = getattr(config, "num_key_value_heads", None) or getattr(config, "num_kv_heads", heads)
    found = {
        "general.name": "tiny",
        "general.file_type": 0,
        ".context_length": config.max_position_embeddings,
        ".embedding_length": config.hidden_size,
        ".block_count": config.num_hidden_layers,
        ".feed_forward_length": getattr(config, "intermediate_size", None),
        ".attention.head_count": heads,
        ".attention.head_count_kv": kv,
        ".attention.key_length": head,
        ".attention.value_length": head,
        ".vocab_size": config.vocab_size,
    }
    if angles:
        found[".rope.freq_base"] = float(angles.get("rope_theta", 10_000.0))
        share = angles.get("partial_rotary_factor", 1.0)
        found[".rope.dimension_count"] = int(head * share)
    if (eps := getattr(config, "rms_norm_eps", None)) is not None:
        found[".attention.layer_norm_rms_epsilon"] = float(eps)
    for name in ("layer_norm_eps", "layer_norm_epsilon", "norm_epsilon", "norm_eps"):
        if (eps := getattr(config, name, None)) is not None:
            found[".attention.layer_norm_epsilon"] = float(eps)
    return found


def converted(architecture: str, module: Any) -> dict[str, np.ndarray]:
    """The tensors of a file: names of the package, numbers as llama.cpp wants them."""
    arch = next(key for key, name in MODEL_ARCH_NAMES.items() if name == architecture)
    config, names = module.config, gguf.get_tensor_name_map(arch, module.config.num_hidden_layers)
    tied, found = set(module.all_tied_weights_keys or ()), dict[str, np.ndarray]()
    for key, tensor in module.state_dict().items():
        if key in tied:
            continue
        array = tensor.float().numpy()
        for name, value in parts(key, array, architecture, config):
            short = names.get_name(name, try_suffixes=(".weight", ".bias"))
            layer, _, rest = name.removeprefix("model.layers.").partition(".")
            if rest in EXTRA:
                short = f"blk.{layer}.{EXTRA[rest]}"
            if short is None and name.startswith("blk."):
                short = name
            assert short is not None, f"{architecture}: {name} has no name in a file"
            found[short] = value
    return found


def parts(key: str, array: np.ndarray, architecture: str, config: Any) -> list[Any]:
    """One tensor of the module as those of the file."""
    layer = key.split(".")[2] if key.startswith("model.layers.") else ""
    if key.endswith("experts.gate_up_proj"):
        if architecture == "gpt-oss":
            array = array.transpose(0, 2, 1)
            gate, up = array[:, ::2], array[:, 1::2]
        else:
            gate, up = np.split(array, 2, axis=1)
        return [
            (f"blk.{layer}.ffn_gate_exps.weight", gate),
            (f"blk.{layer}.ffn_up_exps.weight", up),
        ]
    if key.endswith("experts.gate_up_proj_bias"):
        gate, up = array[:, ::2], array[:, 1::2]
        return [(f"blk.{layer}.ffn_gate_exps.bias", gate), (f"blk.{layer}.ffn_up_exps.bias", up)]
    if key.endswith("experts.down_proj") and architecture == "gpt-oss":
        return [(key, array.transpose(0, 2, 1))]
    if architecture in PERMUTED and (".q_proj." in key or ".k_proj." in key):
        kv = config.num_key_value_heads
        array = interleaved(array, config.num_attention_heads if ".q_proj." in key else kv)
    if architecture in NORMS_OF_ONE and key.endswith("norm.weight"):
        array = array + 1
    if architecture == "gpt2" and array.ndim == 2 and ("c_" in key):
        array = array.T
    if architecture == "falcon" and "query_key_value" in key:
        groups = config.num_kv_heads if config.new_decoder_architecture else 1
        array = ungrouped(array, config.num_attention_heads, groups)
    if architecture == "gptneox" and "query_key_value" in key:
        array = ungrouped(array, config.num_attention_heads, config.num_attention_heads)
    if architecture == "qwen2moe" and "shared_expert_gate" in key:
        array = array[0]
    return [(key, array)]


def interleaved(array: np.ndarray, heads: int) -> np.ndarray:
    """Row i of the first half of a head beside row i of the second."""
    size = array.shape[0] // heads
    order = [
        head * size + half * (size // 2) + i
        for head in range(heads)
        for i in range(size // 2)
        for half in (0, 1)
    ]
    return array[order]


def ungrouped(array: np.ndarray, heads: int, groups: int) -> np.ndarray:
    """Queries of all groups, then all keys, then all values."""
    each = heads // groups
    size = array.shape[0] // (groups * (each + 2))
    block = [np.arange(size) + size * i for i in range(groups * (each + 2))]
    queries = [block[g * (each + 2) + i] for g in range(groups) for i in range(each)]
    keys = [block[g * (each + 2) + each] for g in range(groups)]
    values = [block[g * (each + 2) + each + 1] for g in range(groups)]
    return array[np.concatenate([*queries, *keys, *values])]


def byte_tokenizer(**more: Any) -> dict[str, Any]:
    """256 bytes, three control tokens and one merge."""
    printable = [*range(33, 127), *range(161, 173), *range(174, 256)]
    hidden = [byte for byte in range(256) if byte not in printable]
    shown = {byte: chr(byte) for byte in printable}
    shown |= {byte: chr(256 + place) for place, byte in enumerate(hidden)}
    control = ["<|begin|>", "<|start|>", "<|stop|>"]
    return {
        "ggml.model": "gpt2",
        "ggml.pre": "gpt-2",
        "ggml.tokens": [*(shown[byte] for byte in range(256)), *control, "ab"],
        "ggml.token_type": [1] * 256 + [3] * 3 + [1],
        "ggml.merges": ["a b"],
        "ggml.bos_token_id": 257,
        "ggml.eos_token_id": 258,
        **more,
    }


def built(model_type: str, **fields: Any) -> Any:
    """A tiny module of any architecture, its weights drawn wide enough to tell mistakes apart."""
    from transformers import AutoConfig, AutoModelForCausalLM

    usual: dict[str, Any] = {
        "vocab_size": VOCABULARY,
        "hidden_size": 64,
        "intermediate_size": 96,
        "num_hidden_layers": 2,
        "num_attention_heads": 4,
        "num_key_value_heads": 2,
        "max_position_embeddings": 512,
        "bos_token_id": 257,
        "eos_token_id": 258,
        "pad_token_id": None,
        "tie_word_embeddings": False,
    }
    config = AutoConfig.for_model(model_type, **(usual | fields))
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        module = AutoModelForCausalLM.from_config(config, dtype=torch.float32)
        for parameter in module.parameters():
            parameter.data.add_(torch.randn_like(parameter) * 0.1)
    return module.eval().requires_grad_(False)


def logits(module: Any, count: int = 48) -> torch.Tensor:
    """[count, V] of a text that is always the same."""
    ids = torch.randint(0, 256, (1, count), generator=torch.Generator().manual_seed(1))
    with torch.no_grad():
        found: torch.Tensor = module(ids, use_cache=False).logits[0].float()
    return found
