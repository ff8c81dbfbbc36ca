"""Agreement: does the order of designs at a rung say what their order at the end is, as well as a second seed does?

And did the supernet order the networks that were made of its cells as their own trainings do?

Only designs that were trained to their end have both scores. Most were promoted because they scored well at the rung,
which leaves out the easy comparisons, so among all designs of a search the agreement is higher than what is found here.
"""

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray
from pydantic import BaseModel, PositiveFloat, PositiveInt
from scipy.stats import kendalltau, spearmanr

LEAST_DESIGNS = 5  # fewer have too few orders
COST_CLASSES = 3
RESAMPLES = 500

Pair = tuple[float, float, float]  # two scores of a design, and what one of its steps costs


class Agreement(BaseModel, frozen=True, extra="forbid"):
    """How well two scores of the same designs agree on their order."""

    share: PositiveFloat | None  # of the steps after which the first score was taken; None: by another seed
    supernet: bool = False  # whether it is, instead, what the supernet made of their cells
    designs: PositiveInt
    spearman: float
    spearman_low: float  # 95 % bootstrap interval over designs
    spearman_high: float
    kendall: float
    within_cost: float | None  # mean Spearman within classes of designs whose steps cost about the same

    @property
    def text(self) -> str:
        """The rank correlation with its interval, for people."""
        return f"{self.spearman:.2f} ({self.spearman_low:.2f} to {self.spearman_high:.2f})"


def sentence(found: Sequence[Agreement]) -> str:
    """The last rung before the end, what two seeds say, and the supernets, in plain words; empty without any."""
    shared = " ".join(
        f"The supernets ordered their {a.designs} genotypes as the first scores of the networks made of them do, with "
        f"a rank correlation of {a.text} within each supernet."
        for a in found
        if a.supernet
    )
    return " ".join(part for part in (_of_rungs([a for a in found if not a.supernet]), shared) if part)


def _of_rungs(found: Sequence[Agreement]) -> str:
    rungs, seeds = [a for a in found if a.share], [a for a in found if a.share is None]
    if not rungs:
        return ""
    last = rungs[-1]
    text = (
        f"At {100 * (last.share or 0):.0f} % of the steps, {last.designs} designs were ordered as at the end with a "
        f"rank correlation of {last.text}"
    )
    if not seeds:
        return f"{text}; too few were trained with two seeds to say what could be reached."
    verb = "as well as" if last.spearman >= seeds[0].spearman_low else "worse than"
    return f"{text}, {verb} two seeds of the same designs agree with each other: {seeds[0].text}."


def agreement(share: float | None, rows: Sequence[Pair], supernet: bool = False) -> Agreement | None:
    """How well the two scores of some designs agree; None for too few, or if one of the scores does not differ."""
    if len(rows) < LEAST_DESIGNS:
        return None
    first, second, cost = np.array(rows).T
    if len(set(first)) == 1 or len(set(second)) == 1:
        return None
    drawn = np.random.default_rng(0).integers(0, len(rows), (RESAMPLES, len(rows)))
    draws = [_spearman(first[d], second[d]) for d in drawn if len(set(d)) > 2]
    low, high = np.nanquantile(draws, [0.025, 0.975])
    return Agreement(
        share=share,
        supernet=supernet,
        designs=len(rows),
        spearman=_spearman(first, second),
        spearman_low=float(low),
        spearman_high=float(high),
        kendall=float(kendalltau(first, second).statistic),
        within_cost=_within(first, second, cost),
    )


def _spearman(first: NDArray[np.float64], second: NDArray[np.float64]) -> float:
    """NaN if all values of a side are equal."""
    if len(set(first)) == 1 or len(set(second)) == 1:
        return float("nan")
    return float(spearmanr(first, second).statistic)


def _within(first: NDArray[np.float64], second: NDArray[np.float64], cost: NDArray[np.float64]) -> float | None:
    if len(first) < COST_CLASSES * LEAST_DESIGNS:
        return None
    classes = np.array_split(np.argsort(cost, kind="stable"), COST_CLASSES)
    return float(np.nanmean([_spearman(first[own], second[own]) for own in classes]))
