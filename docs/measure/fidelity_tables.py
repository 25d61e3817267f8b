"""The tables of docs/fidelity.md, from the figures in docs/results/fidelity/.

python docs/measure/fidelity_tables.py [--check]

Each line of MODEL.jsonl is a cell (`who`, `task`, `length`, `samples`, `score`: the mean), or a
sample that `recall.py` has written. The tables take the place of what stands between
`<!-- table: MODEL -->` and `<!-- end -->`; with --check, nothing is written, and a page that would
change is an error.
"""

import json
import re
import sys
from collections.abc import Iterator
from pathlib import Path

DOCS = Path(__file__).parents[1]
PAGE, FIGURES = DOCS / "fidelity.md", DOCS / "results" / "fidelity"
SETTINGS = {
    "without": "`consensus` {budget}, `nll_weight` {nll_weight}, no archive",
    "recall": "`consensus` {budget}, with recall",
    "everything": "everything kept",
}


def cells(path: Path) -> Iterator[tuple[str, str, int, int, float]]:
    """Who was asked, task, length, number of samples, and their mean."""
    for line in map(json.loads, path.read_text(encoding="utf-8").splitlines()):
        if "who" in line:
            yield line["who"], line["task"], line["length"], line["samples"], line["score"]
        for name, who in SETTINGS.items():
            if name in line:
                yield who.format(**line), line["task"], line["length"], 1, line[name]


def table(path: Path) -> str:
    """Rows: who was asked; columns: tasks and lengths."""
    sums: dict[str, dict[tuple[str, int], tuple[int, float]]] = {}
    for who, task, length, samples, score in cells(path):
        row = sums.setdefault(who, {})
        count, total = row.get((task, length), (0, 0.0))
        row[task, length] = (count + samples, total + samples * score)
    columns = sorted({column for row in sums.values() for column in row})
    heads = [f"`{task}` {length:,}" for task, length in columns]
    lines = ["| | " + " | ".join(heads) + " |", "|" + " --- |" * (len(heads) + 1)]
    for who, row in sums.items():
        texts = [text(*row[column]) if column in row else "-" for column in columns]
        lines.append(f"| {who} | {' | '.join(texts)} |")
    return "\n".join(lines)


def text(samples: int, total: float) -> str:
    """A mean, and of how many samples."""
    return f"{total / samples:.2f} ({samples})"


def main() -> int:
    """See the file."""
    before = page = PAGE.read_text(encoding="utf-8")
    for path in sorted(FIGURES.glob("*.jsonl")):
        begin, end = f"<!-- table: {path.stem} -->\n", "<!-- end -->"
        made = f"{begin}{table(path)}\n{end}"
        pattern = re.escape(begin) + "(.*?)" + re.escape(end)
        page, found = re.subn(pattern, lambda _, made=made: made, page, flags=re.DOTALL)
        if not found:
            print(f"{PAGE}: no table: {path.stem}", file=sys.stderr)
            return 1
    if "--check" in sys.argv:
        return int(page != before)
    PAGE.write_text(page, encoding="utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main())
