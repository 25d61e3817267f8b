"""The parts of on_a_gpu.py: each takes what is asked for, a folder of its own and its report."""

import argparse
import collections
import json
import statistics
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch  # before TVM and ONNX Runtime, which then find its libraries of CUDA
from on_a_gpu import Report, Skip, find_gpu
from on_a_gpu_tvm import compare, device_of

STEPS = 10
SMALL = "--capacity 128 --budget 64 --chunk-size 16 --catalyst-size 32 --recent-size 8".split()
RECIPE = """
stages:
  - name: short
    length: {length}
    steps: {steps}
    batch_tokens: {batch}
    learning_rate: 1e-5
    sources: [{{name: text, share: 1.0, place: {text}}}]
"""


class Wrong(Exception):
    """What is not as it must be."""


def lcc(*words: object, codes: Sequence[int] = (0,)) -> str:
    """What a command of lcc writes to stdout; it runs in this process."""
    from typer.testing import CliRunner

    from lcc.cli import app

    run = CliRunner().invoke(app, [str(each) for each in words])
    sys.stderr.write(run.stderr)
    if run.exit_code not in codes:
        said = (run.stderr or run.stdout).strip().splitlines() or [repr(run.exception)]
        raise Wrong(f"lcc {words[0]}: exit code {run.exit_code}: {said[-1]}")
    return run.stdout


def model_of(options: argparse.Namespace, folder: Path) -> str:
    """The model that is asked for; on a CPU a tiny one, which is made here."""
    return tiny(folder) if options.cpu else str(options.model)


def tiny(folder: Path) -> str:
    """A model of two layers, with random weights."""
    from lcc.testing.tiny import save_tiny

    save_tiny(folder / "tiny")
    return str(folder / "tiny")


def text_of(options: argparse.Namespace, folder: Path) -> Path:
    """The text to learn: the user's, or sums."""
    path, count = folder / "text.txt", 150 if options.cpu else 8000
    path.write_text("".join(f"{i} times {i % 97} is {i * (i % 97)}. " for i in range(count)))
    return Path(options.file or path).resolve()


def onnxruntime(options: argparse.Namespace, folder: Path, report: Report) -> None:
    """`onnxruntime:cuda`: the golden, places of operators, cycles and speed, and the model."""
    model, artifact, device = model_of(options, folder), folder / "m.lcc", device_name(options)
    sizes = ["--capacity", 1024, "--budget", 512]
    sizes = [*SMALL, "--policy", "snapkv"] if options.cpu else sizes  # of few programs
    begin = time.monotonic()
    lcc("compile", model, "-o", artifact, "--target", f"onnxruntime:{device}", *sizes, "-q")
    report.add(compile_seconds=round(time.monotonic() - begin, 1))
    report.add(**places(artifact, device))  # before anything else has taken memory there
    verified(report, "golden", "verify", artifact, "--golden", "--json")
    lengths = ["--lengths", 200, "--new-tokens", 4] if options.cpu else ["--lengths", "1k,4k,16k"]
    how = ["--rounds", 1, "--no-plot", "-q", *lengths]
    lcc("bench", artifact, "-o", folder / "bench", *how, codes=(0, 1))
    lines = json.loads((folder / "bench" / "bench.json").read_text())["measurements"]
    report.add(bench=lines)
    if failed := [line["error"] for line in lines if line["error"]]:
        raise Wrong(f"lcc bench: {failed[0]}")
    if not lines[-1]["cycles"]:
        raise Wrong("lcc bench: the longest text was read without a cycle")
    verified(report, "model", "verify", artifact, "--model", model, "--json", "-q")


def device_name(options: argparse.Namespace) -> str:
    """What the parts run on."""
    return "cpu" if options.cpu else "cuda"


def verified(report: Report, name: str, *command: object) -> None:
    """Note what `lcc verify` compares."""
    page = json.loads(lcc(*command, codes=(0, 1)))
    report.add(**{name: page["rows"]})
    if wrong := [row["what"] for row in page["rows"] if not row["ok"]]:
        raise Wrong(f"lcc verify, {name}: {', '.join(wrong)}")


