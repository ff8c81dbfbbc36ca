"""METRICS: every metric by its name; a row here is a column of the leaderboard, and can rank it."""

from trainers.metrics.metric import Metric
from trainers.metrics.surface_dice import SURFACE_DICE
from trainers.metrics.voxel_dice import VOXEL_DICE

METRICS: dict[str, Metric] = {
    "surface_dice": SURFACE_DICE,
    "voxel_dice": VOXEL_DICE,
}

USUAL = "surface_dice"  # ranks by default, and chooses thresholds if the ranking metric cannot


def title_of(name: str) -> str:
    """The title that people read instead of a metric's name; the name itself if it is no longer in METRICS."""
    return METRICS[name].title if name in METRICS else name


def chooser_of(name: str) -> str:
    """The metric that chooses thresholds if `name` ranks: `name` itself if it has a value at every threshold."""
    return name if METRICS[name].at_thresholds is not None else USUAL


def protocol_of(name: str) -> str:
    """How the ranking metric is measured, as text for people."""
    chooser = chooser_of(name)
    by = "" if chooser == name else f" by {title_of(chooser)}"
    return f"{' '.join(filter(None, (title_of(name), METRICS[name].condition)))}, threshold cross-fitted over slabs{by}"
