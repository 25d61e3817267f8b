"""What is noted of the machine and of packages."""

import importlib.metadata
from pathlib import Path

import pytest

from lcc.measure import machine
from lcc.measure.bench import line_up
from lcc.measure.evaluate import results


def test_the_cpu_has_the_name_that_linux_gives_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    page = tmp_path / "cpuinfo"
    monkeypatch.setattr(machine, "CPUINFO", page)
    monkeypatch.setattr(machine.platform, "processor", lambda: "")
    monkeypatch.setattr(machine.platform, "machine", lambda: "sparc")
    assert machine.this_machine()["cpu"] == "sparc"
    page.write_text("processor : 0\nmodel name\t: Zilog Z80: fast\nmodel name : other\n")
    assert machine.this_machine()["cpu"] == "Zilog Z80: fast"
    assert results.machine()["machine"] == machine.this_machine()
    page.write_text("processor : 0\n")
    assert machine.this_machine()["cpu"] == "sparc"


def test_versions_of_what_is_installed() -> None:
    numpy = importlib.metadata.version("numpy")
    assert machine.versions(["numpy", "no-such-package"]) == {"numpy": numpy}
    assert line_up.versions is results.versions is machine.versions


def test_free_memory_is_what_linux_says_is_available(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    page = tmp_path / "meminfo"
    monkeypatch.setattr(machine, "MEMINFO", page)
    assert machine.free_memory() is None
    page.write_text("MemTotal:  24000 kB\nMemFree:  900 kB\nMemAvailable:   2000 kB\n")
    assert machine.free_memory() == 2_048_000
    page.write_text("MemTotal:  24000 kB\n")
    assert machine.free_memory() is None
