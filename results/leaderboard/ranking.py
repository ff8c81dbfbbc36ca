"""Ranking: records by one metric on the held-out kidney, with intervals and ties, and the design to export.

The seed of the search chooses the finalists. Other seeds judge them, so a finalist counts by its trainings with those.
"""

from collections.abc import Sequence
from functools import lru_cache

import numpy as np
from numpy.typing import NDArray
from scipy.stats import rankdata
from scipy.stats import t as student

from results.leaderboard.agreement import Agreement, Pair, agreement
from results.leaderboard.leaderboard import Leaderboard, Row
from results.leaderboard.verdict import Contender, Verdict
from results.record import Record, start_of
from search_spaces.errors import InputError
from trainers.metrics.score import Score, ScoreConfig
from trainers.metrics.table import METRICS, protocol_of, title_of

RESAMPLES = 2_000
LEAST_KIDNEYS = 3  # for an interval over kidneys


def rank(records: Sequence[Record], study: str, held_out: str, config: ScoreConfig) -> Leaderboard:
    """Rank the records; those that are not complete follow unranked, in order of their trials.

    held_out: the kidney that the search ranks on. config: how all of them were scored. A design that was trained with
    fresh seeds counts by their mean, or the mean over kidneys if several were held out in turn, because its first score
    may be what made it a finalist; such designs come before all others, but the default only if it is ahead of another.
    The interval is a bootstrap over the slabs of the held-out kidneys. Among designs with fresh seeds, ties come
    from a model of quality and noise (comparison.py). Without any, a row is tied with the best if a paired bootstrap
    over the same slabs does not tell them apart. Raises InputError for a record that was ranked by another metric.
    """
    complete: dict[int, list[Record]] = {}
    for record in sorted(records, key=lambda r: (r.job.repeats is not None, r.job.trial)):
        if record.outcome.state == "complete" and record.outcome.score is not None:
            _check_ranked_by(config.rank_by, record.job.trial, record.outcome.score)
            complete.setdefault(record.job.design, []).append(record)
    contenders = [Contender(group) for group in complete.values()]
    judged = [design for design in contenders if design.judged]
    verdict = Verdict(judged, config.margin, config.sure) if judged else None
    designs = _ordered(contenders, verdict)
    rest = [r for r in records if r.outcome.state != "complete"]
    return Leaderboard(
        study=study,
        held_out=held_out,
        metric=protocol_of(config.rank_by),
        rank_by=config.rank_by,
        titles={name: title_of(name) for name in config.names},
        best=verdict.exported if verdict else designs[0].trial if designs else None,
        agreements=_agreements(designs, records),
        margin=config.margin,
        sure=config.sure,
        seed_deviation=seed_deviation([d.of_the_search for d in designs]),
        rows=(
            *_rows(designs, verdict, held_out, config),
            *(_unranked(r) for r in sorted(rest, key=lambda r: r.job.trial)),
        ),
        second_um=next((s.second.voxel_size_um for d in designs for s in d.scores if s.second), None),
    )


def _agreements(designs: Sequence[Contender], records: Sequence[Record]) -> tuple[Agreement, ...]:
    """Between the scores at each rung and at the end, in order; between the first two seeds; and of the supernets.

    Rungs are known by their share of a design's steps.
    """
    rungs: dict[float, list[Pair]] = {}
    seeds = []
    for design in designs:
        first = design.records[0]
        cost = (first.outcome.train_seconds or 0.0) / first.job.fit.steps
        for step, value in first.outcome.scored.items():
            share = round(step / first.job.fit.steps, 2)
            rungs.setdefault(share, []).append((value, design.scores[0].value, cost))
        if len(design.of_the_search) > 1:
            seeds.append((design.of_the_search[0].value, design.of_the_search[1].value, cost))
    found = [
        *(agreement(share, rungs[share]) for share in sorted(rungs)),
        agreement(None, seeds),
        agreement(None, _within_supernets(records), supernet=True),
    ]
    return tuple(one for one in found if one is not None)


def _within_supernets(records: Sequence[Record]) -> list[Pair]:
    """What a supernet made of each genotype, and the mean of the first scores of the networks that have it.

    Both as places among those of the same supernet, from -0.5 to 0.5, for losses of different ones cannot be compared.
    """
    first: dict[str, dict[float, list[float]]] = {}
    for record in records:
        name, loss, score = record.job.supernet, record.job.supernet_loss, _first_score(record)
        if name is not None and loss is not None and score is not None and record.job.repeats is None:
            first.setdefault(name, {}).setdefault(loss, []).append(score)
    pairs = list[Pair]()
    for by_loss in first.values():
        if len(by_loss) > 1:
            losses, scores = np.array(list(by_loss)), np.array([np.mean(own) for own in by_loss.values()])
            pairs += [(float(a), float(b), 1.0) for a, b in zip(_places(-losses), _places(scores), strict=True)]
    return pairs


def _places(values: NDArray[np.float64]) -> NDArray[np.float64]:
    """The values' ranks, from -0.5 to 0.5."""
    places: NDArray[np.float64] = (rankdata(values) - 1) / (len(values) - 1) - 0.5
    return places


def _first_score(record: Record) -> float | None:
    """At the first rung, or else at the end."""
    outcome = record.outcome
    if outcome.scored:
        return outcome.scored[min(outcome.scored)]
    return outcome.so_far if outcome.score is None else outcome.score.value


def _ordered(designs: list[Contender], verdict: Verdict | None) -> list[Contender]:
    """The best first. The default is compared with finalists whatever it scored, so being judged does not place it."""
    quality = {design.trial: verdict.quality(design) for design in verdict.judged} if verdict else {}
    last = min((quality[design.trial] for design in designs if design.judged and not design.default), default=np.inf)

    def place(design: Contender) -> tuple[bool, float, int]:
        first = bool(design.judged) and (not design.default or quality[design.trial] >= last)
        return not first, -(quality[design.trial] if first else design.mean), design.trial

    return sorted(designs, key=place)


