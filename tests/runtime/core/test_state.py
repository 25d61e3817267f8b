import hashlib
import json

import numpy as np
import pytest
from safetensors import safe_open
from safetensors.numpy import save_file

from lcc.errors import ArtifactError, CacheError, ConfigError
from lcc.runtime.core import state

TEXT = [int(t) for t in np.random.default_rng(5).integers(0, 23, 60)]


def feed(executor, ids):
    ids = list(ids)
    while ids:
        if (room := executor.limits.usable - executor.used) == 0:
            executor.evict((2, 5))
        executor.read(ids[:room])
        ids = ids[room:]


def go_on(executor) -> tuple:
    feed(executor, TEXT[30:])
    held = {
        name: executor.buffers.rows(name, 0, executor.used).tolist()
        for name in ("key_0", "value_0")
    }
    kept = executor.kept_tokens(0).tolist(), executor.kept_tokens(1).tolist()
    return executor.logits().tolist(), kept, held, executor.counters, executor.beginning


@pytest.mark.parametrize("rank", ["nll", "catalyst", "newest"])
@pytest.mark.parametrize("count", [0, 3, 12, 27])
def test_going_on_from_a_state_is_going_on(make, path, rank, count):
    executor, other = make(rank=rank), make(rank=rank)
    feed(executor, TEXT[:count])
    notes = {"conversation": ["ä", "0" * 64], "pending": [3]}
    state.save(path, executor, notes)
    assert int.from_bytes(path.read_bytes()[:8], "little") % 8 == 0
    feed(other, TEXT[5:25])
    assert state.load(path, other) == notes
    assert other.counters == executor.counters
    assert other.since_cycle == executor.since_cycle
    if count:
        assert other.logits().tolist() == executor.logits().tolist()
    assert go_on(other) == go_on(executor)
    assert [each.name for each in path.parent.iterdir()] == [path.name]


def test_after_a_rewind_the_state_is_found_before_it_is_saved(make, path):
    executor, other = make(rank="catalyst"), make(rank="catalyst")
    executor.read(TEXT[:7])
    executor.rewind(2)
    assert executor.again
    state.save(path, executor, None)
    other.read(TEXT[:4])
    other.rewind(1)
    assert state.load(path, other) is None
    assert (other.tokens, other.again) == (5, [])
    assert other.logits().tolist() == executor.logits().tolist()


def test_rows_in_use_only(make, path):
    executor = make()
    feed(executor, TEXT[:14])
    state.save(path, executor, None)
    with safe_open(path, framework="numpy") as file:
        assert set(file.keys()) == {
            *("ids", "hidden", "nll", "key_0", "value_0", "key_1", "value_1"),
            *("token_position_0", "token_position_w"),
        }
        assert file.get_tensor("key_0").shape == (1, 1, 7, 1)
        assert file.get_tensor("ids").tolist() == TEXT[12:14]
        assert file.get_tensor("hidden").shape == (3, 4)  # before, between and after these two
        assert (
            file.get_tensor("token_position_0").tolist() == executor.kept_tokens(0)[:, :5].tolist()
        )
        page = json.loads(file.metadata()["lcc"])
    assert page["counters"] == executor.counters
    assert page["sizes"]["capacity"] == 12


def test_dtypes_of_keys_and_values(make, path):
    executor, exact = make(), make()
    feed(executor, TEXT[:14])
    executor.buffers.arrays["key_0"][:] += 0.123
    keys = executor.buffers.rows("key_0", 0, 7)
    state.save(path, executor, None, dtype="float16")
    with safe_open(path, framework="numpy") as file:
        assert (file.get_tensor("key_0") == keys.astype(np.float16)).all()
        assert file.get_tensor("hidden").dtype == np.float32
    half = make(dtype="float16")
    # Its programs are others: it is another artifact. Here only what the cache is kept in differs.
    half.manifest = executor.manifest
    for target, other in ((exact, np.float32), (half, np.float16)):
        state.load(path, target)
        assert target.buffers.arrays["key_0"].dtype == other
        assert (target.buffers.rows("key_0", 0, 7) == keys.astype(np.float16)).all()
    executor.buffers.arrays["value_1"][0, 0, 1, 0] = -7e4
    state.save(path, executor, None)
    before = half.counters
    with pytest.raises(ConfigError, match="value_1 holds numbers too large for float16"):
        state.load(path, half)
    assert half.counters == before
    state.load(path, exact)
    with pytest.raises(ConfigError, match="value_1 holds numbers too large for float16"):
        state.save(path, executor, None, dtype="float16")
    with pytest.raises(ConfigError, match='dtype is "int8", wanted float32 or float16'):
        state.save(path, executor, None, dtype="int8")
    state.load(path, exact)  # what was there is as it was


