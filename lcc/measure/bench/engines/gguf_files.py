"""A model's GGUF file as it is, or its weights as float32 in a GGUF file."""

from pathlib import Path

from lcc.errors import ModelError
from lcc.measure.bench.engines.kept import identity, kept
from lcc.measure.bench.process import Progress


def four_bits(model: str) -> Path:
    """The file itself, if its weights have 4 bits.

    Raises:
        ModelError: no GGUF file, or one of another precision.
    """
    import gguf

    path = _gguf(model)
    field = gguf.GGUFReader(path).fields.get("general.file_type")
    kind = gguf.LlamaFileType(field.contents()).name if field else "unknown"
    if "Q4" not in kind and "IQ4" not in kind:
        raise ModelError(f"{path.name}: its weights are {kind}, wanted 4 bits; give another file")
    return path


def as_float32(model: str, folder: Path, report: Progress) -> Path:
    """`folder`/fp32.gguf: the file with every weight as float32, so that nothing else changes."""
    import llama_cpp

    source = _gguf(model)

    def make(path: Path) -> None:
        report("write the weights as float32", 0.1)
        params = llama_cpp.llama_model_quantize_default_params()
        params.ftype, params.allow_requantize = llama_cpp.LLAMA_FTYPE_ALL_F32, True
        if llama_cpp.llama_model_quantize(str(source).encode(), str(path).encode(), params):
            raise ModelError(f"{source}: llama.cpp cannot write it as float32")

    return kept(folder / "fp32.gguf", identity(model), make)


def _gguf(model: str) -> Path:
    from lcc.sources.locate import gguf_path

    path = gguf_path(model)
    if path is None:
        raise ModelError(f"{model} is no GGUF file; give --model FILE.gguf")
    return path
