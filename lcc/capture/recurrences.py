"""Recurrences become operators while a model is captured, whatever loops or kernels it has.

transformers calls each recurrence by a function of the model's own file that has the name and the
arguments of a known kernel, so that the kernel may take its place. `recurrences_as_operators` does
the same: `lcc::causal_conv` and `lcc::linear_attention` take the place of those functions for as
long as it is open, with a state of zeros, which `LiftState` finds.
"""

import contextlib
import sys
import types
from collections.abc import Callable, Iterator, Mapping
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional

from lcc.capture.recurrent_modules import forward_of
from lcc.capture.recurrent_operators import attend, convolve
from lcc.errors import CaptureError

INFINITE = float("inf")


@contextlib.contextmanager
def recurrences_as_operators(model: nn.Module) -> Iterator[int]:
    """Let every recurrence call an operator; yields how many functions were replaced."""
    changed: list[tuple[Any, str, Any]] = []
    model.eval()
    each: Any
    for each in model.modules():  # RWKV scales its weights when it reads the first time
        if hasattr(each, "_rescale_layers") and not each.layers_are_rescaled:
            each._rescale_layers()
    config: Any = getattr(model, "config", None)
    try:
        if hasattr(config, "max_inference_chunksize"):  # of xLSTM, which cuts longer texts itself
            changed.append((config, "max_inference_chunksize", config.max_inference_chunksize))
            config.max_inference_chunksize = sys.maxsize
        for file in {sys.modules[type(module).__module__] for module in model.modules()}:
            for name, function in FUNCTIONS.items():
                if hasattr(file, name):
                    changed.append((file, name, getattr(file, name)))
                    setattr(file, name, function)
        for module in model.modules():
            if made := forward_of(module):
                changed.append((module, "forward", None))
                module.forward = types.MethodType(made, module)  # type: ignore[method-assign]
        yield len(changed)
    finally:
        for owner, name, function in changed:
            if function is None:
                del owner.__dict__[name]
            else:
                setattr(owner, name, function)


def knows(module: nn.Module) -> bool:
    """Whether the recurrence of a module is one that becomes an operator."""
    file = sys.modules[type(module).__module__]
    return forward_of(module) is not None or any(hasattr(file, name) for name in FUNCTIONS)


# Arguments of kernels that would change what is computed: several texts at once, a state, a gate.
_OTHERS = ("cu_seqlens", "seq_idx", "initial_state", "initial_states", "z")


def _check(arguments: Mapping[str, Any]) -> None:
    """Refuse what the operators do not compute; other arguments choose how it is computed."""
    if given := [name for name in _OTHERS if arguments.get(name) is not None]:
        raise CaptureError(f"a recurrence is called with {', '.join(given)}, which lcc has not")


def _causal_conv1d(
    hidden_states: Tensor,
    weight: Tensor,
    bias: Tensor | None = None,
    activation: str | None = None,
    **kwargs: Any,
) -> Tensor:
    """causal_conv1d_fn: [1, C, Q] -> [1, C, Q]."""
    from transformers.activations import ACT2FN

    _check(kwargs)
    out = convolve(hidden_states.transpose(1, 2), weight, bias).transpose(1, 2)
    return out if activation is None else ACT2FN[activation](out)


def _delta_rule(
    query: Tensor,
    key: Tensor,
    value: Tensor,
    g: Tensor,
    beta: Tensor,
    *,
    use_qk_l2norm_in_kernel: bool = False,
    **kwargs: Any,
) -> tuple[Tensor, None]:
    """chunk_gated_delta_rule of fla, and chunk_kda, whose decay is that of a channel."""
    _check(kwargs)
    query, key, value, g, beta = (each.float() for each in (query, key, value, g, beta))
    if use_qk_l2norm_in_kernel:
        query, key = (_l2_normalized(each) for each in (query, key))
    return attend(query, key, value, g, beta, query.shape[-1] ** -0.5), None


def _l2_normalized(x: Tensor) -> Tensor:
    return x * torch.rsqrt((x * x).sum(dim=-1, keepdim=True) + 1e-6)


def _mamba2(
    hidden_states: Tensor,
    dt: Tensor,
    A: Tensor,
    B: Tensor,
    C: Tensor,
    chunk_size: int,
    D: Tensor | None = None,
    dt_bias: Tensor | None = None,
    dt_softplus: bool = False,
    dt_limit: tuple[float, float] = (0.0, INFINITE),
    **kwargs: Any,
) -> Tensor:
    """mamba_chunk_scan_combined of mamba_ssm: x [1, Q, H, P], dt [1, Q, H], B, C [1, Q, G, N]."""
    _check(kwargs)
    if dt_bias is not None:
        dt = dt + dt_bias
    if dt_softplus:
        dt = functional.softplus(dt)
    if dt_limit[0] > 0.0 or dt_limit[1] < INFINITE:
        dt = torch.clamp(dt, min=dt_limit[0], max=dt_limit[1])
    out = attend(C, B, hidden_states * dt[..., None], A * dt)
    return out if D is None else out + hidden_states * D[..., None]


def _mamba(
    hidden_states: Tensor,
    dt: Tensor,
    A: Tensor,
    B: Tensor,
    C: Tensor,
    D: Tensor | None = None,
    z: Tensor | None = None,
    delta_bias: Tensor | None = None,
    delta_softplus: bool = False,
    **kwargs: Any,
) -> Tensor:
    """selective_scan_fn of mamba_ssm: x, dt [1, C, Q], A [C, N], B, C [1, N, Q]."""
    _check(kwargs)
    x, dt, shared = hidden_states.transpose(1, 2), dt.transpose(1, 2), (1, 2)
    if delta_bias is not None:
        dt = dt + delta_bias
    if delta_softplus:
        dt = functional.softplus(dt)
    key, query = (each.transpose(*shared)[:, :, None] for each in (B, C))  # [1, Q, 1, N]
    out = attend(query, key, (x * dt)[..., None], dt[..., None] * A).squeeze(-1)
    if D is not None:
        out = out + x * D
    out = out.transpose(1, 2)
    return out if z is None else out * functional.silu(z)


FUNCTIONS: dict[str, Callable] = {
    "causal_conv1d_fn": _causal_conv1d,
    "torch_chunk_gated_delta_rule": _delta_rule,
    "chunk_kimi_delta_attention": _delta_rule,
    "mamba2_chunk_scan": _mamba2,
    "mamba_selective_scan": _mamba,
}