def _check_ranked_by(metric: str, trial: int, score: Score) -> None:
    if score.rank_by != metric:
        raise InputError(
            f"trial {trial} was ranked by {score.rank_by}, but score.rank_by is {metric}; set it to {score.rank_by}"
        )


def seed_deviation(designs: Sequence[Sequence[Score]]) -> float | None:
    """Pooled standard deviation between trainings that differ only in their seed; None without any such pair."""
    squares, degrees = 0.0, 0
    for scores in designs:
        if not scores:
            continue
        values = np.array([s.value for s in scores])
        squares += float(((values - values.mean()) ** 2).sum())
        degrees += len(values) - 1
    return float(np.sqrt(squares / degrees)) if degrees else None


def _rows(designs: list[Contender], verdict: Verdict | None, held_out: str, config: ScoreConfig) -> list[Row]:
    """The rows of the designs, which are in order."""
    if not designs:
        return []
    draws = np.stack([_draws(list(design.kidneys.values()), config.rank_by) for design in designs])
    low, high = np.quantile(draws, [0.025, 0.975], axis=1)
    surely_behind = np.quantile(draws[0] - draws, 0.025, axis=1)  # the best by at least this much
    rows = []
    for place, design in enumerate(designs):
        row = _row(design, place + 1, (low[place], high[place]), config.names)
        if verdict is None:
            found: dict[str, object] = {"tied_with_best": place == 0 or bool(surely_behind[place] <= 0.0)}
        elif design.judged:
            seeds = verdict.seeds(design) or (None, None)
            found = {
                "tied_with_best": design.trial in verdict.tied,
                "probability_best": verdict.best[design.trial],
                "probability_above_default": verdict.above_default.get(design.trial),
                "seeds_low": seeds[0],
                "seeds_high": seeds[1],
                **(_over_kidneys(design, held_out) if verdict.over_kidneys else {}),
            }
        else:
            found = {}
        rows.append(row.model_copy(update=found))
    return rows


def _over_kidneys(design: Contender, held_out: str) -> dict[str, object]:
    """The score on each kidney, and the interval of their mean by Student's t if there are enough of them."""
    by_kidney = {kidney or held_out: value for kidney, value in design.by_kidney.items()}
    values = np.array(list(by_kidney.values()))
    if len(values) < LEAST_KIDNEYS:
        return {"kidneys": by_kidney}
    reach = float(student.ppf(0.975, len(values) - 1) * values.std(ddof=1) / len(values) ** 0.5)
    return {
        "kidneys": by_kidney,
        "kidneys_low": max(0.0, float(values.mean()) - reach),
        "kidneys_high": min(1.0, float(values.mean()) + reach),
    }


def _draws(kidneys: Sequence[Sequence[Score]], metric: str) -> NDArray[np.float64]:
    """Bootstrap draws over slabs of a metric's mean over seeds, and over kidneys, (RESAMPLES,).

    The same slabs are drawn for every design that met a kidney in the same place (one seed of the generator for each
    place), so that differences on one kidney alone are paired.
    """
    means = []
    for kidney, scores in enumerate(kidneys):
        parts = np.array([[slab.parts[metric] for slab in s.slabs] for s in scores])  # (scores, slabs, parts)
        times = _times_drawn(parts.shape[1], kidney)
        sums = [times @ np.ascontiguousarray(part).T for part in np.moveaxis(parts, 2, 0)]
        means.append(METRICS[metric].combine(np.array(sums)).mean(axis=1))
    mean: NDArray[np.float64] = np.mean(means, axis=0)
    return mean


@lru_cache
def _times_drawn(slabs: int, seed: int) -> NDArray[np.float64]:
    """How often each slab is in each draw, (RESAMPLES, slabs)."""
    drawn = np.random.default_rng(seed).integers(0, slabs, (RESAMPLES, slabs))
    times = np.zeros((RESAMPLES, slabs))
    np.add.at(times, (np.arange(RESAMPLES)[:, None], drawn), 1.0)
    return times


def _row(design: Contender, position: int, bounds: tuple[float, float], metrics: Sequence[str]) -> Row:
    first, kidneys = design.records[0], list(design.kidneys.values())
    seconds = [r.outcome.train_seconds for r in design.records if r.outcome.train_seconds is not None]
    return Row(
        rank=position,
        trial=design.trial,
        family=first.job.candidate.family,
        name=first.job.name,
        metrics=_over([[s.values for s in scores] for scores in kidneys], metrics),
        ci_low=float(bounds[0]),
        ci_high=float(bounds[1]),
        threshold=first.outcome.score.threshold if first.outcome.score else None,
        seeds=len(design.scores),
        parameters=first.outcome.parameters,
        train_seconds=float(np.mean(seconds)) if seconds else None,
        peak_memory_gib=first.outcome.peak_memory_gib,
        tied_with_best=None,
        state="complete",
        baseline=first.job.baseline,
        default=first.job.default,
        seed_scores=tuple(s.value for s in design.scores),
        judged=design.judged,
        supernet=first.job.supernet,
        second_metrics=_over([[s.second.values for s in scores if s.second] for scores in kidneys], metrics),
        start=start_of(first.job.candidate),
    )


def _over(kidneys: Sequence[Sequence[dict[str, float]]], metrics: Sequence[str]) -> dict[str, float]:
    """The mean over kidneys of each metric's mean over seeds."""
    return _means([_means(values, metrics) for values in kidneys], metrics)


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
        default=record.job.default,
        reason=record.outcome.reason,
        start=start_of(record.job.candidate),
    )
