"""What compiling takes: seconds and memory of each stage.

python docs/measure/compile_memory.py MODEL -o m.lcc [--precision int4] [--target onnxruntime:cpu]
    [--random 1b|8b]

With --random, MODEL is a folder that is made first: a model of the shape of Llama 3.2 1B or Llama
3.1 8B with random weights in bf16 (2.5 or 16 GB), and the tokenizer of SmolLM2.
"""

import argparse
import json
import struct
import time
from pathlib import Path

import numpy as np
import torch

from lcc.compile import compile_model
from lcc.config import CompileConfig
from lcc.sources.models import load_model

SHAPES = {
    "1b": {
        "hidden_size": 2048,
        "intermediate_size": 8192,
        "num_hidden_layers": 16,
        "head_dim": 64,
        "tie_word_embeddings": True,
    },
    "8b": {
        "hidden_size": 4096,
        "intermediate_size": 14336,
        "num_hidden_layers": 32,
        "head_dim": 128,
        "tie_word_embeddings": False,
    },
}
PAGE = {
    "architectures": ["LlamaForCausalLM"],
    "model_type": "llama",
    "vocab_size": 128256,
    "num_attention_heads": 32,
    "num_key_value_heads": 8,
    "max_position_embeddings": 131072,
    "rope_theta": 500000.0,
    "rms_norm_eps": 1e-5,
    "torch_dtype": "bfloat16",
}
ROWS = 4096  # that are drawn at once


def tensors(page: dict) -> list[tuple[str, tuple[int, ...]]]:
    """Names and shapes of a Llama's weights."""
    hidden, inner, size = page["hidden_size"], page["intermediate_size"], page["head_dim"]
    queries, keys = page["num_attention_heads"] * size, page["num_key_value_heads"] * size
    vocabulary = page["vocab_size"]
    found: list[tuple[str, tuple[int, ...]]] = [("model.embed_tokens.weight", (vocabulary, hidden))]
    for layer in range(page["num_hidden_layers"]):
        of_layer = {
            "self_attn.q_proj": (queries, hidden),
            "self_attn.k_proj": (keys, hidden),
            "self_attn.v_proj": (keys, hidden),
            "self_attn.o_proj": (hidden, queries),
            "mlp.gate_proj": (inner, hidden),
            "mlp.up_proj": (inner, hidden),
            "mlp.down_proj": (hidden, inner),
            "input_layernorm": (hidden,),
            "post_attention_layernorm": (hidden,),
        }
        found += [
            (f"model.layers.{layer}.{name}.weight", shape) for name, shape in of_layer.items()
        ]
    found.append(("model.norm.weight", (hidden,)))
    tied = page["tie_word_embeddings"]
    return found if tied else [*found, ("lm_head.weight", (vocabulary, hidden))]


def make(folder: Path, shape: str) -> None:
    """A checkpoint of random numbers, a few rows at a time."""
    folder.mkdir(parents=True, exist_ok=True)
    page = PAGE | SHAPES[shape]
    (folder / "config.json").write_text(json.dumps(page))
    for name, content in load_model("smollm2", lazy=True).files.items():
        (folder / name).write_bytes(content)
    header, end = {}, 0
    for name, sizes in tensors(page):
        begin, end = end, end + 2 * int(np.prod(sizes))
        header[name] = {"dtype": "BF16", "shape": sizes, "data_offsets": [begin, end]}
    head, draw = json.dumps(header).encode(), torch.Generator().manual_seed(0)
    with (folder / "model.safetensors").open("wb") as file:
        file.write(struct.pack("<Q", len(head)) + head)
        for _, sizes in tensors(page):
            for start in range(0, sizes[0], ROWS):
                some = (min(ROWS, sizes[0] - start), *sizes[1:])
                drawn = (
                    torch.randn(some, generator=draw) * 0.02 if len(some) == 2 else torch.ones(some)
                )
                file.write(drawn.bfloat16().view(torch.int16).numpy().tobytes())


def main() -> None:
    """See the file."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("model", type=Path)
    parser.add_argument("-o", "--output", type=Path, required=True)
    parser.add_argument("--precision", default="fp32")
    parser.add_argument("--target", default="onnxruntime:cpu")
    parser.add_argument("--random", choices=sorted(SHAPES))
    args = parser.parse_args()
    if args.random and not (args.model / "model.safetensors").exists():
        make(args.model, args.random)
    begin, last = time.perf_counter(), ""

    def report(stage: str, _: float) -> None:
        nonlocal last
        stage = stage.partition(", ")[0]  # without the bytes that were read
        if stage == last:
            return
        last = stage
        lines = Path("/proc/self/status").read_text().splitlines()
        kept = dict(line.split(":", 1) for line in lines if line.startswith(("VmHWM", "VmRSS")))
        now, peak = (int(kept[name].split()[0]) // 1024 for name in ("VmRSS", "VmHWM"))
        seconds = time.perf_counter() - begin
        print(f"{seconds:7.1f} s  {now:6} MB now  {peak:6} MB peak  {stage}", flush=True)

    config = CompileConfig(precision=args.precision, target=args.target)
    compile_model(args.model, args.output, config, progress=report)


if __name__ == "__main__":
    main()
