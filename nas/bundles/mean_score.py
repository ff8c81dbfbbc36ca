"""Score of an ensemble's mean on the held-out kidney, by the protocol that its members are scored by."""

from collections.abc import Sequence
from pathlib import Path

from nas.bundles.predictor import Predictor
from trainers.data.volume import Volume
from trainers.metrics.cross_fit import choose, try_reading
from trainers.metrics.evaluate import OnProgress, score_twice
from trainers.metrics.score import Score
from trainers.metrics.second_score import why_no_second
from trainers.metrics.slabs import Predictions, cut_into_slabs


def score_mean(
    predictor: Predictor, volumes: Sequence[Volume], device: str, scratch: Path, on_progress: OnProgress
) -> tuple[Score, int | None]:
    """The score of the mean, its threshold in it, and the size in voxels below which components go (None: none go).

    That size is one of the members' own. Where these differ it is chosen by cross-fitting, as thresholds are, and the
    second score takes the one that all slabs chose. Raises InputError where `cut_into_slabs` and `predict` do.
    """
    config = predictor.score_config
    sizes = {bundle.architecture.inference.smallest_component for bundle in predictor.members}
    ordered = sorted(sizes, key=lambda size: size or 0)
    reasons = (why_no_second(b.reader, volumes, b.architecture.inference, config) for b in predictor.members)

    def judge(predictions: Predictions) -> tuple[Score, int | None]:
        slabs = cut_into_slabs(predictions, volumes, config.slabs)
        best, result = choose([try_reading(slabs, config, size) for size in ordered], config)
        return result, ordered[best]

    no_second = next((reason for reason in reasons if reason), None)
    _, result, smallest = score_twice(
        lambda volume, place, report: predictor.predict(volume, device, place, report),
        judge,
        volumes,
        config,
        no_second,
        scratch=scratch,
        on_progress=on_progress,
    )
    return result, smallest
