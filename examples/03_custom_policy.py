"""A policy of one's own: keep the entries with the largest values.

    python examples/03_custom_policy.py MODEL OUT.lcc

`rank` is traced into the artifact, so it must be tensor code without branches on values. Sinks, the
newest entries and empty slots are none of its business: the base class sees to them.
"""

import argparse

from torch import Tensor

import lcc.runtime
from lcc.compile import compile_model
from lcc.config import CacheConfig, CompileConfig, PolicyConfig
from lcc.passes.policies import POLICIES, Entries, EvictionPolicy


class LoudValues(EvictionPolicy):
    """Ranks by the length of the value vector."""

    name = "loud_values"

    def rank(self, entries: Entries) -> Tensor:
        """How much each entry is worth, [Hkv, S]: the higher survives."""
        return entries.value.norm(dim=-1)


def main() -> None:
    """Compile with the policy, then see which tokens of a text it keeps."""
    parser = argparse.ArgumentParser()
    parser.add_argument("model")
    parser.add_argument("output")
    options = parser.parse_args()

    POLICIES[LoudValues.name] = LoudValues
    cache = CacheConfig(capacity=128, budget=64, chunk_size=32, catalyst_size=0, recent_size=8)
    config = CompileConfig(cache=cache, policy=PolicyConfig(name=LoudValues.name))
    compile_model(options.model, options.output, config)

    session = lcc.runtime.open(options.output)  # the policy's class is not needed from here on
    session.feed("It was a bright cold day in April, and the clocks were striking thirteen. " * 4)
    session.distill()  # a cycle now, full or not
    print("kept by the first layer's first head:", *session.kept_tokens(layer=0)[0])


if __name__ == "__main__":
    main()
