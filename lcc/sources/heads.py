"""Retaining heads in a file: the weights, and what they were trained for and on.

A safetensors file. Of every attention layer that has heads:

    layer_<i>.in     [w, F]      float32, float16 or bfloat16; F = (Hq + 2 Hkv) * D
    layer_<i>.out    [Hkv, w]
    __metadata__     lcc: a JSON page, `HeadsPage` below
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import msgspec

from lcc.artifact.heads_page import Activation, HeadsPage
from lcc.errors import ConfigError

if TYPE_CHECKING:
    from torch import Tensor, nn

    from lcc.passes.policies import EvictionPolicy


@dataclass(frozen=True)
class RetainingHeads:
    """The heads of a model (Locret, arXiv 2410.01805, section 3.1).

    page        what the file says of itself
    layers      attention layer -> first matrix [w, F] and second [Hkv, w], float32
    """

    page: HeadsPage
    layers: dict[int, tuple[Tensor, Tensor]]


def weights_digest(tensors: dict[str, Tensor]) -> str:
    """Name the weights of heads: float32 tensors by name."""
    import hashlib

    digest = hashlib.sha256()
    for name, tensor in sorted(tensors.items()):
        digest.update(name.encode() + tensor.contiguous().numpy().tobytes())
    return digest.hexdigest()[:16]


def model_fingerprint(weights: dict[str, Tensor]) -> str:
    """Name the weights of a model: equal where shapes and a few of the numbers are equal.

    weights     name -> parameter; names do not count, for the same model has other names elsewhere
    """
    import hashlib

    from lcc.ir.lazy_tensor import whole

    parts = []
    for tensor in weights.values():
        flat = whole(tensor.detach()).reshape(-1)
        few = flat[:: max(1, flat.numel() // 64)][:64].double().numpy()
        parts.append(repr(tuple(tensor.shape)).encode() + few.astype("<f4").tobytes())
    return hashlib.sha256(b"".join(sorted(set(parts)))).hexdigest()[:16]


_ACTIVATIONS: dict[str, Activation] = {
    "silu": "silu",
    "swish": "silu",
    "gelu": "gelu",
    "gelu_new": "gelu_tanh",
    "gelu_pytorch_tanh": "gelu_tanh",
    "gelu_fast": "gelu_tanh",
    "relu": "relu",
}


def activation_of(model: nn.Module) -> Activation:
    """The activation of a model's MLPs, by its configuration; SiLU where heads know none of it."""
    config = getattr(model, "config", None)
    for name in ("hidden_act", "hidden_activation", "activation_function"):
        value = getattr(config, name, None)
        if isinstance(value, str):
            return _ACTIVATIONS.get(value, "silu")
    return "silu"


def check_model(heads: RetainingHeads, module: nn.Module, name: str, path: str | None) -> None:
    """Refuse heads that were trained for other weights than this model's, with a ConfigError."""
    own = model_fingerprint(dict(module.named_parameters()))
    if own != heads.page.model:
        raise ConfigError(
            f"{path}: these heads were trained for another model (a {heads.page.architecture}, "
            f"weights {heads.page.model}); {name} has weights {own}; train heads for it: "
            "lcc train heads"
        )


def save_heads(path: str | Path, heads: RetainingHeads, *, half: bool = True) -> None:
    """Write a heads file beside `path` and rename it; `half`: float16 instead of float32."""
    import torch
    from safetensors.torch import save_file

    path = Path(path)
    dtype = torch.float16 if half else torch.float32
    tensors: dict[str, Tensor] = {}
    for i, (first, second) in heads.layers.items():
        for name, tensor in (("in", first), ("out", second)):
            tensors[f"layer_{i}.{name}"] = tensor.detach().to(dtype).contiguous()
    for name, tensor in tensors.items():
        if not tensor.isfinite().all():
            raise ConfigError(f"{path}: {name} holds numbers that are not finite; not written")
    weights = weights_digest({n: t.float() for n, t in tensors.items()})
    staging = path.with_name(f".{path.name}.partial")
    try:
        full = msgspec.structs.replace(heads.page, weights=weights)
        page = msgspec.json.encode(full, order="sorted").decode()
        save_file(tensors, staging, metadata={"lcc": page})
        staging.replace(path)
    finally:
        staging.unlink(missing_ok=True)


def load_heads(path: str | Path) -> RetainingHeads:
    """Read a heads file.

    Raises:
        ConfigError: no such file, or not a heads file, or one of a newer version.
    """
    from safetensors import SafetensorError, safe_open

    path = Path(path)
    if not path.is_file():
        raise ConfigError(f"{path}: no such file; wanted retaining heads: lcc train heads")
    try:
        with safe_open(path, "pt") as file:
            metadata = file.metadata() or {}
            tensors = {name: file.get_tensor(name).float() for name in file.keys()}
        page = msgspec.json.decode(metadata["lcc"], type=HeadsPage)
        numbers = sorted(int(n[len("layer_") : -len(".in")]) for n in tensors if n.endswith(".in"))
        layers = {i: (tensors[f"layer_{i}.in"], tensors[f"layer_{i}.out"]) for i in numbers}
    except (SafetensorError, KeyError, ValueError, msgspec.DecodeError, json.JSONDecodeError) as e:
        raise ConfigError(
            f"{path}: not a file of retaining heads ({e}); wanted one from: lcc train heads"
        ) from None
    if page.weights != weights_digest(tensors):
        raise ConfigError(f"{path}: damaged, its weights are not those it was written with")
    for i, (first, second) in layers.items():
        if first.ndim != 2 or second.ndim != 2 or first.shape[0] != second.shape[1]:
            raise ConfigError(
                f"{path}: layer {i} has matrices {list(first.shape)} and {list(second.shape)}; "
                "wanted [width, features] and [kv_heads, width]"
            )
    return RetainingHeads(page, layers)


def load_heads_for(
    policy: EvictionPolicy, path: str | None, module: nn.Module, name: str
) -> RetainingHeads | None:
    """The heads that a policy goes by, from the file that was given.

    name        of the model

    Raises:
        ConfigError: the policy reads none, or needs some; they were trained for another model, or
            in a way that the policy cannot use.
    """
    if path is None:
        if policy.heads == "must":
            raise ConfigError(
                f"policy {policy.name} reads retaining heads, none were given; wanted --heads "
                "FILE: lcc train heads makes one"
            )
        return None
    if policy.heads == "never":
        raise ConfigError(
            f"heads were given, policy {policy.name} reads none; wanted --policy consensus or "
            "locret"
        )
    heads = load_heads(path)
    check_model(heads, module, name, path)
    if policy.heads == "may" and heads.page.teacher != "repeat":
        raise ConfigError(
            f"policy {policy.name} wants heads that were taught by repeating, these by "
            f"answers ({heads.page.trained_on}); wanted lcc train heads --teacher repeat, or "
            "--policy locret"
        )
    return heads
