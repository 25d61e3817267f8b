"""Runs lcc-run on damaged artifacts, states and archives: it must refuse them, never crash.

python docs/measure/native_hostile.py BUILD/lcc-run [--plain BUILD2/lcc-run] [--count 300]

BUILD should have the address and undefined behaviour sanitizers (docs/embed.md says how). An
allocation that they refuse is run once more by `--plain`, a build without them, in 4 GB of address
space: there it must be an error message. Prints a line for each case that failed, and a count.
"""

import argparse
import hashlib
import json
import os
import resource
import shutil
import struct
import subprocess
import sys
import tempfile
import threading
import zlib
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from random import Random

from lcc.testing.damage import change_json, change_numbers, cut, flipped, with_number
from lcc.testing.native_library import onnx_runtime_library

TEXT = "It was the best of times, it was the worst of times. Call me Ishmael. " * 6
CPU_SECONDS, MEMORY_BYTES = 10, 1_500_000_000
SANITIZER_EXIT = 99
OUT_OF_MEMORY = ("allocation-size-too-big", "out of memory", "out-of-memory", "rss limit")


def main() -> None:
    """Make the good files, then damage one of them `--count` times."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("program", type=Path)
    parser.add_argument("--plain", type=Path)
    parser.add_argument("--artifact", type=Path, help="a tiny one; made where it is not given")
    parser.add_argument("--count", type=int, default=300)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--only", choices=sorted(KINDS))
    parser.add_argument("--show", action="store_true", help="print what every run said")
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        good = Path(folder) / "good.lcc"
        if arguments.artifact is not None:
            shutil.copytree(arguments.artifact, good)
        else:
            make(good)
        bench = Bench(arguments.program, arguments.plain, good)
        bench.shows = arguments.show
        kinds = [arguments.only] if arguments.only else list(KINDS)
        for number in range(arguments.count):
            bench.damage(kinds[number % len(kinds)], arguments.seed * 1_000_000 + number)
    print(", ".join(f"{count} {what}" for what, count in sorted(bench.ends.items())))
    print(
        f"most memory {bench.most_bytes / 1e6:.0f} MB, most time {bench.most_seconds:.1f} s of CPU"
    )
    sys.exit(1 if bench.failed else 0)


def make(output: Path) -> None:
    """Compile a tiny model: an archive, tokenizer tables, chat template."""
    from lcc.compile import compile_model
    from lcc.config import CacheConfig, CompileConfig
    from lcc.testing.tiny import save_tiny

    source = output.parent / "tiny"
    save_tiny(source)
    cache = CacheConfig(capacity=96, budget=40, chunk_size=16, catalyst_size=24, recent_size=8)
    compile_model(source, output, CompileConfig(cache=cache))


class Bench:
    """The good files, and how the runs on damaged ones ended."""

    def __init__(self, program: Path, plain: Path | None, good: Path) -> None:
        self.program, self.plain, self.good = program.resolve(), plain, good
        self.folder = good.parent
        self.ends, self.failed, self.shows = Counter[str](), 0, False
        self.most_bytes, self.most_seconds = 0, 0.0
        (self.folder / "text").write_text(TEXT)
        how = ["-f", "text", "-p", "Who?", "-n", "2", "--archive", "rows", "--save", "state"]
        code, said = self.run(self.program, good, how)
        if code != 0:
            raise SystemExit(f"the good artifact does not run: {said}")
        self.state = (self.folder / "state").read_bytes()
        self.archive = (self.folder / "rows").read_bytes()

    def damage(self, kind: str, seed: int) -> None:
        """One damaged file, and what lcc-run says."""
        random, folder = Random(seed), self.folder / "bad.lcc"
        for old in (folder, self.folder / "rows", self.folder / "state"):
            shutil.rmtree(old, ignore_errors=True) if old.is_dir() else old.unlink(missing_ok=True)
        folder.mkdir()
        for path in self.good.iterdir():
            (folder / path.name).hardlink_to(path)
        (self.folder / "state").write_bytes(self.state)
        (self.folder / "rows").write_bytes(self.archive)
        how = KINDS[kind](self, folder, random)
        code, said = self.run(self.program, folder, how)
        if code == SANITIZER_EXIT and any(words in said for words in OUT_OF_MEMORY) and self.plain:
            code, said = self.run(self.plain.resolve(), folder, how, limit=1 << 32)
        one_line = said.startswith("lcc-run: ") and said.count("\n") == 1
        fine = code == 0 or (code == 1 and one_line and "a mistake in lcc" not in said)
        if self.shows:
            print(f"{kind}, seed {seed}: exit {code}: {said.strip()[:300]}", flush=True)
        self.ends[f"{kind}: {'read' if code == 0 else 'refused' if fine else 'FAILED'}"] += 1
        if not fine:
            self.failed += 1
            print(f"{kind}, seed {seed}: exit {code}: {said[:1800]}", flush=True)

    def run(
        self, program: Path, artifact: Path, how: list[str], limit: int | None = None
    ) -> tuple[int, str]:
        """Exit code (a signal is negative) and stderr; too much memory or time is 1001, 1002."""

        def limits() -> None:
            resource.setrlimit(resource.RLIMIT_CPU, (CPU_SECONDS, CPU_SECONDS))
            if limit is not None:
                resource.setrlimit(resource.RLIMIT_AS, (limit, limit))

        rules = f"exitcode={SANITIZER_EXIT}:halt_on_error=1:print_stacktrace=1"
        memory = f"allocator_may_return_null=1:hard_rss_limit_mb={MEMORY_BYTES // 2**20}"
        env = {"ASAN_OPTIONS": f"{rules}:{memory}", "UBSAN_OPTIONS": rules}
        engine = ["--engine", str(onnx_runtime_library()), "--threads", "1"]
        with (self.folder / "said").open("w+b") as file:
            process = subprocess.Popen(
                [program, artifact, *engine, *how],
                cwd=self.folder, env=env, stdout=subprocess.DEVNULL, stderr=file, preexec_fn=limits
            )  # fmt: skip
            timer = threading.Timer(120, process.kill)  # one that sleeps uses no CPU
            timer.start()
            _, status, used = os.wait4(process.pid, 0)
            timer.cancel()
            file.seek(0)
            said = file.read().decode(errors="replace")
        process.returncode = code = os.waitstatus_to_exitcode(status)
        seconds, held = used.ru_utime + used.ru_stime, used.ru_maxrss * 1024
        self.most_bytes = max(self.most_bytes, held)
        self.most_seconds = max(self.most_seconds, seconds)
        if code in (0, 1) and held > MEMORY_BYTES:
            return 1001, f"{held} bytes; {said}"
        if code in (0, 1) and seconds > CPU_SECONDS:
            return 1002, f"{seconds} s; {said}"
        return code, said


ASK = ["-f", "text", "-p", "Who?", "-n", "3"]


def put(folder: Path, name: str, data: bytes) -> None:
    """A file of the artifact, with its size and sha256 in the manifest."""
    (folder / name).unlink()
    (folder / name).write_bytes(data)
    manifest = folder / "manifest.json"
    page = json.loads(manifest.read_text())
    page["files"][name] = {"bytes": len(data), "sha256": hashlib.sha256(data).hexdigest()}
    manifest.unlink()
    manifest.write_text(json.dumps(page, sort_keys=True))


def manifest_values(bench: Bench, folder: Path, random: Random) -> list[str]:
    """Values of the manifest's page."""
    path = folder / "manifest.json"
    page = json.loads(path.read_text())
    change_json(page, random)
    path.unlink()
    path.write_text(json.dumps(page))
    archive = ["--archive", "new"] if random.random() < 0.3 else []
    (bench.folder / "new").unlink(missing_ok=True)
    return ["--golden"] if random.random() < 0.2 else [*ASK, *archive]


