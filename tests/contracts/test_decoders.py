"""Every decoder in the table makes a network that trains, and what it cannot do is refused in one line."""

from typing import Literal

import pytest
import torch
from parameters import first_is_quick
from pydantic import ValidationError

from search_spaces.errors import InputError
from search_spaces.families.unet import UnetCandidate
from search_spaces.network import build_network, check_buildable, parameters
from search_spaces.published.decoders import DECODERS


def candidate_of(decoder: str, masks: Literal["middle", "all"] = "middle") -> UnetCandidate:
    encoder = "tu-vit_tiny_patch16_224" if DECODERS[decoder].takes == "tokens" else "resnet18"
    return UnetCandidate(encoder=encoder, decoder=decoder, slices_in=5, masks=masks)


def smallest_crop(decoder: str) -> int:
    return DECODERS[decoder].smallest_crop


@pytest.mark.parametrize("decoder", first_is_quick(DECODERS))
def test_a_network_turns_slices_into_logits_and_every_trained_number_gets_a_gradient(decoder: str) -> None:
    torch.manual_seed(0)
    crop = max(64, smallest_crop(decoder))
    candidate = candidate_of(decoder, masks="all")
    network = build_network(candidate, crop, pretrained=False).train()
    logits = network(torch.randn(2, 5, crop, crop))
    logits.square().mean().backward()
    trained = {name: p for name, p in network.named_parameters() if p.requires_grad}
    assert logits.shape == (2, 5, crop, crop)
    assert torch.isfinite(logits).all()
    assert [name for name, p in trained.items() if p.grad is None] == []
    assert sum(p.numel() for p in trained.values()) == parameters(candidate, crop)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("encoder", "decoder"),
    [
        ("tu-vit_tiny_patch16_224", "DPT"),
        ("mit_b0", "Segformer"),  # SegFormer, as it was published
        ("mit_b0", "UPerNet"),
        ("tu-convnext_tiny", "UPerNet"),
        ("tu-maxvit_rmlp_pico_rw_256", "Unet"),
    ],
)
def test_a_network_that_others_published_learns_from_a_batch(encoder: str, decoder: str) -> None:
    torch.manual_seed(0)
    network = build_network(UnetCandidate(encoder=encoder, decoder=decoder, slices_in=3), 64, pretrained=False).train()
    image = torch.randn(2, 3, 64, 64)
    target = (image[:, 1:2] > 1).float()
    optimiser = torch.optim.AdamW([p for p in network.parameters() if p.requires_grad], lr=2e-4)
    losses = []
    for _ in range(6):
        loss = torch.nn.functional.binary_cross_entropy_with_logits(network(image), target)
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
        losses.append(float(loss.detach()))
    assert losses[-1] < losses[0]


@pytest.mark.parametrize("decoder", DECODERS)
@pytest.mark.parametrize("multiple", [0, *(pytest.param(multiple, marks=pytest.mark.slow) for multiple in (1, 3))])
def test_every_multiple_of_the_stride_from_the_smallest_crop_on_is_buildable(decoder: str, multiple: int) -> None:
    candidate = candidate_of(decoder)
    check_buildable(candidate, smallest_crop(decoder) + multiple * candidate.stride)


@pytest.mark.parametrize("decoder", DECODERS)
def test_a_crop_below_the_smallest_or_between_two_strides_is_refused(decoder: str) -> None:
    candidate = candidate_of(decoder)
    for crop in (smallest_crop(decoder) - candidate.stride, smallest_crop(decoder) + candidate.stride // 2):
        with pytest.raises(InputError, match=rf"'{decoder}' at crop {crop} cannot be built: ") as caught:
            check_buildable(candidate, crop)
        assert "\n" not in str(caught.value)


@pytest.mark.parametrize("decoder", [name for name in DECODERS if DECODERS[name].takes == "pyramid"])
def test_a_vision_transformer_goes_with_dpt_alone(decoder: str) -> None:
    with pytest.raises(InputError, match="use decoder DPT"):
        check_buildable(UnetCandidate(encoder="tu-vit_tiny_patch16_224", decoder=decoder), 128)


def test_dpt_takes_no_pyramid() -> None:
    with pytest.raises(InputError, match="takes token maps of one stride and the encoder gives a pyramid of maps"):
        check_buildable(UnetCandidate(encoder="resnet18", decoder="DPT"), 128)


@pytest.mark.parametrize("encoder", ["densenet121", "tu-maxvit_rmlp_pico_rw_256", "tu-edgenext_xx_small"])
@pytest.mark.parametrize("decoder", ["PAN", "DeepLabV3Plus"])
def test_an_encoder_that_cannot_be_dilated_is_refused_where_dilation_is_needed(encoder: str, decoder: str) -> None:
    with pytest.raises(InputError, match="the encoder cannot be dilated; use another decoder"):
        check_buildable(UnetCandidate(encoder=encoder, decoder=decoder), 128)


@pytest.mark.parametrize("decoder", ["UnetPlusPlus", "Linknet"])
def test_what_the_library_refuses_is_refused_in_its_words(decoder: str) -> None:
    with pytest.raises(
        InputError, match=f"encoder 'mit_b0' with decoder '{decoder}' at crop 64 cannot be built: .*mit_b0"
    ):
        check_buildable(UnetCandidate(encoder="mit_b0", decoder=decoder), 64)


def test_a_batch_of_one_is_refused_where_a_batch_norm_would_see_one_value() -> None:
    check_buildable(candidate_of("Unet"), 64, batch=1)
    with pytest.raises(InputError, match="at crop 32 cannot be built: Expected more than 1 value per channel"):
        check_buildable(candidate_of("Unet"), 32, batch=1)
    check_buildable(candidate_of("Unet"), 32, batch=2)


def test_a_mask_is_of_the_middle_slice_or_of_all_that_come_in() -> None:
    assert (UnetCandidate(slices_in=5).slices_out, UnetCandidate(slices_in=5, masks="all").slices_out) == (1, 5)
    with pytest.raises(ValidationError, match="Input should be 'middle' or 'all'"):
        UnetCandidate.model_validate({"masks": "first"})


def test_an_even_number_of_slices_has_no_middle_one() -> None:
    with pytest.raises(InputError, match="slices_in is 4, which has no middle slice; set it to an odd number"):
        build_network(UnetCandidate(slices_in=4), 64, pretrained=False)
    check_buildable(UnetCandidate(slices_in=4, masks="all"), 64)


@pytest.mark.parametrize(
    ("field", "message"), [("encoder", "did you mean 'resnet"), ("decoder", "did you mean 'Unet'")]
)
def test_an_unknown_name_is_an_error_with_names_that_exist(field: str, message: str) -> None:
    with pytest.raises(ValidationError, match=f"unknown {field} 'resnet3'.*{message}"):
        UnetCandidate.model_validate({field: "resnet3"})
