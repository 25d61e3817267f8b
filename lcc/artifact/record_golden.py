"""Makes `golden.json`: the eager reference reads a short text, by the artifact's own schedule."""

from collections.abc import Mapping
from typing import TYPE_CHECKING

from lcc.artifact.golden import Golden, make_golden
from lcc.artifact.golden_reading import golden_ids, golden_sizes
from lcc.artifact.manifest import Manifest

if TYPE_CHECKING:
    from lcc.runtime.engines.base import Engine


def record_golden(
    manifest: Manifest, exact: Manifest, engine: "Engine", files: Mapping[str, bytes]
) -> Golden:
    """Run the reference over a short text.

    Args:
        manifest: Of the artifact: says what sizes its programs have fixed, and their precision.
        exact: The same, of the programs as the reference runs them.
        engine: The reference's.
        files: Of the model, name -> content; with a tokenizer, a part of the text is English.
    """
    # The one place where compiling runs a runtime: what interprets a schedule is there only once.
    from lcc.runtime.core.executor import Executor

    encode = None
    if "tokenizer.json" in files:
        from tokenizers import Tokenizer

        tokenizer = Tokenizer.from_str(files["tokenizer.json"].decode())

        def encode(text: str) -> list[int]:
            return list(tokenizer.encode(text, add_special_tokens=False).ids)

    sizes = golden_sizes(manifest)
    return make_golden(
        Executor(exact, sizes, engine), manifest, golden_ids(manifest, sizes, encode)
    )
