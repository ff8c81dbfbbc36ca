"""Candidate: one set of architectural choices, as a value. Every family in `families/` has a class of its own."""

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, ClassVar, Self

from pydantic import BaseModel, PositiveInt
from torch import nn

from search_spaces.cells.cell_space import CellSpace
from search_spaces.cells.genotype import Genotype

Options = Mapping[str, Sequence[Any]]  # the values of each choice that a space offers a family; "crop" is the recipe's


class Candidate(BaseModel, ABC, frozen=True, extra="forbid"):
    """What a network is; how it is trained is FitConfig's matter.

    A value: equal candidates build equal networks, and JSON keeps all of it. A family is a subclass and a row of
    FAMILIES. Its fields are what a study can search; what follows here is all that the rest of the program asks of it.
    """

    family: str  # a name in FAMILIES
    slices_in: PositiveInt  # neighbouring slices seen at once: the input channels, or the depth of a box

    boxes: ClassVar[bool] = False  # whether it works in three dimensions, and so reads boxes instead of planes
    # Choices that decide whether there is a network at all, in the order in which they are made.
    decisive: ClassVar[tuple[str, ...]] = ("crop",)
    # Choices whose values are priced one by one by a dry run, besides the decisive ones.
    priced: ClassVar[tuple[str, ...]] = ()

    # The network.

    @abstractmethod
    def build(self, crop: int) -> nn.Module:
        """The network, with nothing loaded: float (B, slices_in, crop, crop) -> logits (B, slices_out, crop, crop)."""

    @abstractmethod
    def refuse(self, crop: int) -> None:
        """Raise InputError, one line, for everything that is known to be impossible without building."""

    @property
    @abstractmethod
    def stride(self) -> int:
        """What the edge of a crop, or of a tile at prediction, must divide by."""

    @property
    def slices_out(self) -> int:
        """Slices that the network gives a mask of: all that come in, or the middle one."""
        return self.slices_in

    @property
    def any_size(self) -> bool:
        """True where the network predicts on tiles of any multiple of `stride`, False where only on its crop."""
        return True

    @property
    def scale(self) -> int:
        """How many times larger the network makes its tiles inside; bounds the memory of a prediction."""
        return 1

    # Where its weights come from and how they leave.

    @property
    def start(self) -> str | None:
        """The name of the weights that it starts from, of a file without its folder; None from scratch."""
        return None

    def find_weights(self) -> Path | None:
        """The file with its pretrained weights, or None where it wants none. Raises InputError where it is missing."""
        return None

    def load_weights(self, network: nn.Module, crop: int, path: Path) -> None:
        """Load a file of `find_weights`. Raises InputError where it does not fit."""
        raise AssertionError(f"family {self.family} has no pretrained weights")

    def from_scratch(self) -> Self:
        """The same architecture without pretrained weights."""
        return self

    def fold(self, network: nn.Module) -> None:
        """Change a trained network in place into that of `folded()`, which gives the same logits."""

    def folded(self) -> "Candidate":
        """The candidate that a bundle is rebuilt from."""
        return self

    # What people read.

    @abstractmethod
    def title(self, origin: str | None = None) -> str:
        """A short name for a row of the leaderboard. origin: how its cells were found, where it has any."""

    @abstractmethod
    def described(self) -> str:
        """What it is, for messages."""

    @abstractmethod
    def card(self) -> dict[str, str]:
        """Lines of a model card, by what they are about."""

    @property
    def decided_cells(self) -> Genotype | None:
        """The wiring of its cells, where it has any."""
        return None

    # What a space offers it.

    @classmethod
    def allows(cls, name: str, value: Any, given: Mapping[str, Any]) -> bool:
        """Whether a value of the field `name` goes with those chosen before it, or by default, in `given`.

        A field none of whose values goes is left at its default.
        """
        return True

    @classmethod
    def check_options(cls, options: Options, cells: CellSpace) -> None:
        """Raise InputError, one line, where choices can never be made. Cheap: builds nothing and looks for no files."""

    @classmethod
    def lightest(cls, options: Options, cells: CellSpace) -> dict[str, Any]:
        """The values with which the decisive choices are tried: where they refuse more than others, those."""
        return {name: values[0] for name, values in options.items() if name != "crop"}

    @classmethod
    def dearest(cls, options: Options, cells: CellSpace) -> dict[str, Any]:
        """The values that cost most to train."""
        return {
            name: max(values) if all(isinstance(v, int | float) for v in values) else values[-1]
            for name, values in options.items()
            if name != "crop"
        }
