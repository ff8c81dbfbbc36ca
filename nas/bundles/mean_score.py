"""The score of an ensemble's mean on the held-out kidney, by the protocol of its members."""

from collections.abc import Sequence
from pathlib import Path

from nas.bundles.predictor import Predictor
from results.bundles.reading import Reading
from trainers.data.volume import Volume
from trainers.metrics.cross_fit import choose, try_reading
from trainers.metrics.evaluate import score_twice
from trainers.metrics.score import Score
from trainers.metrics.second_score import why_no_second
from trainers.metrics.slabs import Predictions, cut_into_slabs
from trainers.report import SILENT, Report


def score_mean(
    predictor: Predictor, volumes: Sequence[Volume], device: str, scratch: Path, report: Report = SILENT
) -> Reading:
    """The predictor's reading with the score of the mean, its threshold, and the smallest component that is kept.

    That size is one of the members' own. If these differ, it is chosen by cross-fitting, as thresholds are, and the
    second score uses the size that all slabs chose. Raises InputError when `cut_into_slabs` or `predict` does.
    """
    predictor.check_scored_alike()
    config = predictor.reading.score_config
    inferences = [bundle.architecture.reading.inference for bundle in predictor.members]
    sizes = sorted({one.smallest_component for one in inferences}, key=lambda size: size or 0)
    pairs = zip(predictor.members, inferences, strict=True)
    reasons = (why_no_second(bundle.reader, volumes, inference, config) for bundle, inference in pairs)

    def judge(predictions: Predictions) -> tuple[Score, int | None]:
        slabs = cut_into_slabs(predictions, volumes, config.slabs)
        best, result = choose([try_reading(slabs, config, size) for size in sizes], config)
        return result, sizes[best]

    _, result, smallest = score_twice(
        lambda volume, place, part: predictor.predict(volume, device, place, part),
        judge,
        volumes,
        config,
        next((reason for reason in reasons if reason), None),
        scratch=scratch,
        report=report,
    )
    inference = predictor.reading.inference.model_copy(update={"smallest_component": smallest})
    return predictor.reading.model_copy(update={"inference": inference, "threshold": result.threshold, "score": result})
