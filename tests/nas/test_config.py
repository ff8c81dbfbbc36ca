import tomllib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import tomli_w

from nas.config.presets import PRESETS, preset_text
from nas.config.read import parse_config, read_config
from nas.config.search_config import SearchConfig, design_of
from nas.config.write import write_config
from nas.jobs.cell_search import search_settings
from search_spaces.errors import InputError


@pytest.mark.parametrize("preset", PRESETS)
def test_a_preset_is_complete_and_survives_being_written(preset: str, tmp_path: Path) -> None:
    config = read_config(preset)
    path = tmp_path / "config.toml"
    path.write_text(write_config(config))
    assert read_config(path) == config


def _keys(values: dict[str, Any], path: tuple[str, ...] = ()) -> Iterator[tuple[str, ...]]:
    """The path to every value that is not a table."""
    for key, value in values.items():
        if isinstance(value, dict):
            yield from _keys(value, (*path, key))
        else:
            yield (*path, key)


def _without(values: dict[str, Any], way: tuple[str, ...]) -> dict[str, Any]:
    first, *rest = way
    if rest:
        return {**values, first: _without(values[first], tuple(rest))}
    return {key: value for key, value in values.items() if key != first}


@pytest.mark.parametrize("preset", PRESETS)
def test_every_line_of_a_preset_changes_what_it_starts_from(preset: str, tmp_path: Path) -> None:
    written = tomllib.loads(preset_text(preset))
    whole, path = read_config(preset), tmp_path / "less.toml"
    for way in _keys(written):
        path.write_text(tomli_w.dumps(_without(written, way)))
        try:
            less = read_config(path)
        except InputError:
            continue  # it cannot be left out at all
        assert less != whole, way


def test_the_source_table_has_its_nine_rows() -> None:
    config = read_config("source-table")
    rows = [(f.candidate.encoder, f.candidate.encoder_weights, f.fit["loss"], f.fit["crop"]) for f in config.fixed]
    assert rows == [
        ("se_resnext50_32x4d", "imagenet", "focal", 256),
        ("se_resnext50_32x4d", "imagenet", "bce", 256),
        ("se_resnext50_32x4d", "imagenet", "dice", 256),
        ("densenet161", "imagenet", "dice", 256),
        ("efficientnet-b6", "imagenet", "dice", 256),
        ("se_resnext101_32x4d", "imagenet", "dice", 256),
        ("resnext101_32x8d", "imagenet", "dice", 256),
        ("resnext101_32x16d", "instagram", "dice", 256),
        ("resnext101_32x8d", "imagenet", "dice", 512),
    ]
    assert all(design_of(config, f).fit.learning_rate == 6e-5 and f.candidate.slices_in == 5 for f in config.fixed)


def test_off_survives_being_written(tmp_path: Path) -> None:
    config = read_config("demo", ["fit.gradient_clip=none", "score.rung_slices=none", "study.minutes=none"])
    assert (config.fit.gradient_clip, config.score.rung_slices, config.study.minutes) == (None, None, None)
    path = tmp_path / "config.toml"
    path.write_text(write_config(config))
    assert read_config(path) == config


def test_cells_are_searched_on_the_voxels_that_networks_are_trained_on() -> None:
    def searched(*overrides: str) -> object:
        return search_settings(read_config("demo", overrides)).voxel_size_um

    assert searched() is None
    assert searched("fit.voxel_size_um=50") == 50
    assert searched("fit.target_um=63") == 63
    assert searched("fit.voxel_size_um=50", "cell_search.voxel_size_um=40") == 40
    assert searched("fit.voxel_size_um=50", "cell_search.voxel_size_um=scanned") == "scanned"


def test_set_changes_one_value_and_reads_it_as_toml() -> None:
    config = read_config("demo", ["study.trials=3", 'space.fit.loss=["dice"]', "data.hold_out=phantom_1"])
    assert config.study.trials == 3
    assert config.space.fit["loss"] == ("dice",)
    assert config.data.hold_out == "phantom_1"


