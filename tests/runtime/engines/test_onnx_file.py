"""Files that an ONNX program names, wherever in it; found without onnx, which writes it here."""

import os
import shutil
from pathlib import Path

import msgspec
import numpy as np
import onnxruntime
import pytest
from onnx import TensorProto, helper

import lcc.runtime
from lcc.artifact.manifest import manifest_bytes, read_manifest
from lcc.errors import ArtifactError
from lcc.runtime.engines.onnx_file import check_locations, check_program
from lcc.testing.onnx_programs import (
    NARROW,
    ORT_FORMAT,
    PLACES,
    SIZE,
    SPLITS,
    WIDE,
    WORK,
    cut_number,
    graph,
    loop,
    named,
    point_to,
    varint,
)


@pytest.mark.parametrize("place", PLACES)
def test_a_file_is_found_wherever_it_is_named(place: str) -> None:
    data = PLACES[place](named("weights.bin")).SerializeToString()
    check_locations(data, {"weights.bin"})
    with pytest.raises(ArtifactError, match=r"reads weights from 'weights\.bin', which the man"):
        check_locations(data, {"other.bin"})


@pytest.mark.parametrize(
    "location", ["", "../secret", "/etc/passwd", "*/_ORT_MEM_ADDR_/*", "./weights.bin", "\udcff"]
)
def test_only_the_very_names_that_are_listed(location: str) -> None:
    tensor = named("weights.bin", ("location", location)) if "\udcff" not in location else None
    data = helper.make_model(graph(initializer=[tensor or named("weights.bXn")]))
    raw = data.SerializeToString().replace(b"weights.bXn", b"weights.b\xffn")
    with pytest.raises(ArtifactError, match="which the manifest does not list"):
        check_locations(raw, {"weights.bin"})


def test_what_is_written_in_another_order_is_refused_or_found() -> None:
    """A parser takes the last of two keys: they are not of lcc's making."""
    data = PLACES["an initializer"](named("weights.bin")).SerializeToString()
    entry = b"\x0a\x08location\x12\x0bweights.bin"
    assert data.count(entry) == 1
    turned = b"\x12\x0bweights.bin\x0a\x08location"
    check_locations(data.replace(entry, turned), {"weights.bin"})
    with pytest.raises(ArtifactError, match=r"weights\.bin"):
        check_locations(data.replace(entry, turned), set())
    tensor = named("weights.bin")
    twice = b"\x0a\x03own" + entry + b"\x12\x03/ab"  # key and value, twice
    tensor.external_data[0].value = "x" * (len(twice) - len(entry) + len("weights.bin"))
    data = PLACES["an initializer"](tensor).SerializeToString()
    entry = tensor.external_data[0].SerializeToString()
    assert (len(entry), data.count(entry)) == (len(twice), 1)
    with pytest.raises(ArtifactError, match="without one key and one value"):
        check_locations(data.replace(entry, twice), {"weights.bin"})


def test_what_is_no_program() -> None:
    data = PLACES["a branch"](named("weights.bin")).SerializeToString()
    for size in range(1, len(data)):
        try:
            check_locations(data[:size], {"weights.bin"})
        except ArtifactError as error:
            assert "cut" in str(error) or "no" in str(error)  # noqa: PT017
    nested = graph(initializer=[named("weights.bin")]).SerializeToString()
    for _ in range(60):  # a graph in an attribute of a node of a graph
        for number in (6, 5, 1):
            nested = bytes([number << 3 | 2]) + varint(len(nested)) + nested
    with pytest.raises(ArtifactError, match="graphs in graphs"):
        check_locations(b"\x3a" + varint(len(nested)) + nested, {"weights.bin"})
    for raw in (b"\x0b\x0c", b"\x3a" + b"\xff" * 20, b"\x3a\xff\xff\xff\xff\x0flocation"):
        with pytest.raises(ArtifactError):
            check_locations(raw, {"weights.bin"})


