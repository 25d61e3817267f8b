"""What a recipe will take: tokens, steps, memory of each device, from a model's numbers alone."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from lcc.ir.plan import BlockSparse, Full, Kind, parse_plan
from lcc.sources.models import load_empty
from lcc.train.hybrid_model import LOSS_ROWS
from lcc.train.recipe import Recipe, Stage
from lcc.train.sparse_attention import BLOCK, older_blocks


@dataclass(frozen=True)
class Estimate:
    """One stage.

    sequences   of a step
    tokens      of the stage
    attention   pairs of tokens that are looked at, as a share of what full layers look at, where
                every sequence is one text
    memory      bytes of one device, without what the process and the optimizer need for a moment
    """

    stage: str
    length: int
    steps: int
    sequences: int
    tokens: int
    attention: float
    memory: int


def estimate(model: str | Path, plan: str, recipe: Recipe, *, devices: int = 1) -> list[Estimate]:
    """Every stage of a recipe; no weight is loaded, no source is opened.

    Raises:
        ConfigError: the plan does not fit the model.
    """
    module, config = load_empty(model)
    kinds = parse_plan(plan, config.num_hidden_layers)
    weights = sum(each.numel() for each in module.parameters())
    return [
        Estimate(
            stage=stage.name,
            length=stage.length,
            steps=stage.steps,
            sequences=stage.sequences,
            tokens=stage.steps * stage.batch_tokens,
            attention=sum(_pairs(kind, stage.length) for kind in kinds)
            / (len(kinds) * _pairs(Full(), stage.length)),
            memory=_memory(config, kinds, recipe, stage, weights, devices),
        )
        for stage in recipe.stages
    ]


def _pairs(kind: Kind, length: int) -> int:
    """Pairs of a query and a key that it sees, in a text of so many tokens."""
    if isinstance(kind, Full):
        return length * (length + 1) // 2
    if isinstance(kind, BlockSparse):
        return _pairs_of_blocks(kind, length)
    near = min(length, kind.window + kind.sink)
    return near * (near + 1) // 2 + (length - near) * near


def _pairs_of_blocks(kind: BlockSparse, length: int) -> int:
    """The same, of the first head."""
    pairs = 0
    for query in range(-(-length // kind.block)):
        before = len(older_blocks(kind, 0, query)) + min(query, kind.local - 1)
        rows = min(kind.block, length - query * kind.block)
        pairs += rows * before * kind.block + rows * (rows + 1) // 2
    return pairs


def _memory(
    config: object,
    plan: tuple[Kind, ...],
    recipe: Recipe,
    stage: Stage,
    weights: int,
    devices: int,
) -> int:
    """Bytes: float32 weights, gradients and two moments, shared; and what a sequence leaves."""
    size, vocabulary, heads = (
        getattr(config, name) for name in ("hidden_size", "vocab_size", "num_attention_heads")
    )
    inner = getattr(config, "intermediate_size", None) or 4 * size  # GPT-2 does not say
    number = 2 if recipe.precision == "bfloat16" else 4
    layers = len(plan)
    shared = 16 * weights // devices
    embedding = vocabulary * size
    gathered = 8 * (weights - embedding) // layers + 8 * embedding if devices > 1 else 0
    kept = stage.length * size * layers * (4 + number)  # residual stream, output of attention
    layer = stage.length * (12 * size + 4 * inner) * number
    loops = getattr(config, "sliding_window", None) or getattr(config, "attn_logit_softcapping", 0)
    keys = [
        (stage.length if loops else 0)  # the kernel of a plain full layer keeps no weights
        if isinstance(kind, Full)
        else min(stage.length, kind.seen + BLOCK)
        for kind in plan
    ]
    attention = heads * min(BLOCK, stage.length) * max(keys) * 4 * 3  # of one block
    logits = min(LOSS_ROWS, stage.length) * vocabulary * 4 * 3
    return shared + gathered + kept + max(layer + attention, logits)
