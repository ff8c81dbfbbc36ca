"""Any field can be searched: Optuna is asked for its values, the design holds them, and they are read back from it."""

import json
import tomllib
from typing import Any

import optuna
import pytest

from nas.config.read import parse_config, read_config
from nas.config.search_config import SearchConfig, design_of
from nas.config.write import write_config
from nas.study.buildable import find_buildable
from nas.study.suggest import known_parameters, suggest
from search_spaces.errors import InputError
from search_spaces.families import FAMILIES
from search_spaces.field import read_value
from trainers.fit import FitConfig
from trainers.inference.reader import InferenceConfig

# For every field two values, or a range, that its class takes.
CHOICES: dict[str, dict[str, Any]] = {
    "fit": {
        "steps": {"low": 10, "high": 1000, "log": True},
        "crop": [64, 96],
        "batch_size": {"low": 2, "high": 5},
        "loss": ["dice", "dice + 0.5*focal"],
        "learning_rate": {"low": 1e-5, "high": 1e-1, "log": True},
        "weight_decay": {"low": 0, "high": 1},
        "schedule": ["one-cycle", "warmup-stable-decay"],
        "warm_up": {"low": 0.1, "high": 0.5},
        "warm_up_steps": {"low": 10, "high": 100},
        "cooldown": {"low": 0.1, "high": 0.3},
        "gradient_clip": ["none", 1],
        "average_decay": [0.9, 0.99],
        "vessel_share": {"low": 0.25, "high": 0.75},
        "augmentation": ["none", "strong - tilt"],
        "voxel_size_um": ["none", 50.0],
        "target_um": ["none", 63.0],
        "precision": ["float32", "bfloat16"],
        "loader_workers": [0, 2],
        "sparse_background": [0.0, 0.5],
        "sparse_margin": [0, 3],
    },
    "inference": {
        "axes": [[0], [0, 1, 2]],
        "largest_tile": [256, 512],
        "overlap": {"low": 0.0, "high": 0.5},
        "batch_voxels": [1000, 1_000_000],
        "symmetries": ["none", "flips"],
        "weighting": ["hat", "flat"],
        "smallest_component": ["none", 64],
    },
    "unet": {
        "encoder": ["tu-resnet10t", "resnet18"],
        "encoder_weights": ["none", "imagenet"],
        "slices_in": [3, 5],
        "masks": ["middle", "all"],
        "decoder": ["Unet", "FPN"],
        "resolution": ["plain", "stem"],
        "decoder_norm": ["batch", "group"],
        "upsampling": ["published", "nearest"],
    },
    "cells": {
        "genotype": ["plain/2", "residual/2"],
        "slices_in": [8, 16],
        "width": [4, 8],
    },
    "hybrid": {
        "genotype": ["plain", "residual"],
        "encoder": ["tu-resnet10t", "resnet18"],
        "encoder_weights": ["none", "imagenet"],
        "slices_in": [3, 5],
        "masks": ["middle", "all"],
        "width": [4, 8],
    },
    "sam": {
        "encoder": ["sam2_hiera_tiny", "samvit_base_patch16"],
        "encoder_weights": ["none", "my.safetensors"],
        "slices_in": [3, 5],
        "masks": ["middle", "all"],
        "tuning": ["full", "frozen"],
        "lora_rank": {"low": 2, "high": 6},
    },
}
OWNERS = {"fit": FitConfig, "inference": InferenceConfig, **FAMILIES}
# What else a field needs to be a choice at all.
NEEDS: dict[tuple[str, str], dict[str, Any]] = {
    ("sam", "tuning"): {"encoder_weights": "my.safetensors"},
    ("sam", "lora_rank"): {"encoder_weights": "my.safetensors", "tuning": "lora"},
    ("cells", "width"): {"genotype": "plain"},
    ("cells", "slices_in"): {"genotype": "plain"},
    **{("hybrid", field): {"genotype": "plain"} for field in CHOICES["hybrid"] if field != "genotype"},
}