def places(artifact: Path, device: str) -> dict[str, Any]:
    """The operators that each provider runs, and the memory that a session takes on the device.

    lcc refuses to load what ONNX Runtime leaves on the CPU; this is looked at from outside, too.
    """
    import onnxruntime as ort

    import lcc.runtime
    from lcc.artifact.manifest import read_manifest
    from lcc.runtime.engines import cuda_provider

    provider = cuda_provider.NAME if device == "cuda" else "CPUExecutionProvider"
    manifest, free = read_manifest(artifact), free_bytes(device)
    operators = collections.defaultdict[str, collections.Counter](collections.Counter)
    session = lcc.runtime.open(artifact)
    session.feed(list(range(5, 45)), prefix=False)
    taken = None if free is None else free - (free_bytes(device) or 0)
    for file in sorted({entry.file for entry in manifest.programs.values()}):
        record = ort.SessionOptions()
        record.add_session_config_entry(cuda_provider.RECORD, "1")
        made = ort.InferenceSession(str(artifact / file), record, providers=[provider])
        for part in made.get_provider_graph_assignment_info():
            operators[part.ep_name].update(node.op_type for node in part.get_nodes())
    weights = next(row.bytes for row in manifest.memory if row.name == "weights")
    if provider not in operators or (taken is not None and taken < weights):
        where = ", ".join(operators)
        raise Wrong(f"operators run on {where}; {taken} bytes on the device, {weights} of weights")
    return {"operators": operators, "device_bytes": taken}


def free_bytes(device: str) -> int | None:
    """Free memory of the GPU; None on a CPU, or where PyTorch cannot tell."""
    return torch.cuda.mem_get_info()[0] if device == "cuda" and torch.cuda.is_available() else None


def tvm(options: argparse.Namespace, folder: Path, report: Report) -> None:
    """The libraries of `tvm:cuda` against the reference, which is in the same artifact."""
    device, artifact = device_of(device_name(options)), options.libraries
    if device is None:
        raise Skip("TVM finds no GPU: its libtvm_runtime_cuda.so is missing, or does not load")
    if artifact is None:
        artifact, begin = folder / "tvm.lcc", time.monotonic()
        targets = ["--target", "tvm:cuda", "--target", "reference"]
        level = ["--cpu", find_gpu()["architecture"], "--policy", "snapkv"]
        lcc("compile", tiny(folder), "-o", artifact, *targets, *level, *SMALL, "-q")
        report.add(compile_seconds=round(time.monotonic() - begin, 1))
    rows = []
    for row in compare(Path(artifact), device):
        rows.append(row)
        report.add(programs=rows)
    if wrong := [f"{row['program']} {row['output']}" for row in rows if not row["ok"]]:
        raise Wrong(f"not the reference's numbers: {', '.join(wrong)}")


def needs_torch(options: argparse.Namespace) -> None:
    """Skip a training where PyTorch cannot use the GPU."""
    if not options.cpu and not torch.cuda.is_available():
        raise Skip(f"PyTorch {torch.__version__} finds no GPU: install a build with CUDA")


def heads(options: argparse.Namespace, folder: Path, report: Report) -> None:
    """`lcc train heads`."""
    needs_torch(options)
    length, output = 64 if options.cpu else 1024, folder / "heads.safetensors"
    how = ["--steps", STEPS, "--length", length, "--device", device_name(options), "-q"]
    data = ["--data", text_of(options, folder)]
    lcc("train", "heads", model_of(options, folder), *data, "-o", output, *how)
    report.add(**learned(folder / "heads.safetensors.log.jsonl", length, options))


def hybrid(options: argparse.Namespace, folder: Path, report: Report) -> None:
    """`lcc train hybrid`, with a window in most layers."""
    needs_torch(options)
    length, recipe = 64 if options.cpu else 1024, folder / "recipe.yaml"
    place = json.dumps(str(text_of(options, folder)))
    recipe.write_text(RECIPE.format(length=length, steps=STEPS, batch=4 * length, text=place))
    plan = f"0: full; 1: sink_window(sink=4, window={length // 4})"
    plan = plan if options.cpu else f"longgen(sink=4, window={length // 4})"
    how = ["--plan", plan, "--recipe", recipe, "--device", device_name(options), "-q"]
    lcc("train", "hybrid", model_of(options, folder), "-o", folder / "out", *how)
    report.add(**learned(folder / "out" / "log.jsonl", 4 * length, options))


def learned(log: Path, tokens: int, options: argparse.Namespace) -> dict[str, Any]:
    """Losses, speed and memory of a training whose steps learn so many tokens."""
    lines = [json.loads(line) for line in log.read_text().splitlines()]
    peak = None if options.cpu else torch.cuda.max_memory_allocated()
    if len(lines) != STEPS or peak == 0:
        raise Wrong(f"{len(lines)} steps, wanted {STEPS}; {peak} bytes on the device at most")
    seconds = statistics.median(line["seconds"] for line in lines[1:])
    return {
        "losses": [line["loss"] for line in lines],
        "tokens_per_second": round(tokens / seconds, 1),
        "peak_device_bytes": peak,
    }
