"""Metric `recall`: made up by a test, as somebody would add a metric that looks at masks."""

from trainers.data.geometry import Spacing
from trainers.metrics.metric import Masks, Metric, by_masks, ratio


def _found_and_wanted(predicted: Masks, target: Masks, spacing_um: Spacing) -> tuple[float, float]:
    return float((predicted & target).sum()), float(target.sum())


RECALL = Metric(title="recall", parts=by_masks(_found_and_wanted), combine=lambda sums: ratio(sums[0], sums[1]))
