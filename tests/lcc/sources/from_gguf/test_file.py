"""GGUF files as files: split, truncated, damaged; and the types of their tensors."""

import struct
from pathlib import Path

import gguf
import numpy as np
import pytest
import torch
from gguf import GGMLQuantizationType as Kind

from lcc.errors import ModelError
from lcc.sources.from_gguf.file import GgufFile
from lcc.sources.from_gguf.header import read_header
from lcc.sources.models import load_model
from lcc.testing.gguf_writing import built, logits, write


@pytest.fixture
def whole(tmp_path: Path) -> Path:
    return write(tmp_path / "whole.gguf", "llama", built("llama"))


def test_parts_are_read_as_one(tmp_path: Path) -> None:
    module = built("llama")
    (tmp_path / "parts").mkdir()
    write(tmp_path / "parts" / "m.gguf", "llama", module, split_max_tensors=8)
    paths = sorted((tmp_path / "parts").iterdir())
    assert [path.name for path in paths] == [f"m-0000{i}-of-00003.gguf" for i in (1, 2, 3)]
    for source in (*paths, tmp_path / "parts"):
        loaded = load_model(source)
        assert torch.equal(logits(loaded.module), logits(module)), source
        assert loaded.name == "m"


def test_a_part_that_is_missing_or_another_models_is_named(tmp_path: Path) -> None:
    for name in ("a", "b"):
        write(tmp_path / f"{name}.gguf", "llama", built("llama"), split_max_tensors=8)
    second = tmp_path / "a-00002-of-00003.gguf"
    data = second.read_bytes()
    second.write_bytes((tmp_path / "a-00003-of-00003.gguf").read_bytes())
    with pytest.raises(ModelError, match=r"a-00002-of-00003\.gguf: not part 2 of 3"):
        load_model(tmp_path / "a-00001-of-00003.gguf")
    second.unlink()
    with pytest.raises(ModelError, match=r"a-00002-of-00003\.gguf: missing, part 2 of 3"):
        load_model(tmp_path / "a-00001-of-00003.gguf")
    second.write_bytes(data)
    (tmp_path / "a-00001-of-00003.gguf").rename(tmp_path / "other.gguf")
    with pytest.raises(ModelError, match="the first of 3 files of a model, so its name must end"):
        load_model(tmp_path / "other.gguf")
    with pytest.raises(ModelError, match=r"a-00001-of-00003\.gguf is missing"):
        load_model(second)


