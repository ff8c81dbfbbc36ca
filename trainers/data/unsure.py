"""Which background of a patch is unsure: where labels are incomplete, an unlabelled vessel may lie away from them."""

import numpy as np
from numpy.typing import NDArray
from scipy.ndimage import maximum_filter

from trainers.data.soft_labels import Label
from trainers.data.volume import Volume

# A target of unsure background; every other target is the share of vessel, 0 to 1. A number of its own, so that the
# mark travels through loader, gathering of processes and trainers as part of the label.
UNSURE = -1.0


def to_target(label: Label, volume: Volume, margin: int | None) -> NDArray[np.float32]:
    """The target of a patch cut from a volume, float32: the label, and UNSURE background where its labels miss vessels.

    label: (slices_out, crop, crop), 0 to 1, after all augmentation, which may interpolate. margin: see `unsure`; None
    marks nothing.
    """
    target = label.astype(np.float32)
    if margin is not None and volume.annotated < 1:
        target[unsure(target, margin)] = UNSURE
    return target


def unsure(target: NDArray[np.float32], margin: int) -> NDArray[np.bool_]:
    """Background farther than `margin` voxels, along any axis, from every vessel of the patch; (slices, H, W).

    People who label a vessel look at its surroundings: what is near a label and not vessel was seen to be none.
    """
    vessel = (target >= 0.5).astype(np.uint8)
    near: NDArray[np.uint8] = maximum_filter(vessel, 2 * margin + 1) if vessel.any() else vessel
    return np.equal(near, 0)
