"""RESOLUTIONS: ways to make the mask of any published U-Net sharp at full resolution.

The first layer of most encoders halves the image, and some (ConvNeXt, MaxViT, SegFormer) quarter it; but surface dice
at tolerance 0 depends only on the voxels at the border.
"""

from collections.abc import Callable
from math import gcd
from typing import Literal

import torch
import torch.nn.functional as F  # noqa: N812
from segmentation_models_pytorch.decoders.fpn.decoder import Conv3x3GNReLU
from torch import Tensor, nn

Resolution = Literal["plain", "stem", "upscaled"]
DecoderNorm = Literal["batch", "group"]
Upsampling = Literal["published", "nearest", "bilinear"]

_STEM_CHANNELS = 16
_GROUPS = 8


class Stem(nn.Module):
    """A network and two parallel convolutions at full resolution, joined by a last one: (B, k, H, W) -> (B, m, H, W).

    network: gives `Stem.CHANNELS` maps at full resolution. In the competition, the ninth place (and the first place for
    its encoders of stride 4) gave the encoder a first map at full resolution. Here that map joins the decoder's last
    map instead, so it works with every decoder.
    """

    CHANNELS = _STEM_CHANNELS

    def __init__(self, network: nn.Module, slices_in: int, slices_out: int) -> None:
        super().__init__()
        self.network = network
        self.stem = nn.Sequential(*_block(slices_in, _STEM_CHANNELS), *_block(_STEM_CHANNELS, _STEM_CHANNELS))
        self.join = nn.Sequential(*_block(2 * _STEM_CHANNELS, _STEM_CHANNELS), nn.Conv2d(_STEM_CHANNELS, slices_out, 1))

    @property
    def encoder(self) -> nn.Module:
        """Where pretrained weights go."""
        return self.network.get_submodule("encoder")

    def forward(self, image: Tensor) -> Tensor:
        """Logits."""
        joined: Tensor = self.join(torch.cat([self.network(image), self.stem(image)], 1))
        return joined


class Upscaled(nn.Module):
    """A network that sees the image at twice its size; its logits are scaled back: (B, k, H, W) -> (B, m, H, W).

    The competition's fifth place did this. Bilinear upscaling and averaging of 2 x 2 pixels both keep the centre.
    """

    FACTOR = 2

    def __init__(self, network: nn.Module) -> None:
        super().__init__()
        self.network = network

    @property
    def encoder(self) -> nn.Module:
        """Where pretrained weights go."""
        return self.network.get_submodule("encoder")

    def forward(self, image: Tensor) -> Tensor:
        """Logits."""
        large = F.interpolate(image, scale_factor=float(self.FACTOR), mode="bilinear", align_corners=False)
        return F.avg_pool2d(self.network(large), self.FACTOR)


# How to make a network from the constructor of a published one, which takes its number of output maps; the cheapest
# first.
RESOLUTIONS: dict[Resolution, Callable[[Callable[[int], nn.Module], int, int], nn.Module]] = {
    "plain": lambda make, _slices_in, slices_out: make(slices_out),
    "stem": lambda make, slices_in, slices_out: Stem(make(_STEM_CHANNELS), slices_in, slices_out),
    "upscaled": lambda make, _slices_in, slices_out: Upscaled(make(slices_out)),
}


def scale_of(resolution: Resolution) -> int:
    """Factor by which the image is enlarged for the published network."""
    return Upscaled.FACTOR if resolution == "upscaled" else 1


def restyle(decoder: nn.Module, norm: DecoderNorm) -> None:
    """Change a decoder in place: "group" replaces batch norm by GroupNorm and ReLU by GELU, like the first place.

    Group norms do not depend on which patches share a batch.
    """
    if norm == "batch":
        return
    for name, child in decoder.named_children():
        if isinstance(child, nn.BatchNorm2d):
            channels = child.num_features
            setattr(decoder, name, nn.GroupNorm(gcd(_GROUPS, channels), channels))
        elif isinstance(child, nn.ReLU):
            setattr(decoder, name, nn.GELU())
        else:
            restyle(child, norm)


def keep_centres(network: nn.Module) -> None:
    """Make bilinear upsampling keep the centres of voxels, in place.

    smp's heads, FPN and PAN align the corner voxels instead, which shifts them by up to half a coarse voxel, depending
    on the tile's size. PSPNet does so with its pooled maps, which have no position, and DPT only reads tiles of its
    crop; these two stay as they are.
    """
    for module in network.modules():
        if getattr(module, "align_corners", None):
            module.align_corners = False  # type: ignore[assignment]
        if isinstance(module, Conv3x3GNReLU) and module.upsample:
            module.upsample = False
            module.block.append(nn.Upsample(scale_factor=2.0, mode="bilinear", align_corners=False))


def _block(channels_in: int, channels_out: int) -> list[nn.Module]:
    return [
        nn.Conv2d(channels_in, channels_out, 3, padding=1, bias=False),
        nn.GroupNorm(gcd(_GROUPS, channels_out), channels_out),
        nn.GELU(),
    ]