def manifest_numbers(bench: Bench, folder: Path, random: Random) -> list[str]:
    """Numbers of the manifest, and names in its schedule: what only a check of sense can find."""
    path = folder / "manifest.json"
    page = json.loads(path.read_text())
    change_numbers(page, random)
    path.unlink()
    path.write_text(json.dumps(page))
    (bench.folder / "new").unlink(missing_ok=True)
    archive = ["--archive", "new"] if random.random() < 0.6 else []
    return ["--golden"] if random.random() < 0.2 else [*ASK, *archive]


def manifest_bytes(bench: Bench, folder: Path, random: Random) -> list[str]:
    """Bytes of the manifest, which may be no JSON any more."""
    data = (folder / "manifest.json").read_bytes()
    (folder / "manifest.json").unlink()
    (folder / "manifest.json").write_bytes(random.choice([flipped, cut])(data, random))
    return ASK


def other_json(bench: Bench, folder: Path, random: Random) -> list[str]:
    """Values of golden.json or generation_config.json."""
    name = random.choice(["golden.json", "generation_config.json"])
    page = json.loads((folder / name).read_text())
    change_json(page, random)
    put(folder, name, json.dumps(page).encode())
    return ["--golden"] if name == "golden.json" else ASK


def text_tables(bench: Bench, folder: Path, random: Random) -> list[str]:
    """Bytes and numbers of text.bin, its length right or not."""
    data = (folder / "text.bin").read_bytes()
    sections = struct.unpack_from("<I", data, 12)[0]
    table = range(32, 32 + 24 * sections, 4)
    info = struct.unpack_from("<Q", data, 40)[0]  # the first section
    for _ in range(random.randint(1, 3)):
        kind = random.randrange(5)
        if kind == 0:
            data = flipped(data, random)
        elif kind == 1:
            data = with_number(data, random)
        elif kind == 2:
            data = with_number(data, random, table)
        elif kind == 3:
            data = with_number(data, random, range(info, info + 60, 4))
        else:
            data = cut(data, random)
            if random.random() < 0.7 and len(data) > 24:
                data = data[:16] + struct.pack("<Q", len(data)) + data[24:]
        if len(data) < 200:
            break
    put(folder, "text.bin", data)
    return ASK


