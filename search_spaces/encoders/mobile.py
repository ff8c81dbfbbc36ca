"""Encoders made for telephones, and therefore the fastest on a CPU (arXiv 1905.02244, 2404.10518, 2206.10589)."""

from search_spaces.encoders.encoder import Encoder

MOBILES = {
    "tu-mobilenetv3_small_100": Encoder(),
    "tu-mobilenetv3_large_100": Encoder(),
    "tu-mobilenetv4_conv_small": Encoder(),
    "tu-edgenext_xx_small": Encoder(dilates=False),
}
