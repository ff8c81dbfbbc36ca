"""Family `unet`: a published encoder with a published decoder, from segmentation-models-pytorch and timm."""

from collections.abc import Mapping
from typing import Annotated, Any, Literal

from pydantic import AfterValidator
from torch import nn

from search_spaces.candidate import Options
from search_spaces.cells.cell_space import CellSpace
from search_spaces.crop import refuse_crop
from search_spaces.errors import InputError, name_in
from search_spaces.published.decoders import DECODERS
from search_spaces.published.encoder_candidate import EncoderCandidate
from search_spaces.published.encoders import ENCODERS, encoder_arguments
from search_spaces.published.resolution import (
    RESOLUTIONS,
    DecoderNorm,
    Resolution,
    Upsampling,
    keep_centres,
    restyle,
    scale_of,
)


class UnetCandidate(EncoderCandidate, frozen=True, extra="forbid"):
    """A published U-Net, or a related network, that reads planes; options make its mask sharp at full resolution."""

    family: Literal["unet"] = "unet"
    encoder: Annotated[str, AfterValidator(name_in("encoder", ENCODERS))] = "resnet18"  # a name in ENCODERS
    decoder: Annotated[str, AfterValidator(name_in("decoder", DECODERS))] = "Unet"  # a name in DECODERS
    resolution: Resolution = "plain"  # how its mask becomes sharp at full resolution: a name in RESOLUTIONS
    decoder_norm: DecoderNorm = "batch"  # the decoder's normalisation; group also replaces ReLU by GELU
    upsampling: Upsampling = "published"  # interpolation of the decoder's maps; not every decoder has a choice

    decisive = ("encoder", "decoder", "crop")

    def build(self, crop: int) -> nn.Module:
        def published(maps: int) -> nn.Module:
            network: nn.Module = DECODERS[self.decoder].constructor(
                encoder_name=self.encoder,
                encoder_weights=None,
                in_channels=self.slices_in,
                classes=maps,
                **self.built_with(crop),
                **({} if self.upsampling == "published" else {"decoder_interpolation": self.upsampling}),
            )
            restyle(network.get_submodule("decoder"), self.decoder_norm)
            keep_centres(network)
            return network

        return RESOLUTIONS[self.resolution](published, self.slices_in, self.slices_out)

    def refuse(self, crop: int) -> None:
        encoder, decoder = ENCODERS[self.encoder], DECODERS[self.decoder]
        what = f"{self.described()} at crop {crop}"
        self.refuse_slices()
        if encoder.gives != decoder.takes:
            maps = {"pyramid": "a pyramid of maps", "tokens": "token maps of one stride"}
            other = "decoder DPT" if encoder.gives == "tokens" else "another decoder"
            raise InputError(
                f"{what} cannot be built: the decoder takes {maps[decoder.takes]} and the encoder gives "
                f"{maps[encoder.gives]}; use {other}"
            )
        if decoder.keeps_stride_16 and not encoder.dilates:
            raise InputError(
                f"{what} cannot be built: the decoder needs a map of stride 16 and the encoder cannot be dilated; "
                "use another decoder"
            )
        if self.upsampling != "published" and not decoder.interpolates:
            raise InputError(
                f"{what} cannot be built: the decoder has no choice of upsampling; set upsampling to published"
            )
        smallest = decoder.smallest_crop // self.scale
        if crop < smallest:
            raise InputError(f"{what} cannot be built: the decoder needs crops of at least {smallest}")
        refuse_crop(what, crop, self.stride, encoder.sized_to_crop, smallest)

    @property
    def stride(self) -> int:
        seen = 32 if ENCODERS[self.encoder].sized_to_crop else DECODERS[self.decoder].stride
        return seen // self.scale

    @property
    def any_size(self) -> bool:
        return not ENCODERS[self.encoder].sized_to_crop

    @property
    def scale(self) -> int:
        return scale_of(self.resolution)

    def built_with(self, crop: int) -> dict[str, Any]:
        return encoder_arguments(self.encoder, crop * self.scale)

    def title(self, origin: str | None = None) -> str:
        style: list[str] = [] if self.resolution == "plain" else [self.resolution]
        style += ["group norm"] if self.decoder_norm == "group" else []
        style += [] if self.upsampling == "published" else [self.upsampling]
        return f"{self.encoder_title} · {' '.join([self.decoder, *style])}"

    def described(self) -> str:
        return f"encoder {self.encoder!r} with decoder {self.decoder!r}"

    def card(self) -> dict[str, str]:
        return {
            "encoder, decoder": f"{self.encoder}, {self.decoder}",
            "resolution path": f"{self.resolution}; decoder norms: {self.decoder_norm}; masks: {self.slices_out}",
        }

    @classmethod
    def allows(cls, name: str, value: Any, given: Mapping[str, Any]) -> bool:
        if name == "upsampling":
            return value == "published" or DECODERS[given["decoder"]].interpolates
        return super().allows(name, value, given)

    @classmethod
    def lightest(cls, options: Options, cells: CellSpace) -> dict[str, Any]:
        """The cheapest resolution path, and batch norm rather than group norm, because batch norm refuses more."""
        first = super().lightest(options, cells)
        first["resolution"] = min(options["resolution"], key=list(RESOLUTIONS).index)
        if "batch" in options["decoder_norm"]:
            first["decoder_norm"] = "batch"
        return {**first, "upsampling": "published", "encoder_weights": "none"}

    @classmethod
    def dearest(cls, options: Options, cells: CellSpace) -> dict[str, Any]:
        most = max(options["resolution"], key=list(RESOLUTIONS).index)
        return {
            **super().dearest(options, cells),
            "resolution": most,
            "upsampling": "published",
            "encoder_weights": "none",
        }
