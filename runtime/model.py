"""An opened artifact: what all of its sessions share."""

import threading
from pathlib import Path

from lcc.artifact.check_counters import INT32
from lcc.artifact.manifest import Manifest
from lcc.errors import ConfigError
from lcc.runtime.engines.base import Engine
from lcc.runtime.resident import trim
from lcc.runtime.session import Session
from lcc.runtime.text.chat import ChatTemplate, load_template
from lcc.runtime.text.tokenizer import Tokenizer


class Model:
    """Weights, programs, tokenizer and chat template: opened once, safe from many threads.

        model = lcc.runtime.load("smollm2.lcc")
        first, second = model.session(), model.session(budget=512)

    Sessions have buffers and a text of their own; each may run in its own thread.

    manifest        of the artifact, for the target that runs
    tokenizer       the model's own
    engine          the programs, loaded
    load_seconds    that opening took
    """

    def __init__(
        self, manifest: Manifest, tokenizer: Tokenizer, engine: Engine, load_seconds: float = 0.0
    ) -> None:
        """Use `lcc.runtime.load`."""
        self.manifest, self.tokenizer, self.engine = manifest, tokenizer, engine
        self.load_seconds = load_seconds
        self._template: ChatTemplate | None = None
        self._lock = threading.Lock()

    def __repr__(self) -> str:
        return f"<Model {self.manifest.model.name} for {self.manifest.target}>"

    def __del__(self) -> None:
        """Return to the system what weights and programs took: an app may load the next model."""
        vars(self).clear()
        trim()

    def session(
        self,
        *,
        capacity: int | None = None,
        budget: int | None = None,
        chunk_size: int | None = None,
        seed: int | None = None,
        archive: str | Path | None = None,
        archive_dtype: str = "float16",
        archive_limit: int | None = None,
    ) -> Session:
        """A new session: its buffers are allocated now, once.

        Args:
            capacity: Slots per KV head, fewer than compiled; None = as compiled.
            budget: Entries that a cycle keeps, likewise.
            chunk_size: Tokens of one step, likewise.
            seed: Of the numbers that policy `random` draws, 0 to 2^31 - 1; None = as compiled.
            archive: A file that takes what cycles evict, a row a token; a question brings back
                what it asks for. None = what is evicted is gone.
            archive_dtype: Of keys and values in a new archive: float16, float32 or int8.
            archive_limit: Most bytes of the file, beyond which the oldest rows go; None = any.

        Raises:
            CacheError: a size above the compiled one, or below it where programs have it fixed.
            ConfigError: sizes that leave a cycle no room; a seed that the policy does not use; an
                archive where the artifact has none.
            ArchiveError: the archive is damaged, in use, or of another artifact.
        """
        policy = self.manifest.policy
        if seed is not None and "seed" not in policy.options:
            raise ConfigError(f'seed is {seed}, but policy "{policy.name}" draws no numbers')
        if seed is not None and not 0 <= seed <= INT32:
            raise ConfigError(f"seed is {seed}, wanted 0 to {INT32}")
        asked = {"capacity": capacity, "budget": budget, "chunk_size": chunk_size}
        session = Session(self, self.manifest.cache.lowered(**asked), seed)
        if archive is not None:
            session.attach(archive, dtype=archive_dtype, limit_bytes=archive_limit)
        return session

    def template(self) -> ChatTemplate:
        """The chat template, parsed when it is first wanted.

        Raises:
            ConfigError: the model has none, or a damaged one.
        """
        with self._lock:
            if self._template is None:
                self._template = load_template(self.tokenizer)
            return self._template
