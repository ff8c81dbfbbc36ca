"""DECODERS: how an encoder's maps become a mask at full resolution (segmentation-models-pytorch)."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

import segmentation_models_pytorch as smp
from torch import nn


@dataclass(frozen=True)
class Decoder:
    """How to build the network around an encoder, and what it requires of the encoder and the crop."""

    constructor: Callable[..., nn.Module]
    takes: Literal["pyramid", "tokens"] = "pyramid"  # what the encoder must give
    # Crop and tile edges must be multiples of this. U-Net by itself would take any edge, but if its maps do not match
    # it resizes one to the other, which shifts them by up to half a voxel.
    stride: int = 32
    keeps_stride_16: bool = False  # needs an encoder that uses dilation instead of its last stride
    smallest_crop: int = 32
    interpolates: bool = False  # whether the upsampling of its maps can be chosen


DECODERS: dict[str, Decoder] = {
    "Unet": Decoder(smp.Unet, interpolates=True),
    "UnetPlusPlus": Decoder(smp.UnetPlusPlus, interpolates=True),
    "FPN": Decoder(smp.FPN, interpolates=True),
    "MAnet": Decoder(smp.MAnet, interpolates=True),
    "Linknet": Decoder(smp.Linknet),
    "PSPNet": Decoder(smp.PSPNet, stride=8),  # stops at the third map
    # Halves the stride-16 map three more times, so that map must be at least 8 x 8.
    "PAN": Decoder(smp.PAN, stride=16, keeps_stride_16=True, smallest_crop=128, interpolates=True),
    "DeepLabV3Plus": Decoder(smp.DeepLabV3Plus, stride=16, keeps_stride_16=True),
    "UPerNet": Decoder(smp.UPerNet),
    "Segformer": Decoder(smp.Segformer),
    # Its coarsest map has half as many tokens along an edge as stride 16; an odd number could not be restored.
    "DPT": Decoder(smp.DPT, takes="tokens"),
}
