"""Family `unet`: a published encoder with a published decoder, of segmentation-models-pytorch and timm."""

from typing import Any

from torch import nn

from search_spaces.candidate import Candidate
from search_spaces.errors import InputError, unknown_name
from search_spaces.published.decoders import DECODERS, Decoder
from search_spaces.published.encoders import ENCODERS, Encoder
from search_spaces.published.resolution import RESOLUTIONS, keep_centres, restyle, scale_of


def construct(candidate: Candidate, crop: int) -> nn.Module:
    """The network, with nothing loaded."""

    def published(maps: int) -> nn.Module:
        network: nn.Module = _decoder(candidate).constructor(
            encoder_name=candidate.encoder,
            encoder_weights=None,
            in_channels=candidate.slices_in,
            classes=maps,
            **encoder_arguments(candidate, crop),
            **({} if candidate.upsampling == "published" else {"decoder_interpolation": candidate.upsampling}),
        )
        restyle(network.get_submodule("decoder"), candidate.decoder_norm)
        keep_centres(network)
        return network

    return RESOLUTIONS[candidate.resolution](published, candidate.slices_in, candidate.slices_out)


def refuse(candidate: Candidate, crop: int) -> None:
    """Raise InputError for everything that is known without building."""
    encoder, decoder = published_encoder(candidate), _decoder(candidate)
    what = f"encoder {candidate.encoder!r} with decoder {candidate.decoder!r} at crop {crop}"
    refuse_slices(candidate)
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
    if candidate.upsampling != "published" and not decoder.interpolates:
        raise InputError(
            f"{what} cannot be built: the decoder has no choice of upsampling; set upsampling to published"
        )
    smallest = decoder.smallest_crop // scale_of(candidate.resolution)
    if crop < smallest:
        raise InputError(f"{what} cannot be built: the decoder needs crops of at least {smallest}")
    refuse_crop(what, crop, stride(candidate), encoder.sized_to_crop, smallest)


def stride(candidate: Candidate) -> int:
    """What the edge of a crop, or of a tile at prediction, must divide by."""
    seen = 32 if published_encoder(candidate).sized_to_crop else _decoder(candidate).stride
    return seen // scale_of(candidate.resolution)


def any_size(candidate: Candidate) -> bool:
    """False where the network predicts only on tiles of its crop."""
    return not published_encoder(candidate).sized_to_crop


def published_encoder(candidate: Candidate) -> Encoder:
    """The encoder of a candidate; InputError for a name in no table."""
    if candidate.encoder not in ENCODERS:
        raise unknown_name("encoder", candidate.encoder, ENCODERS)
    return ENCODERS[candidate.encoder]


def _decoder(candidate: Candidate) -> Decoder:
    if candidate.decoder not in DECODERS:
        raise unknown_name("decoder", candidate.decoder, DECODERS)
    return DECODERS[candidate.decoder]


def encoder_arguments(candidate: Candidate, crop: int) -> dict[str, Any]:
    """What timm has to be told besides the name."""
    encoder = published_encoder(candidate)
    size = {"img_size": crop * scale_of(candidate.resolution)} if encoder.sized_to_crop else {}
    # smp builds these with their classifier, of as many classes as the pretraining had.
    return {**size, "num_classes": 0} if encoder.gives == "tokens" else size


def refuse_slices(candidate: Candidate) -> None:
    """Raise InputError where the slices that go in and come out do not fit each other."""
    if candidate.slices_out not in (1, candidate.slices_in):
        raise InputError(f"slices_out is {candidate.slices_out}; set it to 1 or to slices_in, {candidate.slices_in}")
    if candidate.slices_out == 1 and candidate.slices_in % 2 == 0:
        raise InputError(f"slices_in is {candidate.slices_in}, which has no middle slice; set it to an odd number")


def refuse_crop(what: str, crop: int, edge: int, sized_to_crop: bool = False, smallest: int = 1) -> None:
    """Raise InputError, with the nearest that would do, where a crop does not divide by `edge` or is too small."""
    if crop % edge == 0 and crop >= smallest:
        return
    why = "its windows and position tables are made for" if sized_to_crop else "its maps need"
    below, above = crop // edge * edge, max(smallest, (crop // edge + 1) * edge)
    near = f"{below} or {above}" if below >= max(smallest, 1) else f"{above}"
    least = f" of at least {smallest}" if crop < smallest else ""
    raise InputError(f"{what} cannot be built: {why} multiples of {edge}{least}; set the crop to {near}")
