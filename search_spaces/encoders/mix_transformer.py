"""Mix transformer encoders of SegFormer (arXiv 2105.15203): a pyramid, and free of position tables, so any size."""

from search_spaces.encoders.encoder import Encoder

MIX_TRANSFORMERS = {
    "mit_b0": Encoder(),
    "mit_b1": Encoder(),
    "mit_b2": Encoder(),
    "mit_b3": Encoder(),
    "mit_b4": Encoder(),
    "mit_b5": Encoder(),
}
