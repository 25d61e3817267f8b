"""A mixture of experts against a dense model of as many active weights: time of a step.

python docs/measure/experts.py [--target TARGET] [--precision int4] [--rounds 5] [--threads 2]
python docs/measure/experts.py --precision fp32 --layers 4 --against tvm:cpu

Random models in the shape of Qwen 3 MoE and Qwen 3: hidden 1,024, 12 layers; 8 experts of 1,024, of
which a token chooses 2; the dense one has an intermediate size of 2,048. With --against, the same
mixture for two targets is compared instead. Both artifacts are open in one process and take turns:
read a text of --tokens, then write --new tokens, each round from an empty session. Medians of all
rounds, and the smallest and largest ratio of a round.
"""

import argparse
import gc
import statistics
import tempfile
import time
from pathlib import Path

import numpy as np

import lcc.runtime
from lcc.compile import compile_model
from lcc.config import CacheConfig, CompileConfig, PolicyConfig
from lcc.testing.tiny import tiny_model

HIDDEN, EXPERT, EXPERTS, ACTIVE, VOCABULARY = 1024, 1024, 8, 2, 8192
DEFAULTS = {"layers": 12, "tokens": 512, "new": 32, "rounds": 5, "threads": 2}
CACHE = CacheConfig(capacity=1024, budget=512, chunk_size=256, catalyst_size=0)


def build(kind: str, target: str, options: argparse.Namespace, folder: Path) -> Path:
    """The artifact of a random model, `experts` or `dense`."""
    sizes = {
        "hidden_size": HIDDEN,
        "num_hidden_layers": options.layers,
        "num_attention_heads": 16,
        "num_key_value_heads": 4,
        "head_dim": 64,
        "vocab_size": VOCABULARY,
        "max_position_embeddings": 4096,
        "tie_word_embeddings": True,
    }
    if kind == "experts":
        model = tiny_model(
            "qwen3_moe",
            moe_intermediate_size=EXPERT,
            num_experts=EXPERTS,
            num_experts_per_tok=ACTIVE,
            **sizes,
        )
    else:
        model = tiny_model("qwen3", intermediate_size=ACTIVE * EXPERT, **sizes)
    for weight in model.parameters():  # so small that nothing grows from layer to layer
        if weight.ndim > 1:
            weight.data.mul_(0.2)
    config = CompileConfig(
        target=target,
        cache=CACHE,
        policy=PolicyConfig(name="none"),
        precision=options.precision,
    )
    path = folder / f"{kind}-{target.replace(':', '-')}.lcc"
    compile_model(model, path, config)
    return path


def timed(model: lcc.runtime.Model, tokens: np.ndarray, new: int) -> tuple[float, float]:
    """Milliseconds a token read, and a token written."""
    session = model.session()
    start = time.perf_counter()
    session.feed(tokens)
    session.next_logits()
    read = time.perf_counter() - start
    written = session.generate_ids(max_new_tokens=new + 1, eos=[])
    next(written)
    start = time.perf_counter()
    count = sum(1 for _ in written)
    return 1e3 * read / len(tokens), 1e3 * (time.perf_counter() - start) / count


def main() -> None:
    """Build both, time them in turns, print a table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--target", default="onnxruntime:cpu")
    parser.add_argument("--against", help="another target, of the same mixture")
    parser.add_argument("--precision", default="int4")
    for name, number in DEFAULTS.items():
        parser.add_argument(f"--{name}", type=int, default=number)
    options = parser.parse_args()
    other = ("experts", options.against) if options.against else ("dense", options.target)
    with tempfile.TemporaryDirectory() as folder:
        models = {}
        for kind, target in (("experts", options.target), other):
            path = build(kind, target, options, Path(folder))
            models[f"{kind}, {target}"] = lcc.runtime.load(
                path, threads=options.threads, allow_native=True
            )
            gc.collect()
        tokens = np.random.default_rng(0).integers(VOCABULARY, size=options.tokens)
        times: dict[str, list[tuple[float, float]]] = {name: [] for name in models}
        for number in range(options.rounds + 1):
            for name in sorted(models, reverse=number % 2 == 1):
                took = timed(models[name], tokens, options.new)
                if number:  # the first round warms up
                    times[name].append(took)
    print(f"{options.precision}, {options.layers} layers, {options.threads} threads")
    print("| | prefill, ms a token | decode, ms a token |")
    print("| --- | --- | --- |")
    for name, took in times.items():
        print(
            f"| {name} | "
            + " | ".join(f"{statistics.median(t):.2f}" for t in zip(*took, strict=True))
            + " |"
        )
    one, two = (np.array(each) for each in times.values())
    middle = np.median(one, 0) / np.median(two, 0)
    least, most = (one / two).min(0), (one / two).max(0)
    cells = [f"{m:.2f} ({a:.2f}, {b:.2f})" for m, a, b in zip(middle, least, most, strict=True)]
    print("| first over second (least, most) | " + " | ".join(cells) + " |")


if __name__ == "__main__":
    main()
