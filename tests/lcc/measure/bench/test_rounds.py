"""Who is measured when, what is not measured twice, and who fails alone."""

import json
from pathlib import Path
from typing import Any

import pytest

from lcc.errors import ConfigError, LccError
from lcc.measure.bench.line_up import Engine
from lcc.measure.bench.rounds import Plan, run
from lcc.measure.bench.store import Store


def engine(label: str) -> Engine:
    return Engine(label=label, kind="", precision="", options={}, identity={}, source="")


PLAN = Plan(engines=[engine("a"), engine("b")], lengths=[2, 4], rounds=2)
ORDER = [f"{label}{tokens}" for _ in range(2) for tokens in (2, 4) for label in "ab"]


class Stub:
    """Pretends to measure; fails with what `fails` says of a call."""

    def __init__(self, **fails: BaseException) -> None:
        self.calls: list[str] = []
        self.fails = fails

    def __call__(self, engine: Engine, ids: list[int]) -> dict[str, Any]:
        name = f"{engine.label}{len(ids)}"
        assert ids == [7, 8, 9, 10][: len(ids)]
        self.calls.append(name)
        if name in self.fails:
            raise self.fails[name]
        return {"prefill_tokens_per_second": float(len(self.calls))}


def go(folder: Path, stub: Stub, **asked: Any) -> Store:
    store = Store(folder, {"lengths": (2, 4), **asked}, {"machine": "x"})
    run(PLAN, [7, 8, 9, 10], store, stub, lambda step, done: None)
    return store


def test_engines_alternate(tmp_path: Path) -> None:
    stub = Stub()
    store = go(tmp_path / "out", stub)
    assert stub.calls == ORDER == ["a2", "b2", "a4", "b4", "a2", "b2", "a4", "b4"]
    assert [each.round for each in store.measurements] == [1, 1, 1, 1, 2, 2, 2, 2]
    meta = json.loads((tmp_path / "out/run_meta.json").read_text())
    assert [each["round"] for each in meta["load_average"]] == [1, 2]
    assert len(meta["load_average"][0]["load"]) == 3


def test_goes_on_where_it_stopped(tmp_path: Path) -> None:
    stub = Stub(a4=KeyboardInterrupt())
    with pytest.raises(KeyboardInterrupt):
        go(tmp_path, stub)
    again = Stub()
    store = go(tmp_path, again)
    assert again.calls == ORDER[2:]
    assert len(store.measurements) == 8
    last = Stub()
    go(tmp_path, last)
    assert last.calls == []


def test_one_that_fails_does_not_stop_the_others(tmp_path: Path) -> None:
    stub = Stub(a2=LccError("beyond its window"))
    store = go(tmp_path, stub)
    assert stub.calls == [call for i, call in enumerate(ORDER) if i != 4]  # not asked again
    errors = [each.error for each in store.measurements if each.error]
    assert errors == ["beyond its window"]
    page = json.loads((tmp_path / "bench.json").read_text())
    assert page["cells"][0]["error"] == "beyond its window"
    assert page["cells"][1]["numbers"]["prefill_tokens_per_second"]["median"] == 3.5  # calls 2, 5
    assert len((tmp_path / "bench.csv").read_text().splitlines()) == 1 + 7


def test_another_command_is_refused(tmp_path: Path) -> None:
    go(tmp_path, Stub(), threads=2, engines={"a": {"x": "1", "y": "1"}})
    before = (tmp_path / "run_meta.json").read_bytes()
    words = "holds another bench: threads was 2, is 1; engines: a: y was 1, is 2; name"
    with pytest.raises(ConfigError, match=words):
        go(tmp_path, Stub(), threads=1, engines={"a": {"x": "1", "y": "2"}})
    assert (tmp_path / "run_meta.json").read_bytes() == before


def test_engines_may_be_added_and_none_changed(tmp_path: Path) -> None:
    a, b = {"x": "1"}, {"y": "1"}
    go(tmp_path, Stub(), engines={"a": a})
    go(tmp_path, Stub(), engines={"a": a, "b": b}, model={"model": "m"})
    meta = json.loads((tmp_path / "run_meta.json").read_text())
    assert meta["asked"]["engines"] == {"a": a, "b": b}
    with pytest.raises(ConfigError, match="model: model was m, is n; name"):
        go(tmp_path, Stub(), engines={"a": a, "b": b, "c": b}, model={"model": "n"})
    with pytest.raises(ConfigError, match="engines: b: z was absent, is 1; name"):
        go(tmp_path, Stub(), engines={"a": a, "b": b | {"z": "1"}}, model={"model": "m"})
    with pytest.raises(ConfigError, match="engines: b: y was 1, is absent; name"):
        go(tmp_path, Stub(), engines={"a": a}, model={"model": "m"})


def test_a_folder_of_other_files_is_refused(tmp_path: Path) -> None:
    (tmp_path / "bench.csv").write_text("mine")
    with pytest.raises(ConfigError, match="holds other files; wanted a new folder, or a bench"):
        go(tmp_path, Stub())
    assert [each.name for each in tmp_path.iterdir()] == ["bench.csv"]
    assert (tmp_path / "bench.csv").read_text() == "mine"


@pytest.mark.parametrize("name", ["bench.json", "run_meta.json"])
@pytest.mark.parametrize("torn", [b'{"measurements": [{"con', b"{}", b'"\xff"'])
def test_a_torn_file_is_told(tmp_path: Path, name: str, torn: bytes) -> None:
    go(tmp_path, Stub())
    (tmp_path / name).write_bytes(torn)
    with pytest.raises(ConfigError, match=rf"{name}: damaged \(.+\); name another folder"):
        go(tmp_path, Stub())
    assert (tmp_path / name).read_bytes() == torn
