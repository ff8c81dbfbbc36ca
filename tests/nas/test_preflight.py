"""What is found before the first trial: each mistake is one line, and no trial is needed to find it."""

import socket
from dataclasses import replace
from pathlib import Path
from typing import Any

import huggingface_hub
import numpy as np
import pytest
from kidneys import tube

from nas.config.difference import merge
from nas.config.read import parse_config
from nas.search.preflight import preflight
from search_spaces.errors import InputError
from trainers.data.folds import Fold
from trainers.data.volume import Volume
from trainers.report import Report

VALUES: dict[str, dict[str, Any]] = {
    "study": {"trials": 4},
    "space": {
        "unet": {"encoder": ["tu-resnet10t"], "decoder": ["Unet"], "slices_in": [3]},
        "fit": {"loss": ["dice", "bce"], "crop": [32], "batch_size": [2]},
    },
    "fit": {"crop": 32, "batch_size": 2, "augmentation": "flips"},
}
FOLD = Fold((tube("a"), tube("b")), (tube("c"),))


def _check(section: str = "", changes: dict[str, Any] | None = None, fold: Fold = FOLD, fixed: Any = ()) -> None:
    values = merge(VALUES, {"fixed": list(fixed), **({section: changes or {}} if section else {})})
    preflight(parse_config(values, "test"), fold)


def _fixed(candidate: dict[str, Any] | None = None, **fit: Any) -> list[dict[str, Any]]:
    return [{"name": "f", "candidate": {"encoder": "tu-resnet10t", "slices_in": 3, **(candidate or {})}, "fit": fit}]


def _without_vessels(volume: Volume) -> Volume:
    return replace(volume, label=np.zeros(volume.shape, np.uint8), vessel_voxels=np.zeros(0, np.int64))


def test_a_search_without_mistakes_passes() -> None:
    _check(fixed=_fixed())


def test_every_choice_is_reported_while_it_is_built() -> None:
    seen: list[tuple[str, int, int]] = []
    possible = preflight(parse_config(VALUES, "test"), FOLD, Report(progress=lambda *step: seen.append(step)))
    assert seen == [("building every choice", 0, 1), ("building every choice", 1, 1)]
    assert [combination.values for combination in possible.of("unet")] == [("tu-resnet10t", "Unet", 32)]


def test_every_fold_is_checked() -> None:
    small = Fold(FOLD.held_out, tuple(replace(volume, kidney="small") for volume in FOLD.train))
    config = parse_config({**VALUES, "study": {"leaders": 2}}, "test")
    preflight(config, FOLD, others=[small])
    with pytest.raises(InputError, match=r"study.leaders is 0, so nothing is confirmed with small held out"):
        preflight(parse_config({**VALUES, "study": {"leaders": 0}}, "test"), FOLD, others=[small])
    blank = Fold(tuple(_without_vessels(volume) for volume in FOLD.held_out), small.held_out)
    with pytest.raises(InputError, match="vessel"):
        preflight(config, FOLD, others=[blank])


