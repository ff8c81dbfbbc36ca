"""CellCandidate: what families of networks with cells have in common."""

from abc import abstractmethod
from collections.abc import Callable
from typing import Annotated, Any

from pydantic import Field
from torch import nn

from search_spaces.candidate import MOST_CHANNELS, Candidate, Options
from search_spaces.cells.cell_space import CellSpace, check_genotype
from search_spaces.cells.genotype import Genotype
from search_spaces.cells.hand_made import hand_made
from search_spaces.cells.skeleton import check_width


class CellCandidate(Candidate, frozen=True, extra="forbid"):
    """A network with cells: its wiring and its width. A study gets the wiring from a cell search for the family.

    In a candidate read from a file, a name in HAND_MADE stands for the genotype of that name.
    """

    genotype: Genotype  # the wiring of the cells, or a name in HAND_MADE; each family says which names it accepts
    width: Annotated[int, Field(gt=0, le=MOST_CHANNELS)] = 16  # channels of the cells at the finest resolution

    @abstractmethod
    def build_supernet(self, space: CellSpace, crop: int) -> nn.Module:
        """The network that contains every network of a space; its forward pass takes a path. Ignores the genotype."""

    @property
    def decided_cells(self) -> Genotype | None:
        return self.genotype

    def cells_title(self, origin: str | None) -> str:
        """The cells, for a row of the leaderboard: how they were found, or else their hash; and their width."""
        return f"cells {origin or self.genotype.hash} c{self.width}"

    @classmethod
    def check_options(cls, options: Options, cells: CellSpace) -> None:
        """Also checks that every width can be built, and that every named genotype belongs to the family."""
        super().check_options(options, cells)
        for width in options["width"]:
            check_width(width)
        for genotype in options.get("genotype", ()):
            check_genotype(genotype, cls.model_fields["family"].default)


def genotype_named(family: str) -> Callable[[Any], Any]:
    """A validator that turns a name in HAND_MADE into the genotype of that name for a family."""

    def read(value: Any) -> Any:
        return hand_made(value, family) if isinstance(value, str) else value

    return read
