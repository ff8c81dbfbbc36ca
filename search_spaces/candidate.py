"""Candidate: one set of architectural choices, as a value."""

from typing import Any, Literal

from pydantic import BaseModel, PositiveInt, model_validator

from search_spaces.genotype import Genotype
from search_spaces.hand_made import hand_made
from search_spaces.resolution import DecoderNorm, Resolution, Upsampling

Family = Literal["unet", "cells", "hybrid"]
FAMILIES: tuple[Family, ...] = ("unet", "cells", "hybrid")
CELLS = "cells"  # stands for an encoder or a decoder that is made of cells


class Candidate(BaseModel, frozen=True, extra="forbid"):
    """What a network is; how it is trained is FitConfig's matter.

    A value: equal candidates build equal networks, and JSON keeps all of it
    (`Candidate.model_validate_json(candidate.model_dump_json())`).

    unet: encoder and decoder as they are published. cells: a 3D network of the cells in `genotype`, which reads boxes
    of `slices_in` slices and gives all of them. hybrid: a published 2D encoder with a decoder of cells. Where a
    candidate is read from a file, a name in HAND_MADE stands for the genotype of that name.
    """

    family: Family = "unet"
    encoder: str = "resnet18"  # a name in ENCODERS
    decoder: str = "Unet"  # a name in DECODERS
    encoder_weights: str = "none"  # none, a name the encoder offers (imagenet), or a .safetensors file
    slices_in: PositiveInt = 5  # neighbouring slices seen at once: the input channels, or the depth of a box
    slices_out: PositiveInt = 1  # 1, the middle slice, or as many as come in
    # Of family unet: how its mask gets sharp, the decoder's norms (group: with GELU), and how its maps are upsampled.
    resolution: Resolution = "plain"
    decoder_norm: DecoderNorm = "batch"
    upsampling: Upsampling = "published"
    genotype: Genotype | None = None  # of the cells
    width: PositiveInt | None = None  # channels of the cells at the finest resolution

    @model_validator(mode="before")
    @classmethod
    def _fill(cls, values: Any) -> Any:
        """What follows from the family, and genotypes by name."""
        if not isinstance(values, dict) or values.get("family", "unet") not in ("cells", "hybrid"):
            return values
        filled = {"width": 16, "decoder": CELLS, **values}
        if filled["family"] == "cells":
            filled = {"encoder": CELLS, "slices_in": 32, **filled}
            filled.setdefault("slices_out", filled["slices_in"])
        if isinstance(filled.get("genotype"), str):
            filled["genotype"] = hand_made(filled["genotype"], filled["family"])
        return filled

    @model_validator(mode="after")
    def _fits_its_family(self) -> "Candidate":
        of_cells = self.family != "unet"
        if of_cells and (self.genotype is None or self.width is None):
            raise ValueError(f"a candidate of family {self.family} needs a genotype and a width")
        if not of_cells and (self.genotype is not None or self.width is not None):
            raise ValueError("a candidate of family unet has neither genotype nor width")
        if of_cells != (self.decoder == CELLS) or (self.family == "cells") != (self.encoder == CELLS):
            raise ValueError(f"encoder {self.encoder!r} with decoder {self.decoder!r} is none of family {self.family}")
        if of_cells and (self.resolution, self.decoder_norm, self.upsampling) != ("plain", "batch", "published"):
            raise ValueError(f"resolution, decoder_norm and upsampling are choices of family unet, not {self.family}")
        if self.family == "cells" and (self.slices_out != self.slices_in or self.encoder_weights != "none"):
            raise ValueError("a candidate of family cells gives all its slices and starts from scratch")
        return self


def describe(candidate: Candidate) -> str:
    """What a candidate is, for messages."""
    if candidate.family == "cells":
        return "a network of cells"
    if candidate.family == "hybrid":
        return f"encoder {candidate.encoder!r} with a decoder of cells"
    return f"encoder {candidate.encoder!r} with decoder {candidate.decoder!r}"
