"""Bytes that a token holds in a layer of latent attention, by lcc's memory table.

python docs/measure/latents.py

Models of two layers with the attention of DeepSeek V3 (128 heads; latents of 512, 64 rotated
channels, 128 others, values of 128) and everything else small, in float32, and tiny ones with 4
heads. Compiled as lcc does it, and with buffers of their own for keys and values; the keys and
values of every head are arithmetic.
"""

import tempfile
from pathlib import Path

from lcc.artifact.manifest import Manifest
from lcc.compile import compile_model
from lcc.config import CacheConfig, CompileConfig, PolicyConfig
from lcc.passes.share_latents import ShareLatents
from lcc.testing.tiny import tiny_model

CAPACITY, LAYERS, OF_POSITION = 64, 2, 8
CACHE = CacheConfig(capacity=CAPACITY, budget=32, chunk_size=16, catalyst_size=0, recent_size=8)
SIZES = {
    "DeepSeek V3's": {"num_attention_heads": 128, "num_key_value_heads": 128},
    "tiny": {"kv_lora_rank": 16, "qk_nope_head_dim": 16, "qk_rope_head_dim": 8, "v_head_dim": 16},
}
SIZES["DeepSeek V3's"] |= {"kv_lora_rank": 512, "qk_nope_head_dim": 128, "qk_rope_head_dim": 64}
SIZES["DeepSeek V3's"] |= {"qk_head_dim": 192, "v_head_dim": 128, "head_dim": 64}


def bytes_of(sizes: dict[str, int]) -> int:
    """Of a token in one layer, without its position in the text."""
    config = CompileConfig(target="reference", cache=CACHE, policy=PolicyConfig(name="knorm"))
    with tempfile.TemporaryDirectory() as folder:
        model = tiny_model("deepseek_v3", num_hidden_layers=LAYERS, **sizes)
        manifest: Manifest = compile_model(model, Path(folder) / "m.lcc", config)
    (cache,) = [row.bytes for row in manifest.memory if row.name == "cache"]
    heads = next(b.shape[0] for b in manifest.buffers if b.name == "token_position_0")
    assert isinstance(heads, int)
    return cache // CAPACITY // LAYERS - OF_POSITION * heads


def main() -> None:
    """Print a table."""
    rewrite = ShareLatents.rewrite
    print("| attention | one buffer | key and value apart | every head |")
    print("| --- | --- | --- | --- |")
    for name, sizes in SIZES.items():
        one = bytes_of(sizes)
        ShareLatents.rewrite = lambda *_: 0  # type: ignore[method-assign]
        apart = bytes_of(sizes)
        ShareLatents.rewrite = rewrite  # type: ignore[method-assign]
        of_head = sizes["qk_nope_head_dim"] + sizes["qk_rope_head_dim"] + sizes["v_head_dim"]
        spelled = 4 * of_head * sizes.get("num_attention_heads", 4)
        print(f"| {name} | {one:,} | {apart:,} | {spelled:,} |")


if __name__ == "__main__":
    main()
