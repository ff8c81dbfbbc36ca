"""A search space: names that exist, ranges that are ranges, and the combinations that make a network."""

import pytest
from pydantic import ValidationError

from search_spaces.any_candidate import CANDIDATES
from search_spaces.errors import InputError
from search_spaces.families.unet import UnetCandidate
from search_spaces.space import Pair, SearchSpace, check_space, pairs, weights_for


def test_the_default_space_can_be_searched_as_it_is() -> None:
    check_space(SearchSpace())


def test_a_space_survives_json() -> None:
    space = SearchSpace(encoders=("resnet34",), crops=(64, 96), learning_rate=(1e-5, 1e-3))
    assert SearchSpace.model_validate_json(space.model_dump_json()) == space


def test_a_candidate_survives_json() -> None:
    candidate = UnetCandidate(encoder="mit_b0", decoder="FPN", encoder_weights="imagenet", slices_in=7, masks="all")
    assert CANDIDATES.validate_json(candidate.model_dump_json()) == candidate


@pytest.mark.parametrize(
    ("choices", "message"),
    [
        ({"encoders": ("resnet18", "resnet99")}, "unknown encoder 'resnet99'; did you mean 'resnet"),
        ({"decoders": ("UNet",)}, "unknown decoder 'UNet'; did you mean 'Unet'"),
        ({"encoder_weights": ("imagnet",)}, "unknown encoder_weights 'imagnet'; did you mean 'imagenet'"),
        ({"slices_in": (3, 4)}, "slices_in has 4, which has no middle slice"),
        (
            {"encoders": ("resnet18", "resnext101_32x16d"), "encoder_weights": ("imagenet",)},
            "encoder 'resnext101_32x16d' has none of the encoder_weights imagenet; it has instagram, ssl, swsl",
        ),
    ],
)
def test_a_choice_that_cannot_be_made_is_one_line(choices: dict[str, object], message: str) -> None:
    with pytest.raises(InputError) as caught:
        check_space(SearchSpace.model_validate(choices))
    assert message in str(caught.value)
    assert "\n" not in str(caught.value)


def test_an_even_number_of_slices_goes_with_all_of_them_out() -> None:
    check_space(SearchSpace(slices_in=(4,), slices_out=("all",)))


@pytest.mark.parametrize(
    ("choices", "message"),
    [
        ({"encoder": ("resnet18",)}, "Extra inputs are not permitted"),
        ({"encoders": ()}, "at least 1 item"),
        ({"crops": (64, 64)}, "named twice"),
        ({"voxel_sizes": (50.0, 50.0)}, "named twice"),
        ({"crops": (-32,)}, "greater than 0"),
        ({"families": ("unett",)}, "Input should be 'unet'"),
        ({"slices_out": ("first",)}, "Input should be 'middle' or 'all'"),
        ({"learning_rate": (1e-2, 1e-4)}, "lowest, then its highest"),
        ({"learning_rate": (0.0, 1e-4)}, "greater than 0"),
        ({"vessel_share": (0.5, 1.5)}, "between 0 and 1"),
        ({"vessel_share": (float("nan"), 1.0)}, "lowest, then its highest"),
    ],
)
def test_a_value_out_of_its_range_is_refused(choices: dict[str, object], message: str) -> None:
    with pytest.raises(ValidationError, match=message):
        SearchSpace.model_validate(choices)


def test_weights_are_offered_to_the_encoders_that_have_them() -> None:
    space = SearchSpace(
        encoders=("resnet18", "resnext101_32x16d"), encoder_weights=("none", "imagenet", "instagram", "my.safetensors")
    )
    assert weights_for(space, "resnet18") == ("none", "imagenet", "my.safetensors")
    assert weights_for(space, "resnext101_32x16d") == ("none", "instagram", "my.safetensors")


def test_pairs_are_all_combinations_with_the_reason_of_each_refusal() -> None:
    space = SearchSpace(
        encoders=("tu-resnet10t", "tu-vit_tiny_patch16_224"), decoders=("Unet", "DPT"), crops=(64, 80), slices_in=(3,)
    )
    seen: list[tuple[int, int]] = []
    found = pairs(space, on_progress=lambda done, total: seen.append((done, total)))
    assert [(p.encoder, p.decoder, p.crop) for p in found] == [
        (e, d, c) for e in space.encoders for d in space.decoders for c in space.crops
    ]
    buildable = {(p.encoder, p.decoder, p.crop) for p in found if p.refusal is None}
    assert buildable == {("tu-resnet10t", "Unet", 64), ("tu-vit_tiny_patch16_224", "DPT", 64)}
    assert seen == [(done, 8) for done in range(9)]


def test_a_pair_is_tried_with_the_smallest_batch_of_the_space() -> None:
    space = SearchSpace(encoders=("tu-resnet10t",), decoders=("Unet",), crops=(32,), batch_sizes=(8, 1))
    (pair,) = pairs(space)
    assert isinstance(pair, Pair)
    assert "more than 1 value per channel" in str(pair.refusal)


def test_what_is_frozen_needs_weights_to_keep() -> None:
    space = SearchSpace(families=("sam",), sam_tunings=("frozen",), encoder_weights=("none",))
    with pytest.raises(
        InputError, match="sam_tunings frozen keep an encoder's weights, and encoder_weights offers none"
    ):
        check_space(space)


def test_a_pair_is_tried_as_the_space_would_build_it() -> None:
    group = {"encoders": ("tu-resnet10t",), "decoders": ("UPerNet",), "crops": (64,), "batch_sizes": (1,)}
    (refused,) = pairs(SearchSpace(**group))
    assert "more than 1 value per channel" in str(refused.refusal)
    (pair,) = pairs(SearchSpace(**group, decoder_norms=("group",)))
    assert pair.refusal is None
    for offered, cheapest in (
        (("upscaled",), "upscaled"),
        (("upscaled", "stem"), "stem"),
        (("stem", "plain"), "plain"),
    ):
        space = SearchSpace(**group, resolutions=offered)
        assert pair.candidate(space, 3).resolution == cheapest
