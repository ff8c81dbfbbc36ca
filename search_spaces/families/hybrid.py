"""Family `hybrid`: a published 2D encoder with a decoder of decided cells, and the supernet of such decoders."""

from typing import Any

from segmentation_models_pytorch.encoders import get_encoder
from torch import nn

from search_spaces.candidate import Candidate
from search_spaces.cells.cell import EdgeMaker, decided_op, mixed_op
from search_spaces.cells.cell_space import CellSpace, check_genotype
from search_spaces.cells.network import HybridNetwork
from search_spaces.cells.skeleton import Skeleton, check_width, skeleton_of_genotype, skeleton_of_space
from search_spaces.errors import InputError
from search_spaces.families.cells import genotype_and_width
from search_spaces.families.unet import encoder_arguments, published_encoder, refuse_crop, refuse_slices

_STRIDE = 32  # of the encoder's coarsest map


def construct(candidate: Candidate, crop: int) -> nn.Module:
    """The network of a candidate: float (B, slices_in, H, W) -> logits (B, slices_out, H, W)."""
    genotype, width = genotype_and_width(candidate)
    return _network(candidate, crop, skeleton_of_genotype(genotype, "hybrid", width), decided_op(genotype))


def construct_supernet(space: CellSpace, candidate: Candidate, crop: int) -> HybridNetwork:
    """The network that holds every decoder of a space behind a candidate's encoder; its forward pass takes a path.

    The candidate's own genotype does not matter.
    """
    assert candidate.width is not None
    return _network(candidate, crop, skeleton_of_space(space, "hybrid", candidate.width), mixed_op(space))


def _network(candidate: Candidate, crop: int, skeleton: Skeleton, make_edge: EdgeMaker) -> HybridNetwork:
    encoder: Any = get_encoder(
        candidate.encoder,
        in_channels=candidate.slices_in,
        depth=skeleton.levels - 1,
        weights=None,
        **encoder_arguments(candidate, crop),
    )
    return HybridNetwork(encoder, encoder.out_channels, skeleton, make_edge, candidate.slices_out)


def refuse(candidate: Candidate, crop: int) -> None:
    """Raise InputError for everything that is known without building."""
    genotype, width = genotype_and_width(candidate)
    check_width(width)
    refuse_slices(candidate)
    check_genotype(genotype, "hybrid")
    what = f"encoder {candidate.encoder!r} with a decoder of cells"
    if published_encoder(candidate).gives != "pyramid":
        raise InputError(f"{what} cannot be built: cells take a pyramid of maps and the encoder gives token maps")
    sized = published_encoder(candidate).sized_to_crop
    refuse_crop(f"{what} at crop {crop}", crop, _STRIDE, sized, smallest=2 * _STRIDE)  # norms need several pixels


def stride(candidate: Candidate) -> int:
    """What the edge of a crop, or of a tile at prediction, must divide by."""
    return _STRIDE
