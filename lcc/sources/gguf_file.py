"""A GGUF file -> configuration, module and text files, by transformers' reader."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from lcc.sources.folder import check_architecture
from lcc.sources.text_files import _converted, _generation, json_bytes, template_files
from lcc.sources.weights import check_finite

DIGITS_APART = frozenset({"smollm", "starcoder", "refact", "command-r", "codeshell"})


def gguf_config(path: Path, name: str) -> Any:
    """The configuration."""
    import transformers

    config = transformers.AutoConfig.from_pretrained(str(path.parent), gguf_file=path.name)
    check_architecture(config, name)
    return config


def load_gguf(path: Path, config: Any, name: str) -> tuple[Any, dict[str, bytes]]:
    """The module and its text files."""
    import torch
    import transformers

    options: dict[str, Any] = {"gguf_file": path.name}
    module = transformers.AutoModelForCausalLM.from_pretrained(
        str(path.parent), config=config, dtype=torch.float32, **options
    )
    if getattr(module.config, "quantization_config", None) is not None:
        del module.config.quantization_config
    module.hf_quantizer = None
    module.is_quantized = False
    check_finite(module, name)
    tokenizer = transformers.AutoTokenizer.from_pretrained(str(path.parent), **options)
    _split_digits(tokenizer, path)
    page = dict(tokenizer.special_tokens_map)
    files = {
        "generation_config.json": json_bytes(_generation(module, tokenizer)),
        "tokenizer.json": _converted(tokenizer),
    }
    return module, files | template_files(tokenizer.chat_template, page)


def _split_digits(tokenizer: Any, path: Path) -> None:
    from tokenizers import pre_tokenizers
    from transformers.integrations.gguf import read_gguf_metadata

    metadata, _ = read_gguf_metadata(str(path))
    if metadata.get("tokenizer.ggml.pre") in DIGITS_APART:
        tokenizer.backend_tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
            [
                pre_tokenizers.Digits(individual_digits=True),
                pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=True),
            ]
        )
