"""SearchSpace: the choices a study may make, as names and numbers, and which of them go together."""

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Annotated, Any, Literal

from pydantic import BaseModel, Field, PositiveFloat, PositiveInt, ValidationInfo, field_validator

from search_spaces.candidate import CELLS, LIGHT, Candidate, Family, Tuning
from search_spaces.errors import InputError, unknown_name
from search_spaces.network import check_buildable
from search_spaces.published.decoders import DECODERS
from search_spaces.published.encoders import ENCODERS
from search_spaces.published.resolution import RESOLUTIONS, DecoderNorm, Resolution, Upsampling
from search_spaces.published.sam_encoders import SAM_ENCODERS
from search_spaces.published.weights import is_file_name, offered_weights

SCANNED: Literal["scanned"] = "scanned"
Range = tuple[float, float]  # lowest and highest value, both included


class SearchSpace(BaseModel, frozen=True, extra="forbid"):
    """What a study chooses from: one of each tuple, a number of each range.

    `check_space` looks the names up. The losses are names of another package, which looks them up itself.
    """

    families: Annotated[tuple[Family, ...], Field(min_length=1)] = ("unet",)  # of networks
    # Names in ENCODERS, of families unet and hybrid.
    encoders: Annotated[tuple[str, ...], Field(min_length=1)] = ("resnet18", "resnet50", "efficientnet-b0")
    decoders: Annotated[tuple[str, ...], Field(min_length=1)] = ("Unet", "UnetPlusPlus", "FPN")  # names in DECODERS
    # none, names that encoders offer, or .safetensors files; each encoder takes those that there are for it.
    encoder_weights: Annotated[tuple[str, ...], Field(min_length=1)] = ("none",)
    slices_in: Annotated[tuple[PositiveInt, ...], Field(min_length=1)] = (3, 5)  # neighbouring slices seen at once
    # middle: one mask, of the middle slice; all: one for each slice that comes in.
    slices_out: Annotated[tuple[Literal["middle", "all"], ...], Field(min_length=1)] = ("middle",)
    resolutions: Annotated[tuple[Resolution, ...], Field(min_length=1)] = ("plain",)  # of family unet: see Candidate
    decoder_norms: Annotated[tuple[DecoderNorm, ...], Field(min_length=1)] = ("batch",)  # of family unet: see Candidate
    # Of family unet. A decoder without a choice of upsampling keeps its own.
    upsamplings: Annotated[tuple[Upsampling, ...], Field(min_length=1)] = ("published",)
    # Edges of the voxels that networks read, in micrometres; "scanned" is each volume's own. None: that of section fit.
    voxel_sizes: Annotated[tuple[PositiveFloat | Literal["scanned"], ...], Field(min_length=1)] | None = None
    augmentations: Annotated[tuple[str, ...], Field(min_length=1)] | None = None  # None: that of section fit
    # Each a sum of names in LOSSES.
    losses: Annotated[tuple[str, ...], Field(min_length=1)] = ("dice", "dice + bce", "dice + focal")
    crops: Annotated[tuple[PositiveInt, ...], Field(min_length=1)] = (128, 256)  # voxels, both edges of a square
    learning_rate: Range = (1e-4, 1e-2)  # drawn on a logarithmic scale
    batch_sizes: Annotated[tuple[PositiveInt, ...], Field(min_length=1)] = (8, 16)  # samples a step
    vessel_share: Range = (0.5, 1.0)  # of the patches, those cut around a vessel
    # Of networks with cells; what the cells may be is the section cell_space's matter.
    cell_widths: Annotated[tuple[PositiveInt, ...], Field(min_length=1)] = (16, 32)  # channels, finest resolution
    box_crops: Annotated[tuple[PositiveInt, ...], Field(min_length=1)] = (64,)  # edges of the boxes of family cells
    box_slices: Annotated[tuple[PositiveInt, ...], Field(min_length=1)] = (32,)  # depth of those boxes
    box_batch_sizes: Annotated[tuple[PositiveInt, ...], Field(min_length=1)] = (2,)  # boxes a step
    sam_encoders: Annotated[tuple[str, ...], Field(min_length=1)] = ("sam2_hiera_tiny",)  # names in SAM_ENCODERS
    # Of family sam: how much of its encoder is trained. One that starts from scratch is always trained in full.
    sam_tunings: Annotated[tuple[Tuning, ...], Field(min_length=1)] = ("full", "lora", "frozen")
    lora_ranks: Annotated[tuple[PositiveInt, ...], Field(min_length=1)] = (8,)  # of the factors that tuning lora adds

    @field_validator("*")
    @classmethod
    def _choices_differ(cls, value: tuple[object, ...] | None, info: ValidationInfo) -> tuple[object, ...] | None:
        is_range = info.field_name in ("learning_rate", "vessel_share")
        if value is not None and not is_range and len(set(value)) < len(value):
            raise ValueError("the same choice is named twice")
        return value

    @field_validator("learning_rate", "vessel_share")
    @classmethod
    def _low_before_high(cls, value: Range) -> Range:
        if not value[0] <= value[1]:
            raise ValueError("a range is its lowest, then its highest value")
        return value

    @field_validator("learning_rate")
    @classmethod
    def _positive(cls, value: Range) -> Range:
        if not 0 < value[0] <= value[1] < float("inf"):
            raise ValueError("learning rates are greater than 0")
        return value

    @field_validator("vessel_share")
    @classmethod
    def _share(cls, value: Range) -> Range:
        if not 0 <= value[0] <= value[1] <= 1:
            raise ValueError("a share lies between 0 and 1")
        return value


