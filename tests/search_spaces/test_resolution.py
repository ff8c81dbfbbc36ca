"""The resolution path: sizes, centres and styles, for every decoder."""

import pytest
import torch
from parameters import first_is_quick
from safetensors.torch import save_file
from torch import nn
from torch.overrides import TorchFunctionMode

from search_spaces.any_candidate import read_candidate
from search_spaces.errors import InputError
from search_spaces.families.unet import UnetCandidate
from search_spaces.network import build_network, check_buildable, parameters
from search_spaces.published.decoders import DECODERS
from search_spaces.published.resolution import RESOLUTIONS, Upscaled, keep_centres

CROP = {"PAN": 128, "DPT": 64}


def candidate_of(decoder: str, **more: object) -> UnetCandidate:
    encoder = "tu-vit_tiny_patch16_224" if DECODERS[decoder].takes == "tokens" else "tu-resnet10t"
    return UnetCandidate.model_validate({"encoder": encoder, "decoder": decoder, "slices_in": 3, **more})


@pytest.mark.slow
@pytest.mark.parametrize("decoder", DECODERS)
@pytest.mark.parametrize(("norm", "resolution"), [("group", "plain"), *(("batch", name) for name in RESOLUTIONS)])
def test_every_decoder_can_be_built_in_every_way(decoder, norm, resolution):
    check_buildable(candidate_of(decoder, resolution=resolution, decoder_norm=norm, masks="all"), CROP.get(decoder, 64))


@pytest.mark.parametrize("decoder", first_is_quick(name for name in DECODERS if name != "DPT"))
def test_the_norms_of_groups_leave_no_batch_norm_and_no_relu_in_the_decoder(decoder):
    network = build_network(candidate_of(decoder, decoder_norm="group"), CROP.get(decoder, 64))
    kinds = {type(module) for module in network.get_submodule("decoder").modules()}
    assert nn.BatchNorm2d not in kinds and nn.ReLU not in kinds
    assert any(isinstance(module, nn.BatchNorm2d) for module in network.get_submodule("encoder").modules())


class Recorded(TorchFunctionMode):
    """Counts the interpolations that align corners."""

    aligned = 0

    def __torch_function__(self, func, types, args=(), kwargs=None):
        self.aligned += func is nn.functional.interpolate and bool((kwargs or {}).get("align_corners"))
        return func(*args, **(kwargs or {}))


# PSPNet's pooled maps have no place, and DPT reads tiles of its crop alone.
@pytest.mark.slow
@pytest.mark.parametrize("decoder", [name for name in DECODERS if name not in ("PSPNet", "DPT")])
@pytest.mark.parametrize("upsampling", ["published", "bilinear"])
def test_no_upsampling_shifts_the_centres_of_voxels(decoder, upsampling):
    if upsampling == "bilinear" and not DECODERS[decoder].interpolates:
        pytest.skip("the decoder has no choice of upsampling")
    crop = CROP.get(decoder, 64)
    network = build_network(candidate_of(decoder, upsampling=upsampling), crop).eval()
    with Recorded() as seen, torch.inference_mode():
        network(torch.rand(2, 3, crop, crop))
    assert seen.aligned == 0


def test_a_head_that_keeps_centres_leaves_a_ramp_where_it_was():
    head = nn.Sequential(nn.UpsamplingBilinear2d(scale_factor=4))
    ramp = (torch.arange(8.0) * 4 + 1.5).expand(1, 1, 8, 8)  # at the centres of blocks of four voxels
    assert not torch.allclose(head(ramp)[0, 0, 4, 4:-4], torch.arange(4.0, 28.0))
    keep_centres(head)
    assert torch.allclose(head(ramp)[0, 0, 4, 4:-4], torch.arange(4.0, 28.0))


def test_an_upscaled_image_comes_back_to_its_place():
    image = torch.rand(1, 1, 8, 8)
    through = Upscaled(nn.Identity())(image)
    assert through.shape == image.shape
    ramp = torch.arange(8.0).expand(1, 1, 8, 8)
    assert torch.allclose(Upscaled(nn.Identity())(ramp)[..., 1:-1], ramp[..., 1:-1], atol=1e-5)


def test_an_upscaled_network_takes_half_the_crop_and_a_stem_costs_little():
    plain, upscaled, stem = (candidate_of("Unet", resolution=name) for name in ("plain", "upscaled", "stem"))
    assert (plain.stride, upscaled.stride) == (32, 16)
    assert build_network(upscaled, 48)(torch.rand(1, 3, 48, 48)).shape == (1, 1, 48, 48)
    assert 0 < parameters(stem, 64) - parameters(plain, 64) < 12_000


@pytest.mark.slow
def test_an_encoder_that_is_made_for_its_crop_sees_the_upscaled_one():
    candidate = UnetCandidate(encoder="tu-maxvit_rmlp_pico_rw_256", slices_in=1, resolution="upscaled")
    assert build_network(candidate, 32)(torch.rand(2, 1, 32, 32)).shape == (2, 1, 32, 32)


@pytest.mark.parametrize("resolution", first_is_quick(["stem", "upscaled"]))
def test_pretrained_weights_reach_the_encoder_inside(resolution, tmp_path):
    plain = build_network(candidate_of("Unet"), 64).get_submodule("encoder")
    save_file(plain.state_dict(), tmp_path / "w.safetensors")
    weights = str(tmp_path / "w.safetensors")
    encoder = build_network(candidate_of("Unet", resolution=resolution, encoder_weights=weights), 64).get_submodule(
        "encoder"
    )
    assert all(
        torch.equal(a, b) for a, b in zip(plain.state_dict().values(), encoder.state_dict().values(), strict=True)
    )


def test_upsampling_is_a_choice_where_the_decoder_has_one():
    nearest, bilinear = (candidate_of("Unet", upsampling=name) for name in ("nearest", "bilinear"))
    image = torch.rand(1, 3, 64, 64)
    torch.manual_seed(0)
    first = build_network(nearest, 64).eval()
    torch.manual_seed(0)
    second = build_network(bilinear, 64).eval()
    assert not torch.equal(first(image), second(image))
    with pytest.raises(InputError, match="the decoder has no choice of upsampling; set upsampling to published"):
        check_buildable(candidate_of("Linknet", upsampling="nearest"), 64)


def test_cells_have_no_resolution_path():
    with pytest.raises(ValueError, match="unknown key of family hybrid 'resolution'"):
        read_candidate({"family": "hybrid", "genotype": "plain", "resolution": "stem"})
