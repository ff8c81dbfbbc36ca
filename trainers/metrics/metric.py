"""Metric: how well predicted masks agree with the target, made of parts that add up over slabs."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from trainers.data.geometry import Spacing
from trainers.metrics.slabs import CutSlabs
from trainers.metrics.surface_curve import SlabIndex, SurfaceCurve

Parts = NDArray[np.float64]  # the parts of one metric, (parts, slabs)
Masks = NDArray[np.bool_]


@dataclass(frozen=True)
class Metric:
    """A row of METRICS. Higher is better: 1.0 for equal masks, including two empty ones, and 0.0 for masks far apart.

    parts: the quantities of each slab that add up over slabs and volumes, one or more arrays (slabs,); `by_masks`
    computes them from masks alone. combine: turns sums of the parts, one array of any shape for each, into values of
    that shape; it is called for a single sum, and for thousands of random ones for an interval. at_thresholds: the
    values of the chosen slabs together at all thresholds, (255,), if they follow from the curve; None if each threshold
    would need a mask.
    """

    title: str  # name in the heading of a column, and inside a sentence
    parts: Callable[[CutSlabs], Sequence[NDArray[Any]]]
    combine: Callable[[NDArray[np.float64]], NDArray[np.float64]]
    at_thresholds: Callable[[SurfaceCurve, SlabIndex], NDArray[np.float64]] | None = None
    condition: str = ""  # a detail that the title leaves open, such as "at tolerance 0"

    def parts_of(self, cut: CutSlabs) -> Parts:
        """The parts of each slab, (parts, slabs)."""
        return np.array([*self.parts(cut)], np.float64)

    def value(self, parts: Parts, chosen: SlabIndex = slice(None)) -> float:
        """The value of the chosen slabs together."""
        return float(self.combine(np.array([part[chosen].sum() for part in parts])))

    def value_at(self, column: int, cut: CutSlabs) -> float:
        """The value of all slabs together at one threshold, given as a column where the curve must be exact."""
        if self.at_thresholds is not None:
            return float(self.at_thresholds(cut.curve, slice(None))[column])
        return self.value(self.parts_of(cut.at_one_threshold(column)))


def by_masks(count: Callable[[Masks, Masks, Spacing], Sequence[float]]) -> Callable[[CutSlabs], list[Parts]]:
    """The parts of a metric that only needs masks: what `count(predicted, target, spacing_um)` gives for each slab.

    predicted, target: bool, (D, H, W), the slab's own slices; `SlabMasks` says what lies beyond them. A metric that
    depends on neighbouring voxels needs slices beyond them, so it uses `CutSlabs.masks` with a margin instead.
    """

    def parts(cut: CutSlabs) -> list[Parts]:
        found = {slab.number: count(slab.predicted, slab.target, slab.spacing_um) for slab in cut.masks()}
        return list(np.array([found[number] for number in sorted(found)], np.float64).T)

    return parts


def ratio(numerator: NDArray[np.float64], denominator: NDArray[np.float64]) -> NDArray[np.float64]:
    """Their quotient; 1.0 where the denominator is 0, because there was nothing to find and nothing was found."""
    numerator, denominator = np.asarray(numerator, np.float64), np.asarray(denominator, np.float64)
    return np.divide(numerator, denominator, out=np.ones_like(denominator), where=denominator > 0)
