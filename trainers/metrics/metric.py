"""Metric: how well predicted masks agree with the target, made of parts that add up over slabs."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from trainers.data.volume import Spacing
from trainers.metrics.slabs import CutSlabs
from trainers.metrics.surface_curve import SlabIndex, SurfaceCurve

Parts = NDArray[np.float64]  # of one metric, (parts, slabs)
Masks = NDArray[np.bool_]


@dataclass(frozen=True)
class Metric:
    """A row of METRICS. More is better: 1.0 for equal masks, two empty ones too, and 0.0 for masks far apart.

    parts: what of each slab adds up over slabs and volumes, one array (slabs,) or more; `by_masks` makes them of masks
    alone. combine: sums of the parts, one array of any shape each, to values of that shape; it is asked for one sum and
    for thousands of them, drawn at random for an interval. at_thresholds: the values of chosen slabs together at all
    thresholds, (255,), where the curve tells them; None if it does not, and each threshold would be a mask.
    """

    title: str  # of a column, and inside a sentence
    parts: Callable[[CutSlabs], Sequence[NDArray[Any]]]
    combine: Callable[[NDArray[np.float64]], NDArray[np.float64]]
    at_thresholds: Callable[[SurfaceCurve, SlabIndex], NDArray[np.float64]] | None = None
    condition: str = ""  # what the title leaves open, as "at tolerance 0"

    def parts_of(self, cut: CutSlabs) -> Parts:
        """The parts of each slab, (parts, slabs)."""
        return np.array([*self.parts(cut)], np.float64)

    def value(self, parts: Parts, chosen: SlabIndex = slice(None)) -> float:
        """The value of the chosen slabs together."""
        return float(self.combine(np.array([part[chosen].sum() for part in parts])))

    def value_at(self, column: int, cut: CutSlabs) -> float:
        """The value of all slabs together at one threshold, by its column of the curve, which must be right there."""
        if self.at_thresholds is not None:
            return float(self.at_thresholds(cut.curve, slice(None))[column])
        return self.value(self.parts_of(cut.at_one_threshold(column)))


def by_masks(count: Callable[[Masks, Masks, Spacing], Sequence[float]]) -> Callable[[CutSlabs], list[Parts]]:
    """The parts of a metric that knows masks alone: those that `count(predicted, target, spacing_um)` gives of a slab.

    predicted, target: bool, (D, H, W), the slab's own slices; `SlabMasks` says what lies beyond them. A metric that
    looks at neighbouring voxels has to see beyond them, so it takes `CutSlabs.masks` with a margin instead.
    """

    def parts(cut: CutSlabs) -> list[Parts]:
        found = {slab.number: count(slab.predicted, slab.target, slab.spacing_um) for slab in cut.masks()}
        return list(np.array([found[number] for number in sorted(found)], np.float64).T)

    return parts


def ratio(numerator: NDArray[np.float64], denominator: NDArray[np.float64]) -> NDArray[np.float64]:
    """Their quotient; 1.0 where the denominator is 0: there is nothing to find, and nothing was found."""
    numerator, denominator = np.asarray(numerator, np.float64), np.asarray(denominator, np.float64)
    return np.divide(numerator, denominator, out=np.ones_like(denominator), where=denominator > 0)
