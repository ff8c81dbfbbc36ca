"""Family `hybrid`: a published 2D encoder with a decoder of cells, and the supernet of such decoders."""

from typing import Annotated, Any, Literal

from pydantic import AfterValidator, BeforeValidator
from segmentation_models_pytorch.encoders import get_encoder
from torch import nn

from search_spaces.candidate import Options
from search_spaces.cells.cell import EdgeMaker, decided_op, mixed_op
from search_spaces.cells.cell_candidate import CellCandidate, genotype_named
from search_spaces.cells.cell_space import CellSpace, check_genotype
from search_spaces.cells.genotype import Genotype
from search_spaces.cells.network import HybridNetwork
from search_spaces.cells.skeleton import Skeleton, check_width, skeleton_of_genotype, skeleton_of_space
from search_spaces.crop import refuse_crop
from search_spaces.errors import InputError, name_in
from search_spaces.published.encoder_candidate import EncoderCandidate
from search_spaces.published.encoders import ENCODERS, encoder_arguments

_STRIDE = 32  # stride of the encoder's coarsest map


class HybridCandidate(EncoderCandidate, CellCandidate, frozen=True, extra="forbid"):
    """A published 2D encoder with a decoder of cells: float (B, slices_in, H, W) -> logits (B, slices_out, H, W)."""

    family: Literal["hybrid"] = "hybrid"
    genotype: Annotated[Genotype, BeforeValidator(genotype_named("hybrid"))]  # the wiring, or a name in HAND_MADE
    encoder: Annotated[str, AfterValidator(name_in("encoder", ENCODERS))] = "resnet18"  # a name in ENCODERS

    decisive = ("encoder", "crop")

    def build(self, crop: int) -> nn.Module:
        skeleton = skeleton_of_genotype(self.genotype, "hybrid", self.width)
        return self._network(crop, skeleton, decided_op(self.genotype))

    def build_supernet(self, space: CellSpace, crop: int) -> HybridNetwork:
        return self._network(crop, skeleton_of_space(space, "hybrid", self.width), mixed_op(space))

    def _network(self, crop: int, skeleton: Skeleton, make_edge: EdgeMaker) -> HybridNetwork:
        encoder: Any = get_encoder(
            self.encoder,
            in_channels=self.slices_in,
            depth=skeleton.levels - 1,
            weights=None,
            **self.built_with(crop),
        )
        return HybridNetwork(encoder, encoder.out_channels, skeleton, make_edge, self.slices_out)

    def refuse(self, crop: int) -> None:
        check_width(self.width)
        self.refuse_slices()
        check_genotype(self.genotype, "hybrid")
        encoder, what = ENCODERS[self.encoder], self.described()
        if encoder.gives != "pyramid":
            raise InputError(f"{what} cannot be built: cells take a pyramid of maps and the encoder gives token maps")
        # Norms need several pixels.
        refuse_crop(f"{what} at crop {crop}", crop, _STRIDE, encoder.sized_to_crop, smallest=2 * _STRIDE)

    @property
    def stride(self) -> int:
        return _STRIDE

    @property
    def any_size(self) -> bool:
        return not ENCODERS[self.encoder].sized_to_crop

    def built_with(self, crop: int) -> dict[str, Any]:
        return encoder_arguments(self.encoder, crop)

    def title(self, origin: str | None = None) -> str:
        return f"{self.encoder_title} · {self.cells_title(origin)}"

    def described(self) -> str:
        return f"encoder {self.encoder!r} with a decoder of cells"

    def card(self) -> dict[str, str]:
        cells = f"cells of genotype {self.genotype.hash}, {self.width} channels at the finest resolution"
        return {"encoder, decoder": f"{self.encoder}, {cells}", "masks": str(self.slices_out)}

    @classmethod
    def lightest(cls, options: Options, cells: CellSpace) -> dict[str, Any]:
        return {"genotype": "plain", **super().lightest(options, cells), "encoder_weights": "none"}

    @classmethod
    def dearest(cls, options: Options, cells: CellSpace) -> dict[str, Any]:
        return {"genotype": "plain", **super().dearest(options, cells), "encoder_weights": "none"}
