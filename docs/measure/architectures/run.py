"""Which architectures compile, and whether what is compiled computes the same.

python docs/measure/architectures/run.py [NAME ...] [--stage fp32|int8|int4|tvm] [--out FOLDER]
python docs/measure/architectures/table.py    # then writes README's table and docs/architectures.md

A tiny random model of every architecture (`tiny_configs.py`) is compiled with policy snapkv,
capacity 64, budget 32, chunks of 16, and compared with the eager model: logits read in chunks and
one by one, 20 greedy tokens, and 400 tokens through several cycles give numbers. Each runs in a
process of its own, one at a time, for at most seven minutes. `--stage int8` and `int4` compare
distributions of next tokens, on what passed in fp32; `tvm` is fp32 on `tvm:cpu`.

Results go to FOLDER (docs/results/architectures) as one JSON file for each stage.
"""

import argparse
import json
import multiprocessing
import tempfile
import time
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

import numpy as np
import tiny_configs
import torch

import lcc.compile
import lcc.runtime
from lcc.config import CacheConfig, CompileConfig, PolicyConfig
from lcc.errors import LccError
from lcc.measure.loss import divergence
from lcc.runtime.session import Session

STAGES = {
    "fp32": ("onnxruntime:cpu", "fp32"),
    "int8": ("onnxruntime:cpu", "int8"),
    "int4": ("onnxruntime:cpu", "int4"),
    "tvm": ("tvm:cpu", "fp32"),
}
CACHE = CacheConfig(
    capacity=64, budget=32, chunk_size=16, catalyst_size=0, sink_size=4, recent_size=8
)
SECONDS = 420.0
TOLERANCE = 1e-3  # of the largest logit
CLOSE = 1e-4  # two best logits so near may change places
MOST_NATS = 0.3  # of the divergence of a random model in few bits
RESULTS = Path(__file__).parents[2] / "results" / "architectures"

Result = dict[str, Any]


def eager_logits(model: torch.nn.Module, ids: list[int]) -> np.ndarray:
    """[n, V] of a text that is read at once, without a cache."""
    with torch.no_grad():
        return model(input_ids=torch.tensor([ids]), use_cache=False).logits[0].float().numpy()


def eager_greedy(model: torch.nn.Module, ids: list[int], count: int) -> tuple[list[int], float]:
    """The next tokens, and by how much the best logit was ahead of the second one at least."""
    ids, ahead = list(ids), float("inf")
    for _ in range(count):
        row = eager_logits(model, ids)[-1]
        best = np.sort(row)[-2:]
        ahead = min(ahead, float(best[1] - best[0]))
        ids.append(int(row.argmax()))
    return ids[-count:], ahead


def read_logits(session: Session, ids: list[int], in_chunks: int) -> np.ndarray:
    """[n, V]: the first tokens in chunks, the others one by one."""
    executor = session._executor
    rows = [row.copy() for row in executor.each_logits(ids[:in_chunks])]
    for token in ids[in_chunks:]:
        rows += [row.copy() for row in executor.each_logits([token])]
    session.reset()
    return np.array(rows)


def compare(model: torch.nn.Module, session: Session, in_bits: bool) -> Result:
    """What an artifact computes against the eager model."""
    ids = np.random.default_rng(0).integers(3, tiny_configs.VOCABULARY, 40).tolist()
    wanted, found = eager_logits(model, ids), read_logits(session, ids, 32)
    error = float(np.abs(found - wanted).max() / np.abs(wanted).max())
    result: Result = {"error": error}
    if in_bits:
        result["nats"] = float(divergence(found, wanted))
        return result | {"status": "ok" if result["nats"] < MOST_NATS else "wrong"}
    tokens, ahead = eager_greedy(model, ids[:36], 20)
    how: dict[str, Any] = {"eos": [], "temperature": 0.0, "repetition_penalty": 1.0}
    same = list(session.generate_ids(ids[:36], max_new_tokens=20, **how)) == tokens
    session.reset()
    session.feed(np.random.default_rng(1).integers(3, tiny_configs.VOCABULARY, 400).tolist())
    list(session.generate_ids(None, max_new_tokens=8, **how))
    right = error < TOLERANCE and (same or ahead < CLOSE) and np.isfinite(session.next_logits())
    result |= {"greedy": same, "cycles": session.stats().cycles}
    return result | {"status": "ok" if np.all(right) else "wrong"}


def child(name: str, stage: str, pipe: Connection) -> None:
    """One architecture in one stage."""
    torch.set_num_threads(1)
    begin = time.time()
    with tempfile.TemporaryDirectory() as place:
        try:
            result = tried(name, stage, Path(place))
        except LccError as error:
            result = {"status": "refused", "why": " ".join(str(error).split())}
        except Exception as error:  # what users would see as a traceback
            result = {"status": "crash", "why": f"{type(error).__name__}: {str(error)[:300]}"}
    pipe.send(result | {"seconds": round(time.time() - begin, 1)})


def tried(name: str, stage: str, place: Path) -> Result:
    """Build, save, compile, and compare with what transformers reads there."""
    from transformers import AutoModelForCausalLM

    try:
        tiny_configs.build(name).save_pretrained(place / "model")
        model = AutoModelForCausalLM.from_pretrained(place / "model", dtype=torch.float32).eval()
        kind = type(model).__name__
    except Exception as error:
        return {"status": "no model", "why": f"{type(error).__name__}: {str(error)[:300]}"}
    target, precision = STAGES[stage]
    config = CompileConfig(
        target=target, precision=precision, cache=CACHE, policy=PolicyConfig(name="snapkv")
    )
    lcc.compile.compile_model(place / "model", place / "model.lcc", config)
    session = lcc.runtime.open(place / "model.lcc", allow_native=True)
    return {"class": kind} | compare(model, session, precision != "fp32")


def run(name: str, stage: str) -> Result:
    """One architecture in a process of its own."""
    here, there = multiprocessing.Pipe(duplex=False)
    process = multiprocessing.Process(target=child, args=(name, stage, there))
    process.start()
    there.close()
    try:
        result = here.recv() if here.poll(SECONDS) else {"status": "timeout", "seconds": SECONDS}
    except EOFError:
        result = {"status": "crash", "why": "the process died"}
    process.kill()
    process.join()
    return result


def main() -> None:
    """See the file."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("names", nargs="*", help="architectures or variants; all by default")
    parser.add_argument("--stage", choices=STAGES, default="fp32")
    parser.add_argument("--out", type=Path, default=RESULTS)
    args = parser.parse_args()
    args.out.mkdir(parents=True, exist_ok=True)
    read = {stage: args.out / f"{stage}.json" for stage in STAGES}
    found = {stage: json.loads(p.read_text()) if p.is_file() else {} for stage, p in read.items()}
    results, names = found[args.stage], args.names
    if not names:
        names = [*tiny_configs.architectures(), *tiny_configs.VARIANTS]
    if not args.names and args.stage != "fp32":
        names = [each for each in names if found["fp32"].get(each, {}).get("status") == "ok"]
    for name in names:
        results[name] = result = run(name, args.stage)
        line = result.get("why") or f"error {result.get('error', 0):.1e}"
        print(f"{name:26} {result['status']:8} {result.get('seconds')} s  {line[:200]}", flush=True)
        text = json.dumps(dict(sorted(results.items())), indent=1)
        read[args.stage].write_text(text + "\n")
    counts = [results[name]["status"] for name in names]
    print(", ".join(f"{counts.count(each)} {each}" for each in sorted(set(counts))))


if __name__ == "__main__":
    main()
