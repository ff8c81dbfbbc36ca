"""What a study is offered: only what can be built, and the same when asked again."""

import json
from typing import Any

import optuna
import pytest
from optuna.trial import Trial

from nas.config.design import Design
from nas.config.read import parse_config
from nas.config.search_config import SearchConfig
from nas.study.buildable import find_buildable
from nas.study.suggest import known_parameters, register, suggest
from search_spaces.any_candidate import CANDIDATES
from search_spaces.candidate import Candidate
from search_spaces.families.cells import CellsCandidate
from search_spaces.families.unet import UnetCandidate
from trainers.fit import FitConfig
from trainers.inference.reader import InferenceConfig


def _config(recipe: dict[str, Any] | None = None, **space: dict[str, Any] | list[str]) -> SearchConfig:
    return parse_config({"space": space, "fit": recipe or {}}, "test")


# PAN needs crops of 128, and the mix transformers have no features that UnetPlusPlus could take.
UNETS = {
    "encoder": ["tu-resnet10t", "mit_b0"],
    "decoder": ["Unet", "UnetPlusPlus", "PAN"],
    "slices_in": [3, 5],
    "masks": ["middle", "all"],
}
RECIPES = {
    "loss": ["dice", "bce"],
    "crop": [64, 128],
    "batch_size": [2, 4],
    "learning_rate": {"low": 1e-4, "high": 1e-2, "log": True},
    "vessel_share": {"low": 0.5, "high": 1.0},
}
CONFIG = _config({"steps": 17, "weight_decay": 0.03}, unet=UNETS, fit=RECIPES)


def _study(seed: int = 0) -> optuna.Study:
    return optuna.create_study(direction="maximize", sampler=optuna.samplers.RandomSampler(seed=seed))


def _drawn(config: SearchConfig, count: int) -> list[Design]:
    study, possible = _study(), find_buildable(config)
    return [suggest(study.ask(), config, possible) for _ in range(count)]


def _candidates(config: SearchConfig, count: int) -> list[Any]:
    return [design.candidate for design in _drawn(config, count)]


def _design(candidate: Candidate, **fit: Any) -> Design:
    return Design(candidate, FitConfig.model_validate({**CONFIG.fit.model_dump(), **fit}), InferenceConfig())


@pytest.mark.slow
def test_everything_that_can_be_built_is_offered_and_nothing_else() -> None:
    found = {(design.candidate.encoder, design.candidate.decoder, design.fit.crop) for design in _drawn(CONFIG, 150)}
    assert found == {
        ("tu-resnet10t", "Unet", 64),
        ("tu-resnet10t", "Unet", 128),
        ("tu-resnet10t", "UnetPlusPlus", 64),
        ("tu-resnet10t", "UnetPlusPlus", 128),
        ("tu-resnet10t", "PAN", 128),
        ("mit_b0", "Unet", 64),
        ("mit_b0", "Unet", 128),
        ("mit_b0", "PAN", 128),
    }


def test_an_encoder_that_fits_no_decoder_is_not_offered() -> None:
    config = _config(
        unet={"encoder": ["mit_b0", "tu-resnet10t"], "decoder": ["UnetPlusPlus"], "slices_in": [3]}, fit={"crop": [64]}
    )
    assert [c.named["encoder"] for c in find_buildable(config).of("unet")] == ["tu-resnet10t"]
    assert {candidate.encoder for candidate in _candidates(config, 10)} == {"tu-resnet10t"}


def test_encoder_weights_are_those_that_the_encoder_has() -> None:
    config = _config(
        unet={
            "encoder": ["resnet18", "tu-resnet10t"],
            "encoder_weights": ["none", "ssl"],  # only published for resnet18
        },
        fit={"crop": [64]},
    )
    found = {(candidate.encoder, candidate.encoder_weights) for candidate in _candidates(config, 40)}
    assert found == {("resnet18", "none"), ("resnet18", "ssl"), ("tu-resnet10t", "none")}


def test_all_slices_out_are_as_many_as_come_in() -> None:
    found = {(candidate.slices_in, candidate.slices_out) for candidate in _candidates(CONFIG, 60)}
    assert found == {(3, 1), (5, 1), (3, 3), (5, 5)}


