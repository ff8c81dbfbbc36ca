"""Voxel dice: the overlap of two masks as volumes."""

import numpy as np

from trainers.metrics import cube_layers
from trainers.metrics.cube_layers import Mask


def voxel_dice(predicted: Mask, target: Mask, spacing_um: tuple[float, float, float] = (1.0, 1.0, 1.0)) -> float:
    """Twice the voxels in both masks over the voxels of each, 0.0 to 1.0.

    predicted, target: bool or uint8 (any value but 0 is vessel), (D, H, W), memory maps included; read slice by slice.
    spacing_um changes nothing: all voxels are of one size. Two empty masks score 1.0, one empty mask 0.0.
    Raises InputError (a ValueError) for unequal shapes and other types.
    """
    cube_layers.check_same_shape(predicted, target)
    cube_layers.check_spacing(spacing_um)
    both = voxels = 0
    slices = cube_layers.as_voxels(predicted, "predicted"), cube_layers.as_voxels(target, "target")
    for slice_p, slice_t in zip(*slices, strict=True):
        in_p, in_t = slice_p != 0, slice_t != 0
        both += int(np.count_nonzero(in_p & in_t))
        voxels += int(np.count_nonzero(in_p) + np.count_nonzero(in_t))
    return 2 * both / voxels if voxels else 1.0