@pytest.mark.parametrize("space", [{}, {"unet": {"encoder": ["resnet18"]}}, {"families": ["sam"], "fit": {"crop": 64}}])
def test_a_space_without_a_choice_says_how_to_name_one(space: dict[str, Any]) -> None:
    with pytest.raises(
        InputError, match=r"nothing is searched: name fields and their values in \[space.unet\], "
    ) as caught:
        preflight(parse_config({"space": space, "study": {"trials": 4}}, "test"), FOLD, lambda *step: None)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("section", "changes", "message"),
    [
        ("study", {"trial_sampler": "tpee"}, "unknown trial sampler 'tpee'; did you mean 'tpe'"),
        ("study", {"promotion": "halvin"}, "unknown promotion 'halvin'; did you mean 'halving'"),
        ("space", {"unet": {"encoder": ["tu-resnet10"]}}, "unknown encoder 'tu-resnet10'; did you mean"),
        ("space", {"unet": {"decoder": ["Unet", "UNet+"]}}, "unknown decoder 'UNet+'; did you mean"),
        ("space", {"fit": {"loss": ["dice", "dise"]}}, "unknown loss 'dise'; did you mean 'dice' or 'cldice'"),
        (
            "space",
            {"fit": {"loss": ["dice", "surface_cubes"]}},
            "loss 'surface_cubes' compares neighbouring slices, but a ne",
        ),
        ("space", {"fit": {"loss": ["dice + 0*bce"]}}, "loss 'dice + 0*bce' has the weight '0'"),
        (
            "space",
            {"unet": {"decoder": ["PAN"]}},
            "no network of family unet in this space can be built: encoder 'tu-resnet10t' with decoder",
        ),
        ("space", {"unet": {"slices_in": [3, 4]}}, "slices_in has 4, which has no middle slice"),
        ("space", {"fit": {"crop": [32, 128]}}, "crop 128 is too large for a of shape (24, 48, 48)"),
        ("space", {"unet": {"fit": {"crop": [32, 128]}}}, "crop 128 is too large for a of shape (24, 48, 48)"),
        (
            "space",
            {"fit": {"augmentation": ["flips", "flips - tilt"]}},
            "removes 'tilt', which 'flips' does not have",
        ),
        *(
            ("space", {"fit": {field: ["none", 400.0]}}, "a has voxels of 50 µm and cannot be trained on at 400 µm")
            for field in ("voxel_size_um", "target_um")
        ),
        ("fit", {"voxel_size_um": 400.0}, "a has voxels of 50 µm and cannot be trained on at 400 µm"),
        ("fit", {"augmentation": "flip"}, "unknown augmentation 'flip'; did you mean 'flips'"),
        ("fit", {"loss": "lovas"}, "unknown loss 'lovas'; did you mean 'lovasz'"),
    ],
)
def test_a_mistake_is_one_line_that_names_it(section: str, changes: dict[str, Any], message: str) -> None:
    with pytest.raises(InputError) as caught:
        _check(section, changes)
    assert message in str(caught.value)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("fixed", "message"),
    [
        (_fixed({"decoder": "PAN"}), "decoder 'PAN' at crop 32 cannot be built: the decoder needs crops of at least 1"),
        (_fixed({"encoder": "resnet81"}), "unknown encoder 'resnet81'; did you mean 'resnet18'"),
        (_fixed({"encoder_weights": "missing.safetensors"}), "weights file missing.safetensors does not exist"),
        (_fixed(crop=33), "set the crop to 32 or 64"),
        (
            [
                {
                    "name": "boxes",
                    "candidate": {"family": "cells", "genotype": "plain/2", "width": 4, "slices_in": 64},
                    "fit": {"crop": 16},
                }
            ],
            "c of (24, 48, 48) voxels is too small to be read with boxes of 64 x 16 x 16",
        ),
        (_fixed(crop=128), "crop 128 is too large for a of shape (24, 48, 48)"),
        (_fixed(loss="dic"), "unknown loss 'dic'; did you mean 'dice'"),
        (_fixed(augmentation="standrd"), "unknown augmentation 'standrd'; did you mean 'standard'"),
    ],
)
def test_a_mistake_in_a_fixed_trial_is_found_too(fixed: list[dict[str, Any]], message: str) -> None:
    with pytest.raises(InputError) as caught:
        _check(fixed=fixed)
    assert message in str(caught.value)
    assert "\n" not in str(caught.value)


def test_some_refused_combinations_are_not_a_mistake() -> None:
    _check("space", {"unet": {"decoder": ["Unet", "PAN"]}})


def test_weights_that_are_not_on_this_machine_are_named_with_the_command_that_fetches_them(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def no_network(*args: object, **kwargs: object) -> None:
        raise AssertionError("something asked the network")

    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_CACHE", str(tmp_path))
    monkeypatch.setattr(socket.socket, "connect", no_network)
    with pytest.raises(InputError, match=r"weights 'imagenet' of encoder 'tu-resnet10t' .*`hf download ") as caught:
        _check("space", {"unet": {"encoder_weights": ["none", "imagenet"]}})
    assert "\n" not in str(caught.value)


def test_a_held_out_kidney_too_small_for_the_crop_is_named() -> None:
    # Its planes are at most 24 x 14: less than half a crop along every axis.
    with pytest.raises(InputError, match=r"lump of \(24, 14, 14\).*crops of 32"):
        _check(fold=Fold(FOLD.train, (tube("lump", (24, 14, 14)),)))


def test_a_held_out_kidney_too_flat_for_the_axes_of_the_rungs_is_named() -> None:
    flat = Fold(FOLD.train, (tube("flat", (10, 48, 48)),))
    _check(fold=flat)
    with pytest.raises(InputError, match=r"flat of \(10, 48, 48\)"):
        _check("score", {"rung_axes": [1, 2]}, fold=flat)


@pytest.mark.parametrize(
    ("section", "values"),
    [
        ("score", {"second_um": 0.05}),
        ("fit", {"voxel_size_um": 0.05}),
        ("space", {"fit": {"voxel_size_um": ["none", 0.05]}}),
    ],
)
def test_a_voxel_size_in_millimetres_is_found_before_anything_is_trained(section: str, values: dict[str, Any]) -> None:
    with pytest.raises(InputError, match=r"cannot be read at 0.05 µm: its own voxels of 50 µm are more than 64 times"):
        _check(section, values)


def test_training_kidneys_without_a_vessel_are_found_where_vessels_are_wanted() -> None:
    bare = Fold(tuple(_without_vessels(volume) for volume in FOLD.train), FOLD.held_out)
    with pytest.raises(InputError, match="no vessel is labelled in a, b"):
        _check(fold=bare)
    _check("space", {"fit": {"vessel_share": [0.0]}}, fold=bare)
