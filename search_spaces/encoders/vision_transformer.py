"""Plain vision transformers (arXiv 2010.11929): token maps of stride 16 only, for the decoder DPT.

Their position table is made for the crop; a pretrained one is resampled to it.
"""

from search_spaces.encoders.encoder import Encoder

VISION_TRANSFORMERS = {
    "tu-vit_tiny_patch16_224": Encoder(gives="tokens", sized_to_crop=True),
    "tu-vit_small_patch16_224": Encoder(gives="tokens", sized_to_crop=True),
    "tu-vit_base_patch16_224": Encoder(gives="tokens", sized_to_crop=True),
}
