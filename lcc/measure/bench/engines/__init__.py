"""Who can be measured: artifacts, and the engines that `--against` names.

Each file has the same two functions, both called in a child process:

    prepare(model, folder, precision, report) -> what `load` reads; made in `folder` unless there
    load(request) -> Model
"""

from dataclasses import dataclass


@dataclass(frozen=True)
class Peer:
    """Another engine.

    kind            the file here
    package         what must be importable
    pip             what brings it
    versions        distributions whose versions are noted
    precisions      of the weights, that it can be given here
    """

    kind: str
    package: str
    pip: str
    versions: tuple[str, ...]
    precisions: tuple[str, ...]


PEERS = {
    "openvino-genai": Peer(
        "openvino_gguf",
        "openvino_genai",
        "pip install openvino-genai",
        ("openvino-genai", "openvino"),
        ("int4",),
    ),
    "onnxruntime-genai": Peer(
        "ort_genai",
        "onnxruntime_genai",
        "pip install onnxruntime-genai",
        ("onnxruntime-genai", "onnxruntime"),
        ("fp32", "int4"),
    ),
    "llama-cpp": Peer(
        "llama_gguf",
        "llama_cpp",
        "pip install llama-cpp-python",
        ("llama-cpp-python",),
        ("fp32", "int4"),
    ),
    "transformers": Peer(
        "eager",
        "transformers",
        "pip install 'long-context-compiler[compile]'",
        ("transformers", "torch"),
        ("fp32",),
    ),
    "kvpress": Peer(
        "press",
        "kvpress",
        "pip install --no-deps kvpress cachetools fire peft six termcolor",
        ("kvpress", "transformers", "torch"),
        ("fp32",),
    ),
}
