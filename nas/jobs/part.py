"""The part of the held-out kidney that is scored at rungs, and what it says about the time of a whole score."""

import math
import time
from collections.abc import Sequence
from pathlib import Path

from accelerate import Accelerator

from trainers.data.volume import Volume, middle_part
from trainers.inference.reader import InferenceConfig, Reader
from trainers.metrics.cross_fit import score
from trainers.metrics.evaluate import predict_all
from trainers.metrics.score import ScoreConfig
from trainers.report import SILENT, Report


def score_part(
    reader: Reader,
    held_out: Sequence[Volume],
    inference: InferenceConfig,
    config: ScoreConfig,
    accelerator: Accelerator,
    *,
    scratch: Path | None = None,
    report: Report = SILENT,
) -> float:
    """What ranks, on the slices in the middle of every volume, read along the axes for rungs."""
    parts = [middle_part(volume, config.rung_slices) for volume in held_out]
    reading = inference.model_copy(update={"axes": config.rung_axes})
    predictions = predict_all(reader, parts, reading, accelerator, scratch=scratch, report=report)
    return score(predictions, parts, config.ranking_alone()).value


def seconds_to_score(
    reader: Reader,
    held_out: Sequence[Volume],
    inference: InferenceConfig,
    config: ScoreConfig,
    accelerator: Accelerator,
    *,
    scratch: Path | None = None,
    report: Report = SILENT,
) -> tuple[float, float]:
    """Seconds to score the part, measured, and the whole, estimated from its voxels, axes and voxel sizes; 0 for none.

    The second of two readings is measured: the first one warms up.
    """
    if not held_out:
        return 0.0, 0.0
    for _ in range(2):
        began = time.monotonic()
        score_part(reader, held_out, inference, config, accelerator, scratch=scratch, report=report)
    part = time.monotonic() - began
    read = sum(middle_part(volume, config.rung_slices).image.size for volume in held_out)
    whole = sum(volume.image.size * (1 + _second_share(volume, config.second_um)) for volume in held_out)
    return part, part * whole / read * len(inference.axes) / len(config.rung_axes)


def _second_share(volume: Volume, second_um: float | None) -> float:
    """Voxels that are read again for the second score, for each voxel of the volume."""
    if second_um is None or volume.spacing_um is None:
        return 0.0
    return math.prod(volume.spacing_um) / second_um**3
