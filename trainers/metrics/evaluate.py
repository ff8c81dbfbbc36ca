"""Evaluate: read held-out kidneys and score them, at their own voxel size and at another."""

from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
from accelerate import Accelerator
from numpy.typing import NDArray

from trainers.data.resample import resample_volume
from trainers.data.volume import Volume
from trainers.inference.predict import predict
from trainers.inference.reader import InferenceConfig, Reader
from trainers.metrics.cross_fit import score
from trainers.metrics.score import Score, ScoreConfig
from trainers.metrics.second_score import second_score, why_no_second
from trainers.metrics.slabs import Predictions
from trainers.report import SILENT, Report

# Probabilities of a volume in steps of 1/255; if they do not fit into memory, they lie in the folder.
Read = Callable[[Volume, Path | None, Report], NDArray[np.uint8]]
# The score, and the size in voxels below which components were removed for it (None: none were).
Judge = Callable[[Predictions], tuple[Score, int | None]]


def read_all(
    read: Read, volumes: Sequence[Volume], scratch: Path | None = None, report: Report = SILENT
) -> Predictions:
    """Probabilities of every volume, each with its own folder in `scratch`."""
    predictions = {}
    for index, volume in enumerate(volumes):
        place = scratch / volume.name if scratch else None
        predictions[volume.name] = read(volume, place, report.part(index, len(volumes)))
    return predictions


def predict_all(
    reader: Reader,
    volumes: Sequence[Volume],
    config: InferenceConfig,
    accelerator: Accelerator,
    *,
    scratch: Path | None = None,
    report: Report = SILENT,
) -> Predictions:
    """Probabilities of every volume by one network; see `predict`."""
    return read_all(_by_network(reader, config, accelerator), volumes, scratch, report)


def evaluate(
    reader: Reader,
    volumes: Sequence[Volume],
    inference: InferenceConfig,
    config: ScoreConfig,
    accelerator: Accelerator,
    *,
    scratch: Path | None = None,
    report: Report = SILENT,
) -> tuple[Predictions, Score]:
    """Predict and score all held-out volumes, at their own voxel spacing and at the second one.

    Raises InputError if `score` and `predict` do.
    """
    smallest = inference.smallest_component
    predictions, result, _ = score_twice(
        _by_network(reader, inference, accelerator),
        lambda predictions: (score(predictions, volumes, config, smallest), smallest),
        volumes,
        config,
        why_no_second(reader, volumes, inference, config),
        scratch=scratch,
        report=report,
    )
    return predictions, result


def score_twice(
    read: Read,
    judge: Judge,
    volumes: Sequence[Volume],
    config: ScoreConfig,
    no_second: str | None,
    *,
    scratch: Path | None = None,
    report: Report = SILENT,
) -> tuple[Predictions, Score, int | None]:
    """Read the volumes and score them; if a second score is wanted, read them again at its voxel size.

    no_second: why a second score is impossible. Returns the probabilities at the volumes' own voxel size, and the
    result of `judge` for them with the second score added.
    """
    twice = config.second_um is not None and no_second is None
    predictions = read_all(read, volumes, scratch, report.part(0, 2) if twice else report)
    result, smallest = judge(predictions)
    if not twice:
        return predictions, result.model_copy(update={"no_second": no_second}), smallest
    place = scratch / "second" if scratch else None
    again = [resample_volume(v, config.second_um, place / f"{v.name}-scan" if place else None) for v in volumes]
    seconds = read_all(read, again, place, report.part(1, 2))
    second = second_score(seconds, again, result, config, smallest)
    return predictions, result.model_copy(update={"second": second}), smallest


def _by_network(reader: Reader, config: InferenceConfig, accelerator: Accelerator) -> Read:
    return lambda volume, scratch, report: predict(reader, volume, config, accelerator, scratch=scratch, report=report)
