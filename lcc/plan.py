"""The layer plan: what each layer's attention can see (LongGen, arXiv 2410.01485).

    0-9: sink_window(sink=4, window=512); 10-19: full; 20-29: sink_window(sink=4, window=512)

Layers are counted from 0 and ranges include both ends. Every layer has exactly one kind.
"""

import re
from typing import Any

import msgspec

from lcc.errors import ConfigError


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

    def slots(self, chunk_size: int) -> int:
        """Entries that a layer has room for: what is seen, and what one more step adds."""
        return self.sink + self.window + chunk_size

    def __str__(self) -> str:
        block = f", block={self.block}" if self.block > 1 else ""
        return f"sink_window(sink={self.sink}, window={self.window}{block})"


Kind = Full | SinkWindow
KINDS: dict[str, type[Kind]] = {"full": Full, "sink_window": SinkWindow}
PRESETS = ("dense", "longgen")


def parse_plan(text: str, layers: int) -> tuple[Kind, ...]:
    """The kind of each of a model's layers.

    text        ranges as at the top of this module, separated by `;` or line ends; or a preset:
                dense (all full), or longgen(sink=..., window=...): the middle third full, the
                others sink_window, by default of LongGen's own 64 and 2,048 tokens

    Raises:
        ConfigError: something is not understood, or the layers that are named twice or never.
    """
    if preset := re.fullmatch(r"\s*(dense|longgen)\s*(\(.*\))?\s*", text):
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
                "in 0-9: sink_window(sink=4, window=512); or a preset: " + ", ".join(PRESETS)
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


def parse_kind(text: str) -> Kind:
    """One kind from its name and its options, `sink_window(sink=4, window=512)`.

    Raises:
        ConfigError: no such kind, or no such option of it.
    """
    name, opened, rest = text.strip().partition("(")
    name, options = name.strip(), f"({rest}" if opened else "()"
    if name not in KINDS:
        raise ConfigError(f"plan: no kind {name!r}; wanted one of {', '.join(KINDS)}")
    if not options.endswith(")"):
        raise ConfigError(f"plan: {text.strip()!r} has no closing parenthesis")
    fields: dict[str, Any] = {}
    for part in filter(None, (p.strip() for p in options.strip()[1:-1].split(","))):
        key, _, value = part.partition("=")
        if not re.fullmatch(r"\s*\d+\s*", value):
            raise ConfigError(f"plan: {name}{options}: {part!r} is not NAME=NUMBER")
        fields[key.strip()] = int(value)
    try:
        return msgspec.convert({"type": name, **fields}, KINDS[name])
    except msgspec.ValidationError as error:
        if isinstance(error.__cause__, ConfigError):
            raise error.__cause__ from None
        raise ConfigError(f"plan: {name}{options}: {error}") from None


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
    starts = [i for i, kind in enumerate(plan) if i == 0 or kind != plan[i - 1]]
    ends = [*starts[1:], len(plan)]
    parts = (ranges(set(range(a, b))) + f": {plan[a]}" for a, b in zip(starts, ends, strict=True))
    return "; ".join(parts)


def _preset(name: str, options: str, layers: int) -> tuple[Kind, ...]:
    if name == "dense":
        if options.strip("() "):
            raise ConfigError(f"plan: dense{options}: dense has no options")
        return (Full(),) * layers
    named = {part.partition("=")[0].strip() for part in options[1:-1].split(",")}
    given = [p for p in ("sink=64", "window=2048") if p.partition("=")[0] not in named]
    kind = parse_kind(f"sink_window({', '.join(filter(None, [options[1:-1], *given]))})")
    outer = layers - max(1, layers // 3)
    below = outer // 2
    middle = layers - outer
    return (kind,) * below + (Full(),) * middle + (kind,) * (outer - below)
