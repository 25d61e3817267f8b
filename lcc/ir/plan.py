"""The layer plan: what each layer's attention can see (LongGen, arXiv 2410.01485).

    0-9: sink_window(sink=4, window=512); 10-19: full; 20-29: sink_window(sink=4, window=512)

Layers are counted from 0 and ranges include both ends. Every layer has exactly one kind.
"""

import re
from typing import Any

import msgspec

from lcc.config import Positions
from lcc.errors import ConfigError

Places = Any  # int, or an array of NumPy or PyTorch


class Full(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True, tag="full"):
    """A query sees every entry of the cache, and a policy decides what stays in it."""

    def __str__(self) -> str:
        return "full"


class SinkWindow(
    msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True, tag="sink_window"
):
    """A query sees the first tokens of the text and the most recent ones; nothing else is stored.

    sink        first tokens, always seen
    window      most recent tokens, the query itself included
    block       tokens that become visible and invisible together; 1 = each by itself. LongGen's
                kernels have 64: a query in block b sees the blocks b - window / block + 1 .. b, up
                to itself, and the first sink / block
    """

    sink: int = 4
    window: int = 512
    block: int = 1

    def __post_init__(self) -> None:
        if self.sink < 0 or self.window < 1 or self.block < 1:
            raise ConfigError(f"{self}: wanted sink 0 or more, window and block 1 or more")
        if self.sink % self.block or self.window % self.block:
            raise ConfigError(
                f"{self}: sink and window must be multiples of block ({self.block} tokens)"
            )

    @property
    def seen(self) -> int:
        """The most entries that a query sees."""
        return self.sink + self.window

    @property
    def dense_length(self) -> int:
        """Tokens of the longest text in which every query sees all before it, whatever `sink`."""
        return self.window - self.block + 1

    def slots(self, chunk_size: int, catalyst_size: int = 0) -> int:
        """Entries that a layer has room for: what is seen, and what one more step adds."""
        return self.seen + max(chunk_size, catalyst_size)

    def leaving(self, chunk_size: int, catalyst_size: int = 0) -> int:
        """The most entries that are dropped at once: by so many slots another one may move."""
        return max(chunk_size, catalyst_size) + self.block - 1

    def sees(self, query: Places, key: Places, head: Places) -> Places:
        """Whether queries see keys that are not after them: see `BlockSparse.sees`."""
        near = query // self.block - key // self.block < self.window // self.block
        return near | (key < self.sink)

    def __str__(self) -> str:
        block = f", block={self.block}" if self.block > 1 else ""
        return f"sink_window(sink={self.sink}, window={self.window}{block})"


