from __future__ import annotations

import tomllib
from pathlib import Path

import pytest

from bertloom.config import preset
from bertloom.errors import InputError
from bertloom.objectives import Combined
from bertloom.train.recipe import Recipe, read_recipe, resolved

# Those of pretraining; one of steps to a smaller model is built in tests/ship.
RECIPES = sorted(
    file for file in (Path(__file__).parents[2] / "recipes").glob("*.toml") if "[[steps]]" not in file.read_text()
)


def test_written_and_read_again_it_is_the_same(tmp_path: Path) -> None:
    recipe = Recipe(corpus='a "quoted" 한국어 \\ path', learning_rate=3e-4, tensorboard=True)
    recipe.write(tmp_path / "r.toml")
    assert Recipe(**read_recipe(tmp_path / "r.toml")) == recipe
    assert set(tomllib.loads((tmp_path / "r.toml").read_text())) == set(recipe.values())


def test_flags_stand_over_the_file(tmp_path: Path) -> None:
    (tmp_path / "r.toml").write_text('model = "tiny"\nsteps = 5\n')
    recipe = resolved(tmp_path / "r.toml", {"steps": 7})
    assert (recipe.model, recipe.steps, recipe.batch_size) == ("tiny", 7, 32)


def test_shipped_recipes_are_found() -> None:
    assert len(RECIPES) >= 2


@pytest.mark.parametrize("file", RECIPES, ids=lambda file: file.stem)
def test_shipped_recipes_build(file: Path) -> None:
    recipe = resolved(file, {})
    config = preset(recipe.model)
    Combined(preset("tiny"), recipe.objective, **recipe.choices())
    assert recipe.length <= config.longest


def test_unknown_keys_name_the_nearest_with_file_and_line(tmp_path: Path) -> None:
    file = tmp_path / "r.toml"
    file.write_text('model = "tiny"\n\nlearning_rat = 1e-3\n')
    with pytest.raises(InputError, match=r"r\.toml:3: key unknown 'learning_rat', did you mean 'learning_rate'"):
        resolved(file, {})


@pytest.mark.parametrize(
    ("content", "said"),
    [("model = ", "is not TOML"), (None, "no such file"), ("steps = 'x'", "r.toml:1: steps: 'x' given, a int")],
)
def test_files_that_are_no_recipe(tmp_path: Path, content: str | None, said: str) -> None:
    if content is not None:
        (tmp_path / "r.toml").write_text(content)
    with pytest.raises(InputError, match=said):
        resolved(tmp_path / "r.toml", {})


@pytest.mark.parametrize(
    ("key", "value", "said"),
    [
        ("steps", 0, "at least 1"),
        ("length", 4, "at least 8"),
        ("steps", True, "a int allowed"),
        ("dropout", 1.0, "from 0 to 0.99"),
        ("mask_share", 0.0, "above 0"),
        ("warmup", 1.5, "from 0 to 1"),
        ("short_share", -0.1, "from 0 to 1"),
        ("short_length", 256, "from 8 to length"),
        ("schedule", "linaer", "did you mean 'linear'"),
        ("precision", "fp16", "did you mean"),
        ("output", "a\udcff", "without control characters"),
        ("corpus", "a\x7f", "without control characters"),
        ("learning_rate", float("nan"), "finite"),
        ("clip", -1.0, "at least 0"),
    ],
)
def test_values_that_cannot_be(key: str, value: object, said: str) -> None:
    with pytest.raises(InputError, match=f"{key}.*{said}"):
        Recipe(**{key: value})  # type: ignore[arg-type]


def test_only_keys_that_shape_the_run_make_it_another() -> None:
    assert Recipe(keep=1, workers=3, output="x", save_every=9).differing(Recipe()) == {}
    assert Recipe(seed=1, steps=2).differing(Recipe()) == {"seed": (1, 0), "steps": (2, 10_000)}
