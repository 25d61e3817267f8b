"""The buffers of a session: every tensor that lives longer than one call."""

from collections.abc import Iterator

from lcc.artifact.schedule import BufferSpec, Counter
from lcc.config import NEWEST_QUERIES, CacheConfig
from lcc.ir.plan import Full
from lcc.ir.program import HEAD, Program
from lcc.ir.roles import Role
from lcc.ir.signature import Size
from lcc.passes.policies import EvictionPolicy
from lcc.passes.policies.entry_scores import NLL
from lcc.passes.programs.cycle import CycleLayer, sparse_kind_of
from lcc.passes.programs.evict import stored_name, stored_scores

ROWS = ("zero", "used")


def keeps_log(layers: list[CycleLayer], policy: EvictionPolicy) -> bool:
    """Whether the states of all tokens since the last cycle are kept, to know their likelihood."""
    chooses = any(layer.evict is not None and not layer.window for layer in layers)
    return NLL in policy.scores and chooses


def _rows(cache: CacheConfig) -> int:
    """Rows of a log: one a slot and one more, and room for a step of fixed length behind them."""
    return cache.capacity + 1 + cache.chunk_size


def spare_name(what: str, layer: CycleLayer) -> str:
    """The buffer that an eviction or compaction of such a layer writes to."""
    slots = "capacity" if layer.slots is None else layer.slots
    return f"spare_{what}_{layer.kv_heads}x{slots}x{layer.head_size}"


def buffers_of(
    programs: list[Program],
    layers: list[CycleLayer],
    cache: CacheConfig,
    policy: EvictionPolicy,
    *,
    every_row: bool,
) -> Iterator[BufferSpec]:
    """All buffers; see `run_plan` for the arguments."""
    head = next(program for program in programs if HEAD in program.names)
    hidden, logits = head.inputs[0].shape[1], head.outputs[0].shape[1]
    step = next(program for program in programs if program.is_step)
    number = next((spec.dtype for spec in step.inputs if spec.role == Role.KEY), "float32")
    yield from _logs(layers, cache, policy, int(hidden))
    yield BufferSpec(name="logits", role=Role.LOGITS, dtype="float32", shape=(1, logits))
    for i, layer in enumerate(layers):
        yield from _of_layer(i, layer, layers, policy, number, rows=_rows(cache))
    yield from _queries(layers, cache, policy, every_row=every_row)
    yield from _spares(layers, policy, number, rows=_rows(cache))
    for spec in step.with_role(Role.STATE):
        names = [spec.name, *([mark_name(spec.name)] if keeps_marks(programs, policy) else [])]
        for name in names:
            yield BufferSpec(
                name=name,
                role=Role.STATE,
                layer=spec.layer,
                dtype=spec.dtype,
                shape=spec.shape,
                saved=("zero", "one"),
            )


def keeps_marks(programs: list[Program], policy: EvictionPolicy) -> bool:
    """Whether cycles read tokens again, from a place that the states must be brought back to."""
    step = next(program for program in programs if program.is_step)
    again = policy.queries == "newest" and bool(step.with_role(Role.KEY))
    return again and bool(step.with_role(Role.STATE))


def mark_name(state: str) -> str:
    """The buffer of what a state was where the newest tokens begin."""
    return f"mark_{state}"


def _logs(
    layers: list[CycleLayer], cache: CacheConfig, policy: EvictionPolicy, hidden: int
) -> Iterator[BufferSpec]:
    """A row a slot: ids and states, and the entry scores that are one number a token."""
    rows = _rows(cache)
    yield BufferSpec(
        name="ids", role=Role.TOKENS, dtype="int64", shape=(rows,), saved=("kept", "used")
    )
    log = keeps_log(layers, policy)
    yield BufferSpec(
        name="hidden",
        role=Role.HIDDEN,
        dtype="float32",
        shape=(rows if log else 1 + cache.chunk_size, hidden),
        saved=("kept", "next") if log else ("zero", "hidden_rows"),
    )
    if NLL not in policy.scores:  # of one step, for those who ask
        name, rows_of_step = NLL.name, (1 + cache.chunk_size,)
        yield BufferSpec(name=name, role=Role.ENTRY_SCORE, dtype="float32", shape=rows_of_step)
    for each in policy.scores:
        if each.made_by == "log":
            last: Counter = "known" if each == NLL else "next" if log else "log_rows"
            yield BufferSpec(
                name=each.name,
                role=Role.ENTRY_SCORE,
                dtype="float32",
                shape=(rows,),
                saved=("kept", last),
            )
        elif each.for_all:
            yield BufferSpec(
                name=each.name, role=Role.ENTRY_SCORE, dtype="float32", shape=("capacity",)
            )


