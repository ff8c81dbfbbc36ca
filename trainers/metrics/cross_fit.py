"""Cross-fitting: each half of the slabs chooses the threshold, and the way of reading, for the other half.

So no threshold is tuned on the voxels that it is scored on, and trying more ways of reading does not raise a score by
chance. The ranking metric makes the choice if it has a value at every threshold (as surface dice and voxel dice do);
otherwise surface dice does.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from trainers.data.volume import Volume
from trainers.inference.predict import LEVELS
from trainers.metrics.metric import Parts
from trainers.metrics.score import Score, ScoreConfig, Slab, VolumeScore
from trainers.metrics.slabs import CutSlabs, Predictions, Slabs, check_slabs, cut_into_slabs
from trainers.metrics.table import METRICS, chooser_of


@dataclass(frozen=True)
class Tried:
    """The results of one way of reading on every slab, at the thresholds chosen by each half and by both together."""

    owners: list[str]  # the volume of each slab
    even: float  # value of the choosing metric on the even slabs, at the threshold that they chose
    odd: float
    both: float
    columns: NDArray[np.int64]  # (slabs,), column of the threshold that the other half chose for each slab
    column: int  # column of the threshold that all slabs chose
    parts: dict[str, Parts]  # by metric, at `columns`
    value: float  # cross-fitted value of the ranking metric if this were the only way
    best: float  # value of the ranking metric with all slabs at `column`
    mean: float | None  # mean of the ranking metric over all thresholds, before components are removed


def score(
    predictions: Predictions, volumes: Sequence[Volume], config: ScoreConfig, smallest_component: int | None = None
) -> Score:
    """Score of the predictions for all held-out volumes together; labels must exist.

    Slabs are numbered across all volumes; the even ones choose the threshold for the odd ones and vice versa. The parts
    of each metric are summed, so a slab counts in proportion to its surface or its voxels.
    smallest_component: it does not affect the choice of thresholds; smaller components are then removed from the masks
    at those thresholds, and these masks are scored. `mean_over_thresholds` is computed before the removal.
    Raises InputError if a volume has no labels, and for fewer than two slabs (four slices).
    """
    check_slabs(volumes, config.slabs)
    return score_slabs(cut_into_slabs(predictions, volumes, config.slabs), config, smallest_component)


def score_slabs(slabs: Slabs, config: ScoreConfig, smallest_component: int | None = None) -> Score:
    """`score` for predictions that are already cut into two or more slabs."""
    return choose([try_reading(slabs, config, smallest_component)], config)[1]


def try_reading(slabs: Slabs, config: ScoreConfig, smallest_component: int | None) -> Tried:
    """Evaluate one way of reading: its slabs, two or more, and the size below which components are removed."""
    curve, ranks = slabs.curve, METRICS[config.rank_by]
    at_thresholds = METRICS[chooser_of(config.rank_by)].at_thresholds
    assert at_thresholds is not None
    every = np.ones(curve.slabs, bool)
    even = _even(curve.slabs)
    by_even, by_odd, by_all = (_best_column(at_thresholds(curve, half)) for half in (even, ~even, every))
    cleaned = slabs.curve_without((by_even, by_odd, by_all), smallest_component)
    columns = np.where(even, by_odd, by_even)
    cut = CutSlabs(slabs, columns, cleaned, smallest_component)
    parts = {name: METRICS[name].parts_of(cut) for name in config.names}
    return Tried(
        owners=slabs.owners,
        even=float(at_thresholds(cleaned, even)[by_even]),
        odd=float(at_thresholds(cleaned, ~even)[by_odd]),
        both=float(at_thresholds(cleaned, every)[by_all]),
        columns=columns,
        column=by_all,
        parts=parts,
        value=ranks.value(parts[config.rank_by]),
        best=ranks.value_at(by_all, cut),
        mean=None if ranks.at_thresholds is None else float(ranks.at_thresholds(curve, every).mean()),
    )


def choose(tried: Sequence[Tried], config: ScoreConfig) -> tuple[int, Score]:
    """Index of the way of reading that all slabs together choose, for new kidneys, and the score of choosing so.

    In the score each slab is read in the way, and cut at the threshold, that the other half of the slabs chose. In a
    tie the first way is chosen, which is the cheapest if they are ordered by cost.
    """
    for_odd, for_even, last = (
        int(np.argmax(reached))
        for reached in ([t.even for t in tried], [t.odd for t in tried], [t.both for t in tried])
    )
    even = _even(len(tried[0].owners))
    parts = {name: np.where(even, tried[for_even].parts[name], tried[for_odd].parts[name]) for name in config.names}
    columns = np.where(even, tried[for_even].columns, tried[for_odd].columns)
    return last, _score(parts, columns, tried[last], config)


def mask_values(slabs: Slabs, config: ScoreConfig, level: int, smallest_component: int | None) -> dict[str, float]:
    """Every metric for the masks `probabilities >= level` without smaller components, all volumes together."""
    cut = slabs.cut(np.full(len(slabs.owners), level - 1), smallest_component)
    return {name: METRICS[name].value_at(level - 1, cut) for name in config.names}


def bootstrap_interval(
    parts: Parts, combine: Callable[[NDArray[np.float64]], NDArray[np.float64]], resamples: int, seed: int = 0
) -> tuple[float, float]:
    """95 % bootstrap percentile interval of a metric, from slabs resampled with replacement.

    It says how much the score depends on which part of this kidney was scored. A single kidney cannot show how much
    kidneys differ.
    """
    slabs = parts.shape[1]
    draws = np.random.default_rng(seed).integers(0, slabs, (resamples, slabs))
    values = combine(np.array([part[draws].sum(axis=1) for part in parts]))
    low, high = np.quantile(values, [0.025, 0.975])
    return float(low), float(high)


def _score(parts: dict[str, Parts], columns: NDArray[np.int64], last: Tried, config: ScoreConfig) -> Score:
    """The score of slabs, each at its chosen column; its values for new kidneys come from `last`."""
    low, high = bootstrap_interval(parts[config.rank_by], METRICS[config.rank_by].combine, config.resamples)
    owners = np.array(last.owners)
    return Score(
        rank_by=config.rank_by,
        values=_values(parts, np.ones(len(owners), bool)),
        ci_low=low,
        ci_high=high,
        threshold=(last.column + 1) / LEVELS,
        best=last.best,
        mean_over_thresholds=last.mean,
        volumes=tuple(
            VolumeScore(volume=name, values=_values(parts, owners == name)) for name in dict.fromkeys(last.owners)
        ),
        slabs=tuple(
            Slab(
                volume=name,
                threshold=float(columns[index] + 1) / LEVELS,
                parts={metric: tuple(found[:, index].tolist()) for metric, found in parts.items()},
            )
            for index, name in enumerate(last.owners)
        ),
    )


def _values(parts: dict[str, Parts], slabs: NDArray[np.bool_]) -> dict[str, float]:
    return {name: METRICS[name].value(found, slabs) for name, found in parts.items()}


def _best_column(values: NDArray[np.float64]) -> int:
    """Column of the threshold with the highest value; in a tie, the middle one.

    Ties are common if a network is nearly certain; the middle one is the least arbitrary choice.
    """
    best = np.flatnonzero(values == values.max())
    return int(best[len(best) // 2])


def _even(slabs: int) -> NDArray[np.bool_]:
    even: NDArray[np.bool_] = np.arange(slabs) % 2 == 0
    return even
