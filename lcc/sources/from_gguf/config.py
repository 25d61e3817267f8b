"""Metadata of a GGUF file -> the configuration that transformers builds the module from."""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Any

from lcc.errors import ModelError
from lcc.sources.from_gguf.architecture import Architecture, Source
from lcc.sources.from_gguf.architectures import ARCHITECTURES
from lcc.sources.from_gguf.file import Fields, GgufFile
from lcc.sources.from_gguf.irregular import plain_heads
from lcc.sources.from_gguf.rope import rope_parameters

# Fields that a file may leave out: then the architecture has none of it.
OPTIONAL = {
    "attention.clamp_kqv",
    "attention.q_lora_rank",
    "attention.sliding_window",
    "embedding_scale",
    "expert_shared_count",
    "logit_scale",
    "residual_scale",
}
# What is known to mean nothing for the numbers of a model, by the beginning of the name.
FOR_PEOPLE = re.compile(
    r"general\.(type|name|author|version|organization|finetune|basename|description|quantized_by|"
    r"size_label|license.*|url|doi|uuid|repo_url|source\..*|base_model\..*|dataset\..*|tags|"
    r"languages|datasets|file_type|quantization_version|alignment|hf_url|repo_id)"
    r"|quantize\..*|imatrix\..*|mradermacher\..*"
    r"|[\w.-]+\.tensor_data_layout|[\w.-]+\.rope\.scaling\.finetuned"
)


def configuration(file: GgufFile, fields: Fields) -> tuple[Architecture, dict[str, Any]]:
    """The row of the table, and the fields of the configuration.

    Raises:
        ModelError: an architecture that the table has not, or a field that is missing or odd.
    """
    row = ARCHITECTURES.get(fields.architecture)
    if row is None:
        known = ", ".join(sorted(name for name in ARCHITECTURES if " " not in name))
        raise ModelError(
            f"{file.path.name}: architecture {fields.architecture} is not among those whose GGUF "
            f"files lcc reads: {known}"
        )
    angles = rope_parameters(fields, _small(file), window=fields.need("context_length"))
    source = Source(fields, frozenset(file.tensors), angles)
    config: dict[str, Any] = {"model_type": row.model_type, **row.also, "rope_parameters": angles}
    for key, name in row.fields.items():
        value = _same(fields, key, _usual(fields, key))
        if value is not None:
            config[name] = value
    further = fields.own("nextn_predict_layers", 0)  # guess later tokens: not in these logits
    count = "num_hidden_layers" if "num_hidden_layers" in config else "n_layer"
    config[count] -= further
    blocks = {name.split(".")[1] for name in file.tensors if name.startswith("blk.")}
    if not 0 < config[count] <= len(blocks):  # before so many layers are made
        raise ModelError(
            f"{file.path.name}: block_count is {config[count]}, the file has tensors of "
            f"{len(blocks)} layers; the file is damaged: download or convert it again"
        )
    config |= {flag: name in file.tensors for flag, name in row.flags.items()}
    config |= {"tie_word_embeddings": "output.weight" not in file.tensors}
    (row.heads or plain_heads)(source, config)
    if row.adapt is not None:
        row.adapt(source, config)
    if row.heads is None:
        _rotated_share(row, fields, config)
    config["vocab_size"] = _vocabulary(file, fields)
    if not fields.own("attention.causal", True):
        raise ModelError(f"{file.path.name}: attention.causal is false; lcc compiles decoders only")
    return row, config


def check_all_used(file: GgufFile, fields: Fields) -> None:
    """Refuse a file with metadata that nobody has read and that may mean something.

    Raises:
        ModelError: names the first such field.
    """
    unused = [name for name in fields.unused() if not FOR_PEOPLE.fullmatch(name)]
    if unused:
        raise ModelError(
            f"{file.path.name}: lcc does not know what {unused[0]} = "
            f"{str(file.fields[unused[0]])[:40]} means for architecture {fields.architecture} "
            f"({len(unused)} such fields); it compiles no model of which it would drop a part"
        )


def _small(file: GgufFile) -> Any:
    """A reader of small tensors."""

    def read(name: str) -> Sequence[float] | None:
        numbers: list[float] = file.value(name).flatten().tolist() if name in file.tensors else []
        return numbers or None

    return read


def _usual(fields: Fields, key: str) -> Any:
    """What a field is where it is absent: heads of keys are as many as of queries."""
    return fields.own("attention.head_count") if key == "attention.head_count_kv" else None


def _same(fields: Fields, key: str, usual: Any) -> Any:
    """A number that is the same in all layers."""
    value = fields.own(key, usual)
    if value is None and key not in OPTIONAL:
        fields.need(key)
    if isinstance(value, list):
        if len(set(value)) != 1:
            raise ModelError(
                f"{fields.architecture}.{key} differs from layer to layer ({value[:4]}...); lcc "
                "reads only files where it is the same"
            )
        value = value[0]
    return value


def _rotated_share(row: Architecture, fields: Fields, config: dict[str, Any]) -> None:
    """How much of each head is rotated."""
    size = config["head_dim"]
    rotated = fields.own("rope.dimension_count", size)
    if row.partial:
        config["rope_parameters"]["partial_rotary_factor"] = rotated / size
    elif rotated != size and "n_head" not in config:
        raise ModelError(
            f"{fields.architecture}: rope.dimension_count is {rotated}, wanted the size of a "
            f"head, {size}"
        )


def _vocabulary(file: GgufFile, fields: Fields) -> int:
    embedding = file.tensors.get("token_embd.weight")
    if embedding is None:
        raise ModelError(f"{file.path.name}: no tensor token_embd.weight")
    rows = embedding.shape[0]
    said = fields.own("vocab_size", rows)
    if said != rows:
        raise ModelError(f"{file.path.name}: vocab_size is {said}, token_embd has {rows} rows")
    return rows
