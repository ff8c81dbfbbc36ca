"""ConvNeXt (arXiv 2201.03545) and ConvNeXt V2 (arXiv 2301.00808) encoders. Their first map has stride 4."""

from search_spaces.encoders.encoder import Encoder

CONVNEXTS = {
    "tu-convnext_tiny": Encoder(),
    "tu-convnext_small": Encoder(),
    "tu-convnext_base": Encoder(),
    "tu-convnextv2_atto": Encoder(),
    "tu-convnextv2_pico": Encoder(),
    "tu-convnextv2_nano": Encoder(),
    "tu-convnextv2_tiny": Encoder(),
    "tu-convnextv2_base": Encoder(),
}
