"""Sources of a stage -> sequences of tokens, mixed by their shares, the same for the same seed."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from lcc.env import needs_extra
from lcc.errors import ConfigError
from lcc.train.recipe import Recipe, Source, Stage

if TYPE_CHECKING:
    import datasets

IGNORED = -100  # a label that does not count
DOCUMENT = "document"  # the column
READERS = {".jsonl": "json", ".parquet": "parquet", ".txt": "text", ".md": "text"}
Encode = Callable[[Any], tuple[list[int], list[bool]]]


@dataclass(frozen=True)
class Sequence:
    """What one forward pass reads.

    ids         [n] int64
    labels      [n] int64, what each token should be followed by; IGNORED = it does not matter
    lengths     tokens of each text, which add up to n; texts do not see each other
    """

    ids: np.ndarray
    labels: np.ndarray
    lengths: tuple[int, ...]

    @property
    def cost(self) -> int:
        """What full attention costs, up to a factor."""
        return sum(length**2 for length in self.lengths)


def open_source(source: Source, where: str) -> datasets.Dataset:
    """The texts of a source, in one column.

    Raises:
        ConfigError: no place, no such file, folder or dataset, or no such column.
    """
    with needs_extra("train"):
        import datasets
    datasets.disable_progress_bars()
    if source.place is None:
        raise ConfigError(f"{where}: {source.name} has no place; say --source {source.name}=PLACE")
    if source.place.startswith("hub:"):
        name, _, configuration = source.place.removeprefix("hub:").partition(":")
        parts = [_load(source, name, configuration or None)]
    else:
        path = Path(source.place).expanduser()
        if not path.exists():
            raise ConfigError(f"{where}: {source.name} is at {path}: no such file or folder")
        files = sorted(path.rglob("*")) if path.is_dir() else [path]
        groups: dict[str, list[str]] = {}
        for file in files:
            if file.suffix in READERS:
                groups.setdefault(READERS[file.suffix], []).append(str(file))
        more = {"text": {"sample_by": "document"}}
        parts = [
            _load(source, kind, data_files=names, **more.get(kind, {}))
            for kind, names in groups.items()
        ]
        if not parts:
            raise ConfigError(
                f"{where}: {source.name} is at {path}, which has no {', '.join(READERS)}"
            )
    for i, part in enumerate(parts):
        column = "text" if "text" in part.column_names and source.documents != "chat" else None
        column = source.column if source.column in part.column_names else column
        if column is None:
            raise ConfigError(
                f"{where}: {source.name} at {source.place} has no column {source.column!r}; it has "
                f"{', '.join(part.column_names)}"
            )
        part = part.select_columns([column])
        parts[i] = part if column == DOCUMENT else part.rename_column(column, DOCUMENT)
    texts = datasets.concatenate_datasets(parts) if len(parts) > 1 else parts[0]
    if not len(texts):
        raise ConfigError(f"{where}: {source.name} at {source.place} is empty")
    return texts


def _load(source: Source, *names: Any, **options: Any) -> datasets.Dataset:
    import datasets

    try:
        return datasets.load_dataset(*names, split="train", **options)
    except Exception as error:  # many types: of the reader, of the hub, of pyarrow
        cause = error.__cause__ or error
        reason = " ".join(str(cause).split())[:200]
        raise ConfigError(
            f"source {source.name} at {source.place} cannot be read: {reason}"
        ) from None


class Stream:
    """The texts of one source in a random order, again and again, as pieces of sequences."""

    def __init__(
        self,
        source: Source,
        texts: datasets.Dataset,
        encode: Encode,
        *,
        piece: int,
        seed: tuple[int, ...],
    ) -> None:
        """`piece`: tokens of a piece, where texts are cut into pieces of one size."""
        self.source, self.texts, self.encode, self.piece = source, texts, encode, piece
        self.seed = seed
        self.turn, self.place, self.given = 0, 0, 0
        self.order = self._order()
        self.ids, self.learned = np.empty(0, np.int64), np.empty(0, bool)

    def take(self, count: int) -> list[tuple[np.ndarray, np.ndarray]]:
        """Texts of `count` tokens together: ids, and which of them are learned."""
        whole, pieces = self.source.documents == "whole", []
        while count:
            wanted = self.piece if whole else 2
            while len(self.ids) < wanted:
                self._read(wanted)
            size = self.piece if whole else min(count, len(self.ids))
            pieces.append((self.ids[:size], self.learned[:size]))
            end = len(self.ids) if self.source.documents == "chat" else size
            self._drop(end)
            count -= size
            self.given += size
        return pieces

    def state(self) -> dict[str, int]:
        """Where the stream stands; the text that it is in can be read again."""
        return {
            "texts": len(self.texts),
            "turn": self.turn,
            "place": self.place,
            "left": len(self.ids),
            "given": self.given,
        }

    def restore(self, state: dict[str, int]) -> None:
        """Go on where `state` was asked for.

        Raises:
            ConfigError: the source has another number of texts now.
        """
        if state["texts"] != len(self.texts):
            raise ConfigError(
                f"source {self.source.name} at {self.source.place} has {len(self.texts)} texts, "
                f"and had {state['texts']} when the checkpoint was written"
            )
        self.turn, self.place, self.given = state["turn"], state["place"], state["given"]
        self.order = self._order()
        if state["left"]:
            self.place -= 1
            self._next()
            self._drop(len(self.ids) - state["left"])

    def _read(self, wanted: int) -> None:
        """The next text of at least so many tokens; a turn without one is an error."""
        least, most = max(wanted, self.source.shortest), self.source.longest
        for _ in range(len(self.texts) + 1):
            if self.place == len(self.texts):
                self.turn, self.place = self.turn + 1, 0
                self.order = self._order()
            self._next()
            fits = len(self.ids) >= least and (most is None or len(self.ids) <= most)
            if fits and self.learned[1:].any():
                return
        raise ConfigError(
            f"source {self.source.name} at {self.source.place}: none of its {len(self.texts)} "
            f"texts has {least} tokens or more"
            + (f", and {most} or fewer" if most is not None else "")
        )

    def _next(self) -> None:
        number = int(self.order[self.place])
        try:
            ids, learned = self.encode(self.texts[number][DOCUMENT])
        except ConfigError as error:
            raise ConfigError(
                f"source {self.source.name} at {self.source.place}, text {number}: {error}"
            ) from None
        self.ids, self.learned = np.array(ids, np.int64), np.array(learned, bool)
        self.place += 1

    def _drop(self, count: int) -> None:
        self.ids, self.learned = self.ids[count:], self.learned[count:]

    def _order(self) -> np.ndarray:
        generator = np.random.default_rng([*self.seed, self.turn])
        return generator.permutation(len(self.texts))


class Mix:
    """The sequences of a stage: from each source as often as its share wants."""

    def __init__(self, recipe: Recipe, stage: Stage, streams: list[Stream]) -> None:
        self.recipe, self.stage, self.streams = recipe, stage, streams

    def batches(self, first: int) -> Iterator[list[Sequence]]:
        """The sequences of each step, from step `first` on."""
        for _ in range(first, self.stage.steps):
            batch = list(itertools.islice(self._sequences(), self.stage.sequences))
            if self.recipe.sort_by_cost:
                batch.sort(key=lambda sequence: -sequence.cost)
            yield batch

    def first_turn(self, count: int) -> list[Sequence]:
        """The first sequences, `count` at most, without any text twice."""
        found = []
        for sequence in itertools.islice(self._sequences(), count):
            if any(stream.turn for stream in self.streams):
                break
            found.append(sequence)
        return found

    def state(self) -> list[dict[str, int]]:
        """Where every stream stands."""
        return [stream.state() for stream in self.streams]

    def restore(self, states: list[dict[str, int]]) -> None:
        """Go on where `state` was asked for."""
        for stream, state in zip(self.streams, states, strict=True):
            stream.restore(state)

    def _sequences(self) -> Iterator[Sequence]:
        """Without end; those without anything to learn, as of a chat's long question, left out."""
        idle = 0
        while idle <= max(len(stream.texts) for stream in self.streams):
            total = sum(stream.given for stream in self.streams) + self.stage.length
            late = [s.source.share * total - s.given for s in self.streams]
            stream = self.streams[int(np.argmax(late))]
            sequence = join(stream.take(self.stage.length), self.recipe)
            idle += 1
            if (sequence.labels != IGNORED).any():
                idle = 0
                yield sequence
        raise ConfigError(
            f"stage {self.stage.name}: {idle} sequences after another have nothing to learn; are "
            f"all answers behind the first {self.stage.length} tokens?"
        )