def _of(section: str, field: str, choice: Any) -> SearchConfig:
    family = section if section in FAMILIES else "unet"
    space = {"families": [family], section: {field: choice, **NEEDS.get((section, field), {})}}
    return parse_config({"space": space, "fit": {"crop": 64, "batch_size": 2}}, "test")


@pytest.mark.parametrize("section", OWNERS)
def test_every_field_is_tried_here(section: str) -> None:
    assert set(CHOICES[section]) == set(OWNERS[section].model_fields) - {"family"}


@pytest.mark.parametrize(("section", "field"), [(section, field) for section in CHOICES for field in CHOICES[section]])
def test_a_field_can_be_searched_and_read_back(section: str, field: str) -> None:
    choice = CHOICES[section][field]
    config = _of(section, field, choice)
    study = optuna.create_study(sampler=optuna.samplers.RandomSampler(seed=0))
    possible, name, seen = find_buildable(config), f"{section}.{field}", set()
    for _ in range(12):
        trial = study.ask()
        design = suggest(trial, config, possible)
        owner = {"fit": design.fit, "inference": design.inference}.get(section, design.candidate)
        value = getattr(owner, field)
        seen.add(value)
        assert known_parameters(config, possible, design) == trial.params
        study.tell(trial, 0.0)
        label = study.trials[-1].params[name]
        if isinstance(choice, list):
            named = {item if isinstance(item, str | int | float) else json.dumps(item): item for item in choice}
            assert value == read_value(OWNERS[section], field, named[label])
        else:
            assert value == label
            assert choice["low"] <= value <= choice["high"]
    whole = isinstance(getattr(owner, field), int)
    assert len(seen) > 1
    if not isinstance(choice, list):
        assert all(isinstance(value, int) == whole for value in seen)


@pytest.mark.parametrize("section", CHOICES)
def test_all_fields_at_once_survive_being_written(section: str) -> None:
    together = {field: choice for field, choice in CHOICES[section].items() if field != "target_um"}
    config = parse_config({"space": {section: together}}, "test")
    assert parse_config(tomllib.loads(write_config(config)), "again") == config


def test_whole_numbers_stay_whole_and_fractions_stay_fractions() -> None:
    config = parse_config(
        {"space": {"fit": {"batch_size": {"low": 2.0, "high": 5.0}, "learning_rate": {"low": 1, "high": 2}}}}, "test"
    )
    study = optuna.create_study(sampler=optuna.samplers.RandomSampler(seed=0))
    trial = study.ask()
    design = suggest(trial, config, find_buildable(config))
    assert {name: type(value) for name, value in trial.params.items()} == {
        "fit.batch_size": int,
        "fit.learning_rate": float,
    }
    assert type(design.fit.batch_size) is int


def test_none_turns_off_what_can_be_off_and_is_a_name_elsewhere() -> None:
    values = {"gradient_clip": "none", "augmentation": "none", "voxel_size_um": "none"}
    config = parse_config({"space": {"fit": values, "inference": {"symmetries": "none"}}}, "test")
    design = suggest(optuna.create_study().ask(), config, find_buildable(config))
    assert (design.fit.gradient_clip, design.fit.voxel_size_um) == (None, None)
    assert (design.fit.augmentation, design.inference.symmetries) == ("none", "none")


def test_what_is_no_name_or_number_is_stored_as_json() -> None:
    config = _of("inference", "axes", [[0], [0, 1, 2]])
    trial = optuna.create_study().ask()
    suggest(trial, config, find_buildable(config))
    assert trial.distributions["inference.axes"].choices == ("[0]", "[0, 1, 2]")


