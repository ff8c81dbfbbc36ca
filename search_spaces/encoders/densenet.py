"""DenseNet encoders (arXiv 1608.06993). They shrink by pooling, so they cannot be dilated."""

from search_spaces.encoders.encoder import Encoder

DENSENETS = {
    "densenet121": Encoder(dilates=False),
    "densenet161": Encoder(dilates=False),
    "densenet169": Encoder(dilates=False),
}
