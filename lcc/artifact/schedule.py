"""How an artifact is run: buffers, counters, lists of runs. `docs/format.md` says what they are."""

from collections.abc import Iterator
from typing import Literal

from msgspec import field

from lcc.ir.roles import Role
from lcc.ir.signature import Size, Strict, TensorSpec

__all__ = ["Strict", "TensorSpec"]

Counter = str  # the name of a counter or constant


class BufferSpec(Strict, frozen=True, kw_only=True):
    """A tensor that lives longer than one call; a string in `shape` is a constant.

    axis    axis of its rows
    saved   rows that a saved state holds: from a counter up to and without another
    """

    name: str
    role: Role
    dtype: str
    shape: tuple[Size, ...]
    layer: int | None = None
    group: str | None = None
    axis: int = 0
    saved: tuple[Counter, Counter] | None = None


class Column(Strict, frozen=True, kw_only=True):
    """What an archive holds of each token; `shape` is that of one row.

    role    keys and values are kept in the dtype that the archive's file has for them
    """

    name: str
    role: Role
    dtype: str
    shape: tuple[int, ...] = ()
    layer: int | None = None


class Group(Strict, frozen=True, kw_only=True):
    """Layers that share one fill counter.

    slots   entries per KV head that there is room for: a number, or the constant of it
    align   steps end where the number of tokens read is a multiple of this constant
    """

    name: str
    used: Counter
    kept: Counter
    slots: Size
    layers: tuple[int, ...]
    align: Counter | None = None


class Over(Strict, frozen=True, kw_only=True):
    """What a block is repeated over: token ids, or rows.

    ids     of the text, of the catalyst, or of the newest `count` tokens
    rows    while the first counter is less than the second
    most    of them a time
    """

    most: Counter
    ids: Literal["text", "catalyst", "newest"] | None = None
    count: Counter | None = None
    rows: tuple[Counter, Counter] | None = None


Rows = tuple[str, Counter, Counter]  # buffer, first row, number of rows
Pair = tuple[str, str]


class Run(Strict, frozen=True, kw_only=True):
    """One call of a program, or one a layer.

    load    before it, buffer <- the n rows of an archive's column from `row` on; into the buffer's
            rows from a counter on
    gather  before it, buffer <- the rows of a column that the buffer `rows` lists
    store   after it, column <- the first rows of a buffer, as many as the block appends

    In all three `*` stands for the layer.
    """

    run: str
    one: str | None = None
    each: tuple[int, ...] | None = None
    bind: dict[str, str | Rows] = field(default_factory=dict)
    ints: dict[str, Counter | Pair] = field(default_factory=dict)
    read: dict[str, Counter] = field(default_factory=dict)
    swap: tuple[Pair, ...] = ()
    load: dict[str, tuple[str, Counter]] = field(default_factory=dict)
    gather: dict[str, str] = field(default_factory=dict)
    store: dict[str, str] = field(default_factory=dict)


class Block(Strict, frozen=True, kw_only=True):
    """Runs that belong together, perhaps repeated; then what becomes of buffers and counters.

    grow    buffers that first get the sizes that counters have now
    append  counter of the rows that the runs store in the archive
    load, gather, store     as those of a run, once for all of them
    """

    do: tuple[Run, ...] = ()
    over: Over | None = None
    when: Pair | None = None
    grow: tuple[str, ...] = ()
    append: Counter | None = None
    load: dict[str, tuple[str, Counter]] = field(default_factory=dict)
    gather: dict[str, str] = field(default_factory=dict)
    store: dict[str, str] = field(default_factory=dict)
    after: tuple[Rows, ...] = ()
    swap: tuple[Pair, ...] = ()
    add: tuple[Counter, ...] = ()
    lend: bool = False
    count: Counter | None = None
    set: dict[Counter, Counter] = field(default_factory=dict)


class Schedule(Strict, frozen=True, kw_only=True):
    """The lists of blocks.

    nll         reads as `read` does, and finds how improbable each token was
    compact     group -> what drops the entries that no later query sees
    flush       appends to the archive what the cache holds and it does not
    recall      after it: chooses what the cache holds anew, from the archive and by a question.
                Both are empty where an artifact of this kind has no archive
    marks       each state of a recurrent layer, and the buffer of what it was where the newest
                tokens begin, which a cycle reads again; empty where cycles read nothing again
    log         `hidden` holds the states of all tokens since the last cycle
    """

    read: tuple[Block, ...]
    cycle: tuple[Block, ...] = ()
    logits: tuple[Block, ...]
    nll: tuple[Block, ...]
    compact: dict[str, tuple[Block, ...]] = field(default_factory=dict)
    flush: tuple[Block, ...] = ()
    recall: tuple[Block, ...] = ()
    marks: tuple[Pair, ...] = ()
    log: bool = False


def lists(schedule: Schedule) -> Iterator[tuple[str, tuple[Block, ...]]]:
    """All lists of a schedule, each with its name."""
    yield "read", schedule.read
    yield "cycle", schedule.cycle
    yield "logits", schedule.logits
    yield "nll", schedule.nll
    yield "flush", schedule.flush
    yield "recall", schedule.recall
    for group, blocks in schedule.compact.items():
        yield f"compact {group}", blocks


class Catalyst(Strict, frozen=True, kw_only=True):
    """The ids of the catalyst prompt, or how many of the text's first tokens it is made of."""

    ids: tuple[int, ...] | None = None
    beginning: int | None = None


class Turns(Strict, frozen=True, kw_only=True):
    """A chat template as pieces of text: before and after the content of each role's messages."""

    begin: str = ""
    system: Pair | None = None
    user: Pair | None = None
    assistant: Pair | None = None
    prompt: str = ""
    default_system: str | None = None
    strip: bool = False


class TextFacts(Strict, frozen=True, kw_only=True):
    """What a runtime must know of the model's text, as ids and strings.

    no_tables   why the tokenizer is not there as tables (text.bin); None = it is, or there is none
    """

    prefix: tuple[int, ...] = ()
    ends: tuple[int, ...] = ()
    separator: tuple[int, ...] = ()
    special: tuple[int, ...] = ()
    stops: tuple[str, ...] = ()
    catalyst: Catalyst | None = None
    turns: Turns | None = None
    no_tables: str | None = None
