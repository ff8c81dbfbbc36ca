"""Which background in a patch is unsure: if labels are incomplete, unlabelled vessels may lie far from any label."""

import numpy as np
from numpy.typing import NDArray
from scipy.ndimage import maximum_filter

from trainers.data.soft_labels import Label
from trainers.data.volume import Volume

# The target for unsure background; every other target is the share of vessel, 0 to 1. Because it is a separate number,
# the mark passes through the loader, the gathering of processes and the trainers as part of the label.
UNSURE = -1.0


def to_target(label: Label, volume: Volume, margin: int | None) -> NDArray[np.float32]:
    """The target of a patch, float32: its label, with UNSURE background if the volume's labels are incomplete.

    label: (slices_out, crop, crop), 0 to 1, after all augmentation, which may interpolate. margin: see `unsure`; None
    marks nothing.
    """
    target = label.astype(np.float32)
    if margin is not None and volume.annotated < 1:
        target[unsure(target, margin)] = UNSURE
    return target


def unsure(target: NDArray[np.float32], margin: int) -> NDArray[np.bool_]:
    """Background farther than `margin` voxels, along any axis, from every vessel of the patch; (slices, H, W).

    People who label a vessel look at its surroundings, so unlabelled voxels near a label are reliably background.
    """
    vessel = (target >= 0.5).astype(np.uint8)
    near: NDArray[np.uint8] = maximum_filter(vessel, 2 * margin + 1) if vessel.any() else vessel
    return np.equal(near, 0)
