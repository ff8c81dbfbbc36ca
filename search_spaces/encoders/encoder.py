"""Encoder: what has to be known of an encoder to build it and to refuse it in time."""

from dataclasses import dataclass
from typing import Literal


@dataclass(frozen=True)
class Encoder:
    """How the encoder of one name behaves; the defaults describe a plain convolutional network.

    The name itself is segmentation-models-pytorch's (`resnet18`), or timm's behind `tu-` (`tu-convnext_tiny`).
    """

    # A pyramid of maps at strides 2 (or 4) to 32, or token maps that all have one stride (vision transformers).
    gives: Literal["pyramid", "tokens"] = "pyramid"
    # Windows or position tables are made for one input size: the network is built for its crop, predicts on tiles
    # of exactly that size, and needs a crop that divides by 32.
    sized_to_crop: bool = False
    # Its last stages can keep stride 16 by dilation, which some decoders ask for.
    dilates: bool = True
