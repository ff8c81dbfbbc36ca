"""EncoderCandidate: what families with a published 2D encoder have in common."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal, Self

from torch import nn

from search_spaces.candidate import Candidate, Options, Slices
from search_spaces.cells.cell_space import CellSpace
from search_spaces.errors import InputError, unknown_name
from search_spaces.published.weights import find_weights, is_file_name, load_weights, offered_weights


class EncoderCandidate(Candidate, frozen=True, extra="forbid"):
    """A network with a published encoder that reads planes, with neighbouring slices as channels."""

    encoder: str  # a name in the family's table of encoders
    encoder_weights: str = "none"  # none, a name that the encoder offers (imagenet), or a .safetensors file
    slices_in: Slices = 5  # neighbouring slices read at once: the input channels
    masks: Literal["middle", "all"] = "middle"  # which input slices get a mask: the middle one, or all

    @property
    def slices_out(self) -> int:
        return self.slices_in if self.masks == "all" else 1

    @property
    def start(self) -> str | None:
        name = self.encoder_weights
        return None if name == "none" else Path(name).stem if name.endswith(".safetensors") else name

    def find_weights(self) -> Path | None:
        return find_weights(self.encoder, self.encoder_weights)

    def load_weights(self, network: nn.Module, crop: int, path: Path) -> None:
        load_weights(network.get_submodule("encoder"), self.encoder, self.slices_in, path, self.built_with(crop))

    def from_scratch(self) -> Self:
        return self.model_copy(update={"encoder_weights": "none"})

    def built_with(self, crop: int) -> dict[str, Any]:
        """Further arguments of the encoder's constructor, besides its name and its input channels."""
        return {}

    @property
    def encoder_title(self) -> str:
        """The encoder's name, and the weights that it starts from."""
        return self.encoder.removeprefix("tu-") + ("" if self.start is None else f" ({self.start})")

    def refuse_slices(self) -> None:
        """Raise InputError if only the middle slice gets a mask but the number of input slices is even."""
        if self.masks == "middle" and self.slices_in % 2 == 0:
            raise InputError(
                f"slices_in is {self.slices_in}, which has no middle slice; set it to an odd number, or masks to 'all'"
            )

    @classmethod
    def allows(cls, name: str, value: Any, given: Mapping[str, Any]) -> bool:
        if name != "encoder_weights" or value == "none" or is_file_name(value):
            return True
        return value in offered_weights(given["encoder"])

    @classmethod
    def check_options(cls, options: Options, cells: CellSpace) -> None:
        """Also checks that every encoder has at least one of the encoder weights, and every weights name an encoder."""
        super().check_options(options, cells)
        even = [slices for slices in options["slices_in"] if slices % 2 == 0]
        if even and "middle" in options["masks"]:
            raise InputError(f"slices_in has {even[0]}, which has no middle slice; use odd numbers, or masks 'all'")
        offered = {name for encoder in options["encoder"] for name in offered_weights(encoder)}
        for name in options["encoder_weights"]:
            if name != "none" and not is_file_name(name) and name not in offered:
                raise unknown_name("encoder_weights", name, ["none", *offered, "FILE.safetensors"])
        for encoder in options["encoder"]:
            if not cls.weights_for(encoder, options):
                exist = ", ".join(offered_weights(encoder)) or "no weights"
                raise InputError(
                    f"encoder {encoder!r} has none of the encoder_weights {', '.join(options['encoder_weights'])}; "
                    f"it has {exist}: add one of them, or none"
                )

    @classmethod
    def weights_for(cls, encoder: str, options: Options) -> list[str]:
        """The encoder weights on offer that exist for an encoder; a file is assumed to be for every encoder."""
        given = {"encoder": encoder}
        return [name for name in options["encoder_weights"] if cls.allows("encoder_weights", name, given)]