def test_a_choice_is_named_on_the_command_line() -> None:
    said = ["space.fit.weight_decay={low=1e-4,high=1e-1,log=true}", "space.inference.overlap=0.5"]
    config = read_config("demo", [*said, 'space.families=["unet"]'])
    trial = optuna.create_study(sampler=optuna.samplers.RandomSampler(seed=0)).ask()
    design = suggest(trial, config, find_buildable(config))
    assert 1e-4 <= design.fit.weight_decay <= 1e-1
    assert trial.params["fit.weight_decay"] == design.fit.weight_decay
    assert (design.inference.overlap, trial.params["inference.overlap"]) == (0.5, 0.5)


def test_a_range_is_not_registered_if_the_field_is_off() -> None:
    config = parse_config(
        {
            "space": {"fit": {"gradient_clip": {"low": 0.5, "high": 5.0}}},
            "fixed": [{"name": "f", "candidate": {}, "fit": {"gradient_clip": None}}],
        },
        "test",
    )
    assert known_parameters(config, find_buildable(config), design_of(config, config.fixed[0])) == {}


@pytest.mark.parametrize(
    ("space", "message"),
    [
        ({"fit": {"los": ["dice"]}}, "unknown choice in space.fit, 'los'; did you mean 'loss'"),
        ({"fit": {"loss": ["dice", "dise"]}}, "space.fit.loss has 'dise': unknown loss 'dise'; did you mean 'dice'"),
        ({"fit": {"loss": []}}, "space.fit.loss = []: an empty list leaves nothing to choose"),
        ({"fit": {"steps": ["none"]}}, "space.fit.steps has 'none': Input should be a valid integer"),
        ({"fit": {"batch_size": [2, 2.5]}}, "space.fit.batch_size has 2.5: Input should be a valid integer"),
        ({"fit": {"warm_up": {"low": 0.1, "high": 1.0}}}, "space.fit.warm_up has 1.0: Input should be less than 1"),
        ({"fit": {"vessel_share": {"low": 0.5}}}, "space.fit.vessel_share.high is missing"),
        ({"fit": {"vessel_share": {"low": 1.0, "high": 0.5}}}, "low = 1 is above high = 0.5"),
        ({"fit": {"crop": {"low": 32, "high": 64}}}, "fit.crop decides what can be built; give a list of its values"),
        ({"fit": {"precision": {"low": 1, "high": 2}}}, "space.fit.precision has 1: Input should be 'auto'"),
        ({"fit": {"voxel_size_um": [50.0], "target_um": ["none", 63.0]}},
         "fit.target_um has 63.0 and fit.voxel_size_um has 50.0: voxel_size_um = 50 resamples every scan to one"),
        ({"fit": {"voxel_size_um": [50.0]}, "unet": {"fit": {"target_um": [63.0]}}},
         "unet.fit.target_um has 63.0 and fit.voxel_size_um has 50.0"),
        ({"inference": {"axes": [0, 1]}}, "space.inference.axes has 0: Input should be a valid tuple"),
        ({"inference": {"axes": [[3]]}}, "space.inference.axes has [3]: Input should be 0, 1 or 2"),
        ({"inference": {"overlap": [1.0]}}, "space.inference.overlap has 1.0: Input should be less than or equal to"),
        ({"cells": {"fit": {"loss": ["dise"]}}}, "space.cells.fit.loss has 'dise': unknown loss 'dise'"),
        ({"cells": {"fit": {"los": ["dice"]}}}, "unknown choice in space.cells.fit, 'los'; did you mean 'loss'"),
        ({"cells": {"widht": [8]}}, "unknown choice in cells, 'widht'; did you mean 'width'"),
        ({"unett": {"encoder": ["resnet18"]}}, "unknown family 'unett'; did you mean 'unet'"),
    ],
)  # fmt: skip
def test_a_choice_that_cannot_be_made_is_one_line(space: dict[str, Any], message: str) -> None:
    with pytest.raises(InputError) as caught:
        parse_config({"space": space}, "test")
    assert message in str(caught.value)
    assert "\n" not in str(caught.value)
    assert ": :" not in str(caught.value)
