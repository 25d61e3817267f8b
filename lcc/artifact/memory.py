"""The memory contract: what a compiled model will hold, computed before anything is built."""

from collections.abc import Callable, Hashable, Mapping, Sequence

import torch
from torch import fx
from torch.export import ExportedProgram

from lcc.artifact.manifest import MemoryEntry
from lcc.artifact.schedule import BufferSpec, Group
from lcc.config import NEWEST_QUERIES, CacheConfig, Precision
from lcc.errors import ConfigError
from lcc.ir.lazy_tensor import LazyTensor, key_of
from lcc.ir.program import HEAD, Program, input_nodes
from lcc.ir.roles import Role
from lcc.ir.rounded import Rounded

# Python, numpy, ONNX Runtime, and what its arena keeps beyond what is alive at once. What comes
# nearest to its table is a cache in float16: 364 of 401 MB (docs/speed.md, "Memory").
RUNTIME_BYTES = 112 << 20
# Of one token of the vocabulary, in the tables of the tokenizer: what `tokenizers` 0.23 takes for a
# BPE of 49,152 tokens is 34 to 45 MB, of 128,256 108 to 120, of 256,000 216 to 242 (while loading).
# Where the native library is installed, `text.bin` is mapped instead, of which the system may drop
# any page: which of the two a device has is not known here, so the larger one counts.
TOKEN_BYTES = 900

# Of one weight of a layer, and of the embedding or LM head, with its share of scales and offsets.
# What `lcc.targets.onnx_precision` stores, and of int4 a sum for each block, which the kernel adds.
_WEIGHT_BYTES = {"fp32": (4.0, 4.0), "int8": (1.0, 1.125), "int4": (0.875, 1.125)}
_EXPERT_BYTES = {"int8": 1.125, "int4": 0.625}  # of one weight of an expert, with its scales
_LOWERED = 32  # least size of both sides of a matrix that has less than 32 bits a weight


