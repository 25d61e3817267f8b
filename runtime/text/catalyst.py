"""The catalyst prompt: what cycles look for."""

from lcc.artifact.manifest import Manifest
from lcc.config import BEGINNING
from lcc.errors import CacheError, ConfigError
from lcc.runtime.core.executor import Executor
from lcc.runtime.text.encoding import Encoder, Ids


class Catalyst:
    """The prompt that a cycle runs over the full cache to see what it attends to.

    value   text, ids, or the word "beginning": the first tokens of the text that is being read
    """

    def __init__(self, executor: Executor, encoder: Encoder, manifest: Manifest) -> None:
        """Start with the artifact's own."""
        self._executor, self._encoder, self._manifest = executor, encoder, manifest
        self._ids: list[int] = []
        self.value: str | list[int] = BEGINNING
        default = manifest.text.catalyst
        if executor.reads_catalyst and default is not None and default.ids is not None:
            self.set(list(default.ids))

    def set(self, value: str | Ids) -> None:
        """Take another one for the cycles that follow.

        Raises:
            CacheError: it has more tokens than `catalyst_size`.
            ConfigError: it is empty, is neither text nor ids, or no cycle reads it.
        """
        self._ids = self.encode(value)
        self.value = value if isinstance(value, str) else [int(token) for token in value]

    def encode(self, value: str | Ids) -> list[int]:
        """The ids of a catalyst; [] = the beginning of the text, known when a cycle runs."""
        if not self._executor.reads_catalyst:
            heads = ", for it goes by retaining heads" if self._manifest.heads else ""
            name = self._manifest.policy.name
            raise ConfigError(f'policy "{name}" reads no catalyst prompt{heads}')
        if isinstance(value, str) and value == BEGINNING:
            return []
        ids, limit = self._encoder.all_ids(value, "catalyst"), self._executor.catalyst_size
        if len(ids) > limit:
            raise CacheError(
                f"the catalyst prompt has {len(ids)} tokens, catalyst_size is {limit}; shorten it, "
                "or compile with a larger --catalyst-size"
            )
        return ids

    def of_cycle(self, ids: list[int] | None = None) -> list[int]:
        """The ids that a cycle runs now.

        Args:
            ids: Of a catalyst for this cycle, from `encode`; None = the present one.
        """
        ids = self._ids if ids is None else ids
        if ids or not self._executor.reads_catalyst:
            return ids
        whole = [*self._manifest.text.separator, *self._executor.beginning]
        return whole[: self._executor.catalyst_size]
