"""EfficientNet (arXiv 1905.11946) and EfficientNetV2 (arXiv 2104.00298) encoders."""

from search_spaces.encoders.encoder import Encoder

EFFICIENTNETS = {
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
}
