"""What a study is offered: only what can be built, and the same again when asked again."""

import json

import optuna
import pytest
from optuna.trial import Trial

from nas.config.read import parse_config
from nas.config.search_config import SearchConfig
from nas.study.buildable import buildable
from nas.study.suggest import known_parameters, register, suggest
from search_spaces.any_candidate import CANDIDATES
from search_spaces.candidate import Candidate
from search_spaces.families.unet import UnetCandidate
from search_spaces.space import SearchSpace
from trainers.fit import FitConfig

# PAN needs crops of 128, and the mix transformers have no features that UnetPlusPlus could take.
CONFIG = parse_config(
    {
        "space": {
            "encoders": ["tu-resnet10t", "mit_b0"],
            "decoders": ["Unet", "UnetPlusPlus", "PAN"],
            "slices_in": [3, 5],
            "slices_out": ["middle", "all"],
            "losses": ["dice", "bce"],
            "crops": [64, 128],
            "batch_sizes": [2, 4],
            "learning_rate": [1e-4, 1e-2],
            "vessel_share": [0.5, 1.0],
        },
        "fit": {"steps": 17, "weight_decay": 0.03},
    },
    "test",
)


def _study(seed: int = 0) -> optuna.Study:
    return optuna.create_study(direction="maximize", sampler=optuna.samplers.RandomSampler(seed=seed))


def _drawn(config: SearchConfig, count: int) -> list[tuple[Candidate, FitConfig]]:
    study = _study()
    return [suggest(study.ask(), config) for _ in range(count)]


def test_all_that_can_be_built_is_offered_and_nothing_else() -> None:
    found = {(candidate.encoder, candidate.decoder, fit.crop) for candidate, fit in _drawn(CONFIG, 150)}
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


def test_an_encoder_that_goes_with_nothing_is_not_offered() -> None:
    space = SearchSpace(encoders=("mit_b0", "tu-resnet10t"), decoders=("UnetPlusPlus",), crops=(64,), slices_in=(3,))
    assert buildable(space).encoders() == ("tu-resnet10t",)
    assert buildable(space).decoders("mit_b0") == ()
    found = {candidate.encoder for candidate, _ in _drawn(CONFIG.model_copy(update={"space": space}), 10)}
    assert found == {"tu-resnet10t"}


def test_encoder_weights_are_those_that_the_encoder_has() -> None:
    space = SearchSpace(
        encoders=("resnet18", "tu-resnet10t"),
        decoders=("Unet",),
        encoder_weights=("none", "ssl"),  # only published for resnet18
        crops=(64,),
        slices_in=(3,),
    )
    found = {(c.encoder, c.encoder_weights) for c, _ in _drawn(CONFIG.model_copy(update={"space": space}), 40)}
    assert found == {("resnet18", "none"), ("resnet18", "ssl"), ("tu-resnet10t", "none")}


def test_all_slices_out_are_as_many_as_come_in() -> None:
    found = {(candidate.slices_in, candidate.slices_out) for candidate, _ in _drawn(CONFIG, 60)}
    assert found == {(3, 1), (5, 1), (3, 3), (5, 5)}


def test_numbers_lie_in_their_ranges_and_the_rest_of_the_recipe_is_the_configurations() -> None:
    for _, fit in _drawn(CONFIG, 30):
        assert 1e-4 <= fit.learning_rate <= 1e-2
        assert 0.5 <= fit.vessel_share <= 1.0
        assert (fit.steps, fit.weight_decay) == (17, 0.03)


def test_the_same_trial_asked_again_gives_the_same() -> None:
    study = _study()
    for _ in range(10):
        trial = study.ask()
        first = suggest(trial, CONFIG)
        study.sampler = optuna.samplers.RandomSampler(seed=99)
        assert suggest(Trial(study, trial._trial_id), CONFIG) == first


def test_a_suggestion_survives_json() -> None:
    for candidate, fit in _drawn(CONFIG, 5):
        assert CANDIDATES.validate_json(candidate.model_dump_json()) == candidate
        assert FitConfig.model_validate_json(fit.model_dump_json()) == fit


SAM = parse_config(
    {
        "space": {
            "families": ["unet", "sam"],
            "encoders": ["tu-resnet10t"],
            "decoders": ["Unet"],
            "encoder_weights": ["none", "fb_r896"],
            "sam_encoders": ["sam2_hiera_tiny"],
            "sam_tunings": ["lora", "frozen"],
            "lora_ranks": [4, 8],
            "slices_in": [3],
            "crops": [32],
            "batch_sizes": [2],
        }
    },
    "test",
)


def test_an_encoder_of_sam_is_kept_or_adapted_where_it_has_weights_and_trained_in_full_where_it_has_none() -> None:
    found = {
        (candidate.family, candidate.encoder_weights, candidate.tuning, candidate.lora_rank)
        for candidate, _ in _drawn(SAM, 60)
    }
    assert found == {
        ("unet", "none", "full", None),
        ("sam", "none", "full", None),
        ("sam", "fb_r896", "frozen", None),
        ("sam", "fb_r896", "lora", 4),
        ("sam", "fb_r896", "lora", 8),
    }


def test_a_point_of_family_sam_is_known_by_the_parameters_of_its_trial() -> None:
    study = _study()
    for _ in range(30):
        trial = study.ask()
        candidate, fit = suggest(trial, SAM)
        assert known_parameters(SAM, candidate, fit) == trial.params


