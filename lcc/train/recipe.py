"""A recipe: stages of length, what each is trained on, and how (ProLong, LongGen), as data."""

from __future__ import annotations

from importlib import resources
from pathlib import Path
from typing import Literal

import msgspec

from lcc.errors import ConfigError

RECIPES = ("longgen", "prolong")


class Source(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Where documents come from, and what share of a stage's tokens they are.

    name        what the user gives a place to, with --source NAME=PLACE; several may share one
    share       part of the tokens of a stage; the shares of its sources add up to 1
    documents   whole: texts of at least `length` tokens, cut into pieces of exactly so many, so
                that no sequence mixes two; packed: texts of any length one after another, the one
                that is cut goes on in the next sequence; chat: conversations, of which only the
                answers are learned, one after another, the one that is cut ends there
    length      whole: tokens of a piece; None = the stage's own
    shortest    tokens of a text, at least; others are left out
    longest     tokens of a text, at most; None = any
    place       a file or folder (*.jsonl, *.parquet, *.txt, *.md), or hub:NAME[:CONFIGURATION], a
                dataset of the hub; None = --source has to say
    column      of the text, in *.jsonl, *.parquet and datasets; of a chat, its messages
    """

    name: str
    share: float
    documents: Literal["whole", "packed", "chat"] = "packed"
    length: int | None = None
    shortest: int = 2
    longest: int | None = None
    place: str | None = None
    column: str = "text"

    def __post_init__(self) -> None:
        for name in ("length", "shortest", "longest"):
            value = getattr(self, name)
            if value is not None and value < 1:
                raise ConfigError(f"source {self.name}: {name} is {value}, wanted 1 or more")


class Stage(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Training at one length.

    length              tokens of a sequence
    steps               optimizer steps
    batch_tokens        tokens of a step, over all processes; a multiple of length
    learning_rate       at its highest
    final               of it, what is left at the end; a share
    warmup              share of the steps with a rising rate
    schedule            how it falls
    rope_base           base of the rotary angles; None = as the model has it
    keep_optimizer      go on with the moments of the stage before
    sources             what is read, in which shares
    """

    name: str
    length: int
    steps: int
    batch_tokens: int
    learning_rate: float
    final: float = 0.1
    warmup: float = 0.1
    schedule: Literal["cosine", "linear"] = "cosine"
    rope_base: float | None = None
    keep_optimizer: bool = True
    sources: tuple[Source, ...]

    def __post_init__(self) -> None:
        where = f"stage {self.name}"
        for name in ("length", "steps", "batch_tokens"):
            if getattr(self, name) < 1:
                raise ConfigError(f"{where}: {name} is {getattr(self, name)}, wanted 1 or more")
        if self.batch_tokens % self.length:
            raise ConfigError(
                f"{where}: batch_tokens is {self.batch_tokens}, wanted a multiple of length "
                f"({self.length})"
            )
        if not self.learning_rate > 0:
            raise ConfigError(f"{where}: learning_rate is {self.learning_rate}, wanted more than 0")
        if not 0 <= self.final <= 1 or not 0 <= self.warmup <= 1:
            raise ConfigError(f"{where}: final and warmup are shares, wanted 0 to 1")
        total = sum(source.share for source in self.sources)
        if abs(total - 1) > 1e-6 or any(source.share <= 0 for source in self.sources):
            raise ConfigError(f"{where}: the shares add up to {total:g}, wanted 1, each above 0")
        for source in self.sources:
            if self.length % (source.length or self.length):
                raise ConfigError(
                    f"{where}: source {source.name} has pieces of {source.length} tokens, which "
                    f"do not fill {self.length}"
                )

    @property
    def sequences(self) -> int:
        """Sequences of a step."""
        return self.batch_tokens // self.length


class Recipe(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """How a model is trained.

    stages              one after another
    boundary            token between texts: the tokenizer's bos before or its eos after each
    document_masks      texts in a sequence do not see each other and each begins at position 0
    first_label         learn a text's first token, from what came before it; with document_masks
                        there is nothing before it, so it is never learned
    sort_by_cost        hand out the sequences of a step by the sum of their squared text lengths,
                        longest first, so that processes wait less for each other (ProLong)
    betas, weight_decay, clip   of AdamW; clip: largest norm of the gradient
    precision           of matrix products; weights and moments stay float32
    every               steps between checkpoints
    seed                of the order of the texts
    """

    stages: tuple[Stage, ...]
    boundary: Literal["bos", "eos", "none"] = "bos"
    document_masks: bool = True
    first_label: bool = False
    sort_by_cost: bool = True
    betas: tuple[float, float] = (0.9, 0.95)
    weight_decay: float = 0.1
    clip: float = 1.0
    precision: Literal["float32", "bfloat16"] = "bfloat16"
    every: int = 100
    seed: int = 0

    def __post_init__(self) -> None:
        names = [stage.name for stage in self.stages]
        if not names or len({*names}) < len(names):
            raise ConfigError("recipe: wanted stages, each with a name of its own")
        if self.every < 1 or not self.clip > 0:
            raise ConfigError("recipe: wanted every and clip above 0")


def load_recipe(text: str, places: dict[str, str]) -> Recipe:
    """A recipe by its name (`RECIPES`) or from a YAML file.

    places      name of a source -> where it is; takes the place of what the recipe says

    Raises:
        ConfigError: no such recipe, a mistake in it, or a place for a source it does not have.
    """
    if text in RECIPES:
        page = (resources.files("lcc.train") / "recipes" / f"{text}.yaml").read_bytes()
    else:
        path = Path(text).expanduser()
        if not path.is_file():
            raise ConfigError(
                f"{text}: no such recipe; wanted one of {', '.join(RECIPES)}, or a YAML file"
            )
        page = path.read_bytes()
    try:
        recipe = msgspec.yaml.decode(page, type=Recipe, strict=False)  # 1e-5 is text there
    except msgspec.ValidationError as error:
        if isinstance(error.__cause__, ConfigError):
            raise ConfigError(f"{text}: {error.__cause__}") from None
        raise ConfigError(f"{text}: {error}") from None
    except msgspec.DecodeError as error:
        raise ConfigError(f"{text}: not YAML: {' '.join(str(error).split())}") from None
    names = {source.name for stage in recipe.stages for source in stage.sources}
    if unknown := places.keys() - names:
        raise ConfigError(
            f"--source {min(unknown)}: {text} has no such source; it has {', '.join(sorted(names))}"
        )
    replace = msgspec.structs.replace

    def placed(source: Source) -> Source:
        return replace(source, place=places.get(source.name, source.place))

    return replace(
        recipe,
        stages=tuple(
            replace(stage, sources=tuple(map(placed, stage.sources))) for stage in recipe.stages
        ),
    )


def recipe_yaml(text: str, recipe: Recipe) -> str:
    """A shipped recipe with its comments, as it lies in the package; another one as it was read."""
    if text in RECIPES:
        return (resources.files("lcc.train") / "recipes" / f"{text}.yaml").read_text("utf-8")
    return msgspec.yaml.encode(recipe).decode()
