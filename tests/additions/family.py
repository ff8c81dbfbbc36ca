"""Family `plain3d`: made up by a test, as somebody would add a 3D network: a few convolutions over boxes."""

from itertools import pairwise
from typing import Literal

from pydantic import PositiveInt
from torch import Tensor, nn

from search_spaces.candidate import Candidate
from search_spaces.errors import InputError


class Plain3dCandidate(Candidate, frozen=True, extra="forbid"):
    """A stack of 3 x 3 x 3 convolutions that reads boxes."""

    family: Literal["plain3d"] = "plain3d"
    slices_in: PositiveInt = 8  # depth of its boxes
    width: PositiveInt = 4  # channels
    layers: PositiveInt = 2  # convolutions before the last

    boxes = True

    def build(self, crop: int) -> nn.Module:
        return Stack(self.width, self.layers)

    def refuse(self, crop: int) -> None:
        if crop < 8:
            raise InputError(f"{self.described()} needs crops of at least 8; got {crop}")

    @property
    def stride(self) -> int:
        return 1

    def title(self, origin: str | None = None) -> str:
        return f"plain3d c{self.width} x{self.layers}"

    def described(self) -> str:
        return "a plain 3D network"

    def card(self) -> dict[str, str]:
        return {"convolutions": f"{self.layers} of {self.width} channels"}


class Stack(nn.Module):
    """(B, D, H, W) -> logits of the same shape."""

    def __init__(self, width: int, layers: int) -> None:
        super().__init__()
        widths = [1, *[width] * layers]
        parts = [
            part for before, after in pairwise(widths) for part in (nn.Conv3d(before, after, 3, padding=1), nn.ReLU())
        ]
        self.layers = nn.Sequential(*parts, nn.Conv3d(width, 1, 1))

    def forward(self, image: Tensor) -> Tensor:
        logits: Tensor = self.layers(image[:, None])
        return logits[:, 0]