@pytest.mark.parametrize(
    ("override", "message"),
    [
        ("fit.learning_rte=1e-3", "unknown key 'fit.learning_rte'; did you mean 'fit.learning_rate'"),
        ("fi.steps=3", "unknown key 'fi'; did you mean 'fit'"),
        ("study.trials=-1", "study.trials = -1"),
        ("study.trials=many", "study.trials = 'many'"),
        ("fit.vessel_share=2", "fit.vessel_share = 2"),
        ("trials", "--set takes section.key=value"),
        ("study.trials=20\nseed=3", "--set takes one key and its value"),
        ("score.metrics=voxel_dice", "score.metrics = 'voxel_dice': Input should be a list"),
        ("study=3", "study = 3: Input should be a table"),
        ("study.trials.x=1", "study.trials: Input should be a valid integer"),
        ("space.fit.learning_rate={low=1e-2,high=1e-3}", "space.fit.learning_rate: low = 0.01 is above high = 0.001"),
        ("space.fit.learning_rate=[-1]", "space.fit.learning_rate has -1: Input should be greater than 0"),
        ("space.unet.encodr=resnet18", "space: unknown choice in unet, 'encodr'; did you mean 'encoder'"),
    ],
)
def test_a_mistake_is_one_line_that_names_it(override: str, message: str) -> None:
    with pytest.raises(InputError) as caught:
        read_config("demo", [override])
    assert message in str(caught.value)
    assert "\n" not in str(caught.value)


def test_a_mistake_in_a_fixed_trial_names_the_trial() -> None:
    with pytest.raises(InputError, match=r"^f.toml: fixed trial 'x': unknown key 'stps'; did you mean 'steps'"):
        parse_config({"fixed": [{"name": "x", "candidate": {}, "fit": {"stps": 3}}]}, "f.toml")
    with pytest.raises(InputError, match=r"fixed trial 'x': unknown key 'overlp'; did you mean 'overlap'"):
        parse_config({"fixed": [{"name": "x", "candidate": {}, "inference": {"overlp": 0.5}}]}, "f.toml")
    with pytest.raises(InputError, match=r"fixed.0.candidate: unknown key of family unet 'encodr'; did you"):
        parse_config({"fixed": [{"name": "x", "candidate": {"encodr": "resnet18"}}]}, "f.toml")


def test_a_fixed_trial_has_its_own_way_of_reading() -> None:
    fixed = {"name": "x", "candidate": {}, "inference": {"overlap": 0.5}}
    config = parse_config({"inference": {"axes": [0]}, "fixed": [fixed]}, "f.toml")
    design = design_of(config, config.fixed[0])
    assert (design.inference.axes, design.inference.overlap) == ((0,), 0.5)


def test_a_folder_with_the_name_of_a_preset_does_not_hide_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "demo").mkdir()
    assert read_config("demo").study.name == "demo"


def test_an_unknown_preset_names_the_nearest_one() -> None:
    with pytest.raises(InputError, match="unknown preset 'sennett'; did you mean 'sennet'"):
        read_config("sennett")


@pytest.mark.parametrize("content", [b"study = [", b"\xff\xfe"])
def test_a_file_that_is_no_toml_is_named(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "broken.toml"
    path.write_bytes(content)
    with pytest.raises(InputError, match=r"broken.toml"):
        read_config(path)


def test_a_missing_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"missing.toml cannot be read"):
        read_config(tmp_path / "missing.toml")


def test_the_defaults_are_a_configuration() -> None:
    assert parse_config({}, "empty") == SearchConfig()


@pytest.mark.parametrize(("section", "key", "value"), [("study", "rungs", 10**9), ("score", "rung_axes", [0] * 1_000)])
def test_what_would_take_memory_by_its_mere_number_is_refused(section: str, key: str, value: object) -> None:
    with pytest.raises(InputError, match=rf"{section}\.{key}"):
        parse_config({section: {key: value}}, "test")
