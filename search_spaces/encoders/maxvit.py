"""MaxViT encoders (arXiv 2204.01697): attention inside windows and over a grid, both of one size.

timm makes window and grid a thirty-second of the input edge (`img_size=crop`), so every crop that divides by 32
fits: 3 x 3 windows at 96, the trained 7 x 7 at 224, 16 x 16 at 512. Pretrained position tables are resampled to the
window. A network built so accepts no other tile: at 96 instead of 64 the maps do not divide by the window, and at
128 the windows would fit but the grid would be another one than in training.
"""

from search_spaces.encoders.encoder import Encoder

MAXVITS = {
    "tu-maxvit_rmlp_pico_rw_256": Encoder(sized_to_crop=True, dilates=False),
    "tu-maxvit_nano_rw_256": Encoder(sized_to_crop=True, dilates=False),
    "tu-maxvit_tiny_tf_224": Encoder(sized_to_crop=True, dilates=False),
    "tu-maxvit_tiny_tf_512": Encoder(sized_to_crop=True, dilates=False),
    "tu-maxvit_small_tf_512": Encoder(sized_to_crop=True, dilates=False),
    "tu-maxvit_base_tf_512": Encoder(sized_to_crop=True, dilates=False),
    "tu-maxvit_large_tf_512": Encoder(sized_to_crop=True, dilates=False),
}
