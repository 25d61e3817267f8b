"""A hybrid model's shape in both runtimes: the same greedy tokens behind a long text.

python docs/measure/native_states.py build/liblcc.so [--shape lfm2|qwen3.5] [--precision fp32]
    [--target onnxruntime:cpu] [--tokens 32768] [--new 64] [--engine LIBRARY]

Recurrent and full layers with random weights, small enough to be quick. Python's runtime and the
native one read the same drawn ids, with all cycles, one after the other in this process, and write
`--new` tokens. Prints their logits' largest difference, too: a model that says little by chance
would say the same words for no reason.
"""

import argparse
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np

import lcc.runtime
from lcc.testing.native_library import onnx_runtime_library
from lcc.testing.native_session import Library

VOCAB_SIZE = 4096
_COMMON: dict[str, Any] = {
    "vocab_size": VOCAB_SIZE,
    "hidden_size": 256,
    "intermediate_size": 512,
    "num_attention_heads": 8,
    "num_key_value_heads": 2,
    "head_dim": 32,
    "max_position_embeddings": 65_536,
    "initializer_range": 0.3,  # else a random model says one word only
}
SHAPES: dict[str, tuple[str, str, dict[str, Any]]] = {
    "lfm2": (
        "lfm2",
        "snapkv",
        {
            "num_hidden_layers": 6,
            "layer_types": ["conv", "conv", "full_attention", "conv", "full_attention", "conv"],
        },
    ),
    "qwen3.5": (
        "qwen3_5_text",
        "infinipot",
        {
            "num_hidden_layers": 4,
            "layer_types": ["linear_attention"] * 3 + ["full_attention"],
            "linear_num_key_heads": 4,
            "linear_num_value_heads": 4,
            "linear_key_head_dim": 32,
            "linear_value_head_dim": 32,
        },
    ),
}


def compiled(shape: str, folder: Path, precision: Any, target: str) -> Path:
    """The artifact of a shape: capacity 1024, budget 512."""
    import torch
    from transformers import AutoConfig, AutoModelForCausalLM

    from lcc.compile import compile_model
    from lcc.config import CacheConfig, CompileConfig, PolicyConfig

    kind, policy, fields = SHAPES[shape]
    torch.manual_seed(0)
    config = AutoConfig.for_model(kind, **_COMMON, **fields)
    model = AutoModelForCausalLM.from_config(config, dtype=torch.float32).eval()
    how = CompileConfig(
        cache=CacheConfig(capacity=1024, budget=512, catalyst_size=32),
        policy=PolicyConfig(name=policy),
        precision=precision,
        target=target,
    )
    compile_model(model, folder / "m.lcc", how)
    return folder / "m.lcc"


def main() -> None:
    """See the file."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("library", type=Path)
    parser.add_argument("--shape", choices=SHAPES, default="lfm2")
    parser.add_argument("--precision", choices=("fp32", "int8", "int4"), default="fp32")
    parser.add_argument("--target", default="onnxruntime:cpu")
    parser.add_argument("--tokens", type=int, default=32_768)
    parser.add_argument("--new", type=int, default=64)
    parser.add_argument("--engine", type=Path, help="else that of Python's packages")
    args = parser.parse_args()
    draw = np.random.default_rng(0)
    ids = draw.integers(10, VOCAB_SIZE, args.tokens).tolist()
    text, prompt = ids[:-16], ids[-16:]
    engine = args.engine or onnx_runtime_library()
    if args.engine is None and args.target.startswith("tvm"):
        engine = engine.parents[2]  # the folder of Python's packages
    with tempfile.TemporaryDirectory() as place:
        artifact = compiled(args.shape, Path(place), args.precision, args.target)
        begin = time.process_time()
        python = lcc.runtime.open(artifact, threads=1, allow_native=True)
        python.feed(text)
        wanted = list(python.generate_ids(prompt, max_new_tokens=args.new, eos=[], temperature=0.0))
        middle = time.process_time()
        model = Library(args.library).open(artifact, engine, threads=1, allow_native=1)
        native = model.session()
        native.feed(text)
        got = list(native.ids(prompt, args.new))
        end = time.process_time()
        far = float(np.abs(native.logits() - python.next_logits()).max())
        stats = native.stats()
    print(
        f"{args.shape} {args.precision} {args.target}: {sum(map(int.__eq__, got, wanted))} of "
        f"{args.new} tokens the same ({len(set(wanted))} different ones), behind {args.tokens:,} "
        f"and {stats.cycles} cycles (Python: {len(python.cycles)}); logits differ by {far:.2g}; "
        f"{middle - begin:.1f} s of CPU by Python, {end - middle:.1f} natively"
    )
    sys.exit(got != wanted or stats.cycles != len(python.cycles))


if __name__ == "__main__":
    main()
