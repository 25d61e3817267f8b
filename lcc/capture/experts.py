"""Experts become one operator while a model is captured: their own code loops over what is hit.

transformers writes experts in three ways (a loop, gathered or sorted products), and a router in
front of them, which stays as it is. Whatever they are, `experts_as_operators` puts `lcc::experts`
in their place for as long as it is open.
"""

import contextlib
import types
from collections.abc import Callable, Iterator
from typing import Any

import torch
from torch import Tensor, nn

from lcc.errors import CaptureError
from lcc.passes.experts import ACTIVATIONS, gate

_INFINITE = float("inf")
_TRIED = torch.tensor([-30.0, -8.5, -3.0, -1.2, -0.4, 0.0, 0.3, 1.1, 2.5, 6.9, 7.1, 30.0])


@contextlib.contextmanager
def experts_as_operators(model: nn.Module) -> Iterator[int]:
    """Let every module of experts call `lcc::experts`; yields how many there are.

    Raises CaptureError for experts that the operator does not cover.
    """
    changed: list[nn.Module] = []
    try:
        for name, module in model.named_modules():
            made = _OTHERS.get(type(module).__name__)
            if made is None and _is_decorated(module):
                made = _decorated
            if made is not None:
                forward = made(name, module)
                module.forward = types.MethodType(forward, module)  # type: ignore[method-assign]
                changed.append(module)
        yield len(changed)
    finally:
        for module in changed:
            del module.__dict__["forward"]


def _is_decorated(module: nn.Module) -> bool:
    """Whether it is one of transformers' `use_experts_implementation`."""
    return all(hasattr(module, each) for each in ("has_gate", "is_transposed", "_apply_gate"))


def _decorated(name: str, module: Any) -> Callable:
    if not module.has_gate or module.has_post_expert_norm:
        what = "without a gate" if not module.has_gate else "with a norm behind each"
        raise CaptureError(
            f"{name} ({type(module).__name__}): experts {what}; lcc compiles experts of a gated "
            "product and one behind it, as those of Mixtral"
        )
    numbers = gate_of(name, module)

    def forward(self: Any, x: Tensor, chosen: Tensor, shares: Tensor) -> Tensor:
        up, down = self.gate_up_proj, self.down_proj
        if self.is_transposed:
            up, down = up.transpose(1, 2), down.transpose(1, 2)
        biases = (self.gate_up_proj_bias, self.down_proj_bias) if self.has_bias else (None, None)
        shares = shares.to(x.dtype)
        return torch.ops.lcc.experts(x, chosen, shares, up, down, *biases, *numbers)

    return forward


def gate_of(name: str, module: Any) -> tuple[str, float, float, float, bool]:
    """activation, alpha, beta, limit, interleaved of `lcc::experts`: whatever gives its numbers."""
    rows = torch.cartesian_prod(_TRIED, _TRIED).repeat_interleave(2, dim=0)  # [.., 2]
    rows = torch.cat((rows, rows.flip(0).roll(7, 0)), dim=1)  # [n, 4]: halves, or pairs
    with torch.no_grad():
        wanted = module._apply_gate(rows)
    found = {n: float(v) for n, v in vars(module).items() if isinstance(v, int | float)}
    alphas = [1.0, 1.702, *(v for n, v in found.items() if n.endswith("alpha"))]
    limits = [_INFINITE, *(v for n, v in found.items() if n.endswith("limit"))]
    for limit in limits:
        for alpha in alphas:
            for beta in (0.0, 1.0):
                for interleaved in (False, True):
                    for activation in ACTIVATIONS:
                        numbers = activation, alpha, beta, limit, interleaved
                        if torch.allclose(gate(rows, *numbers), wanted, rtol=1e-5, atol=1e-5):
                            return numbers
    known = ", ".join(ACTIVATIONS)
    raise CaptureError(
        f"{name} ({type(module).__name__}): its gate is none that lcc knows ({known}, perhaps "
        "scaled, shifted and clamped); experts of this kind are not supported"
    )


