"""Artifacts of every policy and kind of layer, small enough to compile in a test."""

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from lcc.compile import compile_model
from lcc.config import CacheConfig, CompileConfig, PolicyConfig
from lcc.sources.heads import save_heads
from lcc.testing.tiny import random_heads, save_tiny

CACHE = {"capacity": 96, "budget": 40, "chunk_size": 16, "catalyst_size": 24, "recent_size": 8}
WINDOW = "0: sink_window(sink=2, window=24); 1: full"
BLOCKS = "0: full; 1: block_sparse(block=4, stride=3, local=4, reach=40)"


@dataclass(frozen=True)
class Case:
    """What is compiled; everything else is as by default. `options`: of the policy."""

    model: str
    policy: str
    config: dict[str, Any] = field(default_factory=dict)
    absolute: bool = False
    heads: bool = False
    options: dict[str, Any] = field(default_factory=dict)


CASES = {
    "consensus": Case("llama", "consensus"),
    "consensus, heads": Case("llama", "consensus", heads=True),
    "infinipot, absolute": Case("qwen3", "infinipot", absolute=True),
    "locret": Case("llama", "locret", heads=True, options={"tail_size": 6}),
    "snapkv, window": Case("llama", "snapkv", {"plan": WINDOW}),
    "h2o, no rotation": Case("gpt2", "h2o"),
    "sink_window, blocks": Case("llama", "sink_window", {"plan": BLOCKS}),
    "keydiff, own window": Case("gemma3_text", "keydiff"),
    "knorm, own window, absolute": Case("mistral", "knorm", absolute=True),
    "random": Case("smollm3", "random"),
    "none, window": Case("llama", "none", {"plan": WINDOW}),
    "int8": Case("qwen2", "consensus", {"precision": "int8"}),
    "int4, window": Case("llama", "snapkv", {"precision": "int4", "plan": WINDOW}),
    "latents, window": Case("minicpm3", "infinipot", {"plan": WINDOW}),
    "states, read again": Case("lfm2", "snapkv"),
    "states, catalyst": Case("qwen3_5_text", "infinipot"),
    "states alone": Case("mamba", "snapkv"),
    "states, int8": Case("lfm2", "snapkv", {"precision": "int8"}),
    "half cache": Case("phi3", "infinipot", {"kv_precision": "fp16"}),
}


class Artifacts:
    """The cases, each compiled when it is first asked for."""

    def __init__(self, folder: Path) -> None:
        """`folder`: an empty one, for models and artifacts."""
        self._folder, self._made = folder, dict[str, Path]()

    def __call__(self, name: str) -> Path:
        """The artifact of a case of `CASES`."""
        if name not in self._made:
            case = CASES[name]
            source = self._folder / case.model
            if not source.exists():
                save_tiny(source, case.model)
            output = self._folder / f"{len(self._made)}.lcc"
            compile_model(source, output, _config_of(case, source, self._folder))
            self._made[name] = output
        return self._made[name]


def _config_of(case: Case, source: Path, root: Path) -> CompileConfig:
    cache = CacheConfig(**CACHE, positions="absolute" if case.absolute else "contiguous")
    heads = None
    if case.heads:
        heads = root / "heads.safetensors"
        from lcc.sources.models import load_model  # brings torch

        save_heads(heads, random_heads(load_model(str(source)).module))
    return CompileConfig(
        cache=cache,
        policy=PolicyConfig(name=case.policy, options=case.options),
        heads=None if heads is None else str(heads),
        **case.config,
    )
