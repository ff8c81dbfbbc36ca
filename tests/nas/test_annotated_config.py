"""What `nas config` prints: every key with the comment of its field, as TOML that can be read back."""

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any, get_args

import pytest
from pydantic import BaseModel, Field

from nas.config.annotated import WIDTH, annotated
from nas.config.field_comments import field_comments, summary
from nas.config.presets import PRESETS
from nas.config.read import parse_config, read_config
from nas.config.search_config import SearchConfig
from search_spaces.families.unet import UnetCandidate
from trainers.fit import FitConfig


def _classes(annotation: Any) -> Iterator[type[BaseModel]]:
    """The classes of values anywhere in an annotation."""
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        yield annotation
    for part in get_args(annotation):
        yield from _classes(part)


def _all_classes(model: type[BaseModel]) -> set[type[BaseModel]]:
    found, waiting = set(), [model]
    while waiting:
        if (one := waiting.pop()) not in found:
            found.add(one)
            waiting += [inner for field in one.model_fields.values() for inner in _classes(field.annotation)]
    return found


@pytest.mark.parametrize("model", sorted(_all_classes(SearchConfig), key=lambda model: model.__name__))
def test_every_key_has_a_comment_and_every_section_a_docstring(model: type[BaseModel]) -> None:
    sections = {name for name, field in model.model_fields.items() if field.annotation in _all_classes(SearchConfig)}
    assert set(model.model_fields) - sections - set(field_comments(model)) == set()
    assert summary(model) and summary(model) != summary(BaseModel)


@pytest.mark.parametrize("preset", PRESETS)
def test_it_reads_back_as_the_same_configuration(preset: str, tmp_path: Path) -> None:
    config, path = read_config(preset), tmp_path / "whole.toml"
    path.write_text(annotated(config))
    assert read_config(path) == config


def test_values_that_toml_has_to_escape_read_back(tmp_path: Path) -> None:
    values = {
        "data": {"root": tmp_path / 'a "quoted" \\ folder # 3', "exclude": ["ä", "b\tc"]},
        "fixed": [{"name": "a]b = 'c'", "candidate": {"encoder_weights": 'a "b".safetensors'}, "fit": {"steps": 3}}]
        * 2,
    }
    config, path = parse_config(values, "test"), tmp_path / "whole.toml"
    path.write_text(annotated(config))
    assert read_config(path) == config


def test_each_key_stands_once_with_its_comment() -> None:
    lines = annotated(read_config("cpu")).splitlines()
    assert "steps = 300  # optimiser steps, not epochs" in lines
    assert "# gpu_hours = ...  # time limit summed over GPUs, or over CPU workers; None: no limit" in lines
    section = lines[lines.index("[study]") : lines.index("[data]")]
    keys = [found[1] for line in section if (found := re.match(r"(?:# )?(\w+) = ", line))]
    assert keys == list(type(read_config("cpu").study).model_fields)


def test_a_section_has_the_first_line_of_its_class_above_it() -> None:
    lines = annotated(SearchConfig()).splitlines()
    assert lines[lines.index("[inference]") - 1] == "# How a trained network reads a whole volume."


def test_choices_have_the_comments_of_the_fields_that_they_fill() -> None:
    lines = annotated(read_config("sennet")).splitlines()
    section = lines[lines.index("[space.unet]") :]
    norm, rate = field_comments(UnetCandidate)["decoder_norm"], field_comments(FitConfig)["learning_rate"]
    assert f'decoder_norm = ["batch", "group"]  # {norm}' in section
    assert f"learning_rate = {{ low = 5e-05, high = 0.001, log = true }}  # {rate}" in lines


@pytest.mark.parametrize("preset", PRESETS)
def test_no_line_is_wide(preset: str) -> None:
    wide = [line for line in annotated(read_config(preset)).splitlines() if len(line) > WIDTH]
    assert wide == []


def test_rows_of_one_kind_are_explained_once() -> None:
    text = annotated(read_config("source-table"))
    assert text.count("[[fixed]]") == 9
    assert text.count("# of its row") == 1


class _Base(BaseModel):
    inherited: int = 0  # of the base


class _Example(_Base):
    """First line.

    Second.
    """

    beside: int = 0  # what stands behind it
    # What stands
    # above it.
    above: int = 0
    # A heading.
    both: str = "# no comment"  # behind wins
    # Not of the field: a line lies between.

    bare: int = 0
    long: int = Field(
        default=0,  # in a call
        ge=0,
    )  # of several lines


def test_the_comment_of_a_field_is_the_one_after_it_or_the_one_above_it() -> None:
    assert field_comments(_Example) == {
        "inherited": "of the base",
        "beside": "what stands behind it",
        "above": "What stands above it.",
        "both": "behind wins",
        "long": "in a call of several lines",
    }
    assert summary(_Example) == "First line."