def parts(path) -> tuple[dict, dict, bytes]:
    """Table, page and data of a state file."""
    data = path.read_bytes()
    end = 8 + int.from_bytes(data[:8], "little")
    table = json.loads(data[8:end])
    page = json.loads(table["__metadata__"]["lcc"])
    return table, page, data[end:]


def write(path, table: dict, page: dict, data: bytes, *, sign: bool = True) -> None:
    """A state file; signed, it is what a state of these contents would be."""
    metadata = {"sha256": "0" * 64, "lcc": json.dumps(page)}
    header = json.dumps({"__metadata__": metadata} | table).encode()
    digest = hashlib.sha256(header + data).hexdigest() if sign else "0" * 64
    header = header.replace(b"0" * 64, digest.encode(), 1)
    path.write_bytes(len(header).to_bytes(8, "little") + header + data)


COUNTERS = {
    "more than the slots": ({"used": 13}, CacheError, "13 entries, this session has room for 12"),
    "kept": ({"kept": 8}, ArtifactError, "counters: kept is 8, wanted 0 to 7"),
    "negative": ({"kept": -1, "known": -1}, ArtifactError, "counters: kept is -1, wanted 0 to 7"),
    "below": ({"tick": -2}, ArtifactError, "counters: tick is -2, wanted -1 to"),
    "window": ({"used_1": 9}, ArtifactError, "counters: used_1 is 9, wanted 0 to 8"),
    "tokens": ({"tokens": 6}, ArtifactError, "counters: tokens is 6, wanted 7 to"),
    "state": ({"state": 17}, ArtifactError, "counters: state is 17, wanted -1 to 16"),
    "known": ({"known": 8}, ArtifactError, "counters: known is 8, wanted 0 to 7"),
    "order": ({"next": 3}, ArtifactError, r"hidden: rows 5 \.\. 2 of 17"),
    "protected": ({"protected": 4}, CacheError, r"\(4 \+ 1 = 5\) must be smaller than budget"),
    "huge": ({"seen": 1 << 60}, ArtifactError, "counters: seen is"),
    "text": ({"seen": "1"}, ArtifactError, "not a whole state file .Expected `int`, got `str`"),
    "32 bits": ({"left": 1 << 31}, ArtifactError, "left is 2147483648, wanted -1 to 2147483647"),
    "another": ({"extra": 1}, ArtifactError, "counters: extra is missing, or not of this artifact"),
}


@pytest.fixture
def saved(make, path):
    executor = make()
    feed(executor, TEXT[:14])
    state.save(path, executor, {"a": 1})
    return path


@pytest.fixture
def refused(make, path):
    """Check that a file is refused, and that the executor is as it was."""
    executor = make()
    feed(executor, TEXT[:10])
    before = executor.counters
    arrays = {name: array.copy() for name, array in executor.buffers.arrays.items()}

    def refused(error: type[Exception], words: str, **more: object) -> None:
        with pytest.raises(error, match=words) as caught:
            state.load(path, executor, **more)
        assert type(caught.value) is error
        assert str(caught.value).startswith(f"{path}: ")
        assert "\n" not in str(caught.value)
        assert executor.counters == before
        assert not executor.broken
        for name, array in arrays.items():
            assert (executor.buffers.arrays[name] == array).all()

    return refused


@pytest.mark.parametrize("name", COUNTERS)
def test_counters_that_cannot_be(saved, refused, name):
    table, page, data = parts(saved)
    del table["__metadata__"]
    changes, kind, words = COUNTERS[name]
    page["counters"] |= changes
    write(saved, table, page, data)
    refused(kind, words)


