"""The native tokenizer as a program that is given texts, for tests and measurements."""

from __future__ import annotations

import shutil
import struct
import subprocess
from collections.abc import Sequence
from pathlib import Path

import lcc.runtime

NATIVE = Path(lcc.runtime.__file__).resolve().parent / "native"

SECONDS = 300  # for one call: a square of the text's size would take longer


def compiler() -> str | None:
    """A C++ compiler of this machine; None = there is none."""
    return next(filter(None, map(shutil.which, ("c++", "g++", "clang++"))), None)


def build_encode_lines(folder: Path, *options: str) -> Path:
    """Build runtime/native/tests/encode_lines.cpp with the sources that it needs.

    Raises:
        RuntimeError: there is no compiler, or it refuses the sources.
    """
    program, found = folder / "encode_lines", compiler()
    if found is None:
        raise RuntimeError("no C++ compiler: wanted c++, g++ or clang++")
    sources = [*sorted((NATIVE / "src/text").glob("*.cpp")), NATIVE / "tests/encode_lines.cpp"]
    includes = [f"-I{NATIVE / 'src'}", f"-I{NATIVE / 'include'}"]
    command = [found, "-std=c++17", *(options or ("-O1",)), *includes, *map(str, sources)]
    result = subprocess.run(
        [*command, "-o", str(program)], check=False, capture_output=True, text=True
    )
    if result.returncode:
        raise RuntimeError(result.stderr)
    return program


class NativeTokenizer:
    """The program with the tables of one tokenizer; each call is a process."""

    def __init__(self, program: Path, tables: Path) -> None:
        self._program, self._tables = program, tables

    def encode(
        self, texts: Sequence[str | bytes], how: str = "tokens", *, piece: int = 0
    ) -> list[list[int]]:
        """The ids of each text.

        Args:
            texts: Texts, or bytes that should be UTF-8.
            how: tokens, plain or letters: how added tokens in them are read.
            piece: Bytes that are fed at once; 0 = all, -1 = pieces of many sizes.
        """
        frames = [each.encode() if isinstance(each, str) else each for each in texts]
        found = self._run(how, frames, unit=1, answer=4, piece=piece)
        return [list(struct.unpack(f"<{len(each) // 4}i", each)) for each in found]

    def decode(
        self, many: Sequence[Sequence[int]], *, special: bool, one_by_one: bool = False
    ) -> list[str]:
        """The text of each list of ids; `special`: special tokens are spelled out."""
        frames = [struct.pack(f"<{len(ids)}i", *ids) for ids in many]
        how = "spelled" if special else "shown"
        return [
            each.decode() for each in self._run(how, frames, unit=4, answer=1, piece=one_by_one)
        ]

    def resident_kb(self) -> int:
        """Memory that opening the tables makes resident, in kB."""
        return int(self._process("open"))

    def time(self, file: Path) -> tuple[float, int]:
        """Seconds to encode a file, and the number of ids."""
        seconds, count, _ = self._process("time", str(file)).split()
        return float(seconds), int(count)

    def _run(
        self, how: str, frames: Sequence[bytes], *, unit: int, answer: int, piece: int
    ) -> list[bytes]:
        data = b"".join(struct.pack("<I", len(each) // unit) + each for each in frames)
        output = self._process(how, str(int(piece)), data=data)
        found, place = list[bytes](), 0
        while place < len(output):
            size = answer * struct.unpack_from("<I", output, place)[0]
            found.append(output[place + 4 : place + 4 + size])
            place += 4 + size
        assert len(found) == len(frames)
        return found

    def _process(self, *words: str, data: bytes = b"") -> bytes:
        command = [str(self._program), str(self._tables), *words]
        result = subprocess.run(
            command, check=False, capture_output=True, input=data, timeout=SECONDS
        )
        if result.returncode:
            raise RuntimeError(f"{result.returncode}: {result.stderr.decode()}")
        return result.stdout
