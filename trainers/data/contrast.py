"""One grey scale for all volumes of a kidney, so that a piece of it looks the same as in the whole."""

from collections.abc import Sequence
from dataclasses import replace

import numpy as np
from numpy.typing import NDArray

from trainers.data.geometry import Spacing
from trainers.data.volume import HIGH_PERCENTILE, LOW_PERCENTILE, Volume

_SLICES = 32  # slices sampled in each volume
_VOXELS = 1 << 20  # most voxels taken from them


def share_contrast(volumes: Sequence[Volume]) -> tuple[Volume, ...]:
    """The volumes with `grey_low` and `grey_high` taken over all volumes of the same kidney and voxel spacing.

    They are the same values of the sources, so that pieces that were spread over 16 bits one by one look alike, too.
    A small piece by itself says little: the noise of one that contains only air would be stretched to full contrast.
    Every volume counts in proportion to its voxels. A kidney with one volume keeps its own values. Another voxel
    spacing means another scan, with its own grey scale.
    """
    groups: dict[tuple[str, Spacing | None], list[Volume]] = {}
    for volume in volumes:
        groups.setdefault((volume.kidney, volume.spacing_um), []).append(volume)
    scales = {key: _scale(group) for key, group in groups.items() if len(group) > 1}
    shared = []
    for volume in volumes:
        scale = scales.get((volume.kidney, volume.spacing_um))
        if scale is not None:
            zero, step = volume.grey_meaning
            low, high = ((value - zero) / step for value in scale)
            volume = replace(volume, grey_low=low, grey_high=high)
        shared.append(volume)
    return tuple(shared)


def _scale(volumes: Sequence[Volume]) -> tuple[float, float]:
    samples = [_sample(volume) for volume in volumes]
    values = np.concatenate(samples)
    weights = np.concatenate([np.full(len(s), v.image.size / len(s)) for s, v in zip(samples, volumes, strict=True)])
    order = np.argsort(values, kind="stable")
    share = np.cumsum(weights[order]) / weights.sum()
    low, high = (values[order][np.searchsorted(share, p / 100)] for p in (LOW_PERCENTILE, HIGH_PERCENTILE))
    return float(low), float(high)


def _sample(volume: Volume) -> NDArray[np.float64]:
    """The source's values in some evenly spaced slices; reading only these is cheap even for a whole kidney."""
    slices = np.unique(np.linspace(0, len(volume.image) - 1, _SLICES).round().astype(int))
    voxels = np.asarray(volume.image[slices]).reshape(-1)
    zero, step = volume.grey_meaning
    values: NDArray[np.float64] = zero + step * voxels[:: max(1, len(voxels) // _VOXELS)].astype(np.float64)
    return values
