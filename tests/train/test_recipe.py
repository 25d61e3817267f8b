"""Recipes say what the papers say, and mistakes in them are told before anything is loaded."""

from pathlib import Path

import pytest

from lcc.errors import ConfigError
from lcc.train.hybrid_trainer import learning_rate
from lcc.train.recipe import RECIPES, Stage, load_recipe, recipe_yaml

STAGE = """
stages:
  - name: one
    length: 128
    steps: 10
    batch_tokens: 256
    learning_rate: 1e-3
    sources: [{name: text, share: 1.0}]
"""


@pytest.fixture
def file(tmp_path: Path) -> Path:
    path = tmp_path / "r.yaml"
    path.write_text(STAGE)
    return path


def test_prolong_is_the_papers() -> None:
    """arXiv 2410.02660, table of the final recipe."""
    recipe = load_recipe("prolong", {})
    first, second, chats = recipe.stages
    assert (first.length, second.length, chats.length) == (2**16, 2**19, 2**16)
    assert (first.sequences, second.sequences, chats.sequences) == (64, 16, 64)
    for stage, billions in ((first, 20), (second, 20), (chats, 1)):
        assert stage.steps * stage.batch_tokens == pytest.approx(billions * 2**30, rel=0.03)
    assert (first.rope_base, second.rope_base, chats.rope_base) == (8e6, 1.28e8, 1.28e8)
    assert learning_rate(first, 500) == pytest.approx(1e-5)
    assert learning_rate(first, 5000) == pytest.approx(1e-6)
    assert learning_rate(chats, 250) == pytest.approx(2e-6)
    shares = {source.name: source.share for source in first.sources}
    assert shares["code"] == shares["books"] == 0.30
    short = sum(shares[name] for name in shares if name not in ("code", "books", "textbooks"))
    assert short == pytest.approx(0.37)
    whole = [s for s in second.sources if s.documents == "whole"]
    assert [(s.share, s.length) for s in whole] == [
        (0.15, None), (0.15, 65536), (0.05, None), (0.25, 65536),
    ]  # fmt: skip
    assert chats.sources[0].documents == "chat"


def test_longgen_is_the_papers() -> None:
    (stage,) = load_recipe("longgen", {}).stages
    assert stage.length == 131072
    assert stage.steps * stage.batch_tokens == pytest.approx(5e9, rel=1e-3)


@pytest.mark.parametrize("name", RECIPES)
def test_what_is_shown_can_be_read(name: str, tmp_path: Path) -> None:
    recipe = load_recipe(name, {})
    path = tmp_path / "mine.yaml"
    path.write_text(recipe_yaml(name, recipe))
    assert "#" in path.read_text()  # the assumptions
    assert load_recipe(str(path), {}) == recipe
    again = tmp_path / "again.yaml"
    again.write_text(recipe_yaml(str(path), recipe))
    assert load_recipe(str(again), {}) == recipe


def test_places_are_given_to_all_sources_of_a_name() -> None:
    recipe = load_recipe("prolong", {"code": "repositories"})
    places = [s.place for stage in recipe.stages for s in stage.sources if s.name == "code"]
    assert places == ["repositories"] * 3


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ("steps: 10", "stepz: 10", "stepz"),
        ("steps: 10", "steps: 0", "steps is 0"),
        ("256", "200", "batch_tokens is 200, wanted a multiple of length"),
        ("1e-3", "-1", "learning_rate is -1"),
        ("share: 1.0", "share: 0.5", "shares add up to 0.5"),
        ("share: 1.0", "share: 1.0, documents: whole, length: 100", "pieces of 100 tokens"),
        ("share: 1.0", "share: 1.0, documents: all", "Invalid enum value"),
        ("share: 1.0", "share: 1.0, length: -128", "source text: length is -128, wanted 1"),
        ("share: 1.0", "share: 1.0, shortest: 0", "source text: shortest is 0, wanted 1"),
        ("stages:", "stages: [", "not YAML"),
        (STAGE, "stages: []", "wanted stages"),
    ],
)
def test_mistakes_are_told(old: str, new: str, message: str, file: Path) -> None:
    file.write_text(file.read_text().replace(old, new))
    with pytest.raises(ConfigError, match=message):
        load_recipe(str(file), {})


def test_unknown_names_are_told(file: Path) -> None:
    with pytest.raises(ConfigError, match="no such recipe; wanted one of longgen, prolong"):
        load_recipe("short", {})
    with pytest.raises(ConfigError, match=r"--source bok: .* it has text"):
        load_recipe(str(file), {"bok": "x"})


def test_learning_rates_rise_and_fall() -> None:
    stage = Stage(
        name="s", length=8, steps=10, batch_tokens=8, learning_rate=1.0, final=0.2, warmup=0.4,
        schedule="linear", sources=load_recipe("longgen", {}).stages[0].sources,
    )  # fmt: skip
    rates = [learning_rate(stage, step) for step in range(1, 11)]
    assert rates[:4] == [0.25, 0.5, 0.75, 1.0]
    assert rates[4:] == pytest.approx([1 - 0.8 * k / 6 for k in range(1, 7)])
