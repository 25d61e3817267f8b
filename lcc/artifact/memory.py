"""The memory contract: what a compiled model will hold, computed before anything is built."""

from collections.abc import Callable, Sequence
from typing import get_args

import torch
from torch import fx
from torch.export import ExportedProgram

from lcc.artifact.manifest import LayerEntry, MemoryEntry, Scalar
from lcc.config import HEAD_ROWS, RECENT_QUERIES, CacheConfig, Precision
from lcc.errors import ConfigError
from lcc.ir.plan import Kind
from lcc.ir.program import Program
from lcc.passes.policies import EvictionPolicy

# Python, numpy, ONNX Runtime, and what its arena keeps beyond what is alive at once. What comes
# nearest to its table is a cache in float16: 364 of 401 MB (docs/speed.md, "Memory").
RUNTIME_BYTES = 112 << 20
# Of one token of the vocabulary, in the tables of the tokenizer: what `tokenizers` 0.23 takes for a
# BPE of 49,152 tokens is 34 to 45 MB, of 128,256 108 to 120, of 256,000 216 to 242 (while loading).
TOKEN_BYTES = 900

# Of one weight of a layer, and of the embedding or LM head, with its share of scales and offsets.
# What `lcc.targets.onnx_precision` stores, and of int4 a sum for each block, which the kernel adds.
_WEIGHT_BYTES = {"fp32": (4.0, 4.0), "int8": (1.0, 1.125), "int4": (0.875, 1.125)}
_LOWERED = 32  # least size of both sides of a matrix that has less than 32 bits a weight


