"""Every encoder in the table makes a network that trains, at the sizes it claims."""

from collections.abc import Iterable

import pytest
import torch
from torch import nn

from search_spaces.errors import InputError
from search_spaces.families.unet import UnetCandidate
from search_spaces.network import build_network, check_buildable, parameters
from search_spaces.published.encoders import ENCODERS
from search_spaces.published.weights import offered_weights

FIRST = ["resnet18", "tu-vit_tiny_patch16_224"]  # a pyramid and one of tokens, in the quick tests too
# One of each family, small enough to run for real; the others are checked by their shapes.
SMALL = [
    *FIRST,
    "tu-resnet10t",
    "mit_b0",
    "se_resnext50_32x4d",
    "densenet121",
    "efficientnet-b0",
    "tu-tf_efficientnetv2_b0",
    "tu-convnextv2_atto",
    "tu-maxvit_rmlp_pico_rw_256",
    "tu-resnest14d",
    "tu-regnety_002",
    "tu-mobilenetv3_small_100",
    "tu-edgenext_xx_small",
]


def candidate_of(encoder: str, **more: object) -> UnetCandidate:
    decoder = "DPT" if ENCODERS[encoder].gives == "tokens" else "Unet"
    return UnetCandidate.model_validate({"encoder": encoder, "decoder": decoder, "slices_in": 5, **more})


def marked(names: Iterable[str]) -> list[object]:
    return [pytest.param(name, marks=() if name in FIRST else pytest.mark.slow) for name in names]


@pytest.fixture(scope="module", params=marked(SMALL))
def small(request: pytest.FixtureRequest) -> tuple[UnetCandidate, nn.Module]:
    """A candidate for 3 slices, and its network at a crop of 64."""
    torch.manual_seed(0)
    candidate = candidate_of(request.param, slices_in=3, masks="all")
    return candidate, build_network(candidate, 64, pretrained=False)


@pytest.mark.parametrize("encoder", marked(ENCODERS))
def test_an_encoder_is_buildable_at_96(encoder: str) -> None:
    check_buildable(candidate_of(encoder), 96)


@pytest.mark.slow
@pytest.mark.parametrize("encoder", [name for name in SMALL if ENCODERS[name].sized_to_crop])
def test_an_encoder_made_for_its_crop_is_buildable_at_512(encoder: str) -> None:
    check_buildable(candidate_of(encoder), 512)


def test_a_network_turns_slices_into_finite_logits_and_every_trained_number_gets_a_gradient(
    small: tuple[UnetCandidate, nn.Module],
) -> None:
    candidate, network = small
    logits = network.train()(torch.randn(2, 3, 64, 64))
    logits.square().mean().backward()
    trained = {name: p for name, p in network.named_parameters() if p.requires_grad}
    assert logits.shape == (2, 3, 64, 64)
    assert torch.isfinite(logits).all()
    assert [name for name, p in trained.items() if p.grad is None] == []
    assert sum(p.numel() for p in trained.values()) == parameters(candidate, 64)


def test_a_network_predicts_on_other_tiles_exactly_if_it_says_so(small: tuple[UnetCandidate, nn.Module]) -> None:
    candidate, network = small
    network.eval()
    tile = torch.zeros(1, 3, 64, 64 + candidate.stride)
    with torch.inference_mode():
        if candidate.any_size:
            assert network(tile).shape == tile.shape
        else:
            with pytest.raises((AssertionError, RuntimeError)):
                network(tile)


@pytest.mark.parametrize("encoder", ENCODERS)
def test_a_crop_between_two_strides_is_refused_with_the_nearest_that_fit(encoder: str) -> None:
    with pytest.raises(InputError, match=rf"'{encoder}'.* at crop 100 cannot be built: .*set the crop to 96 or 128"):
        check_buildable(candidate_of(encoder), 100)


@pytest.mark.parametrize("encoder", ENCODERS)
def test_imagenet_or_other_published_weights_are_named_with_their_location(encoder: str) -> None:
    offered = offered_weights(encoder)
    assert offered
    for hub_file in offered.values():
        assert hub_file.repository.count("/") == 1
        assert hub_file.repository in hub_file.fetch_command


@pytest.mark.parametrize(
    ("encoder", "weights"),
    [
        ("se_resnext50_32x4d", "imagenet"),
        ("densenet161", "imagenet"),
        ("efficientnet-b6", "imagenet"),
        ("se_resnext101_32x4d", "imagenet"),
        ("resnext101_32x8d", "imagenet"),
        ("resnext101_32x16d", "instagram"),
    ],
)
def test_the_encoders_of_the_preset_source_table_exist_with_their_weights(encoder: str, weights: str) -> None:
    assert encoder in ENCODERS
    assert weights in offered_weights(encoder)


def test_parameters_of_resnet18_are_counted_right() -> None:
    # torchvision's ResNet-18 has 11 689 512 parameters: 513 000 of them its classifier, and 5 instead of 3 input
    # channels add 2 x 64 x 7 x 7.
    encoder = build_network(UnetCandidate(), 64, pretrained=False).get_submodule("encoder")
    assert sum(p.numel() for p in encoder.parameters()) == 11_689_512 - 513_000 + 2 * 64 * 7 * 7


def test_looking_whether_a_candidate_can_be_built_leaves_the_random_numbers_alone() -> None:
    torch.manual_seed(3)
    wanted = torch.rand(1)
    torch.manual_seed(3)
    check_buildable(candidate_of("tu-regnety_004"), 96)
    assert torch.equal(torch.rand(1), wanted)


def test_a_network_can_be_built_on_the_meta_device() -> None:
    with torch.device("meta"):
        network = build_network(candidate_of("mit_b0"), 64, pretrained=False)
    assert {p.device.type for p in network.parameters()} == {"meta"}
