"""ResNeSt encoders: ResNets with attention over split groups of channels (arXiv 2004.08955)."""

from search_spaces.encoders.encoder import Encoder

RESNESTS = {
    "tu-resnest14d": Encoder(),
    "tu-resnest26d": Encoder(),
    "tu-resnest50d": Encoder(),
    "tu-resnest101e": Encoder(),
}