def _of_layer(
    i: int,
    layer: CycleLayer,
    layers: list[CycleLayer],
    policy: EvictionPolicy,
    number: str,
    *,
    rows: int,
) -> Iterator[BufferSpec]:
    """Keys and values, and of a full layer what is kept with each entry."""
    kinds = sparse_kind_of(layers)
    full = isinstance(layer.kind, Full)
    slots: Size = "capacity" if layer.slots is None else layer.slots
    place = 0 if isinstance(layer.kind, Full) else kinds.index(layer.kind) + 1
    group = "full" if full else f"{layer.kind.__struct_config__.tag}_{place}"
    saved = ROWS if full else ("zero", f"used_{place}")
    parts = (("key", Role.KEY), ("value", Role.VALUE))
    for name, role in parts[:1] if layer.shared else parts:
        shape = (1, layer.kv_heads, slots, layer.head_size)
        yield BufferSpec(
            name=f"{name}_{i}",
            role=role,
            layer=i,
            group=group,
            dtype=number,
            shape=shape,
            axis=2,
            saved=saved,
        )
    if layer.evict is not None:
        yield BufferSpec(
            name=f"token_position_{i}",
            role=Role.TOKEN_POSITION,
            layer=i,
            group=group,
            dtype="int64",
            shape=(layer.kv_heads, slots),
            axis=1,
            saved=("zero", "kept"),
        )
    if layer.evict is not None and not layer.window:
        yield from _scores_of_layer(i, layer, policy, rows)
    if not full and layer is next(each for each in layers if each.kind == layer.kind):
        yield from _of_group(group, place, [each for each in layers if each.kind == layer.kind])


def _scores_of_layer(
    i: int, layer: CycleLayer, policy: EvictionPolicy, rows: int
) -> Iterator[BufferSpec]:
    """`rows`: of a score that the step writes, with room for a step of fixed length."""
    stored = stored_scores(policy)
    for each in policy.scores:
        if each.made_by == "position" or each.for_all:
            continue
        name = f"{stored_name(each)}_{i}"
        by_token = each.made_by == "step"
        last: Counter = "kept" if each.made_by == "log" else "used"
        yield BufferSpec(
            name=name,
            role=Role.ENTRY_SCORE,
            layer=i,
            group="full",
            dtype="float32",
            shape=(rows, layer.kv_heads) if by_token else (layer.kv_heads, "capacity"),
            axis=0 if by_token else 1,
            saved=("zero", last) if each in stored else None,
        )


def _of_group(group: str, place: int, members: list[CycleLayer]) -> Iterator[BufferSpec]:
    """Of all layers of a kind that is not full: token positions, and what stays."""
    slots = members[0].slots
    assert slots is not None
    shape = (max(layer.kv_heads for layer in members), slots)
    for name, role in (
        (f"token_position_{group}", Role.TOKEN_POSITION),
        (f"spare_token_position_{group}", Role.TOKEN_POSITION),
        (f"stays_{group}", Role.KEPT),
    ):
        saved = ("zero", f"kept_{place}") if name.startswith("token") else None
        yield BufferSpec(
            name=name, role=role, group=group, dtype="int64", shape=shape, axis=1, saved=saved
        )


def _queries(
    layers: list[CycleLayer], cache: CacheConfig, policy: EvictionPolicy, *, every_row: bool
) -> Iterator[BufferSpec]:
    """Of every layer that is scored or votes, the queries that it goes by."""
    rows = {
        "catalyst": cache.catalyst_size,
        "newest": NEWEST_QUERIES,
        "all": cache.chunk_size,
    }
    for i, layer in enumerate(layers):
        asked = policy.queries if layer.score is not None else None
        if asked is not None or layer.vote is not None:
            count = rows[asked or "catalyst"] + (cache.chunk_size if every_row else 0)
            yield BufferSpec(
                name=f"queries_{i}",
                role=Role.QUERIES,
                layer=i,
                dtype="float32",
                shape=(count, layer.query_heads, layer.head_size),
            )


def _spares(
    layers: list[CycleLayer], policy: EvictionPolicy, number: str, *, rows: int
) -> Iterator[BufferSpec]:
    """One layer of each shape that swaps places with the one that is evicted or compacted."""
    made = set()
    for layer in layers:
        full = layer.evict is not None
        if not full and layer.compact is None:
            continue
        slots: Size = "capacity" if layer.slots is None else layer.slots
        cache = (1, layer.kv_heads, slots, layer.head_size)
        parts: list[tuple[str, Role, str, tuple[Size, ...], int]] = [
            ("key", Role.KEY, number, cache, 2),
        ]
        if not layer.shared:
            parts.append(("value", Role.VALUE, number, cache, 2))
        if full:
            of_heads = (layer.kv_heads, slots)
            parts.append(("token_position", Role.TOKEN_POSITION, "int64", of_heads, 1))
        if full and not layer.window:
            for each in stored_scores(policy):
                by_token = each.made_by == "step"
                sizes: tuple[Size, ...] = (layer.kv_heads, slots)
                sizes = (rows, layer.kv_heads) if by_token else sizes
                axis = 0 if by_token else 1
                parts.append((stored_name(each), Role.ENTRY_SCORE, "float32", sizes, axis))
        for what, role, dtype, shape, axis in parts:
            name = spare_name(what, layer)
            if name not in made:
                made.add(name)
                yield BufferSpec(name=name, role=role, dtype=dtype, shape=shape, axis=axis)
