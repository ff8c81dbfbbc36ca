"""Evaluate a network: predict kidneys it was not trained on and score them, at their own voxel size and another."""

from collections.abc import Callable, Sequence
from pathlib import Path

from accelerate import Accelerator

from trainers.data.resample import resample_volume
from trainers.data.volume import Volume
from trainers.inference import predict
from trainers.reader import InferenceConfig, Reader
from trainers.score import Predictions, Score, ScoreConfig, score
from trainers.second_score import second_score, why_no_second


def predict_all(
    reader: Reader,
    volumes: Sequence[Volume],
    config: InferenceConfig,
    accelerator: Accelerator,
    *,
    scratch: Path | None = None,
    on_progress: Callable[[int, int], None] | None = None,
) -> Predictions:
    """Probabilities of every volume; see `predict`."""
    predictions = {}
    for index, volume in enumerate(volumes):

        def report(done: int, total: int, index: int = index) -> None:
            if on_progress:
                on_progress(index * 1000 + done * 1000 // total, len(volumes) * 1000)

        place = scratch / volume.name if scratch else None
        predictions[volume.name] = predict(reader, volume, config, accelerator, scratch=place, on_progress=report)
    return predictions


def evaluate(
    reader: Reader,
    volumes: Sequence[Volume],
    inference: InferenceConfig,
    config: ScoreConfig,
    accelerator: Accelerator,
    *,
    scratch: Path | None = None,
    on_progress: Callable[[int, int], None] | None = None,
) -> tuple[Predictions, Score]:
    """Predict and score all held-out volumes, at their own voxel spacing and at the second one.

    Raises InputError where `score` and `predict` do.
    """
    why = why_no_second(reader, volumes, inference, config)
    twice = config.second_um is not None and why is None
    share = 0.5 if twice else 1.0

    def report(begin: float, part: float) -> Callable[[int, int], None]:
        return lambda done, of: on_progress(round(1000 * (begin + part * done / of)), 1000) if on_progress else None

    predictions = predict_all(reader, volumes, inference, accelerator, scratch=scratch, on_progress=report(0.0, share))
    result = score(predictions, volumes, config, inference.smallest_component)
    if not twice:
        return predictions, result.model_copy(update={"no_second": why})
    place = scratch / "second" if scratch else None
    again = [resample_volume(v, config.second_um, place / f"{v.name}-scan" if place else None) for v in volumes]
    seconds = predict_all(reader, again, inference, accelerator, scratch=place, on_progress=report(share, 1 - share))
    second = second_score(seconds, again, result, config, inference.smallest_component)
    return predictions, result.model_copy(update={"second": second})
