"""Every tensor of a checkpoint is used, or known to mean nothing, or an error that names it."""

from __future__ import annotations

import json
import re
from collections.abc import Collection, Mapping
from pathlib import Path
from typing import Any

import torch
from torch import nn

from lcc.errors import ModelError
from lcc.ir.lazy_tensor import blocks, whole

Shapes = Mapping[str, tuple[int, ...]]

ANGLES = re.compile(r"(^|\.)rotary_emb\.inv_freq$")  # the configuration says them; compared with it
# The causal mask as the first GPT-2 and GPT-NeoX checkpoints have it: [1, 1, n, n], and its number.
MASK = re.compile(r"(^|\.)(attn|crossattention|attention)\.(bias|masked_bias|causal_mask)$")
POSITIONS = re.compile(r"(^|\.)position_ids$")  # 0, 1, 2, ...
# Layers that guess the tokens after the next one: no part of the next one's logits.
FURTHER = re.compile(r"^(model\.)?mtp(_layers)?\.")
# Pictures and sound, beside the text part of a model for several kinds of input.
OTHER_INPUT = re.compile(
    r"^(model\.)?(visual|vision_tower|vision_model|audio_tower|embed_vision|embed_audio|"
    r"multi_modal_projector)\."
)
LAYER = re.compile(r"^model\.layers\.(\d+)\.")


def check_weights(
    module: nn.Module, info: Mapping[str, Any], folder: str | Path, name: str
) -> None:
    """Refuse a model whose checkpoint has other tensors than it; no numbers are read.

    Args:
        module: loaded by transformers.
        info: what transformers says of the loading.
        folder: the checkpoint's.
        name: of the model, for messages.

    Raises:
        ModelError: names the first tensor that is missing or left over.
    """
    missing = sorted(info.get("missing_keys", ()))
    if missing:
        raise ModelError(
            f"{name}: {len(missing)} weights are not in the checkpoint, the first is {missing[0]}"
        )
    stored = _stored(Path(folder))
    left = _left_over(module, info, stored)
    unused = sorted(key for key in left if not _means_nothing(key, module, stored, Path(folder)))
    if unused:
        raise ModelError(
            f"{name}: {len(unused)} tensors of the checkpoint have no place in the model that "
            f"config.json describes, the first is {unused[0]}; correct config.json, or merge or "
            "remove what is beside the model's own weights"
        )


def check_finite(module: nn.Module, name: str) -> None:
    """Refuse weights that are not numbers, which no later check could trace back to their tensor.

    Those of parts for other input than text are not looked at: bounds there may be infinite.

    Raises:
        ModelError: names the first of them.
    """
    for key, tensor in module.state_dict().items():
        if not tensor.is_floating_point() or not tensor.numel() or tensor.is_meta:
            continue
        if OTHER_INPUT.match(key):
            continue
        for block in blocks(tensor.detach()):
            ends = torch.stack(torch.aminmax(block))  # NaN in, NaN out; takes no memory
            if not torch.isfinite(ends).all():
                raise ModelError(
                    f"{name}: {key} holds numbers that are not finite ({_first_odd(tensor)}); "
                    "the checkpoint is damaged: download or convert it again"
                )


def _first_odd(tensor: torch.Tensor) -> str:
    numbers = whole(tensor.detach())
    place = torch.nonzero(~torch.isfinite(numbers))
    index = place[0].tolist()
    return f"{float(numbers[tuple(index)])} at {index}, {len(place)} in all"


def _left_over(module: nn.Module, info: Mapping[str, Any], stored: Collection[str]) -> set[str]:
    """Tensors of the checkpoint that were not loaded, those too that transformers passes over."""
    silent = [*(getattr(module, "_keys_to_ignore_on_load_unexpected", None) or ())]
    passed = re.compile("|".join([ANGLES.pattern, POSITIONS.pattern, *silent]))
    loaded = module.state_dict()
    found = {key for key in stored if passed.search(key) and not _has(loaded, key)}
    return found | set(info.get("unexpected_keys", ()))


def _has(names: Collection[str], key: str) -> bool:
    """Whether one of them is that tensor: older checkpoints leave out the name of the decoder."""
    return key in names or any(name.endswith(f".{key}") for name in names)


def _means_nothing(key: str, module: nn.Module, stored: Shapes, folder: Path) -> bool:
    shape = next((size for name, size in stored.items() if _has([key], name)), None)
    if MASK.search(key):
        return shape == () or (shape is not None and len(shape) == 4 and shape[2] == shape[3])
    if ANGLES.search(key):
        return _same_angles(key, module, folder)
    config: Any = getattr(module, "config", None)
    if (layer := LAYER.match(key)) and config is not None:
        text = config.get_text_config()
        further = int(layer[1]) - text.num_hidden_layers
        return 0 <= further < (getattr(text, "num_nextn_predict_layers", None) or 0)
    return any(known.search(key) for known in (POSITIONS, FURTHER, OTHER_INPUT))


def _same_angles(key: str, module: nn.Module, folder: Path) -> bool:
    """Whether stored angles are those that the configuration gives, rounded to half precision."""
    angles = _tensor(folder, key)
    own = [buffer for name, buffer in module.named_buffers() if name.endswith("inv_freq")]
    return angles is not None and any(
        each.shape == angles.shape and torch.allclose(each.float(), angles.float(), rtol=0.01)
        for each in own
    )


def _files(folder: Path) -> list[Path]:
    """The weight files that transformers reads: of safetensors where there are any."""
    for name in ("model.safetensors", "pytorch_model.bin"):
        if (folder / name).is_file():
            return [folder / name]
        index = folder / f"{name}.index.json"
        if index.is_file():
            names = json.loads(index.read_text(encoding="utf-8"))["weight_map"].values()
            return [folder / each for each in sorted(set(names))]
    return []


def _stored(folder: Path) -> dict[str, tuple[int, ...]]:
    """Names and shapes of all tensors in the files; no data is read."""
    shapes: dict[str, tuple[int, ...]] = {}
    for path in _files(folder):
        if path.suffix == ".safetensors":
            from safetensors import safe_open

            with safe_open(path, framework="pt") as file:
                shapes |= {key: tuple(file.get_slice(key).get_shape()) for key in file.keys()}
        else:
            page = torch.load(path, map_location="meta", weights_only=True, mmap=True)
            shapes |= {key: tuple(tensor.shape) for key, tensor in page.items()}
    return shapes


def _tensor(folder: Path, key: str) -> torch.Tensor | None:
    """One small tensor of a safetensors checkpoint."""
    for path in _files(folder):
        if path.suffix == ".safetensors":
            from safetensors import safe_open

            with safe_open(path, framework="pt") as file:
                if key in file.keys():
                    return file.get_tensor(key)
    return None
