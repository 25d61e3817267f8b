"""onnxruntime-genai: a folder of its own model builder, reading in chunks of 512 tokens."""

import json
import subprocess
import sys
from importlib.metadata import version
from pathlib import Path
from typing import Any

from lcc.errors import LccError
from lcc.measure.bench.engines.checkpoint import save_checkpoint
from lcc.measure.bench.engines.kept import identity, kept
from lcc.measure.bench.measure import OnToken, Request
from lcc.measure.bench.process import Progress

CHUNK = 512


def prepare(model: str, folder: Path, precision: str, report: Progress) -> Path:
    """`folder`/onnxruntime-genai-PRECISION, built from the same float32 weights that lcc has."""
    checkpoint = save_checkpoint(model, folder, report)

    def make(path: Path) -> None:
        report(f"onnxruntime_genai.models.builder -p {precision}", 0.6)
        command = [sys.executable, "-m", "onnxruntime_genai.models.builder", "-e", "cpu"]
        command += ["-p", precision, "-m", str(checkpoint), "-o", str(path)]
        command += ["-c", str(folder / "hub")]
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        if done.returncode:
            lines = done.stderr.strip().splitlines() or [f"code {done.returncode}"]
            raise LccError(f"onnxruntime_genai.models.builder: {lines[-1]}")

    made_from = identity(model) | {"builder": version("onnxruntime-genai")}
    return kept(folder / f"onnxruntime-genai-{precision}", made_from, make)


class Generator:
    """A model; every prompt has a cache of its own, for as many tokens as it will need."""

    def __init__(self, request: Request) -> None:
        """Load the folder."""
        import onnxruntime_genai as genai

        config = genai.Config(request.source)
        options = {"session_options": {"intra_op_num_threads": request.threads}}
        config.overlay(json.dumps({"model": {"decoder": options}}))
        self.model, self.length = genai.Model(config), 0
        page = json.loads(Path(request.source, "genai_config.json").read_text(encoding="utf-8"))
        self.decoder: dict[str, Any] = page["model"]["decoder"]

    def generate(self, ids: list[int], count: int, on_token: OnToken) -> None:
        """Read and write; with `min_length` its search never chooses an end of text.

        The others write one like any token and go on: where the model would end, texts differ.
        """
        import onnxruntime_genai as genai

        self.length = len(ids) + count
        params = genai.GeneratorParams(self.model)
        params.set_search_options(
            max_length=self.length,
            min_length=self.length,
            chunk_size=CHUNK,
            do_sample=False,
            repetition_penalty=1.0,  # its folder may have the model's own
        )
        generator = genai.Generator(self.model, params)
        generator.append_tokens(ids)
        for _ in range(count):
            generator.generate_next_token()
            on_token(int(generator.get_next_tokens()[0]))

    def facts(self) -> dict[str, Any]:
        """Float32 keys and values of max_length tokens, allocated at once."""
        names = ("num_hidden_layers", "num_key_value_heads", "head_size")
        layers, heads, size = (self.decoder[name] for name in names)
        return {"kv_bytes": 2 * 4 * layers * heads * size * self.length}


load = Generator