def _dbrx(name: str, module: Any) -> Callable:
    """DbrxExperts: all experts of a matrix below one another, the last one transposed."""
    numbers = _plain_gate(name, module.mlp.activation_fn)

    def forward(self: Any, x: Tensor, chosen: Tensor, shares: Tensor) -> Tensor:
        up, other, down = (
            each.view(self.num_experts, self.ffn_hidden_size, self.hidden_size)
            for each in (self.mlp.w1, self.mlp.v1, self.mlp.w2)
        )
        weights = torch.cat((up, other), dim=1), down.transpose(1, 2)
        flat = x.reshape(-1, self.hidden_size)
        out = torch.ops.lcc.experts(flat, chosen, shares, *weights, None, None, *numbers)
        return out.view(x.shape)

    return forward


def _llama4(name: str, module: Any) -> Callable:
    """Llama4TextMoe: a token is scaled before its experts, not behind them."""
    numbers = _plain_gate(name, module.experts.act_fn)

    def forward(self: Any, x: Tensor) -> tuple[Tensor, Tensor]:
        x = x.reshape(-1, self.hidden_dim)
        logits = nn.functional.linear(x, self.router.weight)
        top, chosen = torch.topk(logits, self.top_k, dim=1)
        scaled = (x[:, None] * torch.sigmoid(top)[..., None]).reshape(-1, self.hidden_dim)
        experts = self.experts
        weights = experts.gate_up_proj.transpose(1, 2), experts.down_proj.transpose(1, 2)
        one, shares = chosen.reshape(-1, 1), torch.ones_like(scaled[:, :1])
        routed = torch.ops.lcc.experts(scaled, one, shares, *weights, None, None, *numbers)
        return self.shared_expert(x) + routed.view(-1, self.top_k, self.hidden_dim).sum(1), logits

    return forward


def _nemotron_h(name: str, module: Any) -> Callable:
    """NemotronHExperts: no gate."""
    numbers = _plain_gate(name, module.act_fn)

    def forward(self: Any, x: Tensor, chosen: Tensor, shares: Tensor) -> Tensor:
        weights, shares = (self.up_proj, self.down_proj), shares.to(x.dtype)
        return torch.ops.lcc.experts(x, chosen, shares, *weights, None, None, *numbers)

    return forward


def _longcat(name: str, module: Any) -> Callable:
    """LongcatFlashExperts: the last ones give what they are given."""
    numbers, count = _plain_gate(name, module.act_fn), module.num_routed_experts

    def forward(self: Any, x: Tensor, chosen: Tensor, shares: Tensor) -> Tensor:
        real = chosen < count
        own = torch.where(real, shares, 0.0).to(x.dtype)
        weights = self.gate_up_proj[:count], self.down_proj
        chosen = chosen.clamp(max=count - 1)
        out = torch.ops.lcc.experts(x, chosen, own, *weights, None, None, *numbers)
        return out + x * torch.where(real, 0.0, shares).sum(1, keepdim=True)

    return forward


def _plain_gate(name: str, function: Callable) -> tuple[str, float, float, float, bool]:
    """The numbers of `lcc::experts` of a gate that is an activation: told by what it computes."""
    with torch.no_grad():
        wanted = function(_TRIED)
    for activation, known in ACTIVATIONS.items():
        if torch.allclose(known(_TRIED, 1.0), wanted, rtol=1e-5, atol=1e-5):
            return activation, 1.0, 0.0, _INFINITE, False
    raise CaptureError(
        f"{name}: experts with the activation {function}; wanted one of {', '.join(ACTIVATIONS)}"
    )


_OTHERS: dict[str, Callable] = {
    "DbrxExperts": _dbrx,
    "Llama4TextMoe": _llama4,
    "LongcatFlashExperts": _longcat,
    "NemotronHExperts": _nemotron_h,
}