def test_one_choice_that_stands_in_for_another_has_a_name_of_its_own() -> None:
    """Both sets have one value, and Optuna wants one set of values a name."""
    space = SAM.space.model_copy(update={"sam_tunings": ("lora",), "families": ("sam",)})
    study = _study()
    trials = [study.ask() for _ in range(20)]
    for trial in trials:
        suggest(trial, SAM.model_copy(update={"space": space}))
    names = {name for trial in trials for name in trial.params if name.startswith("tuning")}
    assert names == {"tuning", "tuning of full"}


FIT = FitConfig(crop=128, loss="bce", batch_size=2, learning_rate=1e-3, vessel_share=0.5)
RECIPE = {"slices_in": 3, "slices_out": "middle", "loss": "bce", "batch_size": 2, "learning_rate": 1e-3} | {
    "vessel_share": 0.5,
    "encoder_weights": "none",
    "resolution": "plain",
    "decoder_norm": "batch",
    "upsampling": "published",
}


@pytest.mark.parametrize(
    ("candidate", "architecture"),
    [
        (
            UnetCandidate(encoder="tu-resnet10t", decoder="Unet", slices_in=3),
            {"encoder": "tu-resnet10t", "decoder": "Unet", "crop": 128},
        ),
        (
            UnetCandidate(encoder="mit_b0", decoder="PAN", slices_in=3),
            {"encoder": "mit_b0", "decoder of Unet, PAN": "PAN", "crop of 128": 128},
        ),
        # Outside of the space: nothing is said of what the space could not have suggested.
        (UnetCandidate(encoder="resnet18", decoder="Unet", slices_in=3), {}),
        (UnetCandidate(encoder="tu-resnet10t", decoder="FPN", slices_in=3), {"encoder": "tu-resnet10t"}),
    ],
)
def test_a_fixed_trial_is_known_by_what_the_space_could_have_suggested(
    candidate: Candidate, architecture: dict[str, object]
) -> None:
    assert known_parameters(CONFIG, candidate, FIT) == {**RECIPE, **architecture}


def test_what_lies_outside_of_a_range_is_not_registered() -> None:
    fit = FIT.model_copy(update={"learning_rate": 1.0, "vessel_share": 0.0, "loss": "dice + bce", "batch_size": 64})
    known = known_parameters(CONFIG, UnetCandidate(encoder="tu-resnet10t", slices_in=7, masks="all"), fit)
    assert known == {
        "encoder": "tu-resnet10t",
        "decoder": "Unet",
        "crop": 128,
        "encoder_weights": "none",
        "slices_out": "all",
        "resolution": "plain",
        "decoder_norm": "batch",
        "upsampling": "published",
    }


@pytest.mark.parametrize("encoder", ["tu-resnet10t", "mit_b0", "resnet18"])
def test_the_sampler_sees_the_known_parameters_of_a_fixed_trial(encoder: str) -> None:
    candidate = UnetCandidate(encoder=encoder, slices_in=3)
    known = known_parameters(CONFIG, candidate, FIT)
    study = _study()
    study.enqueue_trial(known)
    trial = study.ask()
    register(trial, CONFIG, candidate, FIT)
    study.tell(trial, 0.5)
    assert study.trials[0].params == known
    assert json.loads(json.dumps(known)) == known


def test_a_point_that_was_suggested_is_known_by_the_parameters_of_its_trial() -> None:
    study = _study()
    for _ in range(20):
        trial = study.ask()
        candidate, fit = suggest(trial, CONFIG)
        assert known_parameters(CONFIG, candidate, fit) == trial.params


def test_resolution_norm_upsampling_and_augmentation_are_choices_of_the_space() -> None:
    space = CONFIG.space.model_copy(
        update={
            "resolutions": ("plain", "stem", "upscaled"),
            "decoder_norms": ("batch", "group"),
            "upsamplings": ("nearest", "bilinear"),
            "augmentations": ("strong", "strong - tilt"),
        }
    )
    drawn = list(_drawn(CONFIG.model_copy(update={"space": space}), 60))
    assert {candidate.resolution for candidate, _ in drawn} == {"plain", "stem", "upscaled"}
    assert {candidate.decoder_norm for candidate, _ in drawn} == {"batch", "group"}
    assert {candidate.upsampling for candidate, _ in drawn} == {"nearest", "bilinear"}
    assert {fit.augmentation for _, fit in drawn} == {"strong", "strong - tilt"}
    assert {fit.augmentation for _, fit in _drawn(CONFIG, 5)} == {CONFIG.fit.augmentation}


def test_a_decoder_without_a_choice_of_upsampling_keeps_its_own() -> None:
    update = {"decoders": ("Unet", "Linknet"), "upsamplings": ("nearest", "bilinear")}
    drawn = list(_drawn(CONFIG.model_copy(update={"space": CONFIG.space.model_copy(update=update)}), 40))
    of = {decoder: {c.upsampling for c, _ in drawn if c.decoder == decoder} for decoder in ("Unet", "Linknet")}
    assert of == {"Unet": {"nearest", "bilinear"}, "Linknet": {"published"}}


def test_voxel_sizes_are_choices_of_the_space() -> None:
    space = CONFIG.space.model_copy(update={"voxel_sizes": (50.0, "scanned", 63.0)})
    config = CONFIG.model_copy(update={"space": space})
    assert {fit.voxel_size_um for _, fit in _drawn(config, 40)} == {50.0, None, 63.0}
    known = known_parameters(config, UnetCandidate(encoder="tu-resnet10t", slices_in=3), FIT)
    assert known["voxel_size"] == "scanned"
