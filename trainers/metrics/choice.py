"""Choosing among ways to read a volume by cross-fitting: each half of the slabs chooses for the other."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from trainers.data.volume import Volume
from trainers.metrics.score import Predictions, Score, ScoreConfig, best_column, slab_owners, summarise, without_small
from trainers.metrics.surface_curve import SurfaceCurve


@dataclass(frozen=True)
class Tried:
    """What one way to read reached on every slab, at the thresholds that each half and both together chose."""

    curve: SurfaceCurve  # right at the three columns, where components were removed
    mean: float  # surface dice over all thresholds, before components are removed
    by_even: int  # column that the even slabs chose
    by_odd: int
    by_all: int

    @property
    def surface_dice(self) -> float:
        """Cross-fitted over slabs, had this way been the only one."""
        even = _even(self.curve.slabs)
        overlap = self.curve.overlap[even, self.by_odd].sum() + self.curve.overlap[~even, self.by_even].sum()
        total = self.curve.total[even, self.by_odd].sum() + self.curve.total[~even, self.by_even].sum()
        return float(overlap / total) if total else 1.0


def try_reading(
    curve: SurfaceCurve,
    predictions: Predictions,
    volumes: Sequence[Volume],
    config: ScoreConfig,
    smallest_component: int | None,
) -> Tried:
    """Predictions with their pooled curve, and components below a size removed; one slab of two or more."""
    even = _even(curve.slabs)
    columns = best_column(curve, even), best_column(curve, ~even), best_column(curve, np.ones(curve.slabs, bool))
    cleaned = without_small(curve, columns, predictions, volumes, config, smallest_component)
    return Tried(cleaned, float(curve.surface_dice().mean()), *columns)


def choose(tried: Sequence[Tried], volumes: Sequence[Volume], config: ScoreConfig) -> tuple[int, Score]:
    """Index of the way that all slabs together choose, for new kidneys, and the score of choosing.

    In the score each slab is read in the way, and cut at the threshold, that the other half of the slabs chose, so it
    does not profit from the number of ways that were tried. Among equals the first is chosen: the cheapest, if they
    come in that order.
    """
    even = _even(tried[0].curve.slabs)
    for_odd = int(np.argmax([t.curve.surface_dice(even)[t.by_even] for t in tried]))
    for_even = int(np.argmax([t.curve.surface_dice(~even)[t.by_odd] for t in tried]))
    last = int(np.argmax([t.curve.surface_dice()[t.by_all] for t in tried]))
    chosen = np.where(even, tried[for_even].by_odd, tried[for_odd].by_even)
    mixed = _mixed(tried[for_even].curve, tried[for_odd].curve, even)
    best = tried[last]
    result = summarise(mixed, chosen, best.by_all, best.mean, slab_owners(volumes, config), config)
    return last, result.model_copy(update={"best_surface_dice": float(best.curve.surface_dice()[best.by_all])})


def _mixed(first: SurfaceCurve, second: SurfaceCurve, from_first: NDArray[np.bool_]) -> SurfaceCurve:
    """Some slabs of one curve, the others of another."""
    half = from_first[:, None]
    return SurfaceCurve(
        np.where(half, first.overlap, second.overlap),
        np.where(half, first.total, second.total),
        np.where(half, first.true_positives, second.true_positives),
        np.where(half, first.predicted_voxels, second.predicted_voxels),
        first.target_voxels,
    )


def _even(slabs: int) -> NDArray[np.bool_]:
    even: NDArray[np.bool_] = np.arange(slabs) % 2 == 0
    return even
