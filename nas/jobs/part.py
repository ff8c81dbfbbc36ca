"""The part of the held-out kidney that is scored at rungs, and what it says about the time of a whole score."""

import math
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from accelerate import Accelerator

from trainers.data.volume import Volume, middle_part
from trainers.inference.reader import InferenceConfig, Reader
from trainers.metrics.cross_fit import score
from trainers.metrics.evaluate import predict_all
from trainers.metrics.score import ScoreConfig
from trainers.report import SILENT, Report


@dataclass(frozen=True)
class Part:
    """The slices in the middle of every held-out volume, and how they are read (along `rung_axes`) and scored."""

    reader: Reader
    held_out: Sequence[Volume]
    inference: InferenceConfig
    config: ScoreConfig
    accelerator: Accelerator
    scratch: Path
    report: Report = SILENT

    def score(self) -> float:
        """What ranks."""
        parts = [middle_part(volume, self.config.rung_slices) for volume in self.held_out]
        reading = self.inference.model_copy(update={"axes": self.config.rung_axes})
        predictions = predict_all(
            self.reader, parts, reading, self.accelerator, scratch=self.scratch, report=self.report
        )
        return score(predictions, parts, self.config.ranking_alone()).value

    def seconds_to_score(self) -> tuple[float, float]:
        """Seconds to score it, measured, and the whole, estimated from its voxels, axes and voxel sizes; 0 for none.

        The second of two readings is measured: the first one warms up.
        """
        held_out, config = self.held_out, self.config
        if not held_out:
            return 0.0, 0.0
        for _ in range(2):
            began = time.monotonic()
            self.score()
        part = time.monotonic() - began
        read = sum(middle_part(volume, config.rung_slices).image.size for volume in held_out)
        whole = sum(volume.image.size * (1 + _second_share(volume, config.second_um)) for volume in held_out)
        return part, part * whole / read * len(self.inference.axes) / len(config.rung_axes)


def _second_share(volume: Volume, second_um: float | None) -> float:
    """Voxels that are read again for the second score, for each voxel of the volume."""
    if second_um is None or volume.spacing_um is None:
        return 0.0
    return math.prod(volume.spacing_um) / second_um**3
