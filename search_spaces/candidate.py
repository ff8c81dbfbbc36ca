"""Candidate: one set of architectural choices, as a value. Every family in `families/` has its own class."""

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any, ClassVar, Self

from pydantic import BaseModel, Field
from torch import nn

from search_spaces.cells.cell_space import CellSpace
from search_spaces.cells.genotype import Genotype

Options = Mapping[str, Sequence[Any]]  # values that a space offers for each choice; "crop" belongs to the recipe

# Bounds far beyond what anybody trains, so that the description of a network from a stranger cannot ask for a machine.
MOST_SLICES, MOST_CHANNELS = 512, 4_096
Slices = Annotated[int, Field(gt=0, le=MOST_SLICES)]


class Candidate(BaseModel, ABC, frozen=True, extra="forbid"):
    """What a network is; FitConfig says how it is trained.

    A candidate is a value: equal candidates build equal networks, and JSON keeps all of it. A family is a subclass and
    a row of FAMILIES. A study can search its fields; the members below are all that the rest of the program uses.
    """

    family: str  # a name in FAMILIES
    slices_in: Slices  # neighbouring slices seen at once: the input channels, or the depth of a box

    boxes: ClassVar[bool] = False  # whether it works in three dimensions and therefore reads boxes instead of planes
    # Choices that decide whether a network can be built at all, in the order in which they are made.
    decisive: ClassVar[tuple[str, ...]] = ("crop",)
    # Choices, besides the decisive ones, whose values a dry run prices one by one.
    priced: ClassVar[tuple[str, ...]] = ()

    # The network.

    @abstractmethod
    def build(self, crop: int) -> nn.Module:
        """The network, no weights loaded: float (B, slices_in, crop, crop) -> logits (B, slices_out, crop, crop)."""

    @abstractmethod
    def refuse(self, crop: int) -> None:
        """Raise InputError, one line, for everything that is known to be impossible before the network is built."""

    @property
    @abstractmethod
    def stride(self) -> int:
        """The number that must divide the edge of a crop, and of a tile at prediction."""

    @property
    def slices_out(self) -> int:
        """Number of slices for which the network gives a mask: all input slices, or only the middle one."""
        return self.slices_in

    @property
    def any_size(self) -> bool:
        """True if the network predicts on tiles of any multiple of `stride`, False if only on its crop."""
        return True

    @property
    def scale(self) -> int:
        """Factor by which the network enlarges its tiles internally; bounds the memory of a prediction."""
        return 1

    # Where its weights come from, and how they are exported.

    @property
    def start(self) -> str | None:
        """The name of the weights that it starts from (for a file, without its folder); None if from scratch."""
        return None

    def find_weights(self) -> Path | None:
        """The file with its pretrained weights, or None if it uses none. Raises InputError if the file is missing."""
        return None

    def load_weights(self, network: nn.Module, crop: int, path: Path) -> None:
        """Load the file that `find_weights` returned. Raises InputError if it does not fit."""
        raise AssertionError(f"family {self.family} has no pretrained weights")

    def from_scratch(self) -> Self:
        """The same architecture without pretrained weights."""
        return self

    def fold(self, network: nn.Module) -> None:
        """Change a trained network in place into the network of `folded()`, which gives the same logits."""

    def folded(self) -> "Candidate":
        """The candidate from which a bundle is rebuilt."""
        return self

    # What people read.

    @abstractmethod
    def title(self, origin: str | None = None) -> str:
        """A short name for a row of the leaderboard. origin: how its cells were found, if it has any."""

    @abstractmethod
    def described(self) -> str:
        """A description for messages."""

    @abstractmethod
    def card(self) -> dict[str, str]:
        """Lines of a model card, by their topic."""

    @property
    def decided_cells(self) -> Genotype | None:
        """The wiring of its cells, or None if it has none."""
        return None

    # What a space offers it.

    @classmethod
    def allows(cls, name: str, value: Any, given: Mapping[str, Any]) -> bool:
        """Whether a value of the field `name` is compatible with the values in `given`: chosen earlier, or defaults.

        A field is left at its default if none of its values is compatible.
        """
        return True

    @classmethod
    def check_options(cls, options: Options, cells: CellSpace) -> None:
        """Raise InputError, one line, if choices can never be made. Cheap: builds no network and looks for no files."""

    @classmethod
    def lightest(cls, options: Options, cells: CellSpace) -> dict[str, Any]:
        """The values with which the decisive choices are tried; if some values refuse more than others, those."""
        return {name: values[0] for name, values in options.items() if name != "crop"}

    @classmethod
    def dearest(cls, options: Options, cells: CellSpace) -> dict[str, Any]:
        """The values that cost the most to train."""
        return {
            name: max(values) if all(isinstance(v, int | float) for v in values) else values[-1]
            for name, values in options.items()
            if name != "crop"
        }
