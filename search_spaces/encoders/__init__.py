"""ENCODERS: every encoder a candidate may name, one file per family."""

from search_spaces.encoders.convnext import CONVNEXTS
from search_spaces.encoders.densenet import DENSENETS
from search_spaces.encoders.efficientnet import EFFICIENTNETS
from search_spaces.encoders.encoder import Encoder
from search_spaces.encoders.maxvit import MAXVITS
from search_spaces.encoders.mix_transformer import MIX_TRANSFORMERS
from search_spaces.encoders.mobile import MOBILES
from search_spaces.encoders.regnet import REGNETS
from search_spaces.encoders.resnest import RESNESTS
from search_spaces.encoders.resnet import RESNETS
from search_spaces.encoders.senet import SENETS
from search_spaces.encoders.vision_transformer import VISION_TRANSFORMERS

ENCODERS: dict[str, Encoder] = {
    **RESNETS,
    **SENETS,
    **DENSENETS,
    **EFFICIENTNETS,
    **CONVNEXTS,
    **MAXVITS,
    **RESNESTS,
    **REGNETS,
    **MIX_TRANSFORMERS,
    **MOBILES,
    **VISION_TRANSFORMERS,
}
