"""Volume: the voxels of one scanned kidney, its vessel labels, and what is known about both."""

from dataclasses import dataclass, replace
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from trainers.data.geometry import Spacing
from trainers.data.soft_labels import SoftLabels

# Grey values are scaled so that these percentiles become 0 and 1, which is robust against dead and hot pixels. There is
# one pair for all volumes of a kidney (contrast.py), because neighbouring slices must keep their relative brightness.
LOW_PERCENTILE, HIGH_PERCENTILE = 2.0, 98.0
# Lumens and bright walls lie outside the two percentiles and carry the information, so the clipping range is wide.
CLIP_LOW, CLIP_HIGH = -1.0, 2.0
CUBE: Spacing = (1.0, 1.0, 1.0)  # the proportions of a voxel of which nothing is known


class Scanned(Protocol):
    """A volume, opened or still on disk: the facts in its headers."""

    @property
    def name(self) -> str: ...
    @property
    def shape(self) -> tuple[int, int, int]: ...  # (D, H, W)
    @property
    def spacing_um(self) -> Spacing | None: ...


@dataclass(frozen=True)
class Volume:
    """One scanned kidney, or a part of it; all arrays are (D, H, W) = (z, y, x), usually memory-mapped.

    image: uint16. label: uint8, 0 or 1 (soft labels: 0 to 255), or None if there is none. vessel_voxels: int64, (N,),
    flat indices of labelled voxels (all of them, or a seeded random million), for sampling around vessels.
    content_hash is equal for two volumes if and only if all their grey values and their shape are equal.
    """

    name: str
    kidney: str
    image: NDArray[np.uint16]
    label: NDArray[np.uint8] | None
    vessel_voxels: NDArray[np.int64]
    spacing_um: Spacing | None  # voxel size along (D, H, W); None: not stated anywhere
    annotated: float  # share of the vessels that the labels contain, 0.0 to 1.0
    grey_low: float  # grey value at LOW_PERCENTILE
    grey_high: float  # grey value at HIGH_PERCENTILE
    content_hash: str
    soft: SoftLabels | None = None  # set if the label holds levels made by a network
    grey_meaning: tuple[float, float] = (0.0, 1.0)  # the source's value of grey level 0, and of a step

    @property
    def shape(self) -> tuple[int, int, int]:
        """(D, H, W)."""
        depth, height, width = self.image.shape
        return depth, height, width

    @property
    def edges(self) -> Spacing:
        """The proportions of a voxel along (D, H, W): micrometres, or where they are not stated, those of a cube."""
        return CUBE if self.spacing_um is None else self.spacing_um

    def normalise(self, block: NDArray[Any]) -> NDArray[np.float32]:
        """Grey values of this volume, interpolated or not, as clipped float32: 0 and 1 at the two percentiles."""
        scale = 1.0 / max(self.grey_high - self.grey_low, 1e-6)
        scaled = (block.astype(np.float32) - np.float32(self.grey_low)) * np.float32(scale)
        return np.clip(scaled, CLIP_LOW, CLIP_HIGH, out=scaled)


def middle_part(volume: Volume, slices: int | None) -> Volume:
    """The `slices` slices around the median vessel voxel; the whole volume if it has no more, or if that is None."""
    depth, height, width = volume.shape
    if slices is None or depth <= slices or volume.label is None:
        return volume
    vessels = volume.vessel_voxels
    middle = int(vessels[len(vessels) // 2]) // (height * width) if len(vessels) else depth // 2
    first = min(max(0, middle - slices // 2), depth - slices)
    begin, end = np.searchsorted(vessels, [first * height * width, (first + slices) * height * width])
    return replace(
        volume,
        image=volume.image[first : first + slices],
        label=volume.label[first : first + slices],
        vessel_voxels=vessels[begin:end] - first * height * width,
    )
