"""Ranking: records by one metric on the held-out kidney, with intervals and ties."""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache

import numpy as np
from numpy.typing import NDArray

from results.leaderboard.leaderboard import Leaderboard, Row
from results.record import Record, start_of
from search_spaces.errors import InputError
from trainers.metrics.score import Score, ScoreConfig
from trainers.metrics.table import METRICS, protocol_of, title_of

RESAMPLES = 2_000


@dataclass(frozen=True)
class _Design:
    """The complete trainings of one candidate and recipe."""

    records: list[Record]

    @property
    def scores(self) -> list[Score]:
        return [r.outcome.score for r in self.records if r.outcome.score is not None]

    @property
    def mean(self) -> float:
        return float(np.mean([s.value for s in self.scores]))


def rank(records: Sequence[Record], study: str, held_out: str, config: ScoreConfig) -> Leaderboard:
    """Rank the records; those that are not complete follow unranked, in order of their trials.

    config: how all of them were scored. A candidate trained with several seeds counts by its mean. Its interval is a
    bootstrap over the held-out kidney's slabs and its seeds. A row is tied with the best if a paired bootstrap over
    the same slabs does not tell them apart, or if their difference is within two standard errors of the spread between
    seeds. Raises InputError for a record that was ranked by another metric.
    """
    complete: dict[int, list[Record]] = {}
    for record in records:
        if record.outcome.state == "complete" and record.outcome.score is not None:
            _check_ranked_by(config.rank_by, record.job.trial, record.outcome.score)
            complete.setdefault(record.job.design, []).append(record)
    designs = sorted((_Design(group) for group in complete.values()), key=lambda d: (-d.mean, d.records[0].job.trial))
    deviation = seed_deviation([d.scores for d in designs])
    rows = _rows(designs, deviation, config) if designs else []
    rest = [r for r in records if r.outcome.state != "complete"]
    return Leaderboard(
        study=study,
        held_out=held_out,
        metric=protocol_of(config.rank_by),
        rank_by=config.rank_by,
        titles={name: title_of(name) for name in config.names},
        best=rows[0].trial if rows else None,
        seed_deviation=deviation,
        rows=(*rows, *(_unranked(r) for r in sorted(rest, key=lambda r: r.job.trial))),
        second_um=next((s.second.voxel_size_um for d in designs for s in d.scores if s.second), None),
    )


def _check_ranked_by(metric: str, trial: int, score: Score) -> None:
    if score.rank_by != metric:
        raise InputError(
            f"trial {trial} was ranked by {score.rank_by}, but score.rank_by is {metric}; set it to {score.rank_by}"
        )


def seed_deviation(designs: Sequence[Sequence[Score]]) -> float | None:
    """Pooled standard deviation between trainings that differ only in their seed; None without any such pair."""
    squares, degrees = 0.0, 0
    for scores in designs:
        values = np.array([s.value for s in scores])
        squares += float(((values - values.mean()) ** 2).sum())
        degrees += len(values) - 1
    return float(np.sqrt(squares / degrees)) if degrees else None


def _rows(designs: Sequence[_Design], deviation: float | None, config: ScoreConfig) -> list[Row]:
    """The rows of the designs, the best first."""
    draws = np.stack([_draws(design.scores, config.rank_by) for design in designs])
    low, high = np.quantile(draws, [0.025, 0.975], axis=1)
    surely_behind = np.quantile(draws[0] - draws, 0.025, axis=1)  # the best by at least this much
    return [
        _row(
            design,
            index + 1,
            (low[index], high[index]),
            _tied(designs[0], design, surely_behind[index], deviation),
            config.names,
        )
        for index, design in enumerate(designs)
    ]


def _draws(scores: Sequence[Score], metric: str) -> NDArray[np.float64]:
    """Bootstrap draws of a metric's mean over slabs and seeds, (RESAMPLES,).

    The same slabs are drawn for every design (one seed of the generator), so that differences are paired.
    """
    parts = np.array([[slab.parts[metric] for slab in s.slabs] for s in scores])  # (scores, slabs, parts)
    times = _times_drawn(parts.shape[1])
    sums = [times @ np.ascontiguousarray(part).T for part in np.moveaxis(parts, 2, 0)]
    values = METRICS[metric].combine(np.array(sums))
    if len(scores) == 1:
        return values[:, 0]
    seeds = np.random.default_rng(1).integers(0, len(scores), (RESAMPLES, len(scores)))
    mean: NDArray[np.float64] = np.take_along_axis(values, seeds, axis=1).mean(axis=1)
    return mean


@lru_cache
def _times_drawn(slabs: int) -> NDArray[np.float64]:
    """How often each slab is in each draw, (RESAMPLES, slabs)."""
    drawn = np.random.default_rng(0).integers(0, slabs, (RESAMPLES, slabs))
    times = np.zeros((RESAMPLES, slabs))
    np.add.at(times, (np.arange(RESAMPLES)[:, None], drawn), 1.0)
    return times


def _tied(best: _Design, other: _Design, surely_behind: float, deviation: float | None) -> bool:
    if other is best or surely_behind <= 0.0:
        return True
    if deviation is None:
        return False
    standard_error = deviation * np.sqrt(1 / len(best.scores) + 1 / len(other.scores))
    return bool(best.mean - other.mean <= 2.0 * standard_error)


def _row(design: _Design, position: int, bounds: tuple[float, float], tied: bool, metrics: Sequence[str]) -> Row:
    first, scores = design.records[0], design.scores
    seconds = [r.outcome.train_seconds for r in design.records if r.outcome.train_seconds is not None]
    return Row(
        rank=position,
        trial=first.job.design,
        family=first.job.candidate.family,
        name=first.job.name,
        metrics=_means([s.values for s in scores], metrics),
        ci_low=float(bounds[0]),
        ci_high=float(bounds[1]),
        threshold=first.outcome.score.threshold if first.outcome.score else None,
        seeds=len(scores),
        parameters=first.outcome.parameters,
        train_seconds=float(np.mean(seconds)) if seconds else None,
        peak_memory_gib=first.outcome.peak_memory_gib,
        tied_with_best=tied,
        state="complete",
        baseline=first.job.baseline,
        seed_scores=tuple(s.value for s in scores),
        second_metrics=_means([s.second.values for s in scores if s.second], metrics),
        start=start_of(first.job.candidate),
    )


def _means(values: Sequence[dict[str, float]], metrics: Sequence[str]) -> dict[str, float]:
    """The mean of each metric that was measured every time; nothing if there are no values."""
    measured = (name for name in metrics if values and all(name in by_name for by_name in values))
    return {name: float(np.mean([by_name[name] for by_name in values])) for name in measured}


def _unranked(record: Record) -> Row:
    return Row(
        rank=None,
        trial=record.job.trial,
        family=record.job.candidate.family,
        name=record.job.name,
        ci_low=None,
        ci_high=None,
        threshold=None,
        seeds=0,
        parameters=record.outcome.parameters,
        train_seconds=record.outcome.train_seconds,
        peak_memory_gib=record.outcome.peak_memory_gib,
        tied_with_best=None,
        state=record.outcome.state,
        baseline=record.job.baseline,
        reason=record.outcome.reason,
        start=start_of(record.job.candidate),
    )