def test_numbers_lie_in_their_ranges_and_the_rest_of_the_recipe_is_the_configurations() -> None:
    for design in _drawn(CONFIG, 30):
        assert 1e-4 <= design.fit.learning_rate <= 1e-2
        assert 0.5 <= design.fit.vessel_share <= 1.0
        assert (design.fit.steps, design.fit.weight_decay) == (17, 0.03)
        assert design.inference == CONFIG.inference


def test_the_same_trial_asked_again_gives_the_same() -> None:
    study = _study()
    for _ in range(10):
        trial = study.ask()
        first = suggest(trial, CONFIG, find_buildable(CONFIG))
        study.sampler = optuna.samplers.RandomSampler(seed=99)
        assert suggest(Trial(study, trial._trial_id), CONFIG, find_buildable(CONFIG)) == first


def test_a_suggestion_survives_json() -> None:
    for design in _drawn(CONFIG, 5):
        assert CANDIDATES.validate_json(design.candidate.model_dump_json()) == design.candidate
        assert FitConfig.model_validate_json(design.fit.model_dump_json()) == design.fit


SAM = _config(
    families=["unet", "sam"],
    unet={"encoder": ["tu-resnet10t"]},
    sam={
        "encoder": ["sam2_hiera_tiny"],
        "encoder_weights": ["none", "fb_r896"],
        "tuning": ["lora", "frozen"],
        "lora_rank": [4, 8],
        "slices_in": [3],
    },
    fit={"crop": [32], "batch_size": [2]},
)


def test_an_encoder_of_sam_is_frozen_or_adapted_only_if_it_has_weights() -> None:
    found = {(c.encoder_weights, c.tuning, c.lora_rank) for c in _candidates(SAM, 60) if c.family == "sam"}
    assert found == {
        ("none", "full", None),
        ("fb_r896", "frozen", None),
        ("fb_r896", "lora", 4),
        ("fb_r896", "lora", 8),
    }


def test_a_choice_with_only_some_values_left_has_its_own_name() -> None:
    """Optuna wants one set of values per name."""
    config = SAM.model_copy(update={"space": SAM.space.model_copy(update={"families": ("sam",)})})
    section = {**SAM.space.family("sam").candidate, "tuning": ["full", "frozen"]}
    section.pop("lora_rank")
    config = _config(families=["sam"], sam=section, fit={"crop": [32], "batch_size": [2]})
    study, possible = _study(), find_buildable(config)
    trials = [study.ask() for _ in range(20)]
    for trial in trials:
        suggest(trial, config, possible)
    names = {name for trial in trials for name in trial.params if "tuning" in name}
    assert names == {"sam.tuning", "sam.tuning of full"}


def test_a_choice_with_no_values_left_keeps_its_default_and_is_not_asked() -> None:
    study, possible = _study(), find_buildable(SAM)
    for _ in range(40):
        trial = study.ask()
        candidate = suggest(trial, SAM, possible).candidate
        if candidate.family == "sam":
            assert ("sam.tuning" in trial.params) == (candidate.start is not None)
            assert ("sam.lora_rank" in trial.params) == (trial.params.get("sam.tuning") == "lora")


RECIPE = {"crop": 128, "loss": "bce", "batch_size": 2, "learning_rate": 1e-3, "vessel_share": 0.5}
KNOWN = {
    "fit.loss": "bce",
    "fit.batch_size": 2,
    "fit.learning_rate": 1e-3,
    "fit.vessel_share": 0.5,
    "unet.slices_in": 3,
    "unet.masks": "middle",
}


@pytest.mark.parametrize(
    ("candidate", "architecture"),
    [
        (
            UnetCandidate(encoder="tu-resnet10t", decoder="Unet", slices_in=3),
            {"unet.encoder": "tu-resnet10t", "unet.decoder": "Unet", "fit.crop": 128},
        ),
        (
            UnetCandidate(encoder="mit_b0", decoder="PAN", slices_in=3),
            {"unet.encoder": "mit_b0", "unet.decoder of Unet, PAN": "PAN", "fit.crop of 128": 128},
        ),
        # Outside of the space: nothing is said of what the space could not have suggested.
        (UnetCandidate(encoder="resnet18", decoder="Unet", slices_in=3), {}),
        (UnetCandidate(encoder="tu-resnet10t", decoder="FPN", slices_in=3), {"unet.encoder": "tu-resnet10t"}),
    ],
)
def test_a_fixed_trial_is_known_by_what_the_space_could_have_suggested(
    candidate: Candidate, architecture: dict[str, object]
) -> None:
    assert known_parameters(CONFIG, find_buildable(CONFIG), _design(candidate, **RECIPE)) == {**KNOWN, **architecture}


