"""METRICS: every metric by its name; a row here is a column of the leaderboard, and can rank it."""

from trainers.metrics.metric import Metric
from trainers.metrics.surface_dice import SURFACE_DICE
from trainers.metrics.voxel_dice import VOXEL_DICE

METRICS: dict[str, Metric] = {
    "surface_dice": SURFACE_DICE,
    "voxel_dice": VOXEL_DICE,
}

USUAL = "surface_dice"  # ranks where nothing else is asked for, and chooses thresholds where the one that ranks cannot


def title_of(name: str) -> str:
    """What people read instead of a metric's name; the name itself for one that is in METRICS no more."""
    return METRICS[name].title if name in METRICS else name


def chooser_of(name: str) -> str:
    """The metric that chooses thresholds where another ranks: that one, if it has a value at all of them."""
    return name if METRICS[name].at_thresholds is not None else USUAL


def protocol_of(name: str) -> str:
    """How the metric that ranks is measured, for people."""
    chooser = chooser_of(name)
    by = "" if chooser == name else f" by {title_of(chooser)}"
    return f"{' '.join(filter(None, (title_of(name), METRICS[name].condition)))}, threshold cross-fitted over slabs{by}"