class BlockSparse(
    msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True, tag="block_sparse"
):
    """A query sees the newest blocks of the text, and of the older ones every so manieth.

    LongGen's second pattern (arXiv 2410.01485). All numbers but `block` count blocks; a block that
    a query does not see, none sees later, so that it is freed. LongGen has `block` and `stride`;
    the others are what its reviews leave open, with their assumption as the default.

    block       tokens that become visible and invisible together
    stride      of so many older blocks one is seen: in KV head h the blocks b of which
                b + offset + h * shift is a multiple of stride
    local       newest blocks, all seen, the query's own included
    sink        first blocks of the text, always seen
    reach       how far back older blocks are seen, the query's own included: what bounds the
                memory. 2,048 blocks of 64 are LongGen's 128K tokens
    offset      which blocks: 0 = the first of all is one of them
    shift       how much further on they are in the next KV head; 0 = the same in all
    """

    block: int = 64
    stride: int = 64
    local: int = 8
    sink: int = 1
    reach: int = 2048
    offset: int = 0
    shift: int = 0

    def __post_init__(self) -> None:
        if min(self.block, self.stride, self.local) < 1 or min(self.sink, self.reach) < 0:
            raise ConfigError(
                f"{self}: wanted block, stride and local 1 or more, sink and reach 0 or more"
            )

    @property
    def seen(self) -> int:
        """The most entries that a query sees."""
        older = -(-max(0, self.reach - self.local) // self.stride)
        return (self.sink + older + self.local) * self.block

    @property
    def dense_length(self) -> int:
        """Tokens of the longest text in which every query sees all before it, whatever `sink`."""
        return (self.local - 1) * self.block + 1

    def slots(self, chunk_size: int, catalyst_size: int = 0) -> int:
        """Entries that a layer has room for: what is seen, one chunk, and the catalyst behind it.

        Blocks are freed each time a chunk's length was read, wherever the text was cut into steps.
        """
        return self.seen + chunk_size + catalyst_size

    def leaving(self, chunk_size: int, catalyst_size: int = 0) -> int:
        """The most entries that are dropped at once: by so many slots another one may move."""
        blocks = -(-chunk_size // self.block)  # leave the newest, or come too far back to be seen
        return (blocks + -(-blocks // self.stride)) * self.block

    def sees(self, query: Places, key: Places, head: Places) -> Places:
        """Whether queries see keys that are not after them.

        query, key      places in the text; numbers or integer arrays that broadcast
        head            KV heads, likewise
        """
        ago = query // self.block - key // self.block
        chosen = (key // self.block + self.offset + head * self.shift) % self.stride == 0
        return (ago < self.local) | (chosen & (ago < self.reach)) | (key < self.sink * self.block)

    def __str__(self) -> str:
        first = f"block={self.block}, stride={self.stride}, local={self.local}"
        names = ("sink", "reach", "offset", "shift")
        defaults = BlockSparse.__struct_defaults__[-len(names) :]
        changed = [
            f", {name}={value}"
            for name, default in zip(names, defaults, strict=True)
            if (value := getattr(self, name)) != default
        ]
        return f"block_sparse({first}{''.join(changed)})"


Sparse = SinkWindow | BlockSparse
Kind = Full | Sparse
KINDS: dict[str, type[Kind]] = {
    "full": Full,
    "sink_window": SinkWindow,
    "block_sparse": BlockSparse,
}
PRESETS: dict[str, Sparse] = {
    "longgen": SinkWindow(sink=64, window=2048),
    "longgen_blocks": BlockSparse(),
}


def parse_plan(text: str, layers: int) -> tuple[Kind, ...]:
    """The kind of each of a model's layers.

    text        ranges as at the top of this module, separated by `;` or line ends; or a preset:
                dense (all full); longgen and longgen_blocks: the middle third full, the others
                sink_window and block_sparse, by default with LongGen's own numbers, which
                longgen(sink=..., window=...) changes

    Raises:
        ConfigError: something is not understood, or the layers that are named twice or never.
    """
    preset = re.fullmatch(r"\s*(\w+)\s*(\(.*\))?\s*", text)
    if preset and preset[1] in ("dense", *PRESETS):
        return _preset(preset[1], preset[2] or "()", layers)
    found: dict[int, Kind] = {}
    twice: set[int] = set()
    for part in re.split(r"[;\n]", text):
        if not part.strip():
            continue
        match = re.fullmatch(r"\s*(\d+)(?:\s*-\s*(\d+))?\s*:\s*(\w+\s*(?:\(.*\))?)\s*", part)
        if match is None:
            raise ConfigError(
                f"plan: {part.strip()!r} is not understood; wanted layers, a colon and a kind, as "
                "in 0-9: sink_window(sink=4, window=512); or a preset: "
                + ", ".join(["dense", *PRESETS])
            )
        first, last = int(match[1]), int(match[2] or match[1])
        if first > last or last >= layers:
            raise ConfigError(
                f"plan: {part.strip()!r}: wanted layers 0 to {layers - 1}, the first one first"
            )
        kind = parse_kind(match[3])
        twice |= found.keys() & set(range(first, last + 1))
        found |= dict.fromkeys(range(first, last + 1), kind)
    missing = set(range(layers)) - found.keys()
    if missing or twice:
        problems = [f"no kind for layers {ranges(missing)}"] if missing else []
        problems += [f"more than one kind for layers {ranges(twice)}"] if twice else []
        raise ConfigError(f"plan: {'; '.join(problems)}; every layer needs exactly one")
    return tuple(found[i] for i in range(layers))


def parse_kind(text: str, default: Kind | None = None) -> Kind:
    """One kind from its name and its options, `sink_window(sink=4, window=512)`.

    default     has the options that are not given; None = those of the kind

    Raises:
        ConfigError: no such kind, or no such option of it.
    """
    name, opened, rest = text.strip().partition("(")
    name, options = name.strip(), f"({rest}" if opened else "()"
    if name not in KINDS:
        raise ConfigError(f"plan: no kind {name!r}; wanted one of {', '.join(KINDS)}")
    if not options.endswith(")"):
        raise ConfigError(f"plan: {text.strip()!r} has no closing parenthesis")
    given: dict[str, int] = {}
    for part in filter(None, (p.strip() for p in options.strip()[1:-1].split(","))):
        key, _, value = part.partition("=")
        if not re.fullmatch(r"\s*\d+\s*", value):
            raise ConfigError(f"plan: {name}{options}: {part!r} is not NAME=NUMBER")
        if key.strip() in given:
            raise ConfigError(f"plan: {name}{options}: {key.strip()} is given twice")
        given[key.strip()] = int(value)
    fields: dict[str, Any] = {} if default is None else msgspec.structs.asdict(default)
    try:
        return msgspec.convert({"type": name, **fields, **given}, KINDS[name])
    except msgspec.ValidationError as error:
        if isinstance(error.__cause__, ConfigError):
            raise error.__cause__ from None
        raise ConfigError(f"plan: {name}{options}: {error}") from None


def positions_of(plan: tuple[Kind, ...]) -> Positions:
    """By what rule of positions a plan is measured and trained, over whole texts.

    The angles of a block_sparse layer under contiguous positions depend on when blocks are freed,
    so that it goes by places in the text, and with it all layers.
    """
    blocks = any(isinstance(kind, BlockSparse) for kind in plan)
    return "absolute" if blocks else "contiguous"


def ranges(layers: set[int]) -> str:
    """Numbers as ranges: {0, 1, 2, 5} is "0-2, 5"."""
    found: list[list[int]] = []
    for layer in sorted(layers):
        if found and found[-1][1] == layer - 1:
            found[-1][1] = layer
        else:
            found.append([layer, layer])
    return ", ".join(str(a) if a == b else f"{a}-{b}" for a, b in found)


def show_plan(plan: tuple[Kind, ...]) -> str:
    """A plan as `parse_plan` reads it, with the longest ranges there are."""
    if not plan:  # no layer attends
        return "dense"
    starts = [i for i, kind in enumerate(plan) if i == 0 or kind != plan[i - 1]]
    ends = [*starts[1:], len(plan)]
    parts = (ranges(set(range(a, b))) + f": {plan[a]}" for a, b in zip(starts, ends, strict=True))
    return "; ".join(parts)


def _preset(name: str, options: str, layers: int) -> tuple[Kind, ...]:
    if name == "dense":
        if options.strip("() "):
            raise ConfigError(f"plan: dense{options}: dense has no options")
        return (Full(),) * layers
    default = PRESETS[name]
    kind = parse_kind(f"{default.__struct_config__.tag}{options}", default)
    outer = layers - max(1, layers // 3)
    below = outer // 2
    middle = layers - outer
    return (kind,) * below + (Full(),) * middle + (kind,) * (outer - below)
