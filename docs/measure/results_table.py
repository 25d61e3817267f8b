"""Cells of several folders of `lcc eval` in one table, for the documentation.

python docs/measure/results_table.py FOLDER ...

A row is who was asked, a column a task at a length, in one setting. Of a cell that is in two
folders the last one counts.
"""

import argparse
import json
from pathlib import Path

from lcc.measure.evaluate.results import score_text


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("folders", type=Path, nargs="+")
    scores: dict[str, dict[str, str]] = {}
    for folder in parser.parse_args().folders:
        for cell in json.loads((folder / "results.json").read_text())["cells"]:
            column = f"{cell['task']} {cell['length'] or ''} {cell['setting']}"
            scores.setdefault(cell["name"], {})[column] = score_text(cell)
    columns = list(dict.fromkeys(column for row in scores.values() for column in row))
    print(f"| | {' | '.join(columns)} |")
    print("|" + " --- |" * (len(columns) + 1))
    for name, row in scores.items():
        print(f"| {name} | {' | '.join(row.get(column, '-') for column in columns)} |")


if __name__ == "__main__":
    main()
