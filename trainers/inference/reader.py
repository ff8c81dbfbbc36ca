"""Reader: a trained network, and how it is moved over a volume in overlapping tiles."""

from dataclasses import dataclass

from pydantic import BaseModel, Field, PositiveInt
from torch import nn

from search_spaces.candidate import Candidate
from trainers.data.geometry import Axes
from trainers.fit import FitConfig
from trainers.inference.overlap import Weighting
from trainers.inference.symmetry import Symmetries


class InferenceConfig(BaseModel, frozen=True, extra="forbid"):
    """How a trained network reads a whole volume."""

    # Axes (z, y, x) along which slices are read; their predictions are averaged.
    axes: Axes = (0, 1, 2)
    largest_tile: int = Field(default=512, ge=32, le=65_536)  # largest tile edge in voxels, if any size is taken
    overlap: float = Field(default=0.25, ge=0, le=0.9)  # share of a tile that its neighbour also covers
    batch_voxels: PositiveInt = 1 << 20  # pixels predicted at once; limits the memory
    symmetries: Symmetries = "none"  # views of each tile that are averaged: "none" 1, "flips" 4, "d4" 8
    weighting: Weighting = "hat"  # weights with which overlapping tiles are averaged
    smallest_component: PositiveInt | None = None  # size in voxels below which components are removed; None: keep all


@dataclass(frozen=True)
class Reader:
    """A trained network, and everything needed to read a volume with it."""

    network: nn.Module  # float (B, slices_in, H, W) -> logits (B, slices_out, H, W)
    slices_in: int
    slices_out: int
    crop: int  # edge of the crops it was trained on
    stride: int  # a tile's edges must be multiples of this
    any_size: bool  # False: it only takes tiles of exactly `crop`
    scale: int = 1  # factor by which the network enlarges its tiles internally
    voxel_size_um: float | None = None  # voxel edge at which it reads; None: as scanned
    boxes: bool = False  # True: it works in three dimensions and gives all slices of its boxes

    @property
    def depth(self) -> int:
        """Number of slices it needs at once: the depth of a box, or 1 for networks that read planes."""
        return self.slices_in if self.boxes else 1

    def tile(self, plane: tuple[int, int], largest: int) -> tuple[int, int]:
        """Edges of the tiles that cover a plane of (H, W) voxels; never smaller than in training."""
        if not self.any_size:
            return self.crop, self.crop
        height, width = (
            max(self.crop, min(largest // self.stride, -(-edge // self.stride)) * self.stride) for edge in plane
        )
        return height, width


def make_reader(network: nn.Module, candidate: Candidate, fit: FitConfig) -> Reader:
    """The reader for a network that was built from `candidate` and trained as `fit` says."""
    return Reader(
        network,
        candidate.slices_in,
        candidate.slices_out,
        fit.crop,
        candidate.stride,
        candidate.any_size,
        boxes=candidate.boxes,
        voxel_size_um=fit.voxel_size_um,
        scale=candidate.scale,
    )
