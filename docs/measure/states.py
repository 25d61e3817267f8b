"""Models with recurrent layers, of shapes that people know: speed against transformers, and memory.

python docs/measure/states.py lfm2-350m [--tokens 4096,32768] [--new 32] [--rounds 2] [--threads 1]
    [--precision int8] [--long 65536] [--keep m.lcc]

Weights are random: only sizes count. One artifact and the eager model (float32, with its own cache)
read the same tokens in turn, in this process. Then a process of its own reads `--long` tokens and
says what it holds on the way.
"""

import argparse
import os
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np

import lcc.runtime

SHAPES: dict[str, tuple[str, dict[str, Any]]] = {
    "lfm2-350m": (
        "lfm2",
        {
            "vocab_size": 65536,
            "hidden_size": 1024,
            "intermediate_size": 6656,
            "num_hidden_layers": 16,
            "num_attention_heads": 16,
            "num_key_value_heads": 8,
            "layer_types": [
                "full_attention" if i in (2, 5, 8, 10, 12, 14) else "conv" for i in range(16)
            ],
            "max_position_embeddings": 128_000,
        },
    ),
    "dense-350m": (  # for comparison: as LFM2, and every layer attends
        "llama",
        {
            "vocab_size": 65536,
            "hidden_size": 1024,
            "intermediate_size": 4608,
            "num_hidden_layers": 16,
            "num_attention_heads": 16,
            "num_key_value_heads": 8,
            "tie_word_embeddings": True,
            "max_position_embeddings": 128_000,
        },
    ),
    "granite-4.0-h-350m": (
        "granitemoehybrid",
        {
            "vocab_size": 100_352,
            "hidden_size": 768,
            "num_hidden_layers": 32,
            "num_attention_heads": 12,
            "num_key_value_heads": 4,
            "num_local_experts": 0,
            "shared_intermediate_size": 2048,
            "mamba_n_heads": 48,
            "mamba_d_head": 32,
            "mamba_d_state": 128,
            "mamba_n_groups": 1,
            "mamba_expand": 2,
            "layer_types": [
                "full_attention" if i in (10, 13, 17, 27) else "linear_attention" for i in range(32)
            ],
            "position_embedding_type": "nope",
            "max_position_embeddings": 32_768,
        },
    ),
    "qwen3.5-0.8b": (
        "qwen3_5_text",
        {
            "vocab_size": 248_320,
            "hidden_size": 1024,
            "intermediate_size": 3584,
            "num_hidden_layers": 24,
            "num_attention_heads": 8,
            "num_key_value_heads": 2,
            "head_dim": 256,
            "linear_num_key_heads": 16,
            "linear_num_value_heads": 16,
            "linear_key_head_dim": 128,
            "linear_value_head_dim": 128,
            "layer_types": (["linear_attention"] * 3 + ["full_attention"]) * 6,
            "tie_word_embeddings": True,
            "max_position_embeddings": 262_144,
        },
    ),
}


def random_model(shape: str) -> Any:
    """The eager model, float32."""
    import torch
    from transformers import AutoConfig, AutoModelForCausalLM

    kind, fields = SHAPES[shape]
    torch.manual_seed(0)
    config = AutoConfig.for_model(kind, **fields)
    return AutoModelForCausalLM.from_config(config, dtype=torch.float32).eval()


def compiled(model: Any, artifact: Path, precision: Any) -> None:
    """Make the artifact, with the usual cache."""
    from lcc.compile import compile_model
    from lcc.config import CacheConfig, CompileConfig, PolicyConfig

    cache = CacheConfig(capacity=2048, budget=1024, catalyst_size=0)
    policy = PolicyConfig(name="snapkv")
    config = CompileConfig(cache=cache, policy=policy, precision=precision)
    compile_model(model, artifact, config)


def by_lcc(session: Any, ids: list[int], new: int) -> tuple[float, float]:
    """Seconds of reading, and of each token written."""
    session.reset()
    begin = time.perf_counter()
    session.feed(ids)
    read = time.perf_counter() - begin
    begin = time.perf_counter()
    list(session.generate_ids(None, max_new_tokens=new + 1, eos=[], temperature=0.0))
    return read, (time.perf_counter() - begin) / new


