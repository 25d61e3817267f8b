"""A second pair of eyes: the source of an artifact, read by other means than it was compiled by.

A GGUF file is read by the gguf package: its reader, its names, its dequantization. The module is
filled by running the converter backwards, and angles are computed here, one by one. A folder is
read by transformers alone, and each of its safetensors is compared with the module; weights in few
bits are unpacked by code of their own.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import gguf
import numpy as np
import torch
from torch import nn

from lcc.errors import ArtifactError
from lcc.measure.gguf_conversion import converted
from lcc.measure.second_angles import set_angles
from lcc.measure.second_config import second_config
from lcc.measure.second_unpacking import unpack_again
from lcc.sources.locate import locate


@torch.no_grad()
def read_again(source: str | Path, *, length: int) -> nn.Module:
    """The module of a source, in float32.

    length  tokens of the longest text that it will read: some angles depend on it

    Raises:
        ArtifactError: the two ways of reading disagree.
    """
    located = locate(source)
    if located.gguf is None:
        return _folder(located.folder)
    path = located.gguf
    stem = path.name.removesuffix(".gguf").rpartition("-00001-of-")[0]
    paths = sorted(path.parent.glob(f"{stem}-*-of-*.gguf")) if stem else [path]
    readers = [gguf.GGUFReader(each) for each in paths]
    fields = {name: field for name, field in readers[0].fields.items() if "tokens" not in name}
    page = {name: field.contents() for name, field in fields.items() if "merges" not in name}
    tensors = {tensor.name: tensor for reader in readers for tensor in reader.tensors}
    return _gguf(page, tensors, length)


def _gguf(page: dict[str, Any], tensors: dict[str, Any], length: int) -> nn.Module:
    import transformers

    architecture = page["general.architecture"]
    config = second_config(architecture, page, tensors)
    module: Any = transformers.AutoModelForCausalLM.from_config(
        config, dtype=torch.float32, trust_remote_code=False
    ).eval()
    for key, weight in module.state_dict().items():
        if key not in (module.all_tied_weights_keys or ()):
            _fill(key, weight, architecture, module.config, tensors)
    module.tie_weights()
    set_angles(module, architecture, page, tensors, length=length)
    return module.requires_grad_(False)


def _fill(
    key: str, weight: torch.Tensor, architecture: str, config: Any, tensors: dict[str, Any]
) -> None:
    """Run the converter on the places of a tensor's numbers, and put there what the file has."""
    apart = "blk.0.attn_k_b.weight" in tensors
    zeros = np.zeros(weight.shape, np.float32)
    parts = list(converted(key, zeros, architecture, config, latent_apart=apart))
    if len(parts) == 1 and parts[0][1] is zeros:  # as it is
        weight.copy_(torch.from_numpy(_numbers(tensors, parts[0][0], weight.shape)))
        return
    places = np.arange(weight.numel(), dtype=np.float64).reshape(weight.shape)
    flat = weight.view(-1)
    moved = converted(key, places, architecture, config, latent_apart=apart)
    for (name, added), (_, order) in zip(parts, moved, strict=True):
        numbers = _numbers(tensors, name, order.shape) - added
        order = (order - added).astype(np.int64)
        flat[torch.from_numpy(order.ravel())] = torch.from_numpy(numbers.ravel())


def _numbers(tensors: dict[str, Any], name: str, shape: Any) -> np.ndarray:
    if name not in tensors and name.endswith(".bias"):
        return np.zeros(shape, np.float32)
    tensor = tensors[name]
    numbers = gguf.quants.dequantize(np.array(tensor.data), tensor.tensor_type)
    return np.ascontiguousarray(numbers.reshape(tuple(shape)), dtype=np.float32)


def _folder(source: str) -> nn.Module:
    import transformers

    config: Any = transformers.AutoConfig.from_pretrained(source, trust_remote_code=False)
    if getattr(config, "quantization_config", None):
        return _unpacked(Path(source), config)
    module: Any = transformers.AutoModelForCausalLM.from_pretrained(
        source, dtype=torch.float32, trust_remote_code=False
    ).eval()
    weights = module.state_dict()
    if Path(source).is_dir():
        _compare(Path(source), weights)
    return module.requires_grad_(False)


def _unpacked(folder: Path, config: Any) -> nn.Module:
    """The module of a folder whose weights are in few bits."""
    import transformers
    from safetensors.torch import load_file

    page = config.quantization_config
    page = page if isinstance(page, dict) else page.to_dict()
    tensors: dict[str, torch.Tensor] = {}
    for path in sorted(folder.glob("model*.safetensors")):
        tensors |= load_file(path)
    arrays = unpack_again(
        tensors,
        page | {"quant_method": getattr(page["quant_method"], "value", page["quant_method"])},
    )
    del config.quantization_config
    kind = transformers.AutoModelForCausalLM._model_mapping[type(config)]
    module: Any = kind.from_pretrained(
        None,
        config=config,
        dtype=torch.float32,
        state_dict={name: torch.from_numpy(np.array(array)) for name, array in arrays.items()},
    )
    return module.eval().requires_grad_(False)


def _compare(folder: Path, weights: dict[str, torch.Tensor]) -> None:
    """Hold the tensors of a folder against the module's of the same name."""
    from safetensors import safe_open

    for path in sorted(folder.glob("model*.safetensors")):
        with safe_open(path, framework="pt") as file:
            for name in file.keys():
                if name in weights and not torch.equal(
                    file.get_tensor(name).float(), weights[name].float()
                ):
                    raise ArtifactError(
                        f"{path}: {name} is another one in the module that transformers loads"
                    )
