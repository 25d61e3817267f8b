"""What the user asks for: strict frozen structs, checked at birth, in the manifest as they are.

Sizes count entries or tokens.
"""

from typing import Literal

import msgspec

from lcc.errors import CacheError, ConfigError

BEGINNING = "beginning"  # as catalyst: the first tokens of the text itself
BEGINNING_TOKENS = 32
NEWEST_QUERIES = 64  # newest tokens whose queries a policy that scores by them reads
SNAPSHOTS = 3  # copies of the states of recurrent layers that a session keeps to go back to
HEAD_ROWS = 32  # rows of hidden states that the LM head takes in one call, at most

Positions = Literal["contiguous", "absolute"]
Precision = Literal["fp32", "int8", "int4", "given"]
KvPrecision = Literal["fp32", "fp16"]


class Budget(msgspec.Struct, frozen=True):
    """What a session takes of a compiled cache: entries that an eviction keeps, and slots.

    None = as compiled.
    """

    budget: int | None = None
    capacity: int | None = None


class CacheConfig(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Sizes of the cache, in entries per KV head.

    capacity        slots allocated; nothing ever holds more
    budget          entries kept by an eviction
    chunk_size      tokens read by one prefill_chunk call, at most
    catalyst_size   slots reserved at the end for a catalyst prompt, its longest length in tokens
    sink_size       first entries of the text, never evicted
    recent_size     newest entries, kept by the eviction that follows them
    positions       what the rotary angle of an entry follows: its slot, or its place in the text
    """

    capacity: int = 2048
    budget: int = 1024
    chunk_size: int = 256
    catalyst_size: int = 64
    sink_size: int = 4
    recent_size: int = 64
    positions: Positions = "contiguous"

    def __post_init__(self) -> None:
        for name in ("capacity", "budget", "chunk_size"):
            if getattr(self, name) < 1:
                raise ConfigError(f"{name} is {getattr(self, name)}, wanted 1 or more")
        for name in ("catalyst_size", "sink_size", "recent_size"):
            if getattr(self, name) < 0:
                raise ConfigError(f"{name} is {getattr(self, name)}, wanted 0 or more")
        if self.budget >= self.capacity:
            raise ConfigError(
                f"budget ({self.budget}) must be smaller than capacity ({self.capacity}): "
                "an eviction has to make room; lower --budget or raise --capacity"
            )
        needed = self.budget + self.chunk_size + self.catalyst_size
        if needed > self.capacity:
            raise ConfigError(
                f"budget + chunk_size + catalyst_size ({self.budget} + {self.chunk_size} + "
                f"{self.catalyst_size} = {needed}) exceeds capacity ({self.capacity}); "
                f"wanted {needed} slots or more, or smaller chunks"
            )
        protected = self.sink_size + self.recent_size
        if protected >= self.budget:
            raise ConfigError(
                f"sink_size + recent_size ({self.sink_size} + {self.recent_size} = {protected}) "
                f"must be smaller than budget ({self.budget}); else no ranked entry can be kept"
            )

    def lowered(self, **asked: int | None) -> "CacheConfig":
        """What a session takes of these compiled sizes.

        asked       capacity, budget, chunk_size; None = as compiled

        Raises:
            CacheError: more than was compiled.
            ConfigError: slots in which the budget leaves no room.
        """
        sizes = {name: size for name, size in asked.items() if size is not None}
        for name, size in sizes.items():
            if size > (most := getattr(self, name)):
                raise CacheError(
                    f"{name} is {size}, the artifact was compiled for {most}; ask for no more than "
                    f"that, or compile with --{name.replace('_', '-')} {size}"
                )
        return msgspec.structs.replace(self, **sizes)


class PolicyConfig(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Which entries an eviction keeps, and the options of that policy.

    options     of the policy's own `Options` (`lcc.passes.policies`); what is not given has its
                default, what the policy does not know is an error. In a manifest, all of them
    """

    name: str = "consensus"
    options: dict[str, int | float | str] = {}


class CompileConfig(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """All of `lcc compile`; the fields of a `--config` file.

    also            other targets to build for, into the same artifact
    plan            what each layer sees: see `lcc.ir.plan`
    memory_bytes    the most the runtime may take: weights, cache and activations; None = no limit
    fit_budget      choose the largest budget that memory_bytes allows, instead of refusing
    heads           file of retaining heads, for policies locret and consensus
    precision       bits of the weights; activations stay float32
    kv_precision    of keys and values in the cache; targets for GPUs keep float16 in any case
    cpu             level of CPU that tvm:* compiles for; None = this machine's, on Arm generic
    """

    target: str = "onnxruntime:cpu"
    also: tuple[str, ...] = ()
    cache: CacheConfig = CacheConfig()
    policy: PolicyConfig = PolicyConfig()
    plan: str = "dense"
    memory_bytes: int | None = None
    fit_budget: bool = False
    heads: str | None = None
    precision: Precision = "fp32"
    kv_precision: KvPrecision = "fp32"
    cpu: str | None = None

    def __post_init__(self) -> None:
        for name in ("chunk_size", "budget"):  # torch.export takes a size of 1 for a constant
            if (size := getattr(self.cache, name)) < 2:
                raise ConfigError(f"{name} is {size}, wanted 2 or more to compile")
        if self.cache.capacity < 8:  # the least that the evict programs are made for
            raise ConfigError(f"capacity is {self.cache.capacity}, wanted 8 or more to compile")
