"""Surface dice and voxel dice at all thresholds, from one pass over the probabilities, slab by slab."""

from collections.abc import Sequence
from dataclasses import dataclass, fields
from itertools import pairwise
from typing import Any

import numpy as np
from numpy.typing import NDArray

from search_spaces.errors import InputError
from trainers.metrics import cube_kernels, cube_layers
from trainers.metrics.cube_layers import Block, Mask
from trainers.metrics.surface_area import surface_areas

THRESHOLDS = np.arange(1, 256)  # the mask at threshold t is `probabilities >= t`; column t - 1 of every array below
_LAYERS = 16  # cube layers counted at a time by one thread
_CUBES = 2**28  # most cubes in those layers: kernels count in 32 bits, each cube up to seven times

SlabIndex = Sequence[int] | NDArray[np.integer] | NDArray[np.bool_] | slice


@dataclass(frozen=True)
class SurfaceCurve:
    """The counts that give the scores at 255 thresholds, for each slab of one or several volumes.

    Sums over slabs equal those of whole volumes: no slab has extra surface where it was cut.
    overlap, total: float64, (slabs, 255), areas in square micrometres, numerator and denominator of the surface dice.
    true_positives, predicted_voxels: int64, (slabs, 255). target_voxels: int64, (slabs,).
    """

    overlap: NDArray[np.float64]
    total: NDArray[np.float64]
    true_positives: NDArray[np.int64]
    predicted_voxels: NDArray[np.int64]
    target_voxels: NDArray[np.int64]

    @property
    def slabs(self) -> int:
        """Number of slabs."""
        return len(self.overlap)

    @staticmethod
    def pool(curves: Sequence["SurfaceCurve"]) -> "SurfaceCurve":
        """All slabs of several curves as one curve, in order."""
        return SurfaceCurve(
            *(np.concatenate([getattr(c, field.name) for c in curves]) for field in fields(SurfaceCurve))
        )

    def surface_dice(self, slabs: SlabIndex = slice(None)) -> NDArray[np.float64]:
        """Surface dice of the chosen slabs together at each threshold, (255,); 1.0 where neither mask has surface."""
        return _ratio(self.overlap[slabs].sum(axis=0), self.total[slabs].sum(axis=0))

    def voxel_dice(self, slabs: SlabIndex = slice(None)) -> NDArray[np.float64]:
        """Voxel dice of the chosen slabs together at each threshold, (255,); 1.0 where both masks are empty."""
        voxels = self.predicted_voxels[slabs].sum(axis=0) + self.target_voxels[slabs].sum()
        return _ratio(2 * self.true_positives[slabs].sum(axis=0), voxels)


def surface_curve(
    probabilities: NDArray[np.uint8],
    target: Mask,
    slab_starts: Sequence[int] = (0,),
    spacing_um: tuple[float, float, float] = (1.0, 1.0, 1.0),
) -> SurfaceCurve:
    """Count surface and voxels of the masks `probabilities >= t`, t = 1..255, against the target, by slab.

    probabilities: uint8, (D, H, W). target: bool or uint8 (any value but 0 is vessel), same shape. Both may be memory
    maps; only a few slices are read at a time. slab_starts: first slice of each slab, rising from 0; a layer of cubes
    belongs to the slab of its upper slice, and the layer above the volume belongs to the last slab.
    The scores equal the surface dice and the voxel dice of each mask. Raises InputError for unequal shapes, and for
    types, slabs and spacings that cannot be used.
    """
    cube_layers.check_same_shape(probabilities, target)
    cube_layers.check_spacing(spacing_um)
    if np.asarray(probabilities).dtype != np.uint8:
        raise InputError(f"probabilities are of type {np.asarray(probabilities).dtype}; uint8 is needed")
    values = cube_layers.as_voxels(probabilities, "probabilities")
    voxels_t = cube_layers.as_voxels(target, "target")
    edges = _edges(slab_starts, len(values))
    class_areas, codes_class = np.unique(surface_areas(spacing_um), return_inverse=True)
    area_class, classes = codes_class.astype(np.uint8), len(class_areas)
    shapes = ((2, 256, classes), (256, classes), (classes,), (2, 256))  # as `count_thresholds` fills them

    def count(block: Block) -> list[NDArray[np.int32]]:
        counts = [np.zeros(shape, np.int32) for shape in shapes]
        layers = block.first - block.start, block.last - block.start
        cube_kernels.count_thresholds(block.slices_of(values), block.slices_of(voxels_t), *layers, area_class, *counts)
        return counts

    layers = max(1, min(_LAYERS, _CUBES // values[0].size))
    work = [
        (slab, block)
        for slab, (first, last) in enumerate(pairwise(edges))
        for block in cube_layers.blocks(len(values), first, last, layers)
    ]
    sums = [[np.zeros(shape, np.int64) for shape in shapes] for _ in slab_starts]
    for (slab, _), counts in zip(work, cube_layers.run(count, [block for _, block in work]), strict=True):
        for slab_sum, part in zip(sums[slab], counts, strict=True):
            slab_sum += part
    return SurfaceCurve.pool([_curve_of_slab(class_areas, *slab_sums) for slab_sums in sums])


def _curve_of_slab(
    class_areas: NDArray[np.float64],
    changes: NDArray[np.int64],
    touched: NDArray[np.int64],
    target_cubes: NDArray[np.int64],
    voxels: NDArray[np.int64],
) -> SurfaceCurve:
    """One slab's curve from the counts of `count_thresholds`: changes summed from the highest threshold down."""
    elsewhere, in_target = _from_the_top(changes, axis=1)
    background, vessel = _from_the_top(voxels, axis=1)
    return SurfaceCurve(
        overlap=((in_target + _from_the_top(touched, axis=0)) @ class_areas)[None],
        total=((elsewhere + in_target + target_cubes) @ class_areas)[None],
        true_positives=vessel[None],
        predicted_voxels=(background + vessel)[None],
        target_voxels=voxels[1].sum()[None],
    )


def _from_the_top(counts: NDArray[np.int64], axis: int) -> NDArray[np.int64]:
    """Sums over all thresholds t' >= t along an axis of 256, for t = 1..255."""
    sums = np.flip(np.flip(counts, axis).cumsum(axis), axis)
    return np.delete(sums, 0, axis)


def _edges(slab_starts: Sequence[int], depth: int) -> list[int]:
    edges = [*(int(start) for start in slab_starts), depth + 1]
    if edges[0] != 0 or any(a >= b for a, b in pairwise(edges)) or edges[-2] >= depth:
        raise InputError(f"slab_starts are {edges[:-1]}; they must rise from 0 to at most {depth - 1}")
    return edges


def _ratio(numerator: NDArray[Any], denominator: NDArray[Any]) -> NDArray[np.float64]:
    """Their quotient, 1.0 where the denominator is 0."""
    ratio = np.ones(denominator.shape)
    np.divide(numerator, denominator, out=ratio, where=denominator > 0)
    return ratio