def test_truncated_anywhere(whole: Path, tmp_path: Path) -> None:
    data, cut = whole.read_bytes(), tmp_path / "cut.gguf"
    for size in (5, 20, 100, 1_000, 4_000, len(data) // 2, len(data) - 1):
        cut.write_bytes(data[:size])
        with pytest.raises(ModelError, match=r"cut\.gguf: truncated, .*download it again"):
            load_model(cut)


def test_damaged_headers(whole: Path, tmp_path: Path) -> None:
    data = whole.read_bytes()
    _, tensors = read_header(whole)
    first, second = list(tensors.values())[:2]

    def offset_of(name: str) -> int:
        """Where the file says the offset of a tensor."""
        place = data.index(struct.pack("<Q", len(name)) + name.encode()) + 8 + len(name)
        dimensions = struct.unpack_from("<I", data, place)[0]
        return place + 4 + 8 * dimensions + 4

    def changed(place: int, code: str, value: int) -> bytes:
        return data[:place] + struct.pack(code, value) + data[place + struct.calcsize(code) :]

    at = offset_of(second.name)
    layers = data.index(b"llama.block_count") + len("llama.block_count") + 4
    cases = {
        "block_count is 100000, the file has tensors of 2 layers": changed(layers, "<I", 100_000),
        "block_count is 0, the file has tensors of 2 layers": changed(layers, "<I", 0),
        "not a GGUF file": b"GGML" + data[4:],
        "version 1; wanted": changed(4, "<I", 1),
        "big-endian machines": data[:4] + struct.pack(">I", 3) + data[8:],
        "truncated, its header needs": changed(8, "<Q", 1 << 40),
        "truncated": changed(16, "<Q", 1 << 60),
        f"tensors {first.name} and {second.name} overlap": changed(at, "<Q", 0),
        f"tensor {second.name} is at offset 7, wanted a multiple of 32": changed(at, "<Q", 7),
        f"tensor {second.name} ends at byte": changed(at, "<Q", 1 << 40),
        "of an unknown type, 999": changed(at - 4, "<I", 999),
        "has 9 dimensions": changed(at - 4 - 16 - 4, "<I", 9),
    }
    path = tmp_path / "damaged.gguf"
    for words, content in cases.items():
        path.write_bytes(content)
        with pytest.raises(ModelError) as caught:
            load_model(path)
        assert words in str(caught.value)
        assert "\n" not in str(caught.value)


KINDS = [
    *(Kind.F16, Kind.BF16, Kind.Q4_0, Kind.Q4_1, Kind.Q5_0, Kind.Q5_1, Kind.Q8_0),
    *(Kind.TQ1_0, Kind.TQ2_0, Kind.MXFP4),
]


@pytest.mark.parametrize("kind", KINDS, ids=lambda kind: kind.name)
def test_types_of_tensors(kind: Kind, tmp_path: Path) -> None:
    """Against the gguf package's own numbers, of two and three dimensions."""
    draw, writer = np.random.default_rng(0), gguf.GGUFWriter(tmp_path / "m.gguf", "llama")
    wanted = {}
    for name, shape in (("two", (8, 512)), ("three", (3, 4, 256))):
        packed = gguf.quants.quantize(draw.normal(size=shape).astype(np.float32), kind)
        writer.add_tensor(name, packed, raw_dtype=kind)
        wanted[name] = gguf.quants.dequantize(packed, kind).reshape(shape)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    file = GgufFile(tmp_path / "m.gguf")
    for name, numbers in wanted.items():
        assert file.value(name).dtype == torch.float32
        np.testing.assert_allclose(file.value(name).numpy(), numbers, rtol=1e-6, atol=1e-7)


PACKED = [kind for kind in Kind if "K" in kind.name.split("_")[-1:] or kind.name.startswith("IQ")]


@pytest.mark.parametrize("kind", PACKED, ids=lambda kind: kind.name)
def test_types_that_nobody_here_can_write(kind: Kind, tmp_path: Path) -> None:
    """Random blocks, whose numbers the gguf package and transformers must read alike."""
    numbers, size = gguf.constants.GGML_QUANT_SIZES[kind]
    if numbers == 1 or kind == Kind.Q8_K:
        pytest.skip("no quantized type of weights")
    draw = np.random.default_rng(0)
    packed = draw.integers(0, 120, size=(4, 2 * size), dtype=np.uint8)
    writer = gguf.GGUFWriter(tmp_path / "m.gguf", "llama")
    writer.add_tensor("w", packed, raw_dtype=kind)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    got = GgufFile(tmp_path / "m.gguf").value("w").numpy()
    wanted = gguf.quants.dequantize(packed, kind)
    finite = np.isfinite(wanted)
    assert finite.mean() > 0.5
    assert got.shape == wanted.shape == (4, 2 * numbers)
    np.testing.assert_allclose(got[finite], wanted[finite], rtol=1e-5, atol=1e-6)


def test_a_number_that_is_none_is_named(tmp_path: Path) -> None:
    module = built("llama")
    module.model.layers[1].mlp.up_proj.weight.data[2, 3] = float("nan")
    path = write(tmp_path / "m.gguf", "llama", module)
    with pytest.raises(ModelError, match=r"model\.layers\.1\.mlp\.up_proj\.weight holds numbers"):
        load_model(path)
