"""DECODERS: how an encoder's maps become a mask at full resolution (segmentation-models-pytorch)."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

import segmentation_models_pytorch as smp
from torch import nn


@dataclass(frozen=True)
class Decoder:
    """How to build the network around an encoder, and what that asks of encoder and crop."""

    constructor: Callable[..., nn.Module]
    takes: Literal["pyramid", "tokens"] = "pyramid"  # what the encoder has to give
    # Crop and tile edges must divide by this. U-Net alone would take any edge, but where maps do not divide it
    # resizes them to each other, a shift of up to half a voxel.
    stride: int = 32
    keeps_stride_16: bool = False  # asks the encoder for dilation instead of its last stride
    smallest_crop: int = 32
    interpolates: bool = False  # lets choose how its maps are upsampled; others have a way of their own


DECODERS: dict[str, Decoder] = {
    "Unet": Decoder(smp.Unet, interpolates=True),
    "UnetPlusPlus": Decoder(smp.UnetPlusPlus, interpolates=True),
    "FPN": Decoder(smp.FPN, interpolates=True),
    "MAnet": Decoder(smp.MAnet, interpolates=True),
    "Linknet": Decoder(smp.Linknet),
    "PSPNet": Decoder(smp.PSPNet, stride=8),  # stops at the third map
    # Halves the stride-16 map three times more, so it needs at least 8 x 8 of it.
    "PAN": Decoder(smp.PAN, stride=16, keeps_stride_16=True, smallest_crop=128, interpolates=True),
    "DeepLabV3Plus": Decoder(smp.DeepLabV3Plus, stride=16, keeps_stride_16=True),
    "UPerNet": Decoder(smp.UPerNet),
    "Segformer": Decoder(smp.Segformer),
    # Its coarsest map is half of the stride-16 tokens: an odd number of those would not add up again.
    "DPT": Decoder(smp.DPT, takes="tokens"),
}
