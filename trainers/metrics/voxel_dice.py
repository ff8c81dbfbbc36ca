"""Voxel dice: twice the voxels in both masks, over the sum of each mask's voxels; spacing does not matter."""

import numpy as np
from numpy.typing import NDArray

from trainers.metrics.metric import Metric, ratio
from trainers.metrics.slabs import CutSlabs
from trainers.metrics.surface_curve import SurfaceCurve


def _voxels(cut: CutSlabs) -> list[NDArray[np.int64]]:
    """By slab: twice the voxels in both masks, and the sum of each mask's voxels."""
    return [2 * cut.at(cut.curve.true_positives), cut.at(cut.curve.predicted_voxels) + cut.curve.target_voxels]


VOXEL_DICE = Metric(
    title="voxel dice",
    parts=_voxels,
    combine=lambda sums: ratio(sums[0], sums[1]),
    at_thresholds=SurfaceCurve.voxel_dice,
)
