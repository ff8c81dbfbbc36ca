"""The leaderboard: ranks records by surface dice on the held-out kidney, with intervals and ties."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from pydantic import BaseModel

from results.record import Record, State
from trainers.evaluate import Score

RESAMPLES = 2_000


class Row(BaseModel, frozen=True, extra="forbid"):
    """One candidate with its recipe, over all seeds it was trained with; unknown values are None."""

    rank: int | None
    trial: int
    family: str
    name: str
    surface_dice: float | None
    ci_low: float | None
    ci_high: float | None
    threshold: float | None
    voxel_dice: float | None
    seeds: int
    parameters: int | None
    train_seconds: float | None
    peak_memory_gib: float | None
    tied_with_best: bool | None
    state: State
    baseline: bool
    seed_scores: tuple[float, ...] = ()
    reason: str | None = None


class Leaderboard(BaseModel, frozen=True, extra="forbid"):
    """The ranking of one study."""

    study: str
    held_out: str
    metric: str = "surface dice at tolerance 0, threshold cross-fitted over slabs"
    best: int | None  # the leader's trial
    seed_deviation: float | None  # standard deviation of one training, from candidates trained more than once
    rows: tuple[Row, ...]


@dataclass(frozen=True)
class _Design:
    """The complete trainings of one candidate and recipe."""

    records: list[Record]

    @property
    def scores(self) -> list[Score]:
        return [r.outcome.score for r in self.records if r.outcome.score is not None]

    @property
    def mean(self) -> float:
        return float(np.mean([s.surface_dice for s in self.scores]))


def rank(records: Sequence[Record], study: str, held_out: str) -> Leaderboard:
    """Rank the records; those that are not complete follow unranked, in order of their trials.

    A candidate trained with several seeds counts by its mean. Its interval is a bootstrap over the held-out
    kidney's slabs and its seeds. A row is tied with the best where a paired bootstrap over the same slabs does not
    tell them apart, or their difference is within two standard errors of the spread that seeds alone make.
    """
    complete: dict[int, list[Record]] = {}
    for record in records:
        if record.outcome.state == "complete" and record.outcome.score is not None:
            complete.setdefault(record.job.design, []).append(record)
    designs = sorted((_Design(group) for group in complete.values()), key=lambda d: (-d.mean, d.records[0].job.trial))
    deviation = seed_deviation([d.scores for d in designs])
    draws = [_draws(d.scores) for d in designs]
    rows = [
        _row(design, position + 1, draw, _tied(designs[0], draws[0], design, draw, deviation))
        for position, (design, draw) in enumerate(zip(designs, draws, strict=True))
    ]
    rest = [r for r in records if r.outcome.state != "complete"]
    return Leaderboard(
        study=study,
        held_out=held_out,
        best=rows[0].trial if rows else None,
        seed_deviation=deviation,
        rows=(*rows, *(_unranked(r) for r in sorted(rest, key=lambda r: r.job.trial))),
    )


def seed_deviation(designs: Sequence[Sequence[Score]]) -> float | None:
    """Pooled standard deviation between trainings that differ in the seed alone; None without any such pair."""
    squares, degrees = 0.0, 0
    for scores in designs:
        values = np.array([s.surface_dice for s in scores])
        squares += float(((values - values.mean()) ** 2).sum())
        degrees += len(values) - 1
    return float(np.sqrt(squares / degrees)) if degrees else None


def _draws(scores: Sequence[Score]) -> NDArray[np.float64]:
    """Bootstrap draws of the mean score over slabs and seeds, (RESAMPLES,).

    The same slabs are drawn for every design (one seed of the generator), so that differences are paired.
    """
    overlap = np.array([[slab.overlap for slab in s.slabs] for s in scores])
    total = np.array([[slab.total for slab in s.slabs] for s in scores])
    slabs = np.random.default_rng(0).integers(0, overlap.shape[1], (RESAMPLES, overlap.shape[1]))
    seeds = np.random.default_rng(1).integers(0, len(scores), (RESAMPLES, len(scores)))
    top = overlap[seeds[:, :, None], slabs[:, None, :]].sum(axis=2)
    bottom = total[seeds[:, :, None], slabs[:, None, :]].sum(axis=2)
    dice = np.divide(top, bottom, out=np.ones_like(top), where=bottom > 0)
    mean: NDArray[np.float64] = dice.mean(axis=1)
    return mean


def _tied(
    best: _Design, best_draws: NDArray[np.float64], other: _Design, draws: NDArray[np.float64], deviation: float | None
) -> bool:
    if other is best:
        return True
    if float(np.quantile(best_draws - draws, 0.025)) <= 0.0:
        return True
    if deviation is None:
        return False
    standard_error = deviation * np.sqrt(1 / len(best.scores) + 1 / len(other.scores))
    return bool(best.mean - other.mean <= 2.0 * standard_error)


def _row(design: _Design, position: int, draws: NDArray[np.float64], tied: bool) -> Row:
    first, scores = design.records[0], design.scores
    low, high = np.quantile(draws, [0.025, 0.975])
    seconds = [r.outcome.train_seconds for r in design.records if r.outcome.train_seconds is not None]
    return Row(
        rank=position,
        trial=first.job.design,
        family=first.job.candidate.family,
        name=first.job.name,
        surface_dice=design.mean,
        ci_low=float(low),
        ci_high=float(high),
        threshold=first.outcome.score.threshold if first.outcome.score else None,
        voxel_dice=float(np.mean([s.voxel_dice for s in scores])),
        seeds=len(scores),
        parameters=first.outcome.parameters,
        train_seconds=float(np.mean(seconds)) if seconds else None,
        peak_memory_gib=first.outcome.peak_memory_gib,
        tied_with_best=tied,
        state="complete",
        baseline=first.job.baseline,
        seed_scores=tuple(s.surface_dice for s in scores),
    )


def _unranked(record: Record) -> Row:
    return Row(
        rank=None,
        trial=record.job.trial,
        family=record.job.candidate.family,
        name=record.job.name,
        surface_dice=None,
        ci_low=None,
        ci_high=None,
        threshold=None,
        voxel_dice=None,
        seeds=0,
        parameters=record.outcome.parameters,
        train_seconds=record.outcome.train_seconds,
        peak_memory_gib=record.outcome.peak_memory_gib,
        tied_with_best=None,
        state=record.outcome.state,
        baseline=record.job.baseline,
        reason=record.outcome.reason,
    )


def to_markdown(board: Leaderboard) -> str:
    """The ranking as a Markdown page."""
    lines = [
        f"# {board.study}: leaderboard",
        "",
        f"Held-out: **{board.held_out}**. Metric: {board.metric}.",
        "",
        "| rank | trial | network | surface dice | 95 % interval | voxel dice | seeds | size | training | notes |",
        "|---:|---:|---|---:|---|---:|---:|---:|---:|---|",
    ]
    for row in board.rows:
        lines.append(
            f"| {row.rank or '–'} | {row.trial} | {row.name} | {_number(row.surface_dice)} | {interval(row)} "
            f"| {_number(row.voxel_dice)} | {row.seeds} | {millions(row.parameters)} | {seconds(row.train_seconds)} "
            f"| {notes(row).replace('|', chr(92) + '|')} |"
        )
    lines += ["", reading(board), ""]
    return "\n".join(lines)


def reading(board: Leaderboard) -> str:
    """How to read the ranking, in a few honest sentences."""
    if board.best is None:
        return "No candidate was trained to its end and scored, so there is nothing to rank yet."
    tied = [r for r in board.rows if r.tied_with_best and r.trial != board.best]
    spread = (
        f"Training again with another seed moves a score by {board.seed_deviation:.3f} (standard deviation)."
        if board.seed_deviation is not None
        else "No candidate was trained with two seeds, so the spread between trainings is unknown and ties miss it."
    )
    ties = (
        f"{len(tied)} other row(s) cannot be told apart from the best: prefer the cheapest of them."
        if tied
        else "The slabs tell every other row apart from the best."
    )
    return (
        f"{ties} {spread} The interval says how the score depends on which part of this kidney was scored; one kidney "
        "cannot tell how much kidneys differ, and the leader was chosen on it, so expect a little less on the next."
    )


def _number(value: float | None) -> str:
    return "–" if value is None else f"{value:.4f}"


def interval(row: Row) -> str:
    """The 95 % interval, or a dash."""
    return "–" if row.ci_low is None or row.ci_high is None else f"{row.ci_low:.3f} – {row.ci_high:.3f}"


def millions(count: int | None) -> str:
    """A count of parameters in millions."""
    return "–" if count is None else f"{count / 1e6:.1f} M"


def seconds(value: float | None) -> str:
    """A duration in the largest fitting unit."""
    if value is None:
        return "–"
    return f"{value:.0f} s" if value < 120 else f"{value / 60:.0f} min" if value < 7200 else f"{value / 3600:.1f} h"


def notes(row: Row) -> str:
    """What is special about a row."""
    words = []
    if row.baseline:
        words.append("baseline")
    if row.tied_with_best and row.rank != 1:
        words.append("tied with best")
    if row.state != "complete":
        words.append(f"{row.state}: {row.reason}" if row.reason and row.state == "failed" else row.state)
    return ", ".join(words)
