"""The second score: the held-out kidney resampled to another voxel size, at the thresholds of the first."""

from collections.abc import Sequence
from dataclasses import replace

import numpy as np

from search_spaces.errors import InputError
from trainers.data.resample import shape_at, volume_steps
from trainers.data.volume import Volume
from trainers.inference.predict import LEVELS, usable_axes
from trainers.inference.reader import InferenceConfig, Reader
from trainers.metrics.score import Score, ScoreConfig, SecondScore
from trainers.metrics.slabs import Predictions, cut_into_slabs, slab_starts
from trainers.metrics.table import METRICS


def why_no_second(
    reader: Reader, volumes: Sequence[Volume], inference: InferenceConfig, config: ScoreConfig
) -> str | None:
    """Why no second score is possible; None if one is possible or none is wanted. Known before any prediction."""
    if config.second_um is None:
        return None
    if unknown := [volume.name for volume in volumes if volume.spacing_um is None]:
        return f"the voxel spacing of {unknown[0]} is not stated"
    for volume in volumes:
        try:
            outline = _outline(volume, config.second_um)
            at_second = usable_axes(outline, inference.axes, reader.crop, reader.depth, reader.voxel_size_um)
        except InputError as error:
            return str(error)
        if outline.shape[0] // 2 < len(slab_starts(volume.shape[0], config.slabs)):
            return f"{volume.name} has only {outline.shape[0]} slices at {config.second_um:g} µm"
        if at_second != usable_axes(volume, inference.axes, reader.crop, reader.depth, reader.voxel_size_um):
            return f"{volume.name} would be read along other axes at {config.second_um:g} µm"
    if all(_outline(volume, config.second_um) is volume for volume in volumes):
        return f"the held-out kidney already has voxels of {config.second_um:g} µm"
    return None


def _outline(volume: Volume, wanted_um: float) -> Volume:
    """The result of `resample_volume`, without voxels. Raises InputError if that function does."""
    steps = volume_steps(volume, wanted_um)
    if steps == (1.0, 1.0, 1.0):
        return volume
    z, y, x = (edge * step for edge, step in zip(volume.edges, steps, strict=True))
    nothing = np.broadcast_to(np.uint16(0), shape_at(volume.shape, steps))
    return replace(volume, image=nothing, label=None, spacing_um=(z, y, x))


def second_score(
    predictions: Predictions,
    volumes: Sequence[Volume],
    first: Score,
    config: ScoreConfig,
    smallest_component: int | None = None,
) -> SecondScore:
    """The score of resampled volumes at the thresholds of the first score, each slab at that of its part of the kidney.

    Each volume is cut into as many slabs as before, and needs twice as many slices as slabs.
    """
    assert config.second_um is not None
    owners = [slab.volume for slab in first.slabs]
    slabs = cut_into_slabs(predictions, volumes, {name: owners.count(name) for name in owners})
    columns = np.rint(np.array([slab.threshold for slab in first.slabs]) * LEVELS).astype(np.int64) - 1
    cut = slabs.cut(columns, smallest_component)
    metrics = {name: METRICS[name] for name in config.names}
    return SecondScore(
        voxel_size_um=config.second_um,
        values={name: metric.value(metric.parts_of(cut)) for name, metric in metrics.items()},
    )