def join(pieces: list[tuple[np.ndarray, np.ndarray]], recipe: Recipe) -> Sequence:
    """Texts side by side; the label of a token is the one after it, where that is learned."""
    ids = np.concatenate([piece for piece, _ in pieces])
    learned = np.concatenate([learned for _, learned in pieces])
    lengths = tuple(len(piece) for piece, _ in pieces)
    if recipe.document_masks or not recipe.first_label:
        learned[np.cumsum((0, *lengths[:-1]))] = False
    labels = np.append(np.where(learned, ids, IGNORED)[1:], IGNORED)
    return Sequence(ids, labels, lengths if recipe.document_masks else (len(ids),))


def make_mix(recipe: Recipe, stage: Stage, encoders: dict[str, Encode], *, seed: int) -> Mix:
    """Open the sources of a stage.

    encoders    for texts and for chats: document -> token ids, and which of them are learned
    seed        of the order of the texts; another one for every stage
    """
    streams = []
    for number, source in enumerate(stage.sources):
        encode = encoders["chat" if source.documents == "chat" else "text"]
        piece = source.length or stage.length
        texts = open_source(source, f"stage {stage.name}")
        streams.append(Stream(source, texts, encode, piece=piece, seed=(seed, number)))
    return Mix(recipe, stage, streams)