def test_a_number_of_a_field_that_a_parser_cuts(tmp_path: Path) -> None:
    """ONNX Runtime's keeps 32 bits of it: a field 2^29 + 7 is the model's graph to it."""
    (tmp_path / "weights.bin").write_bytes(np.arange(4, dtype=np.float32).tobytes())
    same = helper.make_node("Identity", ["t"], ["y"])
    result = helper.make_tensor_value_info("y", TensorProto.FLOAT, [4])
    body = helper.make_graph([same], "g", [], [result], initializer=[named("weights.bin")])
    model = helper.make_model(body, opset_imports=[helper.make_opsetid("", 21)], ir_version=10)
    longer = cut_number(model)
    (tmp_path / "longer.onnx").write_bytes(longer)
    (got,) = onnxruntime.InferenceSession(tmp_path / "longer.onnx").run(None, {})
    assert got.tolist() == [0, 1, 2, 3]
    with pytest.raises(ArtifactError, match="not an ONNX program"):
        check_locations(longer, set())


def test_bytes_that_are_a_program_of_ort_format_too() -> None:
    """ONNX Runtime takes bytes that begin like its own format for that."""
    check_locations(ORT_FORMAT, set())
    with pytest.raises(Exception, match="ORT model verification failed"):
        onnxruntime.InferenceSession(ORT_FORMAT)
    with pytest.raises(ArtifactError, match="not an ONNX program"):
        check_program(ORT_FORMAT, set())


@pytest.mark.parametrize("name", WORK)
def test_work_without_bounds_is_refused(name: str) -> None:
    with pytest.raises(ArtifactError, match=r"runs a graph|graphs in graphs|functions or training"):
        check_program(WORK[name], ())


@pytest.mark.parametrize("name", WIDE)
def test_numbers_of_more_than_32_bits_are_refused(name: str) -> None:
    with pytest.raises(ArtifactError, match=r"^Own is told a number of more than 32 bits$"):
        check_program(WIDE[name], ())


@pytest.mark.parametrize("name", SPLITS)
def test_a_split_is_told_how_many_outputs_it_has(name: str) -> None:
    with pytest.raises(ArtifactError, match=r"^Split has \d outputs, and is told another number"):
        check_program(SPLITS[name], ())


@pytest.mark.parametrize("name", NARROW)
def test_numbers_of_32_bits_and_those_of_tensors_are_not(name: str) -> None:
    check_program(NARROW[name], ())


def test_a_loop_over_a_tensor_is_not() -> None:
    """Experts are called in one. A condition can only end it earlier."""
    check_program(loop("count", "", "v", nodes=SIZE), ())
    check_program(loop("count", "always", "v", nodes=SIZE), ())


@pytest.mark.parametrize("how", ["beside", "hard link", "left out of the list"])
def test_weights_that_the_manifest_does_not_list(
    tiny_artifact: Path, tmp_path: Path, how: str
) -> None:
    folder = Path(shutil.copytree(tiny_artifact, tmp_path / "m.lcc"))
    weights, name = folder / "weights.bin", "other.bin"
    if how == "beside":
        (folder / name).write_bytes(weights.read_bytes())
        point_to(folder, name)
    elif how == "hard link":
        (tmp_path / "secret").write_bytes(weights.read_bytes())
        os.link(tmp_path / "secret", folder / name)
        point_to(folder, name)
    else:
        name, manifest = "weights.bin", read_manifest(folder)
        files = {key: entry for key, entry in manifest.files.items() if key != name}
        page = manifest_bytes(msgspec.structs.replace(manifest, files=files))
        (folder / "manifest.json").write_bytes(page)
    words = rf"\.onnx: it reads weights from '{name}', which the manifest does not list"
    with pytest.raises(ArtifactError, match=words):
        lcc.runtime.load(folder)


def test_a_program_that_comes_after_the_check_is_not_taken(
    tiny_artifact: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its bytes are compared as they are handed over, whatever was read before."""
    folder = Path(shutil.copytree(tiny_artifact, tmp_path / "m.lcc"))
    from lcc.runtime.engines import onnx_runtime

    def replaced(*arguments: object, **options: object) -> object:
        data = (folder / "head.onnx").read_bytes()
        (folder / "head.onnx").write_bytes(data[:-1] + bytes([data[-1] ^ 1]))
        return onnx_runtime.OnnxRuntimeEngine(*arguments, **options)  # type: ignore[arg-type]

    monkeypatch.setattr(
        lcc.runtime, "_engine", lambda folder, manifest, _: replaced(folder, manifest)
    )
    with pytest.raises(ArtifactError, match=r"head\.onnx: changed since it was written"):
        lcc.runtime.load(folder)