def state(bench: Bench, folder: Path, random: Random) -> list[str]:
    """A saved state: its header with the digest made anew, or any bytes."""
    data, how = bench.state, ["--load", "state", "-p", "Who?", "-n", "3"]
    if random.random() < 0.6:
        size = struct.unpack_from("<Q", data)[0]
        header, rest = json.loads(data[8 : 8 + size]), data[8 + size :]
        page = json.loads(header["__metadata__"]["lcc"])
        change_json(page if random.random() < 0.7 else header, random)
        metadata = header.get("__metadata__")
        if isinstance(metadata, dict):
            if isinstance(metadata.get("lcc"), str):
                metadata["lcc"] = json.dumps(page)
            metadata["sha256"] = "0" * 64
        if random.random() < 0.3:
            rest = random.choice([flipped, cut, with_number])(rest, random)
        text = json.dumps(header).encode()
        digest = hashlib.sha256(text + rest).hexdigest().encode()
        text = text.replace(b"0" * 64, digest, 1)
        data = struct.pack("<Q", len(text)) + text + rest
    else:
        data = random.choice([flipped, cut, with_number])(data, random)
    (bench.folder / "state").write_bytes(data)
    return [*how, "--archive", "rows"] if random.random() < 0.5 else how


def archive(bench: Bench, folder: Path, random: Random) -> list[str]:
    """An archive: headers with their checksums made anew, or any bytes."""
    data = bytearray(bench.archive)
    kind = random.randrange(4)
    if kind == 0:  # the numbers of the first block
        data[24:44] = with_number(bytes(data[24:44]), random, range(0, 12, 4))
        struct.pack_into("<I", data, 40, zlib.crc32(data[24:40]))
    elif kind == 1:  # the page
        size = struct.unpack_from("<I", data, 12)[0]
        page = json.loads(data[64 : 64 + size])
        change_json(page, random)
        text = json.dumps(
            page, sort_keys=True, separators=random.choice([(",", ":"), None])
        ).encode()
        text = text[: 4096 - 64]
        data[64:4096] = text + bytes(4096 - 64 - len(text))
        struct.pack_into("<II", data, 12, len(text), zlib.crc32(text))
    elif kind == 2:  # a block's header; it begins at a multiple of 4096
        begins = [i for i in range(4096, len(data), 4096) if data[i : i + 8] == b"lcc-blok"]
        begin = random.choice(begins)
        page = json.loads(data[64 : 64 + struct.unpack_from("<I", data, 12)[0]])
        end = begin + -(-(32 + 4 * len(page["columns"])) // 64) * 64
        data[begin:end] = with_number(bytes(data[begin:end]), random, range(12, 32, 4))
        struct.pack_into("<I", data, begin + 8, zlib.crc32(data[begin + 12 : end]))
    else:
        data = bytearray(random.choice([flipped, cut, with_number])(bytes(data), random))
    (bench.folder / "rows").write_bytes(data)
    load = ["--load", "state"] if random.random() < 0.8 else []
    return [*load, "--archive", "rows", "-f", "text", "-p", "Who is it?", "-n", "3"]


KINDS: dict[str, Callable[[Bench, Path, Random], list[str]]] = {
    "manifest values": manifest_values,
    "manifest numbers": manifest_numbers,
    "manifest bytes": manifest_bytes,
    "other JSON": other_json,
    "text.bin": text_tables,
    "state": state,
    "archive": archive,
}

if __name__ == "__main__":
    main()
