"""Family `cells`: a 3D network of decided cells, and the supernet that its genotype is found in."""

from torch import nn

from search_spaces.candidate import Candidate
from search_spaces.cells.cell import decided_op, mixed_op
from search_spaces.cells.cell_space import CellSpace, check_genotype
from search_spaces.cells.genotype import Genotype
from search_spaces.cells.network import CellNetwork
from search_spaces.cells.skeleton import check_width, skeleton_of_genotype, skeleton_of_space
from search_spaces.errors import InputError
from search_spaces.families.unet import refuse_crop


def construct(candidate: Candidate, crop: int) -> nn.Module:
    """The network of a candidate: float (B, D, H, W) -> logits of the same shape."""
    genotype, width = genotype_and_width(candidate)
    return CellNetwork(skeleton_of_genotype(genotype, "cells", width), decided_op(genotype))


def construct_supernet(space: CellSpace, width: int) -> CellNetwork:
    """The network that holds every network of a space; its forward pass takes a path."""
    return CellNetwork(skeleton_of_space(space, "cells", width), mixed_op(space))


def refuse(candidate: Candidate, crop: int) -> None:
    """Raise InputError for everything that is known without building."""
    genotype, width = genotype_and_width(candidate)
    check_width(width)
    check_genotype(genotype, "cells")
    what, edge = f"a network of cells with {genotype.levels} levels", stride(candidate)
    refuse_crop(f"{what} at crop {crop}", crop, edge, smallest=2 * edge)  # a norm needs more than one voxel
    if candidate.slices_in % edge:
        raise InputError(
            f"{what} cannot be built for boxes of {candidate.slices_in} slices: its maps need multiples of {edge}"
        )


def stride(candidate: Candidate) -> int:
    """What all edges of a box must divide by."""
    genotype, _ = genotype_and_width(candidate)
    return int(2 ** (genotype.levels - 1) * genotype.stem_stride)


def genotype_and_width(candidate: Candidate) -> tuple[Genotype, int]:
    """What a candidate with cells is made of."""
    assert candidate.genotype is not None and candidate.width is not None  # Candidate has seen to it
    return candidate.genotype, candidate.width
