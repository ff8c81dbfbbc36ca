"""Family `cells`: a 3D network of cells, and the supernet in which its genotype is found."""

from itertools import product
from typing import Annotated, Any, Literal

from pydantic import BeforeValidator
from torch import nn

from search_spaces.candidate import Options, Slices
from search_spaces.cells.cell import decided_op, mixed_op
from search_spaces.cells.cell_candidate import CellCandidate, genotype_named
from search_spaces.cells.cell_space import CellSpace, check_genotype
from search_spaces.cells.genotype import Genotype
from search_spaces.cells.network import CellNetwork
from search_spaces.cells.skeleton import check_width, skeleton_of_genotype, skeleton_of_space
from search_spaces.crop import refuse_crop
from search_spaces.errors import InputError


class CellsCandidate(CellCandidate, frozen=True, extra="forbid"):
    """A 3D network of cells: float (B, D, H, W) -> logits of the same shape. It is trained from scratch."""

    family: Literal["cells"] = "cells"
    genotype: Annotated[Genotype, BeforeValidator(genotype_named("cells"))]  # the wiring, or a name in HAND_MADE
    slices_in: Slices = 32  # depth of its boxes in slices; all of them get a mask

    boxes = True
    priced = ("width", "slices_in")

    def build(self, crop: int) -> nn.Module:
        return CellNetwork(skeleton_of_genotype(self.genotype, "cells", self.width), decided_op(self.genotype))

    def build_supernet(self, space: CellSpace, crop: int) -> CellNetwork:
        return CellNetwork(skeleton_of_space(space, "cells", self.width), mixed_op(space))

    def refuse(self, crop: int) -> None:
        check_width(self.width)
        check_genotype(self.genotype, "cells")
        what, edge = f"a network of cells with {self.genotype.levels} levels", self.stride
        refuse_crop(f"{what} at crop {crop}", crop, edge, smallest=2 * edge)  # a norm needs more than one voxel
        if self.slices_in % edge:
            raise InputError(
                f"{what} cannot be built for boxes of {self.slices_in} slices: its maps need multiples of {edge}"
            )

    @property
    def stride(self) -> int:
        return int(2 ** (self.genotype.levels - 1) * self.genotype.stem_stride)

    def title(self, origin: str | None = None) -> str:
        return self.cells_title(origin)

    def described(self) -> str:
        return "a network of cells"

    def card(self) -> dict[str, str]:
        return {"cells": f"genotype {self.genotype.hash}, {self.width} channels at the finest resolution"}

    @classmethod
    def check_options(cls, options: Options, cells: CellSpace) -> None:
        """Also checks that every box suits the levels of the genotypes on offer, or of those a cell search may find."""
        super().check_options(options, cells)
        for slices, crop in product(options["slices_in"], options["crop"]):
            if "genotype" not in options:
                check_boxes(crop, slices, cells)
            for genotype in options.get("genotype", ()):
                cls(genotype=genotype, slices_in=slices).refuse(crop)

    @classmethod
    def lightest(cls, options: Options, cells: CellSpace) -> dict[str, Any]:
        return {"genotype": f"plain/{cells.levels}", **super().lightest(options, cells)}

    @classmethod
    def dearest(cls, options: Options, cells: CellSpace) -> dict[str, Any]:
        return {"genotype": f"plain/{cells.levels}", **super().dearest(options, cells)}


def check_boxes(crop: int, slices: int, cells: CellSpace) -> None:
    """Raise InputError, one line, if boxes do not suit the networks of a cell space."""
    stride = 2 ** (cells.levels - 1) * max(cells.stem_strides)
    for name, edge, smallest in (("crop", crop, 2 * stride), ("slices_in", slices, stride)):
        if edge % stride or edge < smallest:  # norms need more than one voxel
            below, above = edge // stride * stride, max(smallest, (edge // stride + 1) * stride)
            raise InputError(
                f"{name} {edge} of family 'cells' must be a multiple of {stride}, the stride of its networks, and at "
                f"least {smallest}; set it to " + (f"{below} or {above}" if below >= smallest else f"{above}")
            )
