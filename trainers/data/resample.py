"""Volumes resampled to another voxel spacing and back: streamed slice by slice, trilinear, centred.

Both grids have the same centre, and voxel i of n lies i - (n - 1) / 2 voxels from it, so nothing moves, and a volume
resampled there and back keeps its position.
"""

import math
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.sparse import csr_matrix

from search_spaces.errors import InputError
from trainers.data.geometry import Spacing, spacing_text
from trainers.data.manifest import MANIFEST_NAME
from trainers.data.oblique import LABEL_CUT
from trainers.data.scratch import zeros
from trainers.data.soft_labels import SoftLabels, is_vessel
from trainers.data.statistics import draw_million
from trainers.data.volume import Scanned, Volume

# Voxel spacings closer than this are treated as equal: kidneys at 50 and 50.28 µm need no interpolation.
SAME_SPACING = 0.01
# The largest step at which trilinear reading at the new voxels' centres skips no voxel.
WIDEST_STEP = 2.0
# A volume gets at most this many times its own voxels, because more would contain no further information.
MOST_VOXELS = 64
Shape = tuple[int, int, int]


def steps_at(spacing_um: Spacing, wanted_um: float | None) -> tuple[float, float, float]:
    """Voxels of `spacing_um` per voxel of `wanted_um`, along each axis; exactly 1 if they are equal, or for None."""

    def step(edge: float) -> float:
        ratio = 1.0 if wanted_um is None else wanted_um / edge
        return 1.0 if abs(ratio - 1) <= SAME_SPACING else ratio

    z, y, x = spacing_um
    return step(z), step(y), step(x)


def unknown_spacing(name: str, wanted_um: float) -> InputError:
    """The error for a volume that should be read at a voxel size although its own is not known."""
    return InputError(
        f"{name} cannot be read at {wanted_um:g} µm: its voxel spacing is not stated; state voxel_spacing_um of "
        f"[volumes.{name}] in {MANIFEST_NAME}"
    )


def volume_steps(volume: Scanned, wanted_um: float | None) -> tuple[float, float, float]:
    """`steps_at` for a volume.

    Raises InputError if another voxel size is wanted and the volume's own is unknown, or far coarser.
    """
    if wanted_um is not None and volume.spacing_um is None:
        raise unknown_spacing(volume.name, wanted_um)
    if volume.spacing_um is None:
        return 1.0, 1.0, 1.0
    steps = steps_at(volume.spacing_um, wanted_um)
    if math.prod(steps) * MOST_VOXELS < 1:
        raise InputError(
            f"{volume.name} cannot be read at {wanted_um:g} µm: its own voxels of {spacing_text(volume.spacing_um)} µm "
            f"are more than {MOST_VOXELS} times as large, so nothing is known between them"
        )
    return steps


def shape_at(shape: Shape, steps: tuple[float, float, float]) -> Shape:
    """The shape of a volume whose voxels are `steps` times as large; at least one voxel along each axis."""
    depth, height, width = (max(1, round(edge / step)) for edge, step in zip(shape, steps, strict=True))
    return depth, height, width


def resample_volume(volume: Volume, wanted_um: float | None, scratch: Path | None = None) -> Volume:
    """The volume with voxels of `wanted_um`, or the volume itself if it already has them, or for None.

    Voxels that do not fit into memory lie in files in `scratch`, which the caller removes. Raises InputError if the
    volume's own voxel spacing is unknown.
    """
    steps = volume_steps(volume, wanted_um)
    if steps == (1.0, 1.0, 1.0):
        return volume
    shape = shape_at(volume.shape, steps)
    image = zeros(shape, np.uint16, scratch, "image")
    for z, plane in enumerate(resampled(volume.image, shape, steps)):
        image[z] = np.rint(plane)
    label = None
    if volume.label is not None:
        label = zeros(shape, np.uint8, scratch, "label")
        for z, plane in enumerate(resampled(volume.label, shape, steps)):
            label[z] = plane >= LABEL_CUT if volume.soft is None else np.rint(plane)
    depth, height, width = (edge * step for edge, step in zip(volume.edges, steps, strict=True))
    return replace(
        volume,
        image=image,
        label=label,
        vessel_voxels=np.empty(0, np.int64) if label is None else _vessels(label, volume.soft),
        spacing_um=(depth, height, width),
    )


def _vessels(label: NDArray[np.uint8], soft: SoftLabels | None) -> NDArray[np.int64]:
    """Flat indices of labelled voxels, slice by slice; all of them, or a seeded random million."""
    size = label.shape[1] * label.shape[2]
    found = [np.flatnonzero(is_vessel(plane, soft)) + z * size for z, plane in enumerate(label)]
    return np.sort(draw_million(np.concatenate(found)))


def resampled(voxels: NDArray[Any], shape: Shape, steps: tuple[float, float, float]) -> Iterator[NDArray[np.float32]]:
    """The slices (H, W) of `voxels` on a grid of `shape` whose voxels are `steps` times as large; float32.

    Trilinear, like the cutting of patches. If a step is above WIDEST_STEP, the kernel's half-width is half the step, so
    that no voxel is skipped. Beyond the volume its border is repeated.
    """
    along_z, along_y, along_x = (
        _weights(count, edge, step) for count, edge, step in zip(shape, voxels.shape, steps, strict=True)
    )
    across = along_x.T.tocsr()
    planes: dict[int, NDArray[np.float32]] = {}
    for z in range(shape[0]):
        begin, end = along_z.indptr[z], along_z.indptr[z + 1]
        needed = along_z.indices[begin:end]
        planes = {k: plane for k, plane in planes.items() if k in needed}
        for k in needed:
            if k not in planes:
                plane = np.asarray(voxels[k], np.float32)
                planes[k] = np.asarray((along_y @ plane) @ across, np.float32)
        yield sum(
            (np.float32(w) * planes[k] for k, w in zip(needed, along_z.data[begin:end], strict=True)),
            np.zeros(shape[1:], np.float32),
        )


def _weights(count: int, edge: int, step: float) -> csr_matrix:
    """The weight of each of `edge` voxels in each of `count` new ones, (count, edge); rows add up to 1."""
    places = (np.arange(count) - (count - 1) / 2) * step + (edge - 1) / 2
    half = max(1.0, step / WIDEST_STEP)
    reach = int(np.ceil(half))
    first = np.floor(places).astype(int) - reach + 1
    columns = first[:, None] + np.arange(2 * reach)
    weights = np.maximum(0.0, 1.0 - np.abs(columns - places[:, None]) / half)
    weights /= weights.sum(1, keepdims=True)
    rows = np.repeat(np.arange(count), 2 * reach)
    matrix = csr_matrix((weights.ravel(), (rows, np.clip(columns, 0, edge - 1).ravel())), (count, edge), np.float32)
    matrix.sum_duplicates()
    matrix.eliminate_zeros()
    return matrix
