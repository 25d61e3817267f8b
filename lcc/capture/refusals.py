"""What lcc cannot compile, told from a model's configuration and modules, before it is captured.

An exporter takes long over such a model, and then names a guard of its own.
"""

import re
from collections.abc import Iterable
from typing import Any

from torch import nn

from lcc.capture.recurrences import knows
from lcc.errors import CaptureError

_STATE = (
    "carry a state from token to token in a way that lcc does not know; use a model with Mamba, "
    "gated delta rule or short convolutions as transformers writes them, such as Qwen 3.5 or LFM2"
)
_INDEXED = (
    "choose by the tokens themselves which keys a query sees, so that no cache of a fixed size can "
    "be planned; use a model with full or sliding attention, such as DeepSeek V3 or GLM 4.5"
)
_BY_VALUES = (
    "hide keys by their values, so that no mask can be read ahead of time; use a model whose masks "
    "go by places, such as Llama 3"
)
_EXPERT_HEADS = (
    "send each token to query heads of its own, of which lcc wants a fixed set; use a model whose "
    "experts are behind the attention, such as Qwen 3 MoE"
)
_PROMPTS = (
    "put places of their own before the text and add to attention what depends on buckets of "
    "distance, so that entries cannot move in a cache; use a model with rotary positions, such as "
    "MiniCPM3"
)
_RECURRENT = re.compile("Mamba|Recurr|Rwkv|LSTM|GRU|Delta|Lightning|LinearAtt|SSM|ShortConv|WKV")
# Kind of a layer in `layer_types`, and class of a module, and what such ones do.
_KINDS = {
    r"indexed_attention|.*compressed.*": _INDEXED,
}
_MODULES = {
    r".*(Indexer|Compressor)": _INDEXED,
    r"DogeAttention": _BY_VALUES,
    r"CpmAntSegmentPositionEmbedding": _PROMPTS,
    r"JetMoeMoA": _EXPERT_HEADS,
}


def refusal(config: Any, modules: Iterable[nn.Module] = ()) -> str | None:
    """Why a model cannot be compiled; None = nothing is known against it.

    config      of transformers; enough by itself for most, before any weight is read
    modules     of the model
    """
    text = config.get_text_config() if hasattr(config, "get_text_config") else config
    kinds = getattr(text, "layer_types", None) or getattr(text, "layers_block_type", None) or []
    for kind in dict.fromkeys(map(str, kinds)):
        for pattern, what in _KINDS.items():
            if re.fullmatch(pattern, kind):
                return f"its {kind} layers {what}"
    for name in dict.fromkeys(type(module).__name__ for module in modules):
        for pattern, what in _MODULES.items():
            if re.fullmatch(pattern, name):
                return f"its modules {name} {what}"
    return None


def refuse(model: nn.Module) -> None:
    """Raise CaptureError for a model that lcc cannot compile, with the reason."""
    if reason := refusal(getattr(model, "config", None), model.modules()):
        raise CaptureError(f"{type(model).__name__}: {reason}")


def unknown_state(name: str, module: nn.Module) -> str:
    """What is wrong with a module that looks back in the text in a way of its own."""
    return f"{name} ({type(module).__name__}) is one of the modules that {_STATE}"


def unknown_recurrence(model: nn.Module) -> str | None:
    """What is wrong with the first module that is recurrent by its name, and that no operator has.

    None where there is no such module.
    """
    for name, module in model.named_modules():
        if _RECURRENT.search(type(module).__name__) and not knows(module):
            return unknown_state(name, module)
    return None
