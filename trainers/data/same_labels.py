"""Finds out whether two volumes have the same labels: people label a copy by taking the labels of the original along.

Grey values can be filtered until their fine detail is another one, and the labels of such a copy are still those of the
original: moved, padded, mirrored or turned by right angles with the voxels.
"""

import numpy as np
from numpy.typing import NDArray

from trainers.data.slices import depth_within
from trainers.data.soft_labels import is_vessel
from trainers.data.volume import Volume

FEWEST_VOXELS = 500  # of vessel, below which equal labels may be chance
_BLOCK_BYTES = 2**26
Counts = tuple[bytes, ...]


class SameLabels:
    """Compares labels, and reads those of a volume once, only if another one has as many vessel voxels."""

    def __init__(self) -> None:
        self._counts: dict[int, Counts] = {}

    def shared(self, one: Volume, other: Volume) -> int | None:
        """How many vessel voxels two volumes have in equal labels; None for different labels, few voxels, and none.

        Labels are equal whose vessel voxels are equally many in every slice along each of three axes, in any order and
        direction of the axes, and without empty slices at the ends: it is as good as impossible for others.
        """
        if one.label is None or other.label is None or len(one.vessel_voxels) != len(other.vessel_voxels):
            return None  # all vessel voxels are listed, or a million of them
        if len(one.vessel_voxels) < FEWEST_VOXELS or self._of(one) != self._of(other):
            return None
        return int(np.frombuffer(self._of(one)[0], np.int64).sum())

    def _of(self, volume: Volume) -> Counts:
        if id(volume) not in self._counts:
            self._counts[id(volume)] = _counts(volume)
        return self._counts[id(volume)]


def _counts(volume: Volume) -> Counts:
    """How many vessel voxels the slices along each axis have, alike for each way in which the volume may be turned."""
    assert volume.label is not None
    depth, height, width = volume.shape
    along = (np.zeros(depth, np.int64), np.zeros(height, np.int64), np.zeros(width, np.int64))
    step = depth_within(volume.shape, volume.label.dtype, _BLOCK_BYTES)
    for start in range(0, depth, step):
        vessel = is_vessel(np.asarray(volume.label[start : start + step]), volume.soft)
        rows = np.count_nonzero(vessel, axis=2)
        along[0][start : start + step] = rows.sum(axis=1)
        along[1][:] += rows.sum(axis=0)
        along[2][:] += np.count_nonzero(vessel, axis=(0, 1))
    return tuple(sorted(_either_way(counts) for counts in along))


def _either_way(counts: NDArray[np.int64]) -> bytes:
    trimmed = np.trim_zeros(counts)
    return min(trimmed.tobytes(), trimmed[::-1].tobytes())
