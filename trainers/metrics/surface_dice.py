"""Surface dice: the exact share of both surfaces that agrees, between two masks, at any tolerance.

`surface_dice` compares two masks. The metric `SURFACE_DICE` reads the score of every threshold off a `SurfaceCurve`.
"""

import numpy as np
from numpy.typing import NDArray

from search_spaces.errors import InputError
from trainers.machine import available_cores
from trainers.metrics import cube_kernels, cube_layers
from trainers.metrics.cube_layers import Block, Mask
from trainers.metrics.metric import Metric, ratio
from trainers.metrics.slabs import CutSlabs
from trainers.metrics.surface_area import CODES, surface_areas
from trainers.metrics.surface_curve import SurfaceCurve

_LAYERS = 16  # cube layers per block: enough blocks for all cores, few enough that starting them costs nothing
# Memory for the layers that the kernels keep around the one they count; fewer threads run if it does not suffice.
_RING_BYTES = 512 * 2**20


def _areas(cut: CutSlabs) -> list[NDArray[np.float64]]:
    """By slab, in µm²: the area of both surfaces where they coincide, and the area of both surfaces."""
    return [cut.at(cut.curve.overlap), cut.at(cut.curve.total)]


SURFACE_DICE = Metric(
    title="surface dice",
    condition="at tolerance 0",
    parts=_areas,
    combine=lambda sums: ratio(sums[0], sums[1]),
    at_thresholds=SurfaceCurve.surface_dice,
)


def surface_dice(
    predicted: Mask,
    target: Mask,
    spacing_um: tuple[float, float, float] = (1.0, 1.0, 1.0),
    tolerance_um: float = 0.0,
) -> float:
    """Share of both surfaces lying within `tolerance_um` of each other, 0.0 to 1.0.

    predicted, target: bool or uint8 (any value but 0 is vessel), (D, H, W), memory maps included; only a few slices are
    read at a time. spacing_um: voxel size along the same axes. Surface is measured in 2x2x2 cubes of the volume,
    surrounded by background, so a vessel cut by the border has a cap there. The distance between two cubes is that
    between their centres. Memory and time grow with the tolerance in voxels.
    At tolerance 0 this is the metric of the SenNet + HOA competition: the area of cubes that contain surface in both
    masks, divided by the area of all cubes. Two empty masks score 1.0, one empty mask 0.0.
    Cubes are counted as integers, so the result does not depend on the number of threads.
    Raises InputError (a ValueError) for unequal shapes and for a spacing, tolerance or type that cannot be used.
    """
    cube_layers.check_same_shape(predicted, target)
    cube_layers.check_spacing(spacing_um)
    if not (np.isfinite(tolerance_um) and tolerance_um >= 0):
        raise InputError(f"tolerance_um is {tolerance_um}; 0 or a positive number is needed")
    voxels_p = cube_layers.as_voxels(predicted, "predicted")
    voxels_t = cube_layers.as_voxels(target, "target")
    if tolerance_um == 0:
        counts = _count(voxels_p, voxels_t)
    elif not voxels_p.any() or not voxels_t.any():  # otherwise each cube would search for a surface that does not exist
        return float(not voxels_p.any() and not voxels_t.any())
    else:
        counts = _count_within(voxels_p, voxels_t, _windows(spacing_um, tolerance_um, voxels_p.shape))
    areas = surface_areas(spacing_um)
    total = float(areas @ counts[cube_kernels.TOTAL])
    return float(areas @ counts[cube_kernels.OVERLAP]) / total if total else 1.0


def _count(predicted: NDArray[np.uint8], target: NDArray[np.uint8]) -> NDArray[np.int64]:
    def count(block: Block) -> NDArray[np.int64]:
        counts = np.zeros((2, CODES), np.int64)
        layers = block.first - block.start, block.last - block.start
        cube_kernels.count_codes(block.slices_of(predicted), block.slices_of(target), *layers, counts)
        return counts

    depth = len(predicted)
    return sum(cube_layers.run(count, cube_layers.blocks(depth, 0, depth + 1, _LAYERS)), np.zeros((2, CODES), np.int64))


def _count_within(
    predicted: NDArray[np.uint8], target: NDArray[np.uint8], windows: NDArray[np.int64]
) -> NDArray[np.int64]:
    depth, height, width = predicted.shape
    reach = int(windows[:, 0].max())

    def count(block: Block) -> NDArray[np.int64]:
        counts = np.zeros((2, CODES), np.int64)
        lowest, beyond = max(block.first - reach, 0), min(block.last + reach, depth + 1)
        relative = np.array([lowest, block.first, block.last, beyond]) - block.start
        layers = int(relative[0]), int(relative[1]), int(relative[2]), int(relative[3])
        cube_kernels.count_codes_within(block.slices_of(predicted), block.slices_of(target), layers, windows, counts)
        return counts

    ring_bytes = 2 * (2 * reach + 1) * (height + 1) * (width + 1) * np.dtype(np.uint16).itemsize
    threads = max(1, min(available_cores(), _RING_BYTES // ring_bytes))
    # Each block processes `reach` more layers on both sides, so blocks grow with it.
    work = cube_layers.blocks(depth, 0, depth + 1, max(_LAYERS, 4 * reach), margin=reach)
    return sum(cube_layers.run(count, work, threads), np.zeros((2, CODES), np.int64))


def _windows(spacing_um: tuple[float, float, float], tolerance_um: float, shape: tuple[int, ...]) -> NDArray[np.int64]:
    """Rows (dz, dy, reach), nearest first: the cubes of a row within the tolerance are those with |dx| <= reach."""
    size_z, size_y, size_x = spacing_um
    diagonal = float(np.hypot.reduce(np.multiply(shape, spacing_um)))
    tolerance_um = min(tolerance_um, 2 * diagonal)  # beyond this only the number of windows would change
    reach_z, reach_y = (min(int(tolerance_um / size), n) for size, n in zip(spacing_um[:2], shape[:2], strict=True))
    # One more than the quotient, because it is rounded; cubes that are too far away are left out below.
    dz, dy = (axis.ravel() for axis in np.mgrid[-reach_z - 1 : reach_z + 2, -reach_y - 1 : reach_y + 2])
    # Squares are added in the order of scipy's distance transform, so that "<= tolerance" gives the same result.
    squares_zy = (dz * size_z) ** 2 + (dy * size_y) ** 2
    reach = np.floor(np.sqrt(np.maximum(tolerance_um**2 - squares_zy, 0)) / size_x)
    reach += np.sqrt(squares_zy + ((reach + 1) * size_x) ** 2) <= tolerance_um
    reach -= np.sqrt(squares_zy + (reach * size_x) ** 2) > tolerance_um
    nearest_first = np.argsort(squares_zy, kind="stable")
    windows = np.stack([dz, dy, np.minimum(reach, shape[2])], axis=1)[nearest_first]
    return np.ascontiguousarray(windows[windows[:, 2] >= 0], dtype=np.int64)
