"""ResNet and ResNeXt encoders (arXiv 1512.03385, 1611.05431); resnet10t and 14t are timm's short ones."""

from search_spaces.encoders.encoder import Encoder

RESNETS = {
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
}
