"""ENCODERS: every published encoder that a candidate may name, and its properties.

Names are those of segmentation-models-pytorch (`resnet18`), or those of timm after `tu-` (`tu-convnext_tiny`).
"""

from dataclasses import dataclass
from typing import Any, Literal


@dataclass(frozen=True)
class Encoder:
    """How one encoder behaves; the defaults describe a plain convolutional network.

    Its name is that of segmentation-models-pytorch (`resnet18`), or that of timm after `tu-` (`tu-convnext_tiny`).
    """

    # A pyramid of maps at strides 2 (or 4) to 32, or token maps that all have the same stride (vision transformers).
    gives: Literal["pyramid", "tokens"] = "pyramid"
    # Windows or position tables are made for one input size: the network is built for its crop, predicts on tiles
    # of exactly that size, and needs a crop that is a multiple of 32.
    sized_to_crop: bool = False
    # Its last stages can keep stride 16 by dilation, which some decoders need.
    dilates: bool = True


ENCODERS: dict[str, Encoder] = {
    # ResNet and ResNeXt encoders (arXiv 1512.03385, 1611.05431); resnet10t and resnet14t are small variants from timm.
    "tu-resnet10t": Encoder(),
    "tu-resnet14t": Encoder(),
    "resnet18": Encoder(),
    "resnet34": Encoder(),
    "resnet50": Encoder(),
    "resnet101": Encoder(),
    "resnext50_32x4d": Encoder(),
    "resnext101_32x4d": Encoder(),
    "resnext101_32x8d": Encoder(),
    "resnext101_32x16d": Encoder(),
    # ResNet and ResNeXt encoders with squeeze and excitation (arXiv 1709.01507).
    "se_resnet50": Encoder(),
    "se_resnet101": Encoder(),
    "se_resnext50_32x4d": Encoder(),
    "se_resnext101_32x4d": Encoder(),
    # DenseNet encoders (arXiv 1608.06993). They downsample by pooling, so they cannot be dilated.
    "densenet121": Encoder(dilates=False),
    "densenet161": Encoder(dilates=False),
    "densenet169": Encoder(dilates=False),
    # EfficientNet (arXiv 1905.11946) and EfficientNetV2 (arXiv 2104.00298) encoders.
    "efficientnet-b0": Encoder(),
    "efficientnet-b1": Encoder(),
    "efficientnet-b2": Encoder(),
    "efficientnet-b3": Encoder(),
    "efficientnet-b4": Encoder(),
    "efficientnet-b5": Encoder(),
    "efficientnet-b6": Encoder(),
    "efficientnet-b7": Encoder(),
    "tu-tf_efficientnetv2_b0": Encoder(),
    "tu-tf_efficientnetv2_s": Encoder(),
    "tu-tf_efficientnetv2_m": Encoder(),
    "tu-tf_efficientnetv2_l": Encoder(),
    # ConvNeXt (arXiv 2201.03545) and ConvNeXt V2 (arXiv 2301.00808) encoders. Their first map has stride 4.
    "tu-convnext_tiny": Encoder(),
    "tu-convnext_small": Encoder(),
    "tu-convnext_base": Encoder(),
    "tu-convnextv2_atto": Encoder(),
    "tu-convnextv2_pico": Encoder(),
    "tu-convnextv2_nano": Encoder(),
    "tu-convnextv2_tiny": Encoder(),
    "tu-convnextv2_base": Encoder(),
    # MaxViT encoders (arXiv 2204.01697): attention inside windows and over a grid, both of one size.
    #
    # timm makes window and grid a thirty-second of the input edge (`img_size=crop`), so every multiple of 32 is a valid
    # crop: 3 x 3 windows at 96, the original 7 x 7 at 224, 16 x 16 at 512. Pretrained position tables are resampled to
    # the window. Such a network accepts no other tile size: if it was built for 64, the maps of a tile of 96 are not
    # multiples of the window; at 128 the windows would fit, but the grid would differ from that in training.
    "tu-maxvit_rmlp_pico_rw_256": Encoder(sized_to_crop=True, dilates=False),
    "tu-maxvit_nano_rw_256": Encoder(sized_to_crop=True, dilates=False),
    "tu-maxvit_tiny_tf_224": Encoder(sized_to_crop=True, dilates=False),
    "tu-maxvit_tiny_tf_512": Encoder(sized_to_crop=True, dilates=False),
    "tu-maxvit_small_tf_512": Encoder(sized_to_crop=True, dilates=False),
    "tu-maxvit_base_tf_512": Encoder(sized_to_crop=True, dilates=False),
    "tu-maxvit_large_tf_512": Encoder(sized_to_crop=True, dilates=False),
    # ResNeSt encoders: ResNets with attention over split groups of channels (arXiv 2004.08955).
    "tu-resnest14d": Encoder(),
    "tu-resnest26d": Encoder(),
    "tu-resnest50d": Encoder(),
    "tu-resnest101e": Encoder(),
    # RegNetY encoders (arXiv 2003.13678); the number is the cost in units of 100 million multiply-adds at 224.
    "tu-regnety_002": Encoder(),
    "tu-regnety_004": Encoder(),
    "tu-regnety_008": Encoder(),
    "tu-regnety_016": Encoder(),
    "tu-regnety_032": Encoder(),
    "tu-regnety_064": Encoder(),
    # Mix transformer encoders of SegFormer (arXiv 2105.15203): a pyramid, of any size because without position tables.
    "mit_b0": Encoder(),
    "mit_b1": Encoder(),
    "mit_b2": Encoder(),
    "mit_b3": Encoder(),
    "mit_b4": Encoder(),
    "mit_b5": Encoder(),
    # Encoders for mobile phones, and therefore the fastest on a CPU (arXiv 1905.02244, 2404.10518, 2206.10589).
    "tu-mobilenetv3_small_100": Encoder(),
    "tu-mobilenetv3_large_100": Encoder(),
    "tu-mobilenetv4_conv_small": Encoder(),
    "tu-edgenext_xx_small": Encoder(dilates=False),
    # Plain vision transformers (arXiv 2010.11929): only token maps of stride 16, for the decoder DPT.
    #
    # Their position table is made for the crop; a pretrained one is resampled to it.
    "tu-vit_tiny_patch16_224": Encoder(gives="tokens", sized_to_crop=True),
    "tu-vit_small_patch16_224": Encoder(gives="tokens", sized_to_crop=True),
    "tu-vit_base_patch16_224": Encoder(gives="tokens", sized_to_crop=True),
}


def encoder_arguments(name: str, edge: int) -> dict[str, Any]:
    """Further arguments for timm, besides the encoder's name. edge: that of the image that the encoder sees."""
    encoder = ENCODERS[name]
    size = {"img_size": edge} if encoder.sized_to_crop else {}
    # smp builds these with their classifier, with as many classes as in pretraining.
    return {**size, "num_classes": 0} if encoder.gives == "tokens" else size
