"""Candidate: one set of architectural choices, as a value."""

from typing import Literal

from pydantic import BaseModel, PositiveInt


class Candidate(BaseModel, frozen=True, extra="forbid"):
    """What a network is; how it is trained is FitConfig's matter.

    A value: equal candidates build equal networks, and JSON keeps all of it
    (`Candidate.model_validate_json(candidate.model_dump_json())`).
    """

    family: Literal["unet"] = "unet"
    encoder: str = "resnet18"  # a name in ENCODERS
    decoder: str = "Unet"  # a name in DECODERS
    encoder_weights: str = "none"  # none, a name the encoder offers (imagenet), or a .safetensors file
    slices_in: PositiveInt = 5  # neighbouring slices seen at once: the input channels
    slices_out: PositiveInt = 1  # 1, the middle slice, or as many as come in
