"""What a golden reads: the sizes of its session, and its ids.

It has to be short, and has to show what can go wrong: cycles that choose, groups that compact.
"""

from collections.abc import Callable

import msgspec

from lcc.artifact.golden import NEXT_TOKENS
from lcc.artifact.golden_text import PARAGRAPH, drawn_ids
from lcc.artifact.manifest import Manifest, for_target, targets_of
from lcc.artifact.session_sizes import lowered_constants
from lcc.config import CacheConfig
from lcc.errors import CacheError

MOST_TOKENS = 1200  # to read; next tokens come on top
RANKED = 32  # entries of the budget that are neither sinks nor recent
CHUNK_SIZE = 32


def golden_sizes(manifest: Manifest) -> CacheConfig:
    """The smallest sizes at which a cycle has a choice; as compiled where programs have them fixed.

    Where nothing evicts, the capacity is what lets every other group compact once.
    """
    sizes = _lowered(manifest, manifest.cache, "chunk_size", CHUNK_SIZE)
    budget = sizes.sink_size + sizes.recent_size + RANKED
    sizes = _lowered(manifest, sizes, "budget", budget)
    capacity = sizes.budget + sizes.catalyst_size + 2 * sizes.chunk_size
    if not manifest.schedule.cycle:
        needed = _until_compacted(manifest, sizes.chunk_size)
        capacity = max(capacity, min(needed, MOST_TOKENS) + NEXT_TOKENS)
    return _lowered(manifest, sizes, "capacity", capacity)


def _lowered(manifest: Manifest, sizes: CacheConfig, name: str, size: int) -> CacheConfig:
    """A size lowered, unless it is lower already, or a program of some target has it fixed."""
    if size >= getattr(sizes, name):
        return sizes
    lower = msgspec.structs.replace(sizes, **{name: size})
    try:
        for target in targets_of(manifest):
            lowered_constants(for_target(manifest, target), lower)
    except CacheError:
        return sizes
    return lower


def _until_compacted(manifest: Manifest, chunk_size: int) -> int:
    """Tokens after which every group but the full one was compacted once, 0 where there is none."""
    slots = [group.slots for group in manifest.groups[1:]]
    numbers = [manifest.constants[size] if isinstance(size, str) else size for size in slots]
    return max(numbers) + chunk_size if numbers else 0


def golden_ids(
    manifest: Manifest, sizes: CacheConfig, encode: Callable[[str], list[int]] | None
) -> list[int]:
    """The ids to read: what begins a text, then drawn ids, then a paragraph of English.

    Enough for two cycles and for a compaction of every other group, at most `MOST_TOKENS`.

    Args:
        manifest: Without special tokens among the ids that are drawn.
        sizes: From `golden_sizes`.
        encode: Text -> ids, without special tokens; None = the model has no tokenizer.
    """
    usable = sizes.capacity - manifest.constants["reserved"]
    count = _until_compacted(manifest, sizes.chunk_size)
    if manifest.schedule.cycle:
        count = max(count, 2 * usable - sizes.budget)
    else:
        count = min(max(count, sizes.chunk_size), usable - NEXT_TOKENS - sizes.chunk_size)
    count = min(count + sizes.chunk_size // 2 + 1, MOST_TOKENS)
    english = encode(PARAGRAPH)[: count // 2] if encode is not None else []
    text = manifest.text
    special = {*text.special, *text.prefix, *text.ends}
    drawn = drawn_ids(manifest.model.vocab_size, special)
    random = [next(drawn) for _ in range(count - len(english) - len(text.prefix))]
    return [*text.prefix, *random, *english]
