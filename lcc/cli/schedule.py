"""How an artifact is run, as tables for people: groups, counters, buffers, the schedule."""

from collections.abc import Iterator, Mapping, Sequence
from itertools import groupby

from lcc.artifact.schedule import Block, BufferSpec, Group, Rows, Run, Schedule
from lcc.cli.frame import indent, table
from lcc.ir.plan import ranges

Row = tuple[str, ...]


def groups_text(groups: Sequence[Group]) -> str:
    """One row a group."""
    rows = [
        (
            group.name,
            f"{group.slots} slots",
            f"{group.kept} .. {group.used}",
            f"layers {ranges({*group.layers})}",
            f"aligned to {group.align}" if group.align else "",
        )
        for group in groups
    ]
    return table(rows)


def counters_text(numbers: Mapping[str, int]) -> str:
    """Names and values, several in a line."""
    words = [f"{name} {value}" for name, value in sorted(numbers.items())]
    return "\n".join(", ".join(words[i : i + 6]) for i in range(0, len(words), 6))


def buffers_text(buffers: Sequence[BufferSpec]) -> str:
    """One row for buffers that differ only in a number in their name."""
    rows = []
    for each in buffers:
        saved = "not saved" if each.saved is None else f"rows {each.saved[0]} .. {each.saved[1]}"
        shape = f"{each.dtype} [{', '.join(map(str, each.shape))}]"
        rows.append((each.name, str(each.role), shape, saved))
    return table(short(rows))


def schedule_text(schedule: Schedule) -> str:
    """The lists of blocks, in order of their use."""
    lists = {"read": schedule.read, "cycle": schedule.cycle, "logits": schedule.logits}
    lists |= {f"compact {name}": blocks for name, blocks in schedule.compact.items()}
    lists |= {"flush": schedule.flush, "recall": schedule.recall}
    lines = [f"hidden states since the last cycle are kept: {'yes' if schedule.log else 'no'}"]
    for name, blocks in lists.items():
        lines.append(name if blocks else f"{name}: nothing")
        lines += [indent(_block(block)) for block in blocks]
    return "\n".join(lines)


def _block(block: Block) -> str:
    lines = [f"{_over(block)}{' when ' + ' < '.join(block.when) if block.when else ''}"]
    first: list[Row] = [("grow", ", ".join(block.grow))] if block.grow else []
    if block.append:
        first.append(("append", f"{block.append} rows to the archive"))
    if first := [*first, *_fetched(block)]:
        lines.append(indent(table(first)))
    lines += [indent(_run(run)) for run in block.do]
    rows: list[Row] = _stored(block)
    rows += [("copy", f"{name}[{a}] -> {name}[{b}]") for name, a, b in block.after]
    rows += [("swap", f"{a} and {b}") for a, b in block.swap]
    if block.add:
        back = ", for the time of the loop" if block.lend else ""
        rows.append(("add", f"n to {', '.join(block.add)}{back}"))
    if block.count:
        rows.append(("count", block.count))
    if block.set:
        rows.append(("set", ", ".join(f"{name} = {value}" for name, value in block.set.items())))
    return "\n".join([*lines, indent(table(rows))] if rows else lines)


def _fetched(part: Block | Run) -> list[Row]:
    """What comes from the archive before runs."""
    rows: list[Row] = [
        ("load", f"{name}[{_count(first, 'n')}] <- {column} of the archive, from row on")
        for name, (column, first) in part.load.items()
    ]
    rows += [
        ("gather", f"{name} <- {column} of the archive") for name, column in part.gather.items()
    ]
    return rows


def _stored(part: Block | Run) -> list[Row]:
    """What goes to the archive after runs."""
    return [("store", f"{name} -> {column} of the archive") for column, name in part.store.items()]


def _over(block: Block) -> str:
    over = block.over
    if over is None:
        return "once"
    if over.rows is not None:
        return f"rows {over.rows[0]} .. {over.rows[1]}, {over.most} at a time"
    count = f"{over.count} " if over.count else ""
    return f"{count}{over.ids} tokens, {over.most} at a time"


def _run(run: Run) -> str:
    each = f" for layers {ranges({*run.each})}" if run.each is not None else ""
    one = f" ({run.one} where n is 1)" if run.one else ""
    rows: list[Row] = [(name, "<->", _rows(bound)) for name, bound in run.bind.items()]
    for name, numbers in run.ints.items():
        rows.append((name, "<-", numbers if isinstance(numbers, str) else _count(*numbers)))
    rows += [(name, "->", counter) for name, counter in run.read.items()]
    rows += [(a, "swap", b) for a, b in run.swap]
    parts = [_fetched(run), short(rows), _stored(run)]
    return "\n".join([f"{run.run}{one}{each}", *(indent(table(each)) for each in parts if each)])


def _rows(bound: str | Rows) -> str:
    return bound if isinstance(bound, str) else f"{bound[0]}[{_count(*bound[1:])}]"


def _count(first: str, count: str) -> str:
    """FIRST, FIRST+1, ..., as many as `count` says."""
    return f"{first} .. +{count}"


def short(rows: Sequence[Row]) -> list[Row]:
    """Rows that differ only in numbers in names become one: `key_0 .. key_9`.

    The first column has the name; in the others a number of its own after "_" stands for itself.
    """
    found: dict[Row, list[Row]] = {}
    for row in rows:
        number = _number(row[0])
        others = tuple(cell.replace(f"_{number}", "_*") if number else cell for cell in row[1:])
        found.setdefault((_pattern(row[0]), *others), []).append(row)
    return list(_merged(found))


def _merged(found: Mapping[Row, Sequence[Row]]) -> Iterator[Row]:
    for (_, *others), rows in found.items():
        if len(rows) == 1:
            yield rows[0]
        else:
            yield (f"{rows[0][0]} .. {rows[-1][0]}", *others)


def _number(name: str) -> str:
    """The last run of digits in a name; "" = there is none."""
    runs = ["".join(run) for digits, run in groupby(name, key=str.isdigit) if digits]
    return runs[-1] if runs else ""


def _pattern(name: str) -> str:
    """A name with `*` for each run of digits."""
    return "".join("*" if digits else "".join(run) for digits, run in groupby(name, str.isdigit))