@dataclass(frozen=True)
class Pair:
    """An encoder and a decoder at a crop, and why they make no network there, or None where they do.

    The decoder CELLS is that of family hybrid, LIGHT that of family sam.
    """

    encoder: str
    decoder: str
    crop: int
    refusal: str | None

    def candidate(self, space: SearchSpace, slices_in: int, **more: Any) -> Candidate:
        """A candidate of this encoder and decoder in a space, with the first of its slices_out.

        Of the resolutions it has the cheapest that the space offers, of the norms batch norm before others, because
        that refuses more. One of cells has cells drawn by hand, until others are found.
        """
        slices_out = slices_in if space.slices_out[0] == "all" else 1
        family = {CELLS: {"family": "hybrid", "genotype": "plain"}, LIGHT: {"family": "sam"}}.get(self.decoder, {})
        common = {"encoder": self.encoder, "decoder": self.decoder, "slices_in": slices_in, "slices_out": slices_out}
        if not family:
            common["resolution"] = min(space.resolutions, key=list(RESOLUTIONS).index)
            common["decoder_norm"] = "batch" if "batch" in space.decoder_norms else space.decoder_norms[0]
        return Candidate.model_validate({**common, **family, **more})


def check_space(space: SearchSpace) -> None:
    """Raise InputError, one line, where a name is in no table or a choice can never be made.

    Cheap: builds nothing (`pairs` does) and looks for no files. Every encoder must have at least one of the
    encoder weights, and every name of weights at least one encoder.
    """
    for encoder in space.encoders:
        if encoder not in ENCODERS:
            raise unknown_name("encoder", encoder, ENCODERS)
    for decoder in space.decoders:
        if decoder not in DECODERS:
            raise unknown_name("decoder", decoder, DECODERS)
    for encoder in space.sam_encoders:
        if encoder not in SAM_ENCODERS:
            raise unknown_name("encoder of family sam", encoder, SAM_ENCODERS)
    even = [slices for slices in space.slices_in if slices % 2 == 0]
    if even and "middle" in space.slices_out:
        raise InputError(f"slices_in has {even[0]}, which has no middle slice; use odd numbers or slices_out 'all'")
    starts = {name for encoder in space.sam_encoders for name in weights_for(space, encoder)}
    if "sam" in space.families and "full" not in space.sam_tunings and starts == {"none"}:
        raise InputError(
            f"sam_tunings {', '.join(space.sam_tunings)} keep an encoder's weights, and encoder_weights offers none to "
            "keep; name weights of the encoder, or add full to sam_tunings"
        )
    encoders = encoders_of(space)
    offered = {name for encoder in (*space.encoders, *space.sam_encoders) for name in offered_weights(encoder)}
    for name in space.encoder_weights:
        if name != "none" and not is_file_name(name) and name not in offered:
            raise unknown_name("encoder_weights", name, ["none", *offered, "FILE.safetensors"])
    for encoder in encoders:
        if not weights_for(space, encoder):
            exist = ", ".join(offered_weights(encoder)) or "no weights"
            raise InputError(
                f"encoder {encoder!r} has none of the encoder_weights {', '.join(space.encoder_weights)}; "
                f"it has {exist}: add one of them, or none"
            )


def encoders_of(space: SearchSpace) -> tuple[str, ...]:
    """The encoders that the families of a space take."""
    published = space.encoders if {"unet", "hybrid"} & set(space.families) else ()
    return (*published, *(space.sam_encoders if "sam" in space.families else ()))


def weights_for(space: SearchSpace, encoder: str) -> tuple[str, ...]:
    """The encoder weights of the space that exist for an encoder; files are taken to be for each of them."""
    offered = offered_weights(encoder)
    return tuple(name for name in space.encoder_weights if name == "none" or is_file_name(name) or name in offered)


def voxel_size_um(choice: float | str) -> float | None:
    """A choice of voxel_sizes as FitConfig has it."""
    return None if choice == SCANNED else float(choice)


def upsamplings_for(space: SearchSpace, decoder: str) -> tuple[Upsampling, ...]:
    """The ways of upsampling that the space offers a decoder; none but its own where it has no choice."""
    return space.upsamplings if DECODERS[decoder].interpolates else ("published",)


def tunings_for(space: SearchSpace, weights: str) -> tuple[Tuning, ...]:
    """The tunings of the space for an encoder of family sam that starts from these weights.

    What is frozen has to be worth keeping, so one that starts from scratch is trained in full.
    """
    return ("full",) if weights == "none" else space.sam_tunings


def pairs(space: SearchSpace, on_progress: Callable[[int, int], None] | None = None) -> tuple[Pair, ...]:
    """Every encoder, decoder and crop of the families but cells, in the space's order, tried with its smallest batch.

    Takes about half a second for each encoder and decoder the first time. Raises InputError where `check_space` does.
    """
    check_space(space)
    decoders = [*(space.decoders if "unet" in space.families else ()), *([CELLS] if "hybrid" in space.families else ())]
    combinations = [(e, d, c) for e in space.encoders for d in decoders for c in space.crops]
    if "sam" in space.families:
        combinations += [(e, LIGHT, c) for e in space.sam_encoders for c in space.crops]
    found = []
    for done, (encoder, decoder, crop) in enumerate(combinations):
        if on_progress is not None:
            on_progress(done, len(combinations))
        pair = Pair(encoder, decoder, crop, None)
        found.append(replace(pair, refusal=_refusal(space, pair)))
    if on_progress is not None:
        on_progress(len(combinations), len(combinations))
    return tuple(found)


def _refusal(space: SearchSpace, pair: Pair) -> str | None:
    try:
        check_buildable(pair.candidate(space, space.slices_in[0]), pair.crop, batch=min(space.batch_sizes))
    except InputError as error:
        return str(error)
    return None
