"""The folder of a bench: what was asked, what was measured so far, and the tables of it.

run_meta.json   the command, engines and their versions, machine, load before every round
bench.json      all measurements, and cells: medians and ratios
bench.csv       a line a measurement
"""

import csv
import io
import json
import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any, TypeVar

import msgspec
from msgspec import Struct

from lcc.errors import ConfigError
from lcc.measure.bench.measure import Measurement
from lcc.measure.bench.summary import summarize

Page = TypeVar("Page", bound=Struct)
COLUMNS = [field.name for field in msgspec.structs.fields(Measurement)]


class _Meta(Struct):
    """What is read again of run_meta.json."""

    asked: dict[str, Any]
    load_average: list[dict[str, Any]]


class _Bench(Struct):
    """What is read again of bench.json."""

    measurements: list[Measurement]


class Store:
    """Measurements in a folder, written after each one."""

    def __init__(self, folder: Path, asked: dict[str, Any], meta: dict[str, Any]) -> None:
        """Begin, or go on with what is there.

        asked       what must be the same to go on, of JSON values: name -> value. "engines",
                    label -> identity, may become more, and "model" be named later
        meta        what is noted besides

        Raises:
            ConfigError: the folder is of another command, damaged, or of something else.
        """
        self.folder = folder
        self.measurements: list[Measurement] = []
        self.meta = {"asked": json.loads(json.dumps(asked)), **meta, "load_average": []}
        page = folder / "run_meta.json"
        if page.is_file():
            old = _read(page, _Meta)
            check_same(folder, old.asked, self.meta["asked"])
            self.meta["load_average"] = old.load_average
            if (folder / "bench.json").is_file():
                self.measurements = _read(folder / "bench.json", _Bench).measurements
        elif folder.exists() and any(folder.iterdir()):
            raise ConfigError(f"{folder}: holds other files; wanted a new folder, or a bench")
        folder.mkdir(parents=True, exist_ok=True)
        self._write_meta()

    def note(self, name: str, value: Any) -> None:
        """Note what was not known when the folder was opened."""
        self.meta[name] = value
        self._write_meta()

    def round_begins(self, number: int, load: list[float] | None) -> None:
        """Note how busy the machine is."""
        self.meta["load_average"].append({"round": number, "load": load})
        self._write_meta()

    def add(self, measurement: Measurement) -> None:
        """One more, on the disk when this returns."""
        self.measurements.append(measurement)
        page = {
            "cells": msgspec.to_builtins(summarize(self.measurements)),
            "measurements": msgspec.to_builtins(self.measurements),
        }
        self._write("bench.json", json.dumps(page, indent=1) + "\n")
        self._write("bench.csv", csv_text(self.measurements))

    def find(self, engine: str, tokens: int, number: int | None = None) -> list[Measurement]:
        """What there is of an engine at a length, in one round or in all."""
        return [
            each
            for each in self.measurements
            if (each.engine, each.tokens) == (engine, tokens) and number in (None, each.round)
        ]

    def _write_meta(self) -> None:
        self._write("run_meta.json", json.dumps(self.meta, indent=1) + "\n")

    def _write(self, name: str, text: str) -> None:
        partial = self.folder / f".{name}.partial"
        partial.write_text(text, encoding="utf-8", newline="")
        os.replace(partial, self.folder / name)


def csv_text(measurements: Sequence[Measurement]) -> str:
    """A header and a line a measurement; ids separated by spaces, what is not known empty."""
    text = io.StringIO()
    writer = csv.DictWriter(text, COLUMNS, lineterminator="\n")
    writer.writeheader()
    for each in measurements:
        row = msgspec.structs.asdict(each)
        writer.writerow(row | {"first_ids": " ".join(map(str, each.first_ids))})
    return text.getvalue()


def check_same(folder: Path, old: dict[str, Any], new: dict[str, Any]) -> None:
    """Raise ConfigError where a folder holds the bench of another command.

    Engines that were not there may be added, and the model for the first of the peers.
    """
    known = old.get("engines", {})
    new = {name: value for name, value in new.items() if name != "model" or name in old}
    if "engines" in new:
        same = {label: value for label, value in new["engines"].items() if label in known}
        new["engines"] = same
    before, now = _flat(old), _flat(new)
    lines = [
        f"{name} was {before.get(name, 'absent')}, is {now.get(name, 'absent')}"
        for name in {**before, **now}
        if before.get(name) != now.get(name)
    ]
    if lines:
        raise ConfigError(
            f"{folder} holds another bench: {'; '.join(lines)}; "
            "name another folder, or give the same command to go on"
        )


def _read(path: Path, kind: type[Page]) -> Page:
    """Raise ConfigError where a file is not what `Store` wrote."""
    try:
        return msgspec.json.decode(path.read_bytes(), type=kind)
    except (msgspec.DecodeError, UnicodeDecodeError) as error:
        raise ConfigError(f"{path}: damaged ({error}); name another folder") from None


def _flat(page: dict[str, Any], prefix: str = "") -> dict[str, Any]:
    """Nested names joined, so that only what differs is told."""
    found: dict[str, Any] = {}
    for name, value in page.items():
        inner = isinstance(value, dict)
        found |= _flat(value, f"{prefix}{name}: ") if inner else {f"{prefix}{name}": value}
    return found
