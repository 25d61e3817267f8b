"""llama.cpp by llama-cpp-python, on a GGUF file: 4 bits as it is, or the same as float32."""

from pathlib import Path
from typing import Any

from lcc.measure.bench.engines.gguf_files import as_float32, four_bits
from lcc.measure.bench.measure import OnToken, Request
from lcc.measure.bench.process import Progress


def prepare(model: str, folder: Path, precision: str, report: Progress) -> Path:
    """A GGUF file."""
    return four_bits(model) if precision == "int4" else as_float32(model, folder, report)


class Llama:
    """A model and a context just large enough; keys and values float16, with float32 float32."""

    def __init__(self, request: Request) -> None:
        """Load the file."""
        import llama_cpp

        exact = request.precision == "fp32"
        kind = llama_cpp.GGML_TYPE_F32 if exact else llama_cpp.GGML_TYPE_F16
        self.bytes = 4 if exact else 2
        self.llama = llama_cpp.Llama(
            request.source,
            n_ctx=len(request.ids) + request.new_tokens,
            n_threads=request.threads,
            n_threads_batch=request.threads,
            type_k=kind,
            type_v=kind,
            verbose=False,
        )

    def generate(self, ids: list[int], count: int, on_token: OnToken) -> None:
        """Read and write."""
        self.llama.reset()
        written = self.llama.generate(ids, temp=0.0)
        for _ in range(count):
            on_token(next(written))

    def facts(self) -> dict[str, Any]:
        """Keys and values of n_ctx tokens, allocated when it loads."""
        import llama_cpp

        model = self.llama.model
        size = llama_cpp.llama_model_n_embd(model) // llama_cpp.llama_model_n_head(model)
        page = self.llama.metadata  # of the file; lengths are in it where they are not `size`
        prefix = f"{page.get('general.architecture')}.attention"
        both = sum(int(page.get(f"{prefix}.{name}_length", size)) for name in ("key", "value"))
        heads = llama_cpp.llama_model_n_head_kv(model) * llama_cpp.llama_model_n_layer(model)
        return {"kv_bytes": self.bytes * heads * both * self.llama.n_ctx()}


load = Llama
