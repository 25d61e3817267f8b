"""A table of what recall.py wrote: a row for each task and length, all files together.

python docs/measure/recall_table.py lines.jsonl [more.jsonl ...]
"""

import json
import sys
from collections import defaultdict
from pathlib import Path
from statistics import mean, median

COLUMNS = {"everything": "everything kept", "without": "without archive", "recall": "with recall"}


def main(paths: list[str]) -> None:
    """See the file."""
    cells: dict[tuple[str, int], dict[str, dict]] = defaultdict(lambda: defaultdict(dict))
    for line in (line for path in paths for line in Path(path).read_text("utf-8").splitlines()):
        page = json.loads(line)
        rows = cells[page["task"], page["length"]]
        for name in (*COLUMNS, "seconds_recall"):
            if name in page:
                rows[name][page["seed"], page["asked"]] = page[name]
    print(f"| task | tokens | {' | '.join(COLUMNS.values())} | seconds of a recall |")
    print("| --- | --- | --- | --- | --- | --- |")
    for (task, length), rows in sorted(cells.items()):
        scores = [
            f"{mean(rows[name].values()):.2f} ({len(rows[name])})" if rows[name] else ""
            for name in COLUMNS
        ]
        seconds = rows["seconds_recall"].values()
        took = f"{median(seconds):.1f}" if seconds else ""
        print(f"| `{task}` | {length:,} | {' | '.join(scores)} | {took} |")


if __name__ == "__main__":
    main(sys.argv[1:])
