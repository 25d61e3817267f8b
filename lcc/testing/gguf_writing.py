"""Writes a module of transformers as a GGUF file, the way that llama.cpp's converter does.

By other means than the reader of `lcc compile`, see `lcc.measure.gguf_conversion`.
"""

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import gguf
import numpy as np
import torch

VOCABULARY = 260


def write(
    path: Path,
    architecture: str,
    module: Any,
    metadata: Mapping[str, Any] | None = None,
    tensors: Mapping[str, np.ndarray] | None = None,
    *,
    tokenizer: Mapping[str, Any] | None = None,
    quantize: Callable[[str, np.ndarray], gguf.GGMLQuantizationType | None] | None = None,
    **options: Any,
) -> Path:
    """A file of the module.

    metadata    fields besides the usual ones, without the architecture's name where they begin
                with a dot
    tensors     besides the module's
    quantize    type of a tensor; None = float32
    """
    writer = gguf.GGUFWriter(path, architecture, **options)
    config = module.config
    page = sizes(config) | dict(metadata or {})
    for key, value in page.items():
        if value is not None:
            field(writer, f"{architecture}{key}" if key.startswith(".") else key, value)
    for key, value in (byte_tokenizer() if tokenizer is None else tokenizer).items():
        field(writer, f"tokenizer.{key}", value)
    apart = ".attention.key_length_mla" in page
    own = converted(architecture, module, latent_apart=apart)
    for name, array in (own | dict(tensors or {})).items():
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


def converted(
    architecture: str, module: Any, *, latent_apart: bool = False
) -> dict[str, np.ndarray]:
    """The tensors of a file: names of the package, numbers as llama.cpp wants them."""
    from lcc.measure.gguf_conversion import converted as parts

    tied, found = set(module.all_tied_weights_keys or ()), dict[str, np.ndarray]()
    for key, tensor in module.state_dict().items():
        if key not in tied:
            numbers = tensor.float().numpy()
            found |= dict(
                parts(key, numbers, architecture, module.config, latent_apart=latent_apart)
            )
    return found


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
        for name, buffer in module.named_buffers():
            if "correction" in name:  # of a router: zeros would hide a mistake
                buffer.add_(torch.randn_like(buffer))
    return module.eval().requires_grad_(False)


def logits(module: Any, count: int = 48) -> torch.Tensor:
    """[count, V] of a text that is always the same."""
    ids = torch.randint(0, 256, (1, count), generator=torch.Generator().manual_seed(1))
    with torch.no_grad():
        found: torch.Tensor = module(ids, use_cache=False).logits[0].float()
    return found
