"""The model as a float32 folder of transformers: what eager PyTorch and converters read."""

from pathlib import Path

from lcc.measure.bench.engines.kept import identity, kept
from lcc.measure.bench.process import Progress


def save_checkpoint(model: str, folder: Path, report: Progress) -> Path:
    """Write the weights that lcc compiles, and the tokenizer, into `folder`/transformers-fp32."""

    def make(path: Path) -> None:
        from lcc.sources.models import load_model

        report("load the model", 0.1)
        loaded = load_model(model)
        report("save it for transformers", 0.4)
        loaded.module.save_pretrained(path)  # type: ignore[operator]
        for name, data in loaded.files.items():
            (path / name).write_bytes(data)

    return kept(folder / "transformers-fp32", identity(model), make)
