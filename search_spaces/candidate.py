"""Candidate: one set of architectural choices, as a value."""

from typing import Any, Literal

from pydantic import BaseModel, PositiveInt, model_validator

from search_spaces.cells.genotype import Genotype
from search_spaces.cells.hand_made import hand_made
from search_spaces.published.resolution import DecoderNorm, Resolution, Upsampling

Family = Literal["unet", "cells", "hybrid", "sam"]
FAMILIES: tuple[Family, ...] = ("unet", "cells", "hybrid", "sam")
CELLS = "cells"  # stands for an encoder or a decoder that is made of cells
LIGHT = "light"  # stands for the decoder of family sam, which has no other
Tuning = Literal["full", "lora", "frozen"]  # how much of an encoder is trained


class Candidate(BaseModel, frozen=True, extra="forbid"):
    """What a network is; how it is trained is FitConfig's matter.

    A value: equal candidates build equal networks, and JSON keeps all of it
    (`Candidate.model_validate_json(candidate.model_dump_json())`).

    unet: encoder and decoder as they are published. cells: a 3D network of the cells in `genotype`, which reads boxes
    of `slices_in` slices and gives all of them. hybrid: a published 2D encoder with a decoder of cells. sam: the image
    encoder of SAM or SAM 2 with a light decoder. Where a candidate is read from a file, a name in HAND_MADE stands for
    the genotype of that name.
    """

    family: Family = "unet"  # unet, cells, hybrid or sam
    encoder: str = "resnet18"  # a name in ENCODERS, of family sam in SAM_ENCODERS
    decoder: str = "Unet"  # a name in DECODERS
    encoder_weights: str = "none"  # none, a name the encoder offers (imagenet), or a .safetensors file
    slices_in: PositiveInt = 5  # neighbouring slices seen at once: the input channels, or the depth of a box
    slices_out: PositiveInt = 1  # 1, the middle slice, or as many as come in
    resolution: Resolution = "plain"  # of family unet: how its mask gets sharp, a name in RESOLUTIONS
    decoder_norm: DecoderNorm = "batch"  # of family unet: batch, or group, which goes with GELU
    upsampling: Upsampling = "published"  # of family unet: how the decoder's maps get larger; published: its own way
    genotype: Genotype | None = None  # of the cells
    width: PositiveInt | None = None  # channels of the cells at the finest resolution
    tuning: Tuning = "full"  # of family sam's encoder; the other families train theirs in full
    lora_rank: PositiveInt | None = None  # of the two factors that tuning lora adds to a layer

    @model_validator(mode="before")
    @classmethod
    def _fill(cls, values: Any) -> Any:
        """What follows from the family, and genotypes by name."""
        if not isinstance(values, dict) or values.get("family", "unet") not in ("cells", "hybrid", "sam"):
            return values
        if values["family"] == "sam":
            rank = {"lora_rank": 8} if values.get("tuning") == "lora" else {}
            return {"encoder": "samvit_base_patch16", "decoder": LIGHT, **rank, **values}
        filled = {"width": 16, "decoder": CELLS, **values}
        if filled["family"] == "cells":
            filled = {"encoder": CELLS, "slices_in": 32, **filled}
            filled.setdefault("slices_out", filled["slices_in"])
        if isinstance(filled.get("genotype"), str):
            filled["genotype"] = hand_made(filled["genotype"], filled["family"])
        return filled

    @model_validator(mode="after")
    def _fits_its_family(self) -> "Candidate":
        of_cells = self.family in ("cells", "hybrid")
        if of_cells and (self.genotype is None or self.width is None):
            raise ValueError(f"a candidate of family {self.family} needs a genotype and a width")
        if not of_cells and (self.genotype is not None or self.width is not None):
            raise ValueError(f"a candidate of family {self.family} has neither genotype nor width")
        if (
            of_cells != (self.decoder == CELLS)
            or (self.family == "cells") != (self.encoder == CELLS)
            or (self.family == "sam") != (self.decoder == LIGHT)
        ):
            raise ValueError(f"encoder {self.encoder!r} with decoder {self.decoder!r} is none of family {self.family}")
        if self.family != "unet" and (self.resolution, self.decoder_norm, self.upsampling) != (
            "plain",
            "batch",
            "published",
        ):
            raise ValueError(f"resolution, decoder_norm and upsampling are choices of family unet, not {self.family}")
        if self.family == "cells" and (self.slices_out != self.slices_in or self.encoder_weights != "none"):
            raise ValueError("a candidate of family cells gives all its slices and starts from scratch")
        self._tunes_what_it_can()
        return self

    def _tunes_what_it_can(self) -> None:
        if self.family != "sam" and self.tuning != "full":
            raise ValueError(f"tuning {self.tuning} is of family sam; family {self.family} trains its encoder in full")
        if (self.tuning == "lora") != (self.lora_rank is not None):
            raise ValueError("lora_rank goes with tuning lora, and only with it")
        if self.tuning != "full" and self.encoder_weights == "none":
            raise ValueError(f"tuning {self.tuning} keeps the encoder's weights: set encoder_weights, or tuning full")


def describe(candidate: Candidate) -> str:
    """What a candidate is, for messages."""
    if candidate.family == "cells":
        return "a network of cells"
    if candidate.family == "hybrid":
        return f"encoder {candidate.encoder!r} with a decoder of cells"
    if candidate.family == "sam":
        return f"family sam with encoder {candidate.encoder!r}"
    return f"encoder {candidate.encoder!r} with decoder {candidate.decoder!r}"