def weight_bytes(programs: Sequence[Program], precision: Precision = "fp32") -> int:
    """Bytes of all distinct weights.

    A tensor read as embedding and as LM head counts twice: the head keeps a copy packed for its
    matrix product.
    """
    held: dict[tuple[int, bool], int] = {}
    vocabulary, inputs = _vocabulary(programs), set[int]()
    for program in programs:
        exported = program.exported
        is_head = "logits" in program.outputs
        for tensor in [*exported.state_dict.values(), *exported.constants.values()]:
            if isinstance(tensor, torch.Tensor):
                held[tensor.data_ptr(), is_head] = _held(tensor, precision, vocabulary)
                if tensor.ndim == 2 and tensor.shape[0] != vocabulary:
                    inputs.add(tensor.shape[1])
    # Of int4, the matrices that sum up blocks of 32 inputs: one for each number of inputs.
    sums = sum(4 * k * k // _LOWERED for k in inputs) if precision == "int4" else 0
    return sum(held.values()) + sums


def _held(tensor: torch.Tensor, precision: Precision, vocabulary: int) -> int:
    if precision == "fp32" or tensor.ndim != 2 or min(tensor.shape) < _LOWERED:
        return tensor.nbytes
    of_layer, of_table = _WEIGHT_BYTES[precision]
    return int(tensor.numel() * (of_table if tensor.shape[0] == vocabulary else of_layer))


def _head(programs: Sequence[Program]) -> Program:
    return next(program for program in programs if "logits" in program.outputs)


def _vocabulary(programs: Sequence[Program]) -> int:
    return int(_head(programs).exported.graph.output_node().args[0][0].meta["val"].shape[1])


def cache_number_bytes(programs: Sequence[Program]) -> int:
    """Bytes of one number of a key or value, as the step takes them."""
    step = programs[0]
    nodes = step.exported.graph.find_nodes(op="placeholder")[-len(step.inputs) :]
    sizes = {
        node.meta["val"].element_size()
        for name, node in zip(step.inputs, nodes, strict=True)
        if name.startswith(("key_", "value_"))
    }
    assert len(sizes) == 1, f"keys and values of {sizes} bytes"
    return int(sizes.pop())


def cache_bytes(
    layers: Sequence[LayerEntry], capacity: int, *, scalars: int, number_bytes: int
) -> dict[Kind, int]:
    """Of each kind of layer, bytes of keys and values and, of full ones, the numbers beside them.

    number_bytes    of one number of a key or value

    Beside them are float32 scalars and the int64 token index. The places in the text that layers of
    the other kinds keep once for all count as the runtime's.
    """
    bytes_of: dict[Kind, int] = {}
    for each in layers:
        numbers = 4 * scalars + 8 if each.slots is None else 0
        entries = each.kv_heads * (each.slots or capacity)
        size = entries * (2 * each.head_size * number_bytes + numbers)
        bytes_of[each.kind] = bytes_of.get(each.kind, 0) + size
    return bytes_of


def activation_bytes(exported: ExportedProgram, sizes: dict[str, int]) -> int:
    """The most that values alive at once take, inputs and weights excluded.

    sizes       symbolic size -> its largest value

    Values are freed after their last use; views cost nothing.
    """
    last_use: dict[fx.Node, fx.Node] = {}
    for node in exported.graph.nodes:
        for source in node.all_input_nodes:
            last_use[source] = node
    frees: dict[fx.Node, list[fx.Node]] = {}
    for source, user in last_use.items():
        frees.setdefault(user, []).append(source)
    alive = peak = 0
    owned: dict[fx.Node, int] = {}
    for node in exported.graph.nodes:
        if node.op == "call_function":
            owned[node] = 0 if _shares_storage(node) else _bytes(node.meta.get("val"), sizes)
            alive += owned[node]
            peak = max(peak, alive + _workspace(node, sizes))
        for source in frees.get(node, ()):
            if source.op == "call_function" and node.op != "output":
                alive -= owned[source]
    return peak


def _workspace(node: fx.Node, sizes: dict[str, int]) -> int:
    """What an attention by matrix products takes while it runs: scores, masked ones, weights."""
    caches = {"lcc.cached_sink_window.default": 4, "lcc.cached_block_sparse.default": 3}
    if str(node.target) not in caches:
        return 0
    q, key = node.args[0], node.args[caches[str(node.target)]]
    assert isinstance(q, fx.Node)
    assert isinstance(key, fx.Node)
    rows = _bytes(q.meta["val"], sizes) // q.meta["val"].shape[-1]
    return 3 * rows * int(key.meta["val"].shape[2])


_VIEWS = ("view", "reshape", "unsqueeze", "select", "expand", "alias", "getitem", "sym_size")


def _shares_storage(node: fx.Node) -> bool:
    if node.target is torch.ops.aten._to_copy.default and _around_attention(node):
        return True
    name = getattr(node.target, "__name__", str(node.target))
    return any(name.startswith(view) or f".{view}" in name for view in _VIEWS)


def _around_attention(node: fx.Node) -> bool:
    """Whether a cast stands between a cache and an attention, whose kernel does without it."""
    source = node.args[0]
    assert isinstance(source, fx.Node)
    origin = source.args[0] if source.op == "call_function" and source.args else None
    near = [*node.users, *([origin] if isinstance(origin, fx.Node) else [])]
    return any(str(each.target).startswith("lcc.cached_") for each in near)


def _bytes(value: object, sizes: dict[str, int]) -> int:
    if isinstance(value, (tuple, list)):
        return _bytes(value[0], sizes)  # of cached_attention, only the output is new
    if not isinstance(value, torch.Tensor):
        return 0
    count = 1
    for size in value.shape:
        if not isinstance(size, int):
            size = int(size.node.expr.subs({s: sizes[str(s)] for s in size.node.expr.free_symbols}))
        count *= size
    return count * value.element_size()


def _scored_rows(policy: EvictionPolicy, cache: CacheConfig) -> int:
    """Queries that are scored together: of a catalyst prompt, of the newest tokens, of a chunk."""
    if policy.queries is None:
        return 0
    rows = {"catalyst": cache.catalyst_size, "recent": RECENT_QUERIES, "all": cache.chunk_size}
    return rows[policy.queries]


def query_bytes(
    layers: Sequence[LayerEntry], cache: CacheConfig, policy: EvictionPolicy, *, every_row: bool
) -> int:
    """Of the float32 queries that the runtime holds at most, to score by them.

    every_row   steps hand out the queries of all rows, whatever is asked
    """
    # Besides what a step gave: a copy of each part of the catalyst prompt, and of all of it; or the
    # newest, in a block twice as long (`lcc.runtime.recent_queries`).
    rows = _scored_rows(policy, cache) * (1 if policy.queries == "all" else 3)
    if every_row and policy.queries is not None:
        rows += cache.chunk_size
    return 4 * rows * sum(e.query_heads * e.head_size for e in layers if e.score is not None)


def hidden_bytes(programs: Sequence[Program], cache: CacheConfig, policy: EvictionPolicy) -> int:
    """Of the float32 hidden states that wait for a cycle, where the policy scores by novelty."""
    if "novelty" not in policy.scalars:
        return 0
    head = _head(programs)
    nodes = head.exported.graph.find_nodes(op="placeholder")[-len(head.inputs) :]
    hidden = nodes[head.inputs.index("hidden")]
    reserved = cache.catalyst_size if policy.queries == "catalyst" else 0
    return 4 * (cache.capacity - reserved) * int(hidden.meta["val"].shape[1])


def symbol_sizes(program: Program, cache: CacheConfig, policy: EvictionPolicy) -> dict[str, int]:
    """Largest value of each symbolic size of a program, from where it occurs in its inputs.

    Queries that a step hands out count as what the runtime holds.
    """
    sizes: dict[str, int] = {}
    nodes = program.exported.graph.find_nodes(op="placeholder")[-len(program.inputs) :]
    for name, node in zip(program.inputs, nodes, strict=True):
        for size in node.meta["val"].shape:
            if isinstance(size, int):
                continue
            if name in ("new_slots", "kept"):
                largest = cache.budget
            elif name == "query_rows":
                largest = 1
            elif name == "queries":
                largest = policy.config.score_rows(policy.queries, _scored_rows(policy, cache))
            elif name.startswith(("key", "value")) or name in get_args(Scalar):
                largest = cache.capacity
            elif "logits" in program.outputs:
                largest = HEAD_ROWS
            else:
                largest = cache.chunk_size
            sizes[str(size)] = largest
    return sizes


def memory_table(
    programs: Sequence[Program],
    layers: Sequence[LayerEntry],
    cache: CacheConfig,
    policy: EvictionPolicy,
    *,
    precision: Precision = "fp32",
    every_row: bool = False,
) -> list[MemoryEntry]:
    """What the runtime will hold, row by row; the rows add up to the contract.

    programs    the step first
    every_row   see `query_bytes`

    Only one program runs at a time, so activations count once, those of the largest.
    """
    number_bytes = cache_number_bytes(programs)
    spare = 2 * number_bytes * _spare_numbers(programs, layers, cache)
    activations = max(
        activation_bytes(p.exported, symbol_sizes(p, cache, policy)) for p in programs
    )
    scalars = len(policy.scalars)
    caches = cache_bytes(layers, cache.capacity, scalars=scalars, number_bytes=number_bytes)
    table = {
        "weights": weight_bytes(programs, precision),
        **{_cache_row(kind, len(caches)): size for kind, size in caches.items()},
        "spare layer": spare,
        "activations": activations,
        "queries": query_bytes(layers, cache, policy, every_row=every_row),
        "hidden states": hidden_bytes(programs, cache, policy),
        "tokenizer": TOKEN_BYTES * _vocabulary(programs),
        "runtime": RUNTIME_BYTES,
    }
    return [MemoryEntry(name=name, bytes=size) for name, size in table.items()]


def _spare_numbers(
    programs: Sequence[Program], layers: Sequence[LayerEntry], cache: CacheConfig
) -> int:
    """Numbers of the keys that evictions write: of a layer of each shape, or of the kept entries.

    See `lcc.runtime.evictions`.
    """
    if any("key_out" in program.outputs for program in programs):
        shapes = {(e.kv_heads, e.slots or cache.capacity, e.head_size) for e in layers}
        return sum(heads * slots * size for heads, slots, size in shapes)
    return max(e.kv_heads * e.head_size * (e.slots or cache.budget) for e in layers)


def _cache_row(kind: Kind, kinds: int) -> str:
    """The name of a row: which layers' cache it is, where there are several kinds."""
    return "cache" if kinds == 1 else f"cache of {kind} layers"


def total_bytes(table: Sequence[MemoryEntry]) -> int:
    """The sum of a memory table."""
    return sum(row.bytes for row in table)


def with_budget(cache: CacheConfig, budget: int) -> CacheConfig:
    """The same cache with another budget, and room for as many new entries, or for a chunk."""
    room = max(cache.chunk_size + cache.catalyst_size, budget)
    fields = {name: getattr(cache, name) for name in cache.__struct_fields__}
    return CacheConfig(**(fields | {"budget": budget, "capacity": budget + room}))


def smallest_cache(cache: CacheConfig) -> CacheConfig:
    """The same cache with the smallest budget (a multiple of 64) that holds what is protected."""
    return with_budget(cache, 64 * ((cache.sink_size + cache.recent_size) // 64 + 1))


def largest_budget(
    table_of: Callable[[CacheConfig], Sequence[MemoryEntry]],
    cache: CacheConfig,
    *,
    memory_bytes: int,
    longest: int | None = None,
) -> CacheConfig | None:
    """The cache with the largest budget (a multiple of 64) that fits; None if none does.

    table_of    the memory table of a cache
    longest     the most slots it may have, whatever the memory; None = any number
    """
    low, high, best = 1, 1 << 14, None
    while low <= high:
        middle = (low + high) // 2
        try:
            candidate = with_budget(cache, middle * 64)
        except ConfigError:  # smaller than what is protected
            low = middle + 1
            continue
        short_enough = longest is None or candidate.capacity <= longest
        if short_enough and total_bytes(table_of(candidate)) <= memory_bytes:
            best, low = candidate, middle + 1
        else:
            high = middle - 1
    return best