def test_what_lies_outside_of_a_range_or_a_list_is_not_registered() -> None:
    candidate = UnetCandidate(encoder="tu-resnet10t", slices_in=7, masks="all")
    outside = {"learning_rate": 1.0, "vessel_share": 0.0, "loss": "dice + bce", "batch_size": 64}
    assert known_parameters(CONFIG, find_buildable(CONFIG), _design(candidate, **{**RECIPE, **outside})) == {
        "unet.encoder": "tu-resnet10t",
        "unet.decoder": "Unet",
        "fit.crop": 128,
        "unet.masks": "all",
    }


def test_nothing_is_known_of_a_family_that_is_not_searched() -> None:
    candidate = CellsCandidate.model_validate({"genotype": "plain/2", "width": 4, "slices_in": 8})
    assert known_parameters(CONFIG, find_buildable(CONFIG), _design(candidate, **RECIPE)) == {}


@pytest.mark.parametrize("encoder", ["tu-resnet10t", "mit_b0", "resnet18"])
def test_the_sampler_sees_the_known_parameters_of_a_fixed_trial(encoder: str) -> None:
    design = _design(UnetCandidate(encoder=encoder, slices_in=3), **RECIPE)
    known = known_parameters(CONFIG, find_buildable(CONFIG), design)
    study = _study()
    study.enqueue_trial(known)
    trial = study.ask()
    register(trial, CONFIG, find_buildable(CONFIG), design)
    study.tell(trial, 0.5)
    assert study.trials[0].params == known
    assert json.loads(json.dumps(known)) == known


@pytest.mark.parametrize("config", [CONFIG, SAM], ids=["unet", "unet and sam"])
def test_a_design_that_was_suggested_is_known_by_the_parameters_of_its_trial(config: SearchConfig) -> None:
    study, possible = _study(), find_buildable(config)
    for _ in range(30):
        trial = study.ask()
        assert known_parameters(config, possible, suggest(trial, config, possible)) == trial.params


def test_a_decoder_without_a_choice_of_upsampling_keeps_its_own() -> None:
    config = _config(
        unet={"encoder": ["tu-resnet10t"], "decoder": ["Unet", "Linknet"], "upsampling": ["nearest", "bilinear"]},
        fit={"crop": [64]},
    )
    drawn = _candidates(config, 40)
    of = {decoder: {c.upsampling for c in drawn if c.decoder == decoder} for decoder in ("Unet", "Linknet")}
    assert of == {"Unet": {"nearest", "bilinear"}, "Linknet": {"published"}}


def test_a_family_has_the_choices_of_its_own_section_in_place_of_those_for_all() -> None:
    config = _config(
        families=["unet", "cells"],
        unet={"encoder": ["tu-resnet10t"]},
        cells={
            "genotype": ["plain/2", "residual/2"],
            "width": [4],
            "slices_in": [8],
            "fit": {"crop": [16]},
            "inference": {"overlap": [0.5]},
        },
        fit={"crop": [64], "loss": ["dice", "bce"]},
    )
    study, possible = _study(), find_buildable(config)
    names: dict[str, set[str]] = {}
    for _ in range(30):
        trial = study.ask()
        design = suggest(trial, config, possible)
        family = design.candidate.family
        names.setdefault(family, set()).update(trial.params)
        expected = (16, 0.5) if family == "cells" else (64, config.inference.overlap)
        assert (design.fit.crop, design.inference.overlap) == expected
        assert known_parameters(config, possible, design) == trial.params
    assert names["unet"] == {"family", "unet.encoder", "fit.crop", "fit.loss"}
    own = {"cells.genotype", "cells.width", "cells.slices_in", "cells.fit.crop", "cells.inference.overlap"}
    assert names["cells"] == {"family", "fit.loss", *own}
