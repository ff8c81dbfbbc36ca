"""A base and what differs from it: presets, a file that starts from one, and --set."""

from pathlib import Path
from typing import Any

import pytest

from nas.config.difference import merge
from nas.config.read import read_config
from search_spaces.errors import InputError


@pytest.mark.parametrize(
    ("base", "difference", "merged"),
    [
        ({"a": {"b": 1, "c": 2}}, {"a": {"c": 3}}, {"a": {"b": 1, "c": 3}}),
        ({"a": {"b": {"c": 1, "d": 2}}}, {"a": {"b": {"d": 3}}}, {"a": {"b": {"c": 1, "d": 3}}}),
        ({"a": {"b": [1, 2]}}, {"a": {"b": [3]}}, {"a": {"b": [3]}}),
        ({"a": {"b": {"low": 1, "high": 2, "log": True}}}, {"a": {"b": {"low": 3, "high": 4}}},
         {"a": {"b": {"low": 3, "high": 4}}}),
        ({"a": {"b": [1, 2]}}, {"a": {"b": {"low": 3, "high": 4}}}, {"a": {"b": {"low": 3, "high": 4}}}),
        ({"a": {"b": {"low": 3, "high": 4}}}, {"a": {"b": [1, 2]}}, {"a": {"b": [1, 2]}}),
        ({"fixed": [{"name": "x"}, {"name": "y"}]}, {"fixed": [{"name": "z"}]}, {"fixed": [{"name": "z"}]}),
        ({"a": {"b": 1}}, {"c": {"d": 2}}, {"a": {"b": 1}, "c": {"d": 2}}),
    ],
    ids=["tables merge", "at any depth", "a list replaces", "a range replaces", "a range for a list",
         "a list for a range", "rows replace", "what the base has not is added"],
)  # fmt: skip
def test_what_differs_is_laid_over_its_base(
    base: dict[str, Any], difference: dict[str, Any], merged: dict[str, Any]
) -> None:
    before = str(base), str(difference)
    assert merge(base, difference) == merged
    assert (str(base), str(difference)) == before


def test_none_takes_out_what_can_be_off_and_is_a_name_elsewhere() -> None:
    base = {"study": {"minutes": 45.0, "promotion": "halving"}, "fit": {"gradient_clip": 1.0}}
    difference = {"study": {"minutes": "none", "promotion": "none"}, "fit": {"gradient_clip": "None"}}
    assert merge(base, difference) == {"study": {"promotion": "none"}, "fit": {}}


def test_none_in_the_space_is_chosen_where_it_is_a_value_and_leaves_the_choice_out_elsewhere(mine: Path) -> None:
    mine.write_text('preset = "cpu"\n[space.fit]\naugmentation = "none"\nloss = "none"\ngradient_clip = "none"\n')
    fit = read_config(mine, ["space.inference.symmetries=none"]).space.fit
    assert (fit["augmentation"], fit["gradient_clip"]) == (("none",), ("none",))
    assert "loss" not in fit
    assert read_config("cpu", ["space.inference.symmetries=none"]).space.inference == {"symmetries": ("none",)}


def test_a_name_that_stands_for_numbers_wins_only_over_those_of_the_base() -> None:
    base = {"cell_search": {"steps": 5, "floor": 0.3, "learning_rate": 1.0}}
    difference = {"cell_search": {"algorithm": "darts", "learning_rate": 2.0}}
    assert merge(base, difference) == {"cell_search": {"steps": 5, "algorithm": "darts", "learning_rate": 2.0}}


@pytest.fixture
def mine(tmp_path: Path) -> Path:
    return tmp_path / "mine.toml"


def test_a_file_starts_from_the_preset_that_it_names(mine: Path) -> None:
    mine.write_text('preset = "cpu"\n[study]\nname = "mine"\nminutes = "none"\n[space.unet]\nencoder = ["resnet18"]\n')
    config, cpu = read_config(mine, ["fit.steps=7"]), read_config("cpu")
    assert (config.study.name, config.study.minutes) == ("mine", None)
    assert config.space.family("unet").candidate == {**cpu.space.family("unet").candidate, "encoder": ("resnet18",)}
    assert config.space.fit == cpu.space.fit
    assert config.fit == cpu.fit.model_copy(update={"steps": 7})
    assert (config.fixed, config.cell_space) == (cpu.fixed, cpu.cell_space)


def test_a_file_that_names_none_starts_from_the_defaults(mine: Path) -> None:
    mine.write_text("[fit]\nsteps = 7\n")
    assert read_config(mine).study == type(read_config(mine).study)()


@pytest.mark.parametrize("named", ['"cpuu"', "3"])
def test_a_base_that_is_no_preset_is_one_line(mine: Path, named: str) -> None:
    mine.write_text(f"preset = {named}\n")
    with pytest.raises(InputError, match=r"mine.toml: unknown preset '(cpuu|3)'") as caught:
        read_config(mine)
    assert "\n" not in str(caught.value)