def weight_bytes(programs: Sequence[Program], precision: Precision = "fp32") -> int:
    """Bytes of all distinct weights.

    A tensor read as embedding and as LM head counts twice: the head keeps a copy packed for its
    matrix product.
    """
    held: dict[tuple[Hashable, bool], int] = {}
    vocabulary, inputs = _vocabulary(programs), set[int]()
    for program in programs:
        exported = program.exported
        for tensor in [*exported.state_dict.values(), *exported.constants.values()]:
            if isinstance(tensor, torch.Tensor):
                key = key_of(tensor), HEAD in program.names
                held[key] = _held(tensor, precision, vocabulary)
                if tensor.ndim == 2 and tensor.shape[0] != vocabulary:
                    inputs.add(tensor.shape[1])
    # Of int4, the matrices that sum up blocks of 32 inputs: one for each number of inputs.
    low = precision in ("int4", "given")
    sums = sum(4 * k * k // _LOWERED for k in inputs) if low else 0
    return sum(held.values()) + sums


def _held(tensor: torch.Tensor, precision: Precision, vocabulary: int) -> int:
    if precision == "given":
        rounded = tensor.rounded if isinstance(tensor, LazyTensor) else None
        return tensor.nbytes if rounded is None else _as_given(tensor, rounded)
    if precision == "fp32" or tensor.ndim not in (2, 3) or min(tensor.shape[-2:]) < _LOWERED:
        return tensor.nbytes
    if tensor.ndim == 3:
        return int(tensor.numel() * _EXPERT_BYTES[precision])
    of_layer, of_table = _WEIGHT_BYTES[precision]
    return int(tensor.numel() * (of_table if tensor.shape[0] == vocabulary else of_layer))


def _as_given(tensor: torch.Tensor, rounded: Rounded) -> int:
    """Bytes of levels, scales and offsets, as kernels hold them."""
    if rounded.bits == 4:
        return int(tensor.numel() * _WEIGHT_BYTES["int4"][0])
    parts = 1 if rounded.about_zero else 2
    return int(tensor.numel() * (1 + parts * 4 / rounded.block))


def _vocabulary(programs: Sequence[Program]) -> int:
    """Tokens of the vocabulary: the width of the logits."""
    head = next(program for program in programs if HEAD in program.names)
    logits = next(spec for spec in head.outputs if spec.role == Role.LOGITS)
    assert isinstance(logits.shape[1], int)
    return logits.shape[1]


def buffer_bytes(buffer: BufferSpec, constants: Mapping[str, int]) -> int:
    """Bytes of a buffer, its named sizes taken from the constants.

    One whose size is a counter is there while a recall runs, and none of the table: it has a number
    for each token of an archive.
    """
    count = int(torch.empty(0, dtype=getattr(torch, buffer.dtype)).element_size())
    for size in buffer.shape:
        count *= size if isinstance(size, int) else constants.get(size, 0)
    return count


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
    """What an attention by matrix products takes while it runs: scores, masked ones, weights.

    And experts: what each chosen one makes of each token, before it is added up.
    """
    if str(node.target) == "lcc.experts.default":
        x, chosen, _, up = (each.meta["val"] for each in node.all_input_nodes[:4])
        rows = _bytes(chosen, sizes) // chosen.element_size()
        return int(4 * rows * (2 * x.shape[1] + 3 * up.shape[1] // 2))
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


_LARGEST = {  # name of a size that the call decides -> the constant that bounds it
    "tokens": "chunk_size",
    "slots": "capacity",
    "budget": "budget",
    "leaving": "capacity",
    "archive_rows": "scan_rows",
    "archived": "one",  # as in `buffer_bytes`
    "all_tokens": "one",
}


def symbol_sizes(program: Program, constants: Mapping[str, int]) -> dict[str, int]:
    """Largest value of each symbolic size of a program.

    Rows of the head are at most `head_rows`; rows of a step are those whose queries it hands out,
    which lie in buffers, so that one counts; rows of `score` are what it is given.
    """
    sizes: dict[str, int] = {}
    rows = constants["head_rows"] if HEAD in program.names else constants["asked_rows"]
    for spec, node in zip(program.inputs, input_nodes(program.exported), strict=True):
        for name, size in zip(spec.shape, node.meta["val"].shape, strict=True):
            if isinstance(name, str):
                largest = constants[_LARGEST[name]] if name in _LARGEST else rows
                sizes[str(size)] = 1 if spec.role == Role.ROWS else largest
    return sizes


def memory_table(
    programs: Sequence[Program],
    buffers: Sequence[BufferSpec],
    groups: Sequence[Group],
    constants: Mapping[str, int],
    *,
    precision: Precision = "fp32",
) -> list[MemoryEntry]:
    """What the runtime will hold, row by row; the rows add up to the contract.

    Only one program runs at a time, so activations count once, those of the largest.
    """
    queries = [each for each in buffers if each.role == Role.QUERIES]
    asked = max((int(each.shape[0]) for each in queries), default=1)
    known = {**constants, "asked_rows": min(asked, max(constants["chunk_size"], NEWEST_QUERIES))}
    activations = max(activation_bytes(p.exported, symbol_sizes(p, known)) for p in programs)
    table = {"weights": weight_bytes(programs, precision)}
    for row, members in _rows(buffers, groups).items():
        table[row] = sum(buffer_bytes(each, constants) for each in members)
        if row == "states":  # and what a session goes back to, and what a cycle puts back
            own = {each.name for each in members} - {f"mark_{each.name}" for each in members}
            copies = sum(buffer_bytes(each, constants) for each in members if each.name in own)
            table[row] += copies * (1 + constants["snapshots"])
    table |= {
        "activations": activations,
        "tokenizer": TOKEN_BYTES * _vocabulary(programs),
        "runtime": RUNTIME_BYTES,
    }
    return [MemoryEntry(name=name, bytes=size) for name, size in table.items()]


def _rows(buffers: Sequence[BufferSpec], groups: Sequence[Group]) -> dict[str, list[BufferSpec]]:
    """Row of the memory table -> its buffers; one row for the cache of each group."""
    rows: dict[str, list[BufferSpec]] = {}
    for each in buffers:
        if each.group is not None:
            row = "cache" if len(groups) == 1 else f"cache, {each.group}"
        elif each.role in (Role.KEY, Role.VALUE, Role.TOKEN_POSITION):
            row = "spare layer"
        elif each.role == Role.STATE:
            row = "states"
        elif each.role in (Role.ARCHIVED, Role.KEPT):
            row = "archive"
        else:
            row = "queries" if each.role == Role.QUERIES else "logs"
        rows.setdefault(row, []).append(each)
    return rows


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