def test_what_the_signed_rest_of_a_file_cannot_be(saved, refused, make):
    whole = saved.read_bytes()
    table, page, data = parts(saved)
    del table["__metadata__"]
    write(saved, table, page, data)
    state.load(saved, make())  # the writer above is right
    for changes, words in (
        ({"version": 8}, "version 8, this lcc reads version 7"),
        ({"version": 6}, "version 6, this lcc reads version 7"),
        ({"artifact": "0"}, "made with another artifact"),
        ({"beginning": [1]}, "beginning has 1 ids"),
        ({"beginning": [*TEXT[:13], 23]}, r"ids|are no ids of the model"),
        ({"sizes": {"capacity": 0}}, "capacity is 0, wanted 1 or more"),
        ({"unknown": 1}, "unknown"),
    ):
        write(saved, table, page | changes, data)
        refused(ArtifactError, words)
    for changes, words in (
        (
            {"key_0": table["key_0"] | {"shape": [1, 1, 1, 7]}},
            r"key_0 is .*\[1, 1, 1, 7\].*, wanted",
        ),
        ({"key_0": table["key_0"] | {"dtype": "F64"}}, "key_0 is .*F64"),
        ({"key_0": table["key_0"] | {"data_offsets": [0, 28]}}, "key_0 is .*, wanted"),
        ({"more": table["key_0"]}, "more is .*, wanted None"),
    ):
        write(saved, table | changes, page, data)
        refused(ArtifactError, words)
    write(saved, {name: table[name] for name in table if name != "nll"}, page, data)
    refused(ArtifactError, "nll is None, wanted")
    first = np.frombuffer(data[:16], np.int64).copy()
    first[1] = 23  # the model's ids end with 22
    write(saved, table, page, first.tobytes() + data[16:])
    refused(ArtifactError, "ids: .* 23 are no ids of the model")
    write(saved, table, page, data + b"0")
    refused(ArtifactError, "changed since it was saved")
    saved.write_bytes(whole + b"0")
    refused(ArtifactError, "changed since it was saved")
    saved.write_bytes(whole)
    refused(ArtifactError, "not a whole state file .Expected `str`, got `int`", kind=dict[str, str])


def test_changed_bytes_are_found(saved, make):
    whole = saved.read_bytes()
    executor = make()
    feed(executor, TEXT[:10])
    before = executor.counters
    for place in range(0, len(whole), 5):
        saved.write_bytes(whole[:place] + bytes([whole[place] ^ 1]) + whole[place + 1 :])
        with pytest.raises((ArtifactError, CacheError)):
            state.load(saved, executor)
    for end in range(0, len(whole), 7):
        saved.write_bytes(whole[:end])
        with pytest.raises(ArtifactError, match=r"not a whole state file|version None"):
            state.load(saved, executor)
    assert executor.counters == before


def test_other_files(path, refused):
    refused(ArtifactError, "not a whole state file .*No such file")
    for content in (b"", b"{}", b"\xff" * 100, (1 << 62).to_bytes(8, "little") + b"[" * 9999):
        path.write_bytes(content)
        refused(ArtifactError, "not a whole state file")
    save_file({"x": np.zeros(3)}, path)
    refused(ArtifactError, "version None, this lcc reads version 7")


def test_where_nothing_can_be_written(make, tmp_path):
    executor = make()
    (tmp_path / "folder").mkdir()
    (tmp_path / "file").write_text("")
    for place in (tmp_path / "none/a", tmp_path / "folder", tmp_path / "file/a"):
        with pytest.raises(ArtifactError, match=f"{place.name}: cannot be written: "):
            state.save(place, executor, None)
    assert sorted(each.name for each in tmp_path.iterdir()) == ["file", "folder"]


def test_a_broken_session_is_not_saved_but_loads(make, saved, tmp_path):
    executor = make()
    executor.broken = True
    with pytest.raises(CacheError, match="half-way"):
        state.save(tmp_path / "b", executor, None)
    state.load(saved, executor)
    executor.logits()
