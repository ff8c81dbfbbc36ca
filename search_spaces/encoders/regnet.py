"""RegNetY encoders (arXiv 2003.13678); the number is the cost in units of 100 million multiply-adds at 224."""

from search_spaces.encoders.encoder import Encoder

REGNETS = {
    "tu-regnety_002": Encoder(),
    "tu-regnety_004": Encoder(),
    "tu-regnety_008": Encoder(),
    "tu-regnety_016": Encoder(),
    "tu-regnety_032": Encoder(),
    "tu-regnety_064": Encoder(),
}