def by_transformers(model: Any, ids: list[int], new: int) -> tuple[float, float]:
    """The same, of the eager model with its own cache."""
    import torch

    with torch.no_grad():
        begin = time.perf_counter()
        out = model(input_ids=torch.tensor([ids]), use_cache=True, logits_to_keep=1)
        read, cache = time.perf_counter() - begin, out.past_key_values
        begin = time.perf_counter()
        for _ in range(new):
            token = out.logits[:, -1:].argmax(-1)
            out = model(input_ids=token, past_key_values=cache, use_cache=True)
        return read, (time.perf_counter() - begin) / new


def held() -> float:
    """MB resident now, of this process."""
    pages = int(Path("/proc/self/statm").read_text().split()[1])
    return pages * os.sysconf("SC_PAGE_SIZE") / 1e6


def read_long(artifact: str, tokens: int, threads: int) -> None:
    """Read a text, and say from time to time what is held."""
    session = lcc.runtime.open(artifact, threads=threads)
    draw = np.random.default_rng(0)
    size, read = session.manifest.model.vocab_size, 0
    for target in [4096 << n for n in range(20) if 4096 << n <= tokens]:
        session.feed(draw.integers(10, size, target - read).tolist())
        read = target
        print(f"{read:>8,} tokens  {held():7.1f} MB held", flush=True)


def in_turn(session: Any, model: Any, tokens: int, new: int, rounds: int) -> None:
    """Both read and write the same numbers of tokens, in turn; print each, and the medians."""
    ids = np.random.default_rng(1).integers(10, 60_000, tokens).tolist()
    ratios = []
    for _ in range(rounds):
        own, other = by_lcc(session, ids, new), by_transformers(model, ids, new)
        ratios.append([b / a for a, b in zip(own, other, strict=True)])
        print(
            f"{tokens:,} tokens: lcc reads {tokens / own[0]:.0f} tokens/s, "
            f"writes {1 / own[1]:.1f}; transformers {tokens / other[0]:.0f}, {1 / other[1]:.1f}",
            flush=True,
        )
    if ratios:
        reads, writes = (statistics.median(each) for each in zip(*ratios, strict=True))
        print(f"{tokens:,} tokens, transformers / lcc: prefill {reads:.2f}, decode {writes:.2f}")


def main() -> None:
    """See the file."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("shape", help=f"one of {', '.join(SHAPES)}; or an artifact, with --child")
    parser.add_argument("--tokens", default="4096", help="lengths of texts, with commas")
    parser.add_argument("--new", type=int, default=32)
    parser.add_argument("--rounds", type=int, default=2)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--precision", default="int8")
    parser.add_argument("--long", type=int, default=0)
    parser.add_argument("--keep", type=Path, help="where the artifact goes; one there is used")
    parser.add_argument("--child", action="store_true")
    args = parser.parse_args()
    if args.child:
        read_long(args.shape, args.long, args.threads)
        return
    import torch

    torch.set_num_threads(args.threads)
    model = random_model(args.shape)
    print(f"{args.shape}: {sum(p.numel() for p in model.parameters()) / 1e6:.0f} M parameters")
    with tempfile.TemporaryDirectory() as place:
        artifact = args.keep or Path(place) / "m.lcc"
        if not artifact.exists():
            begin = time.perf_counter()
            compiled(model, artifact, args.precision)
            print(f"compiled in {time.perf_counter() - begin:.0f} s", flush=True)
        session = lcc.runtime.open(artifact, threads=args.threads)
        rows = {row.name: f"{row.bytes / 1e6:.1f} MB" for row in session.manifest.memory}
        print(rows)
        for tokens in map(int, args.tokens.split(",")):
            in_turn(session, model, tokens, args.new, args.rounds)
        if args.long:
            numbers = ["--long", str(args.long), "--threads", str(args.threads)]
            command = [sys.executable, __file__, str(artifact), "--child", *numbers]
            subprocess.run(command, check=True)


if __name__ == "__main__":
    main()
