"""OpenVINO GenAI, which reads a GGUF file of 4 bits; its own defaults but for the threads."""

from pathlib import Path
from typing import Any

from lcc.measure.bench.engines.gguf_files import four_bits
from lcc.measure.bench.measure import OnToken, Request
from lcc.measure.bench.process import Progress


def prepare(model: str, folder: Path, precision: str, report: Progress) -> Path:
    """The GGUF file itself."""
    return four_bits(model)


class Pipeline:
    """An LLMPipeline; a prompt knows nothing of the one before."""

    def __init__(self, request: Request) -> None:
        """Load the file."""
        import openvino_genai

        self.pipeline = openvino_genai.LLMPipeline(
            request.source, "CPU", INFERENCE_NUM_THREADS=request.threads
        )

    def generate(self, ids: list[int], count: int, on_token: OnToken) -> None:
        """Read and write; the streamer is called with tokens as they come, one or several."""
        import numpy as np
        import openvino
        import openvino_genai

        class Streamer(openvino_genai.StreamerBase):
            def write(self, token: Any) -> Any:
                for each in [token] if isinstance(token, int) else token:
                    on_token(each)
                return openvino_genai.StreamingStatus.RUNNING

            def end(self) -> None:
                pass

        config = openvino_genai.GenerationConfig()
        config.max_new_tokens, config.ignore_eos, config.do_sample = count, True, False
        tokens = np.array([ids], np.int64)
        inputs = openvino_genai.TokenizedInputs(
            openvino.Tensor(tokens), openvino.Tensor(np.ones_like(tokens))
        )
        self.pipeline.generate(inputs, config, Streamer())

    def facts(self) -> dict[str, Any]:
        """Nothing: it does not say what its cache takes."""
        return {}


load = Pipeline
