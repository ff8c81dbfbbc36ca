"""ResNet and ResNeXt encoders with squeeze and excitation (arXiv 1709.01507)."""

from search_spaces.encoders.encoder import Encoder

SENETS = {
    "se_resnet50": Encoder(),
    "se_resnet101": Encoder(),
    "se_resnext50_32x4d": Encoder(),
    "se_resnext101_32x4d": Encoder(),
}
