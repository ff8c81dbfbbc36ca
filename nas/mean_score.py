"""Score of an ensemble's mean on the held-out kidney, by the protocol that its members are scored by."""

from collections.abc import Callable, Sequence
from pathlib import Path

from nas.ensemble import Predictor
from trainers.choice import choose, try_reading
from trainers.data.resample import resample_volume
from trainers.data.volume import Volume
from trainers.score import Predictions, Score, pooled_curve
from trainers.second_score import second_score, why_no_second

OnShare = Callable[[float], None]  # 0.0 to 1.0 of what is being done


def score_mean(
    predictor: Predictor, volumes: Sequence[Volume], device: str, scratch: Path, on_share: OnShare
) -> tuple[Score, int | None]:
    """The score of the mean, its threshold in it, and the size in voxels below which components go (None: none go).

    That size is one of the members' own. Where these differ it is chosen by cross-fitting, as thresholds are, and the
    second score takes the one that all slabs chose. Raises InputError where `pooled_curve` and `predict` do.
    """
    config = predictor.score_config
    reasons = (why_no_second(b.reader, volumes, b.architecture.inference, config) for b in predictor.members)
    why = next((reason for reason in reasons if reason), None)
    twice = config.second_um is not None and why is None
    share = 0.5 if twice else 1.0
    predictions = _predict_all(predictor, volumes, device, scratch / "first", lambda done: on_share(share * done))
    curve = pooled_curve(predictions, volumes, config)
    sizes = {bundle.architecture.inference.smallest_component for bundle in predictor.members}
    ordered = sorted(sizes, key=lambda size: size or 0)
    best, result = choose([try_reading(curve, predictions, volumes, config, s) for s in ordered], volumes, config)
    if not twice:
        return result.model_copy(update={"no_second": why}), ordered[best]
    place = scratch / "second"
    again = [resample_volume(v, config.second_um, place / f"{v.name}-scan") for v in volumes]
    seconds = _predict_all(predictor, again, device, place, lambda done: on_share(share + (1 - share) * done))
    second = second_score(seconds, again, result, config, ordered[best])
    return result.model_copy(update={"second": second}), ordered[best]


def _predict_all(
    predictor: Predictor, volumes: Sequence[Volume], device: str, scratch: Path, on_share: OnShare
) -> Predictions:
    """Mean probabilities of every volume, in files below `scratch`."""
    predictions = {}
    for index, volume in enumerate(volumes):

        def report(done: int, total: int, index: int = index) -> None:
            on_share((index + done / total) / len(volumes))

        predictions[volume.name] = predictor.predict(volume, device, scratch / volume.name, report)
    return predictions
