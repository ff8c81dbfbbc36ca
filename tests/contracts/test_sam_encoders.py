"""Every encoder of family sam makes a network that trains, with every tuning, at the crops it claims."""

import pytest
import torch

from search_spaces.errors import InputError
from search_spaces.families.sam import SamCandidate
from search_spaces.network import build_network, check_buildable, parameters
from search_spaces.published.sam_encoders import SAM_ENCODERS, fitting_window
from search_spaces.published.weights import offered_weights

SMALL = ["sam2_hiera_tiny", "samvit_base_patch16"]  # of each kind; the others are checked by their shapes
TUNINGS = ["full", "lora", "frozen"]

pytestmark = pytest.mark.slow  # the smallest has 27 million parameters


def candidate_of(encoder: str, tuning: str = "full", **more: object) -> SamCandidate:
    values = {"encoder": encoder, "tuning": tuning, "slices_in": 5, **more}
    return SamCandidate.model_validate({"encoder_weights": "none" if tuning == "full" else "f.safetensors", **values})


@pytest.mark.parametrize("encoder", SAM_ENCODERS)
@pytest.mark.parametrize("crop", [32, 96])
def test_an_encoder_is_buildable_at_small_crops(encoder: str, crop: int) -> None:
    check_buildable(candidate_of(encoder), crop)


@pytest.mark.parametrize("encoder", SMALL)
@pytest.mark.parametrize("crop", [160, 224, 256, 512, 992])
def test_a_multiple_of_32_is_a_crop(encoder: str, crop: int) -> None:
    check_buildable(candidate_of(encoder), crop, batch=1)


@pytest.mark.parametrize("encoder", SMALL)
@pytest.mark.parametrize("tuning", TUNINGS)
def test_a_network_gives_finite_logits_and_every_trained_number_gets_a_gradient(encoder: str, tuning: str) -> None:
    torch.manual_seed(0)
    candidate = candidate_of(encoder, tuning, slices_in=3, masks="all")
    network = build_network(candidate, 64, pretrained=False).train()
    logits = network(torch.randn(2, 3, 64, 64))
    logits.square().mean().backward()
    trained = {name: p for name, p in network.named_parameters() if p.requires_grad}
    assert logits.shape == (2, 3, 64, 64)
    assert torch.isfinite(logits).all()
    assert [name for name, p in trained.items() if p.grad is None] == []
    assert sum(p.numel() for p in trained.values()) == parameters(candidate, 64)


@pytest.mark.parametrize("encoder", SMALL)
def test_what_is_trained_of_an_encoder_follows_from_the_tuning(encoder: str) -> None:
    counts = {tuning: parameters(candidate_of(encoder, tuning), 64) for tuning in TUNINGS}
    factors = parameters(candidate_of(encoder, "lora", lora_rank=4), 64) - counts["frozen"]
    assert counts["frozen"] < 1_000_000 < counts["full"]  # the decoder alone, and all
    assert counts["lora"] - counts["frozen"] == 2 * factors  # of rank 8


@pytest.mark.parametrize("encoder", SAM_ENCODERS)
def test_a_crop_between_two_strides_is_refused_with_the_nearest_that_fit(encoder: str) -> None:
    with pytest.raises(InputError, match=rf"'{encoder}' at crop 100 cannot be built: .*set the crop to 96 or 128"):
        check_buildable(candidate_of(encoder), 100)


@pytest.mark.parametrize("encoder", SAM_ENCODERS)
def test_published_weights_are_named_with_their_licence_and_are_not_called_imagenet(encoder: str) -> None:
    offered = offered_weights(encoder)
    assert offered
    assert "imagenet" not in offered
    assert {place.licence for place in offered.values()} == {"apache-2.0"}


@pytest.mark.parametrize("encoder", SAM_ENCODERS)
def test_tiles_are_those_of_training(encoder: str) -> None:
    assert candidate_of(encoder).stride == 32
    assert not candidate_of(encoder).any_size


@pytest.mark.parametrize(
    ("tokens", "largest", "window"),
    # 16 tokens: two windows of 8. 32: three of 11 with one token of padding, where 14 would pad ten. 64: five of 13.
    [(2, 14, 2), (14, 14, 14), (16, 14, 8), (32, 14, 11), (64, 14, 13), (8, 7, 4)],
)
def test_windows_cover_the_tokens_in_as_few_as_were_trained(tokens: int, largest: int, window: int) -> None:
    assert fitting_window(tokens, largest) == window
