"""Cells of several folders of `lcc eval` in one table, for the documentation.

python docs/measure/results_table.py FOLDER ...

A row is who was asked, a column a task at a length; "17" is 17 of 20 found, a share is the mean of
graded scores, and what has fewer samples than most cells says how many. Of a cell that is in two
folders the one with more samples counts.
"""

import argparse
import json
from collections import Counter
from pathlib import Path


def cells_of(folders: list[Path]) -> dict[tuple[str, str], dict]:
    """(row, column) -> cell of results.json, the one of the most samples."""
    found: dict[tuple[str, str], dict] = {}
    for folder in folders:
        for cell in json.loads((folder / "results.json").read_text())["cells"]:
            key = row(cell), f"{cell['task']} {cell['length'] or ''}"
            if "score" in cell and cell["n"] > found.get(key, {"n": 0})["n"]:
                found[key] = cell
    return found


def row(cell: dict) -> str:
    """`snapkv 512:1024`, `kvpress snapkv 512`."""
    kept = "" if cell["budget"] is None else f" {cell['budget']}"
    slots = "" if cell["capacity"] is None else f":{cell['capacity']}"
    policy = "everything kept" if cell["policy"] == "none" else cell["policy"]
    aware = ", question first" if cell["setting"] == "query-aware" else ""
    return f"{'kvpress ' if cell['kind'] == 'press' else ''}{policy}{kept}{slots}{aware}"


def shown(cell: dict, usual: int) -> str:
    """How much was found, in as few characters as can be."""
    graded = (
        cell["interval"] not in ("wilson", "none") or cell["found"] != cell["score"] * cell["n"]
    )
    text = f"{cell['score']:.2f}" if graded else str(cell["found"])
    return text if cell["n"] == usual else f"{text} of {cell['n']}"


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("folders", type=Path, nargs="+")
    cells = cells_of(parser.parse_args().folders)
    rows, columns = (list(dict.fromkeys(names)) for names in zip(*cells, strict=True))
    ((usual, _),) = Counter(cell["n"] for cell in cells.values()).most_common(1)
    print(f"| of {usual} samples | {' | '.join(columns)} |")
    print("|" + " --- |" * (len(columns) + 1))
    for name in rows:
        found = [cells.get((name, column)) for column in columns]
        texts = ["-" if cell is None else shown(cell, usual) for cell in found]
        print(f"| {name} | {' | '.join(texts)} |")


if __name__ == "__main__":
    main()
