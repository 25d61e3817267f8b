"""How long an artifact takes to load, in this checkout and in another one, in turn.

python docs/measure/load_time.py model.lcc --against ../before --rounds 7

Each load is a process of its own, with one thread. Processor time is told beside the clock's, for a
machine that does other things, too.
"""

import argparse
import statistics
import subprocess
import sys
import tempfile
from pathlib import Path

HERE = Path(__file__).parents[2]
LOAD = """
import sys, time
sys.meta_path[:] = [each for each in sys.meta_path if "editable" not in repr(each).lower()]
sys.path.insert(0, sys.argv[2])
import onnxruntime
import lcc.runtime
begin = time.perf_counter(), time.process_time()
lcc.runtime.load(sys.argv[1], threads=1)
print(time.perf_counter() - begin[0], time.process_time() - begin[1])
"""


def laid_out(checkout: Path, place: Path) -> Path:
    """A folder with the package as it is imported: passes, targets and runtime inside of it."""
    (place / "lcc").mkdir(parents=True)
    parts = [
        *(checkout / "lcc").iterdir(),
        *(checkout / n for n in ("passes", "targets", "runtime")),
    ]
    for part in parts:
        (place / "lcc" / part.name).symlink_to(part)
    return place


def main() -> None:
    """See the file."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("artifact")
    parser.add_argument("--against", type=Path, required=True, help="another checkout")
    parser.add_argument("--rounds", type=int, default=7)
    options = parser.parse_args()
    times: dict[str, list[tuple[float, float]]] = {"here": [], "there": []}
    with tempfile.TemporaryDirectory() as folder:
        trees = {
            "here": laid_out(HERE, Path(folder) / "here"),
            "there": laid_out(options.against.resolve(), Path(folder) / "there"),
        }
        for _ in range(options.rounds):
            for name, tree in trees.items():
                command = [sys.executable, "-c", LOAD, options.artifact, str(tree)]
                clock, processor = subprocess.check_output(command, text=True).split()
                times[name].append((float(clock), float(processor)))
    for name, pairs in times.items():
        clock, processor = (statistics.median(each) for each in zip(*pairs, strict=True))
        print(f"{name:>5}: {clock:.2f} s, {processor:.2f} s of the processor; {len(pairs)} loads")


if __name__ == "__main__":
    main()
