"""Which networks of a space can be built is found out once per run."""

import json
from pathlib import Path
from typing import Any

import pytest

from nas.config.read import parse_config
from nas.config.search_config import SearchConfig
from nas.study import buildable
from nas.study.buildable import find_buildable
from trainers.report import Report


def _config(fit: dict[str, Any] | None = None, **unet: Any) -> SearchConfig:
    section = {"encoder": ["tu-resnet10t", "tu-vit_tiny_patch16_224"], "decoder": ["Unet", "DPT"], **unet}
    return parse_config({"space": {"unet": section, "fit": {"crop": [64], **(fit or {})}}}, "test")


CONFIG = _config()


@pytest.fixture(autouse=True)
def _whole_version(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(buildable, "program_version", lambda: "0.1.0")


def _built(config: SearchConfig, file: Path) -> int:
    """How many combinations are built by a process that starts with this file."""
    built: list[int] = []
    find_buildable(config, Report(progress=lambda _what, done, _of: built.append(done)), file)
    return max(built, default=0)


def test_every_combination_makes_a_network_or_has_its_reason() -> None:
    config = _config({"crop": [64, 80]})
    seen: list[tuple[int, int]] = []
    found = find_buildable(config, Report(progress=lambda _what, done, of: seen.append((done, of))))
    assert [(c.named["encoder"], c.named["decoder"], c.crop) for c in found.of("unet")] == [
        ("tu-resnet10t", "Unet", 64),
        ("tu-vit_tiny_patch16_224", "DPT", 64),
    ]
    assert len(found.refusals) == 6
    assert all("cannot be built: " in refusal and "\n" not in refusal for refusal in found.refusals)
    assert seen == [(done, 8) for done in range(9)]


def test_a_value_is_allowed_if_it_can_be_built_with_the_values_before_it() -> None:
    found = find_buildable(CONFIG)
    given = {"encoder": "tu-resnet10t", "decoder": "Unet"}
    assert found.allows("unet", "encoder", "tu-vit_tiny_patch16_224", given)
    assert found.allows("unet", "decoder", "Unet", given)
    assert not found.allows("unet", "decoder", "DPT", given)
    assert not found.allows("unet", "crop", 80, given)


def test_networks_of_cells_are_tried_with_as_many_levels_as_the_space_has() -> None:
    space = {"families": ["cells"], "cells": {"slices_in": [12], "width": [8]}, "fit": {"crop": [20]}}
    config = parse_config({"space": space, "cell_space": {"levels": 3}}, "test")  # boxes of multiples of 4
    assert [combination.crop for combination in find_buildable(config).of("cells")] == [20]


def test_networks_are_tried_with_the_smallest_batch_of_the_space() -> None:
    alone = {"encoder": ["tu-resnet10t"], "decoder": ["Unet"]}
    (refusal,) = find_buildable(_config({"crop": [32], "batch_size": [8, 1]}, **alone)).refusals
    assert "more than 1 value per channel" in refusal
    assert find_buildable(_config({"crop": [32], "batch_size": [8, 2]}, **alone)).refusals == []


def test_networks_are_tried_as_the_space_would_build_them() -> None:
    alone = {"encoder": ["tu-resnet10t"], "decoder": ["UPerNet"]}
    (refusal,) = find_buildable(_config({"batch_size": [1]}, **alone)).refusals
    assert "more than 1 value per channel" in refusal
    assert find_buildable(_config({"batch_size": [1]}, **alone, decoder_norm=["group"])).refusals == []


def test_a_second_process_builds_nothing_and_knows_the_same(tmp_path: Path) -> None:
    file = tmp_path / "buildable.json"
    assert _built(CONFIG, file) == 4
    assert _built(CONFIG, file) == 0
    assert find_buildable(CONFIG, remembered=file) == find_buildable(CONFIG)


@pytest.mark.parametrize("harm", ["another space", "another library", "torn", "an edited program"])
def test_what_is_remembered_for_another_space_or_program_is_built_again(
    harm: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    file = tmp_path / "buildable.json"
    config = _config(decoder=["Unet"])
    _built(config, file)
    if harm == "another space":
        assert _built(CONFIG, file) == 4
        return
    if harm == "another library":
        monkeypatch.setattr(buildable, "version", lambda name: "99")
    elif harm == "an edited program":
        monkeypatch.setattr(buildable, "program_version", lambda: "0.1.0+abc-dirty")
    else:
        file.write_text(file.read_text()[:-20])
    assert _built(config, file) == 2
    assert list(json.loads(file.read_text())["tried"]) == ["unet"]
