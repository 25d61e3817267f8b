"""What the user asks for: strict frozen structs, checked at birth, in the manifest as they are.

Sizes count entries or tokens; there is no ratio but `alpha`, which is the paper's own parameter.
"""

from typing import Literal

import msgspec

from lcc.errors import CacheError, ConfigError

BEGINNING = "beginning"  # as catalyst: the first tokens of the text itself
BEGINNING_TOKENS = 32
HEAD_ROWS = 32  # rows of hidden states that the LM head takes in one call, at most
SCORE_ROWS = 64  # of a chunk's queries, those that are scored in one call, where sums add up
RECENT_QUERIES = 64  # newest tokens whose queries are kept for a policy that scores by them

Positions = Literal["contiguous", "absolute"]
Precision = Literal["fp32", "int8", "int4"]
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
    """Which entries an eviction keeps; a policy ignores the options it does not use.

    alpha           weight of novelty. consensus: its exponent, attention's is 1 - alpha.
                    infinipot: share of the budget that novelty takes, before attention.
                    locret: as infinipot, before the retaining scores.
                    None = the policy's own: 0.75, and the paper's 0.5; 0 with retaining heads
    attention_span  neighbouring slots over which attention is pooled by maximum; 1 = single entries
    novelty_span    neighbouring slots over which novelty is averaged; 1 = single entries
                    (both: not consensus, which goes by sentences)
    query_pool      how the catalyst's or the last queries are combined
    group_pool      how the query heads of one KV head are combined
    memory          share of an entry's earlier attention added to its new one; 0 = only the new one
    tail_size       the last cycle of a text (where the reader is told that it ends) keeps, of its
                    newest entries, only those that belong to the last tail_size tokens of the text,
                    instead of recent_size. None = the policy's own: 100 for locret, for the others
                    recent_size as in every cycle
    merge           least cosine of keys at which the value of an evicted entry is averaged into the
                    nearest kept one's; None = evicted entries are forgotten
    catalyst        text run over the full cache to read how it attends; the word "beginning" = the
                    first 32 tokens of the very text being read, where prompts say what they want
    """

    name: str = "consensus"
    alpha: float | None = None
    attention_span: int = 41
    novelty_span: int = 41
    query_pool: Literal["sum", "max"] = "sum"
    group_pool: Literal["mean", "max"] = "mean"
    memory: float = 0.0
    tail_size: int | None = None
    merge: float | None = None
    catalyst: str = BEGINNING

    def score_rows(self, queries: str | None, rows: int) -> int:
        """Of so many queries that are scored together, those that a program is given in one call.

        queries     whose they are, see the manifest. Of a chunk ("all") a few, where what all of
                    them see is the sum of what each sees; artifacts of before do not say how a
                    catalyst's are combined, so these go together
        """
        adds_up = self.query_pool == "sum" and self.group_pool == "mean"
        return min(rows, SCORE_ROWS) if queries == "all" and adds_up else rows

    def __post_init__(self) -> None:
        if self.alpha is not None and not 0.0 <= self.alpha <= 1.0:
            raise ConfigError(f"alpha is {self.alpha}, wanted 0 to 1")
        if not 0.0 <= self.memory <= 1.0:
            raise ConfigError(f"memory is {self.memory}, wanted 0 to 1")
        if self.merge is not None and not -1.0 <= self.merge <= 1.0:
            raise ConfigError(f"merge is {self.merge}, wanted a cosine, -1 to 1")
        if self.tail_size is not None and self.tail_size < 0:
            raise ConfigError(f"tail_size is {self.tail_size}, wanted 0 or more")
        for name in ("attention_span", "novelty_span"):
            if getattr(self, name) < 1 or getattr(self, name) % 2 == 0:
                raise ConfigError(f"{name} is {getattr(self, name)}, wanted an odd number of slots")


class CompileConfig(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """All of `lcc compile`; the fields of a `--config` file.

    also            other targets to build for, into the same artifact
    plan            what each layer sees: see `lcc.ir.plan`
    memory_bytes    the most the runtime may take: weights, cache and activations; None = no limit
    fit_budget      choose the largest budget that memory_bytes allows, instead of refusing
    heads           file of retaining heads, for policies locret and consensus
    precision       bits of the weights; activations stay float32
    kv_precision    of keys and values in the cache; targets for GPUs keep float16 in any case
    cpu             level of CPU that tvm:cpu compiles for; None = this machine's
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
